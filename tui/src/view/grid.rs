//! A table on the screen: titles that say what sorts, rows, and a cursor.

use super::canvas::{Canvas, width_of};
use crate::app::App;
use crate::table::{Column, Table, Value};
use crate::theme::Theme;

/// Spare columns that the naming column takes at most.
const SPARE: u16 = 40;

/// A column with its first column of the screen and the one behind its last.
type Place = (usize, u16, u16);

/// Paints the table at hand: its titles in the first line, its rows below.
pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let (table, order) = app.table();
    let state = app.table_state();
    let places = places(table, state.column, canvas.width());
    titles(app, table, &places, theme, canvas);
    let rows = usize::from(canvas.height().saturating_sub(1));
    for (y, line) in (1..).zip(state.scroll..order.len().min(state.scroll + rows)) {
        let Some(row) = order.get(line).and_then(|row| table.rows.get(*row)) else { continue };
        let is_chosen = line == state.selected;
        for (index, start, end) in &places {
            let Some(value) = row.get(*index) else { continue };
            write(&table.columns[*index], value, (*start, *end), y, theme, canvas);
        }
        if is_chosen {
            let width = canvas.width();
            canvas.paint(0, y, width, theme.cursor());
            // Not by colour or shade alone.
            canvas.text(0, y, ">", theme.cursor());
        }
    }
    if order.is_empty() && !state.filter.is_empty() {
        canvas.text(1, 1, &format!("no row holds {}", state.filter), theme.dim());
    }
}

fn write(
    column: &Column,
    value: &Value,
    (start, end): (u16, u16),
    y: u16,
    theme: &Theme,
    canvas: &mut Canvas<'_>,
) {
    let text = value.shown();
    if column.is_text {
        canvas.part(0, y, end, 1).text(start + 1, 0, &text, theme.plain());
    } else {
        canvas.part(start, y, end - start, 1).right(end - start, 0, &text, theme.plain());
    }
}

/// Which columns are on the screen, and where. When they do not all fit, the one that sorts and the
/// one that names the row are there in any case.
fn places(table: &Table, sorted: usize, room: u16) -> Vec<Place> {
    let width = |index: usize| table.columns.get(index).map_or(0, |column| column.width);
    let pinned = table.pinned.min(table.columns.len().saturating_sub(1));
    let visible = table.visible();
    // Its place among those shown; a column that is not shown does not push others away.
    let sorted = visible.iter().position(|index| *index == sorted).unwrap_or(0);
    let pinned_at = visible.iter().position(|index| *index == pinned).unwrap_or(0);
    let mut first = 0;
    let until_sorted = |first: usize| {
        let shown = visible.iter().take(sorted + 1).skip(first);
        shown.filter(|index| **index != pinned).map(|index| width(*index)).sum::<u16>()
    };
    while first < sorted && until_sorted(first) + width(pinned) > room {
        first += 1;
    }
    let mut shown: Vec<usize> = visible.get(first..).unwrap_or(&[]).to_vec();
    if first > pinned_at {
        shown.insert(0, pinned);
    }
    let all: u16 = shown.iter().map(|index| width(*index)).sum();
    let spare = room.saturating_sub(all).min(SPARE);
    let mut end = 0;
    let mut places = Vec::new();
    for index in shown {
        let start = end;
        end += width(index) + if index == pinned { spare } else { 0 };
        // Half a number is no number; the beginning of a text is.
        let least = if table.columns[index].is_text { start + 10 } else { end };
        if least <= room || places.is_empty() {
            places.push((index, start, end.min(room)));
        }
    }
    places
}

fn titles(app: &App, table: &Table, places: &[Place], theme: &Theme, canvas: &mut Canvas<'_>) {
    let width = canvas.width();
    canvas.paint(0, 0, width, theme.table());
    let state = app.table_state();
    for (index, start, end) in places {
        let Some(column) = table.columns.get(*index) else { continue };
        let is_chosen = *index == state.column;
        let style = if is_chosen { theme.chosen() } else { theme.table() };
        let falls = column.is_text == state.is_reversed;
        let mark = if falls { "▼" } else { "▲" };
        let mark = if is_chosen { mark } else { "" };
        if column.is_text {
            let text = format!("{}{mark}", column.title);
            canvas.part(0, 0, *end, 1).text(start + 1, 0, &text, style);
        } else {
            let text = format!("{mark}{}", column.title);
            let x = end.saturating_sub(width_of(&text)).max(*start);
            canvas.part(0, 0, *end, 1).text(x, 0, &text, style);
        }
    }
    let is_hidden = places.iter().all(|(index, ..)| *index != state.column);
    if let Some(column) = table.columns.get(state.column).filter(|_| is_hidden) {
        // What sorts is told even where its column is not shown.
        let text = format!("by {}", column.title);
        let (x, width) = (width.saturating_sub(width_of(&text) + 1), width_of(&text));
        canvas.part(x, 0, width, 1).text(0, 0, &text, theme.chosen());
    }
}
