//! Several tellers side by side, the worst disagreement first.

use super::canvas::Canvas;
use super::grid;
use crate::app::App;
use crate::number::since;
use crate::source::{Snapshot, Told};
use crate::table::{Column, Table, Value};
use crate::theme::Theme;

/// The column that it is sorted by at first: pages that are told of differently.
pub(crate) const WORST: usize = 2;

/// Tellers at most.
const TELLERS: usize = 3;

pub(super) fn table(snapshot: &Snapshot) -> Table {
    const FIRST: [Column; 4] = [
        Column::text("WHAT", "what", 12),
        Column::text("WHICH", "which", 23),
        Column::number("APART", "weighed_difference", 8),
        Column::number("SHARE", "difference_thousandths", 8),
    ];
    const BY_TELLER: [Column; TELLERS] = [
        Column::number("FIRST", "first", 9),
        Column::number("SECOND", "second", 9),
        Column::number("THIRD", "third", 9),
    ];
    let Told::Yes(comparison) = &snapshot.comparison else {
        return Table::new("compare", &FIRST);
    };
    let tellers = comparison.tellers.len().min(TELLERS);
    let columns: Vec<Column> = FIRST.iter().chain(&BY_TELLER[..tellers]).copied().collect();
    let mut table = Table::new("compare", &columns);
    table.pinned = 1;
    for (column, teller) in table.columns[FIRST.len()..].iter_mut().zip(&comparison.tellers) {
        (column.title, column.name) = titles(teller);
    }
    for row in &comparison.rows {
        let apart = row.spread().map(|spread| spread.saturating_mul(row.weight.max(1)));
        let mut values = vec![
            Value::Text(row.group.clone()),
            Value::Text(row.name.clone()),
            apart.map_or(Value::None, Value::Count),
            row.share().map_or(Value::None, Value::Share),
        ];
        let told = (0..tellers).map(|teller| row.values.get(teller).copied().flatten());
        values.extend(told.map(|value| value.map_or(Value::None, Value::Count)));
        table.rows.push(values);
    }
    table
}

/// Title and name of a teller's column.
fn titles(teller: &str) -> (&'static str, &'static str) {
    match teller {
        "kernel" => ("KERNEL", "kernel"),
        "mirror" => ("MIRROR", "mirror"),
        "model" => ("MODEL", "model"),
        "A" => ("A", "a"),
        _ => ("B", "b"),
    }
}

/// Lines above the table.
fn head(snapshot: &Snapshot) -> u16 {
    let verdicts = snapshot.comparison.yes().map_or(0, |comparison| comparison.verdicts.len());
    1 + verdicts.min(4) as u16
}

pub(super) fn rows_visible(app: &App, height: u16) -> usize {
    let head = app.snapshot().map_or(1, head);
    usize::from(height.saturating_sub(head + 1))
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = app.snapshot() else { return };
    let comparison = match &snapshot.comparison {
        Told::Yes(comparison) => comparison,
        Told::No(why) => return super::missing(why, theme, canvas),
    };
    let at = since(app.outline().about.start, comparison.at);
    let line = format!("{} at {at}", comparison.tellers.join(" | "));
    canvas.text(1, 0, &line, theme.title());
    let head = head(snapshot);
    for (y, verdict) in (1..head).zip(&comparison.verdicts) {
        canvas.text(1, y, verdict, theme.plain());
    }
    let (width, height) = (canvas.width(), canvas.height());
    grid::draw(app, theme, &mut canvas.part(0, head, width, height.saturating_sub(head)));
}
