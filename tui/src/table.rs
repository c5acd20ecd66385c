//! Tables: what the views that list something have in common. A table can be sorted by any column,
//! filtered, and exported.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::number;

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Title on the screen.
    pub title: &'static str,
    /// Name in an export, with its unit.
    pub name: &'static str,
    /// Columns of the screen, the space before it included.
    pub width: u16,
    /// Its values are texts: written from the left.
    pub is_text: bool,
}

impl Column {
    /// A column of numbers.
    #[must_use]
    pub const fn number(title: &'static str, name: &'static str, width: u16) -> Self {
        Self { title, name, width, is_text: false }
    }

    /// A column of texts.
    #[must_use]
    pub const fn text(title: &'static str, name: &'static str, width: u16) -> Self {
        Self { title, name, width, is_text: true }
    }
}

/// A cell. Its kind says how it is written; exports write plain numbers.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Not told.
    None,
    /// A text.
    Text(Arc<str>),
    /// A count.
    Count(u64),
    /// A count that may fall.
    Change(i64),
    /// Bytes.
    Bytes(u64),
    /// Bytes that may fall.
    BytesChange(i64),
    /// Kibibytes as slabtop writes them: the value is bytes.
    Kibi(u64),
    /// Kibibytes with two digits, as slabtop writes an object's size: the value is bytes.
    KibiFine(u64),
    /// A duration.
    Nanos(u64),
    /// A share in thousandths.
    Share(u64),
    /// A whole percentage.
    Percent(u64),
}

impl Value {
    /// A text cell.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    /// As the screen writes it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Text(text) => text.to_string(),
            Self::Count(count) => count.to_string(),
            Self::Change(change) => number::signed(*change, |count| count.to_string()),
            Self::Bytes(bytes) => number::bytes(*bytes),
            Self::BytesChange(change) => number::signed(*change, number::bytes),
            Self::Kibi(bytes) => format!("{}K", bytes / 1024),
            Self::KibiFine(bytes) => format!("{:.2}K", *bytes as f64 / 1024.0),
            Self::Nanos(nanos) => number::duration(*nanos),
            Self::Share(thousandths) => number::percent(*thousandths),
            Self::Percent(percent) => format!("{percent}%"),
        }
    }

    /// As an export writes it: empty when not told.
    #[must_use]
    pub fn raw(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) => text.to_string(),
            other => other.number().to_string(),
        }
    }

    /// Its number; texts and what is not told have none.
    #[must_use]
    pub fn number(&self) -> i128 {
        match self {
            Self::None | Self::Text(_) => 0,
            Self::Change(change) | Self::BytesChange(change) => i128::from(*change),
            Self::Count(number)
            | Self::Bytes(number)
            | Self::Kibi(number)
            | Self::KibiFine(number)
            | Self::Nanos(number)
            | Self::Share(number)
            | Self::Percent(number) => i128::from(*number),
        }
    }

    /// Numbers fall, texts rise, what is not told comes last.
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::None, Self::None) => Ordering::Equal,
            (Self::None, _) => Ordering::Greater,
            (_, Self::None) => Ordering::Less,
            (Self::Text(one), Self::Text(two)) => one.cmp(two),
            (one, two) => two.number().cmp(&one.number()),
        }
    }
}

/// Rows under columns.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Table {
    /// What it is, as a file name.
    pub name: &'static str,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The column that names the row: always on the screen, and the one that gets spare room.
    pub pinned: usize,
    /// The columns to show, in their order; all of them when empty.
    pub shown: Vec<usize>,
    /// Its rows: a value a column.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows; its first column of texts names the row.
    #[must_use]
    pub fn new(name: &'static str, columns: &[Column]) -> Self {
        let pinned = columns.iter().position(|column| column.is_text).unwrap_or(0);
        let columns = columns.to_vec();
        Self { name, columns, pinned, ..Self::default() }
    }

    /// Shows these columns, by their names in exports, and no others. The one that names the row
    /// stays in any case.
    pub fn show_only(&mut self, names: &[String]) {
        let place = |name: &String| self.columns.iter().position(|column| column.name == name);
        self.shown = names.iter().filter_map(place).collect();
        if !self.shown.is_empty() && !self.shown.contains(&self.pinned) {
            self.shown.push(self.pinned);
        }
    }

    /// The columns to show.
    pub(crate) fn visible(&self) -> Vec<usize> {
        if self.shown.is_empty() { (0..self.columns.len()).collect() } else { self.shown.clone() }
    }

    /// Its rows as comma-separated values with a heading, in that order.
    #[must_use]
    pub fn csv(&self, order: &[usize]) -> String {
        let mut text = String::new();
        let mut line = |cells: Vec<String>| {
            let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        };
        line(self.columns.iter().map(|column| column.name.to_owned()).collect());
        for row in order.iter().filter_map(|row| self.rows.get(*row)) {
            line(row.iter().map(Value::raw).collect());
        }
        text
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell.to_owned()
}

