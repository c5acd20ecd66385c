//! The frame around a view: what is always visible.

use super::canvas::{Canvas, width_of};
use super::{GUTTER, column_of, slabs};
use crate::app::{App, PromptKind, View};
use crate::marks::MarkKind;
use crate::number::{clock, count, since};
use crate::theme::{Mood, Theme};
use kmemlab_trace::unit::Nanos;

/// Right: what is always visible. Left: what is looked at, as far as there is room.
pub(super) fn title_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let outline = app.outline();
    let about = &outline.about;
    let at = app.at();
    let state = match app.speed() {
        Some(speed) => format!("[PLAYING {speed}x]"),
        None if app.is_following() => "[LIVE]".to_owned(),
        None => "[PAUSED]".to_owned(),
    };
    let mood = if outline.loss.events == 0 { Mood::Fine } else { Mood::Bad };
    let parts = [
        (state, theme.chosen()),
        (format!("LOST {}", count(outline.loss.events)), theme.mood(mood)),
        (clock(about, at), theme.title()),
        (format!("{}/{}", app.step(), outline.times.len()), theme.title()),
        (since(about.start, at), theme.title()),
    ];
    let needed: u16 = parts.iter().map(|(text, _)| width_of(text) + 2).sum::<u16>() - 2;
    let mut x = canvas.width().saturating_sub(needed);
    let name = if about.name.is_empty() { "kmemlab" } else { &about.name };
    let left = format!("{name}  {}  kmemlab {}", about.host, about.version);
    canvas.part(0, 0, x.saturating_sub(2), 1).text(0, 0, &left, theme.title());
    for (text, style) in parts {
        x = canvas.text(x, 0, &text, style) + 2;
    }
}

pub(super) fn tab_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let mut x = 0;
    for (index, view) in View::ALL.into_iter().enumerate() {
        let name = format!("{} {}", index + 1, view.name());
        x = if view == app.view() {
            canvas.text(x, 1, &format!("[{name}]"), theme.chosen())
        } else {
            canvas.text(x, 1, &format!(" {name} "), theme.dim())
        };
    }
    if let Some(work) = &app.outline().work {
        let text = format!("{} {} %", work.what, work.percent);
        let (room, end) = (canvas.width().saturating_sub(x + 1), canvas.width());
        canvas.part(x + 1, 1, room, 1).right(end - (x + 1).min(end), 0, &text, theme.dim());
    }
}

/// Where in time the screen stands, and what happened when.
pub(super) fn time_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    let outline = app.outline();
    let (first, last) = (outline.begin, outline.end);
    if outline.times.is_empty() && last == Nanos(0) {
        return;
    }
    let label = format!("Time to {}", since(outline.about.start, last));
    canvas.text(0, y, &label, theme.dim());
    let width = canvas.width().saturating_sub(GUTTER);
    let span = last.0.saturating_sub(first.0);
    let moment = |column: u16| {
        let part = u128::from(span) * u128::from(column) / u128::from(width.max(1));
        Nanos(first.0 + u64::try_from(part).unwrap_or(span))
    };
    for x in 0..width {
        // The last column holds the end itself.
        let to = if x + 1 == width { Nanos(last.0.saturating_add(1)) } else { moment(x + 1) };
        match outline.marks.worst(moment(x), to) {
            Some(kind) => {
                let mood = match kind {
                    MarkKind::Fallback => Mood::Fine,
                    MarkKind::Stall => Mood::Warn,
                    MarkKind::Failure | MarkKind::Loss => Mood::Bad,
                };
                canvas.text(GUTTER + x, y, &kind.sign().to_string(), theme.mood(mood));
            }
            None => {
                canvas.text(GUTTER + x, y, "─", theme.dim());
            }
        }
    }
    if width == 0 {
        return;
    }
    let column = |at: Nanos| GUTTER + column_of(at.0.saturating_sub(first.0), span, width);
    if let Some(mark) = app.mark() {
        canvas.text(column(mark), y, "M", theme.chosen());
    }
    canvas.text(column(app.at()), y, "\u{2588}", theme.title());
}

pub(super) fn hint_line(app: &App, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    if let Some(prompt) = app.prompt() {
        let next = canvas.text(0, y, prompt.kind.label(), theme.title());
        let next = canvas.text(next, y, &prompt.text, theme.plain());
        canvas.text(next, y, "_", theme.chosen());
        if prompt.kind == PromptKind::Filter {
            let (_, order) = app.table();
            canvas.text(next + 2, y, &format!("{} rows", order.len()), theme.dim());
        }
        return;
    }
    if let Some(why) = app.trouble() {
        canvas.text(0, y, &format!("{} {why}", Mood::Bad.mark()), theme.mood(Mood::Bad));
        return;
    }
    if let Some(message) = app.message() {
        canvas.text(0, y, message, theme.title());
        return;
    }
    let mut x = 0;
    let filter = &app.table_state().filter;
    if !filter.is_empty() {
        x = canvas.text(x, y, &format!("[/{filter}]"), theme.chosen()) + 2;
    }
    for bound in app.keys().of(app.view()).filter(|bound| !bound.binding.hint.is_empty()) {
        x = canvas.text(x, y, &bound.label, theme.title()) + 1;
        x = canvas.text(x, y, bound.binding.hint, theme.dim()) + 2;
    }
    if app.view() == View::Slabs {
        x = canvas.text(x, y, &slabs::letters(), theme.title()) + 1;
        canvas.text(x, y, "sort", theme.dim());
    }
}
