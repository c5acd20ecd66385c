//! The keys of the view at hand, printed from the table that the keys are read by.

use super::canvas::{Canvas, width_of};
use crate::app::App;
use crate::keys::{Bound, Place};
use crate::theme::Theme;

/// Columns of a key's label.
const LABEL: u16 = 10;
/// Columns between two columns of keys.
const GAP: u16 = 2;

/// Screens of keys, on a screen of that size: how many lines are hidden at most.
pub(crate) fn hidden(app: &App, (width, height): (u16, u16)) -> usize {
    let (rows, room, _) = shape(app, width, height);
    usize::from(rows.saturating_sub(room))
}

/// Lines of keys, lines that there is room for, and columns of the screen a key takes.
fn shape(app: &App, width: u16, height: u16) -> (u16, u16, u16) {
    let keys = app.keys().of(app.view());
    let (mut lines, mut column) = (0u16, LABEL);
    for bound in keys {
        lines += 1;
        column = column.max(LABEL + width_of(bound.binding.help) + GAP);
    }
    let columns = (width.saturating_sub(4) / column).clamp(1, 3);
    (lines.div_ceil(columns), height.saturating_sub(2), column)
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    // What the view has of its own comes first.
    let is_own = |bound: &&Bound| bound.binding.place != Place::Everywhere;
    let keys = || app.keys().of(app.view());
    let bindings: Vec<_> = keys().filter(is_own).chain(keys().filter(|it| !is_own(it))).collect();
    let (rows, room, column) = shape(app, canvas.width(), canvas.height());
    let columns = (bindings.len() as u16).div_ceil(rows.max(1));
    let shown = rows.min(room);
    let width = (column * columns + 2).min(canvas.width());
    let height = (shown + 2).min(canvas.height());
    let (x, y) = ((canvas.width() - width) / 2, (canvas.height() - height) / 2);
    let mut popup = canvas.part(x, y, width, height);
    let more = if rows > room { ", ↑↓ for more" } else { "" };
    popup.frame(&format!(" Keys of {}{more} ", app.view().name()), theme.title());
    let mut inner = popup.part(2, 1, width.saturating_sub(3), height.saturating_sub(2));
    let scroll = (app.help_scroll() as u16).min(rows - shown);
    for (index, bound) in (0..).zip(bindings) {
        let (x, y) = (index / rows * column, index % rows);
        if y < scroll {
            continue;
        }
        inner.text(x, y - scroll, &bound.label, theme.heading());
        inner.text(x + LABEL, y - scroll, bound.binding.help, theme.plain());
    }
}

/// The commands that fit what was typed into the palette, above the bottom line.
pub(super) fn suggestions(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let found = app.suggestions();
    if found.is_empty() {
        return;
    }
    let height = (found.len() as u16 + 2).min(12).min(canvas.height().saturating_sub(1));
    let width = 40.min(canvas.width());
    let y = canvas.height().saturating_sub(1 + height);
    let mut popup = canvas.part(0, y, width, height);
    popup.frame(" Commands; also go, filter, sort ", theme.title());
    let mut inner = popup.part(2, 1, width.saturating_sub(3), height.saturating_sub(2));
    for (y, (label, name)) in (0..).zip(found) {
        inner.text(0, y, name, theme.plain());
        inner.text(20, y, &label, theme.dim());
    }
}