/// How a table is looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableState {
    /// Column that it is sorted by.
    pub column: usize,
    /// The other way round.
    pub is_reversed: bool,
    /// Line of the cursor.
    pub selected: usize,
    /// Lines above the first one on the screen.
    pub scroll: usize,
    /// Only rows in which a text holds this.
    pub filter: String,
    /// The row under the cursor is shown in full.
    pub is_open: bool,
}

impl TableState {
    /// The rows to show, in their order; equals keep theirs.
    #[must_use]
    pub fn order(&self, table: &Table) -> Vec<usize> {
        let filter = self.filter.to_lowercase();
        let fits = |row: &[Value]| {
            let mut texts = row.iter().filter_map(|value| match value {
                Value::Text(text) => Some(text),
                _ => None,
            });
            filter.is_empty() || texts.any(|text| text.to_lowercase().contains(&filter))
        };
        let rows = table.rows.iter().enumerate().filter(|(_, row)| fits(row));
        let mut order: Vec<usize> = rows.map(|(index, _)| index).collect();
        let value = |row: usize| table.rows[row].get(self.column).unwrap_or(&Value::None);
        order.sort_by(|one, two| {
            let compared = value(*one).compare(value(*two));
            if self.is_reversed { compared.reverse() } else { compared }
        });
        order
    }

    /// Keeps the cursor on a row and the row on the screen.
    pub fn clamp(&mut self, rows: usize, visible: usize) {
        self.selected = self.selected.min(rows.saturating_sub(1));
        let last = self.selected.saturating_sub(visible.saturating_sub(1));
        self.scroll = self.scroll.clamp(last, self.selected);
        self.scroll = self.scroll.min(rows.saturating_sub(visible));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [Column::text("NAME", "name", 9), Column::number("SIZE", "size_bytes", 9)];
        let mut table = Table::new("test", &columns);
        for (name, size) in
            [("beta", Value::Bytes(3)), ("al,\"pha", Value::Bytes(9)), ("gamma", Value::None)]
        {
            table.rows.push(vec![Value::text(name), size]);
        }
        table
    }

    #[test]
    fn numbers_fall_texts_rise_and_the_untold_is_last() {
        let table = table();
        let order = |column, is_reversed| {
            TableState { column, is_reversed, ..TableState::default() }.order(&table)
        };
        assert_eq!(order(0, false), [1, 0, 2]);
        assert_eq!(order(0, true), [2, 0, 1]);
        assert_eq!(order(1, false), [1, 0, 2]);
    }

    #[test]
    fn a_filter_looks_at_every_text() {
        let state = TableState { filter: "MMA".to_owned(), ..TableState::default() };
        assert_eq!(state.order(&table()), [2]);
    }

    #[test]
    fn an_export_quotes_what_needs_it() {
        let text = table().csv(&[1, 2]);
        assert_eq!(text, "name,size_bytes\n\"al,\"\"pha\",9\ngamma,\n");
    }

    #[test]
    fn the_cursor_stays_on_the_screen() {
        let mut state = TableState { selected: 50, ..TableState::default() };
        state.clamp(20, 5);
        assert_eq!((state.selected, state.scroll), (19, 15));
        state.selected = 3;
        state.clamp(20, 5);
        assert_eq!((state.selected, state.scroll), (3, 3));
        state.clamp(0, 5);
        assert_eq!((state.selected, state.scroll), (0, 0));
    }
}
