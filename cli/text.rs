//! Plain text tables with units.

use std::fmt::Write;

pub(crate) use kmemlab_trace::show::count;

/// A table: the first column to the left, the others to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    /// A table with these titles, the first `left` columns set to the left.
    pub(crate) fn new<const N: usize>(titles: [&str; N], left: usize) -> Self {
        Self { rows: vec![titles.iter().map(|&title| title.to_owned()).collect()], left }
    }

    /// Replaces the titles, where their number is known at run time only.
    pub(crate) fn set_titles(&mut self, titles: Vec<String>) {
        self.rows[0] = titles;
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Nothing but titles.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The table as text, indented by two.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let _ = if column < self.left {
                    write!(line, " {cell:<width$}")
                } else {
                    write!(line, " {cell:>width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `1.5 MiB`
pub(crate) fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `5.012 s`, `12.5 ms`, `830 us`
pub(crate) fn span(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(span(5_012_300_000), "5.012 s");
        assert_eq!(span(830_000), "830 us");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["zone", "free"], 1);
        table.row(vec!["Normal".to_owned(), "7".to_owned()]);
        assert_eq!(table.render(), "  zone   free\n  Normal    7\n");
    }
}
