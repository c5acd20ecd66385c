//! Tables of the screen as files in the working directory.

use std::io::{self, Write};
use std::path::Path;

use kmemlab_tui::Format;
use kmemlab_tui::source::SourceError;
use kmemlab_tui::table::Table;

/// Writes the rows under a name that is not taken, and says which.
pub(super) fn export(
    format: Format,
    table: &Table,
    order: &[usize],
) -> Result<String, SourceError> {
    match format {
        Format::Csv => csv(table, order),
        Format::Parquet => parquet(table, order),
    }
}

/// The first of `kmemlab-NAME`, `kmemlab-NAME-1`, ... that is free.
fn free_name(table: &Table, ending: &str) -> String {
    let mut name = format!("kmemlab-{}", table.name);
    let mut number = 0;
    while Path::new(&format!("{name}.{ending}")).exists() {
        number += 1;
        name = format!("kmemlab-{}-{number}", table.name);
    }
    name
}

fn csv(table: &Table, order: &[usize]) -> Result<String, SourceError> {
    let name = format!("{}.csv", free_name(table, "csv"));
    let written = || -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&name)?;
        file.write_all(table.csv(order).as_bytes())
    };
    written().map_err(|error| format!("cannot write {name}: {error}"))?;
    Ok(format!("{} rows in {name}", order.len()))
}

#[cfg(not(feature = "export"))]
fn parquet(_: &Table, _: &[usize]) -> Result<String, SourceError> {
    Err("this kmemlab was built without the feature `export`; e writes CSV".into())
}

#[cfg(feature = "export")]
fn parquet(table: &Table, order: &[usize]) -> Result<String, SourceError> {
    use kmemlab_trace::format::{CellType, TableColumn};
    use kmemlab_tui::table::Value;

    let cell_type = |index: usize, is_text: bool| {
        let mut values = table.rows.iter().filter_map(|row| row.get(index));
        let is_signed =
            values.any(|value| matches!(value, Value::Change(_) | Value::BytesChange(_)));
        match (is_text, is_signed) {
            (true, _) => CellType::Text,
            (false, true) => CellType::I64,
            (false, false) => CellType::U64,
        }
    };
    let columns = table.columns.iter().enumerate().map(|(index, column)| TableColumn {
        name: column.name,
        cell: cell_type(index, column.is_text),
        nullable: true,
        help: "",
    });
    let columns: Vec<TableColumn> = columns.collect();
    let rows = order.iter().filter_map(|row| table.rows.get(*row)).map(|row| {
        let cell = |(value, column): (_, &TableColumn)| cell(value, column.cell);
        row.iter().zip(&columns).map(cell).collect()
    });
    let name = free_name(table, "parquet");
    let exported = kmemlab_analyze::write_rows(Path::new("."), &name, &columns, rows)?;
    Ok(format!("{} rows in {}", exported.rows, exported.file))
}

#[cfg(feature = "export")]
fn cell(
    value: &kmemlab_tui::table::Value,
    cell_type: kmemlab_trace::format::CellType,
) -> kmemlab_trace::table::Cell<'_> {
    use kmemlab_trace::format::CellType;
    use kmemlab_trace::table::Cell;
    use kmemlab_tui::table::Value;

    match (value, cell_type) {
        (Value::None, _) => Cell::Null,
        (Value::Text(text), _) => Cell::Str(text),
        (number, CellType::I64) => Cell::I64(i64::try_from(number.number()).unwrap_or(0)),
        (number, _) => Cell::U64(u64::try_from(number.number()).unwrap_or(0)),
    }
}
