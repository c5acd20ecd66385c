//! What is painted: a frame around one of the views, and the help above them.

pub mod blocks;
mod canvas;
pub(crate) mod compare;
mod frame;
mod grid;
pub(crate) mod help;
mod latency;
mod overview;
mod sites;
pub mod slabs;
pub(crate) mod vmalloc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::app::{App, View};
use crate::source::{Outline, Snapshot};
use crate::table::Table;
use crate::theme::Theme;
use canvas::{Canvas, width_of, wrapped};

/// Lines above and below a view.
const ABOVE: u16 = 2;
const BELOW: u16 = 2;
/// Columns left of everything that runs along time.
const GUTTER: u16 = 18;

/// Paints the whole screen. Draws what fits and nothing outside `area`, whatever its size.
pub fn draw(app: &App, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let mut canvas = Canvas::new(buf, area);
    let (width, height) = (canvas.width(), canvas.height());
    let body = height.saturating_sub(ABOVE + BELOW);
    frame::title_line(app, theme, &mut canvas);
    frame::tab_line(app, theme, &mut canvas);
    {
        let mut part = canvas.part(0, ABOVE, width, body);
        match app.view() {
            View::Overview => overview::draw(app, theme, &mut part),
            _ if app.snapshot().is_none() => {
                part.text(0, 0, "Nothing to show yet.", theme.title());
            }
            View::Slabs => slabs::draw(app, theme, &mut part),
            View::Sites => sites::draw(app, theme, &mut part),
            View::Blocks => blocks::draw(app, theme, &mut part),
            View::Vmalloc => vmalloc::draw(app, theme, &mut part),
            View::Compare => compare::draw(app, theme, &mut part),
            View::Latency => latency::draw(app, theme, &mut part),
        }
    }
    let foot = (ABOVE + body).min(height);
    frame::time_line(app, theme, &mut canvas, foot);
    frame::hint_line(app, theme, &mut canvas, foot + 1);
    help::suggestions(app, theme, &mut canvas);
    if app.is_help_open() {
        help::draw(app, theme, &mut canvas);
    }
    theme.finish(buf);
}

/// The table of a view, from a snapshot and the one at the mark.
pub(crate) fn table(
    view: View,
    snapshot: &Snapshot,
    marked: Option<&Snapshot>,
    outline: &Outline,
) -> Table {
    match view {
        View::Overview | View::Blocks => Table::default(),
        View::Slabs => slabs::table(snapshot, marked, outline),
        View::Sites => sites::table(snapshot, marked),
        View::Vmalloc => vmalloc::table(snapshot),
        View::Compare => compare::table(snapshot),
        View::Latency => latency::table(snapshot),
    }
}

/// What a view without a table on the screen exports.
pub(crate) fn export_table(view: View, snapshot: &Snapshot) -> Table {
    match view {
        View::Blocks => blocks::table(snapshot),
        _ => overview::table(snapshot),
    }
}

/// Says why a view has nothing to show, in as many lines as it needs.
fn missing(why: &str, theme: &Theme, canvas: &mut Canvas<'_>) {
    let why = if why.is_empty() { "Not told by this source." } else { why };
    let width = canvas.width().saturating_sub(2);
    for (y, line) in (1..).zip(wrapped(why, width)) {
        canvas.text(1, y, &line, theme.title());
    }
}

/// Lines of a view that scroll and fit, on a screen of that height.
pub(crate) fn lines_visible(app: &App, height: u16) -> usize {
    let body = height.saturating_sub(ABOVE + BELOW);
    let zones = app.snapshot().map_or(0, |snapshot| snapshot.zones.len());
    match app.view() {
        View::Overview => overview::zones_visible(zones, body),
        View::Slabs => slabs::rows_visible(body),
        View::Sites => sites::rows_visible(app, body),
        View::Blocks => usize::from(body),
        View::Vmalloc => vmalloc::rows_visible(body),
        View::Compare => compare::rows_visible(app, body),
        View::Latency => latency::rows_visible(body),
    }
}

/// The screen as a text; no line ends in a space.
#[must_use]
pub fn text(buf: &Buffer) -> String {
    let mut text = String::new();
    for y in buf.area.top()..buf.area.bottom() {
        let mut line = String::new();
        let mut covered = 0;
        for x in buf.area.left()..buf.area.right() {
            // A wide character covers the cell behind it.
            if covered > 0 {
                covered -= 1;
                continue;
            }
            let symbol = buf.cell((x, y)).map_or(" ", |cell| cell.symbol());
            covered = width_of(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The column of a moment in a span of time that `width` columns show.
fn column_of(at: u64, span: u64, width: u16) -> u16 {
    let last = u128::from(width.saturating_sub(1));
    (u128::from(at.min(span)) * last / u128::from(span.max(1))) as u16
}
