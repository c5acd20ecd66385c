//! What is painted: a frame around one of the views, and the help above them.

mod canvas;
mod help;
mod overview;
pub mod slabs;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::app::{App, View};
use crate::keys;
use crate::number::{clock, count, since};
use crate::theme::{Mood, Theme};
use canvas::{Canvas, width_of};

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
    title_line(app, theme, &mut canvas);
    tab_line(app, theme, &mut canvas);
    {
        let mut part = canvas.part(0, ABOVE, width, body);
        match app.view() {
            View::Overview => overview::draw(app, theme, &mut part),
            View::Slabs => slabs::draw(app, theme, &mut part),
        }
    }
    let foot = (ABOVE + body).min(height);
    time_line(app, theme, &mut canvas, foot);
    hint_line(app, theme, &mut canvas, foot + 1);
    if app.is_help_open() {
        help::draw(app.view(), theme, &mut canvas);
    }
    theme.finish(buf);
}

/// Lines of a view that scroll and fit, on a screen of that height.
pub(crate) fn lines_visible(app: &App, height: u16) -> usize {
    let body = height.saturating_sub(ABOVE + BELOW);
    let zones = app.snapshot().map_or(0, |snapshot| snapshot.zones.len());
    match app.view() {
        View::Overview => overview::zones_visible(zones, body),
        View::Slabs => slabs::rows_visible(body),
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

/// Right: what is always visible. Left: what is looked at, as far as there is room.
fn title_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let outline = app.outline();
    let about = &outline.about;
    let at = outline.times.get(app.at()).copied().unwrap_or(about.start);
    let state = if app.is_playing() { "[PLAYING 1x]" } else { "[PAUSED]" };
    let mood = if outline.loss.events == 0 { Mood::Fine } else { Mood::Bad };
    let parts = [
        (state.to_owned(), theme.chosen()),
        (format!("LOST {}", count(outline.loss.events)), theme.mood(mood)),
        (clock(about, at), theme.title()),
        (format!("{}/{}", app.at() + 1, outline.times.len()), theme.title()),
        (since(about.start, at), theme.title()),
    ];
    let needed: u16 = parts.iter().map(|(text, _)| width_of(text) + 2).sum::<u16>() - 2;
    let mut x = canvas.width().saturating_sub(needed);
    let left = format!("kmemlab {}", about.version);
    canvas.part(0, 0, x.saturating_sub(2), 1).text(0, 0, &left, theme.title());
    for (text, style) in parts {
        x = canvas.text(x, 0, &text, style) + 2;
    }
}

fn tab_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let mut x = 0;
    for (index, view) in View::ALL.into_iter().enumerate() {
        let name = format!("{} {}", index + 1, view.name());
        x = if view == app.view() {
            canvas.text(x, 1, &format!("[{name}]"), theme.chosen())
        } else {
            canvas.text(x, 1, &format!(" {name} "), theme.dim())
        } + 1;
    }
    let about = &app.outline().about;
    let what = format!("{}  {}", about.name, about.host);
    let (room, end) = (canvas.width().saturating_sub(x + 1), canvas.width());
    canvas.part(x + 1, 1, room, 1).right(end - (x + 1).min(end), 0, &what, theme.dim());
}

/// Where in the recording the screen stands, and where events were lost.
fn time_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    let outline = app.outline();
    let (Some(first), Some(last)) = (outline.times.first(), outline.times.last()) else { return };
    let label = format!("Time to {}", since(outline.about.start, *last));
    canvas.text(0, y, &label, theme.dim());
    let width = canvas.width().saturating_sub(GUTTER);
    let span = last.0.saturating_sub(first.0);
    let column = |index: usize| {
        let at = outline.times.get(index).map_or(0, |at| at.0.saturating_sub(first.0));
        GUTTER + column_of(at, span, width)
    };
    for x in 0..width {
        canvas.text(GUTTER + x, y, "─", theme.dim());
    }
    for (index, lost) in outline.loss.by_snapshot.iter().enumerate() {
        if *lost > 0 {
            canvas.text(column(index), y, "!", theme.mood(Mood::Bad));
        }
    }
    if width > 0 {
        canvas.text(column(app.at()), y, "\u{2588}", theme.title());
    }
}

/// The column of a moment in a span of time that `width` columns show.
fn column_of(at: u64, span: u64, width: u16) -> u16 {
    let last = u128::from(width.saturating_sub(1));
    (u128::from(at.min(span)) * last / u128::from(span.max(1))) as u16
}

fn hint_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    if let Some(why) = app.trouble() {
        canvas.text(0, y, &format!("{} {why}", Mood::Bad.mark()), theme.mood(Mood::Bad));
        return;
    }
    let mut x = 0;
    for binding in keys::of(app.view()).filter(|binding| !binding.hint.is_empty()) {
        x = canvas.text(x, y, binding.label, theme.title()) + 1;
        x = canvas.text(x, y, binding.hint, theme.dim()) + 2;
    }
    if app.view() == View::Slabs {
        x = canvas.text(x, y, &slabs::letters(), theme.title()) + 1;
        canvas.text(x, y, "sort", theme.dim());
    }
}
