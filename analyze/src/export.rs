//! A recording as a directory of Parquet files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use kmemlab_trace::format::{self, CellType, TableColumn, TableSpec};
use kmemlab_trace::table::Cell;
use kmemlab_trace::{Manifest, Recording};

use crate::error::Error;
use crate::events::{self, EventRows};
use crate::frame::{ColumnType, Frame};
use crate::parquet::{Complete, ParquetFile, file_name};

mod slab;

use slab::export_slabs;
pub use slab::{SLAB_COMPARISON, SlabComparisonRow};

const EVENTS: &str = "events";

const fn column(name: &'static str, cell: CellType, help: &'static str) -> TableColumn {
    TableColumn { name, cell, nullable: false, help }
}

/// The table of [`ComparisonRow`]s, described like the recording's own.
pub const COMPARISON: TableSpec = TableSpec {
    name: "comparison",
    file: "comparison.parquet",
    help: "free blocks in the kernel, the mirror and the model at each sample of /proc/buddyinfo",
    columns: &[
        column("source", CellType::Word, "kernel, mirror or model"),
        column("time_ns", CellType::U64, "when the kernel's file was read"),
        column("node", CellType::U16, "NUMA node"),
        column("zone", CellType::Word, "zone name"),
        column("order", CellType::U16, "block order"),
        column("free_blocks", CellType::U64, "free blocks of exactly this order"),
    ],
};

/// Free blocks of one zone at one order and moment, by one source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ComparisonRow {
    /// `kernel`, `mirror` or `model`.
    pub source: String,
    /// When the kernel's file was read.
    pub time_ns: u64,
    /// NUMA node.
    pub node: u16,
    /// Zone name.
    pub zone: String,
    /// Block order.
    pub order: u16,
    /// Free blocks of exactly this order.
    pub free_blocks: u64,
}

/// The table of [`MisfitRow`]s, described like the recording's own.
pub const RESIDUE: TableSpec = TableSpec {
    name: "residue",
    file: "residue.parquet",
    help: "where mirror and kernel differed, and why",
    columns: &[
        column("evidence", CellType::Word, "event, sample or map: where it came to light"),
        column("time_ns", CellType::U64, "when it came to light"),
        column("node", CellType::U16, "NUMA node"),
        column("zone", CellType::Word, "zone name"),
        column("order", CellType::U16, "block order"),
        TableColumn {
            name: "pfn",
            cell: CellType::U64,
            nullable: true,
            help: "first page; null at samples, which tell counts alone",
        },
        column("cause", CellType::Word, "why, as in docs/model.md"),
        column("blocks", CellType::I64, "free blocks of this order, mirror minus kernel"),
    ],
};

/// What the mirror could not explain, of one zone at one order and moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MisfitRow {
    /// `event`, `sample` or `map`.
    pub evidence: &'static str,
    /// When it came to light.
    pub time_ns: u64,
    /// NUMA node.
    pub node: u16,
    /// Zone name.
    pub zone: String,
    /// Block order.
    pub order: u16,
    /// First page; `None` at samples, which tell counts alone.
    pub pfn: Option<u64>,
    /// Why.
    pub cause: &'static str,
    /// Free blocks, mirror minus kernel.
    pub blocks: i64,
}

/// What a replay adds to an export.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Free blocks at each sample.
    pub comparison: Vec<ComparisonRow>,
    /// What the mirror could not explain.
    pub residue: Vec<MisfitRow>,
    /// Caches at each sample, where slab events were replayed.
    pub slabs: Vec<SlabComparisonRow>,
}

/// How to export.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExportOptions {
    /// Replace an export that is there: all its files, also those that this recording has not.
    pub force: bool,
}

/// A file that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// Its name in the directory.
    pub file: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Rows that the recording should have had, in batches passed over because they are damaged
    /// (only of a recording opened for salvage).
    pub missing_rows: u64,
}

/// Writes a recording as Parquet files into a directory, which is created if need be: the events,
/// each table that has rows, and what a replay adds if there was one.
///
/// The recording is read batch by batch; of what was written only Parquet's list of row groups
/// stays in memory. The files are written as `NAME.parquet.partial` and get their names when all
/// are complete: on an error none of them stays.
pub fn export_parquet(
    recording: &Recording,
    out: &Path,
    replayed: Option<&Replayed>,
    options: &ExportOptions,
) -> Result<Vec<Exported>, Error> {
    make_directory(out)?;
    if !options.force {
        refuse_existing(out)?;
    }
    let mut pending = vec![export_events(recording, out)?];
    for spec in tables().filter(|spec| recording.has(spec)) {
        pending.push(export_table(recording, spec, out)?);
    }
    if let Some(replayed) = replayed {
        pending.push(export_comparison(recording.manifest(), &replayed.comparison, out)?);
        if !replayed.residue.is_empty() {
            pending.push(export_residue(recording.manifest(), &replayed.residue, out)?);
        }
        if !replayed.slabs.is_empty() {
            pending.push(export_slabs(recording.manifest(), &replayed.slabs, out)?);
        }
    }
    let mut done = Vec::new();
    for (exported, file) in pending {
        file.publish()?;
        done.push(exported);
    }
    remove_others(out, &done)?;
    Ok(done)
}

/// The recording's tables that are exported: the index is about the recording's files alone.
fn tables() -> impl Iterator<Item = &'static TableSpec> {
    format::TABLES.iter().filter(|spec| spec.file != format::INDEX)
}

/// Every file that an export can have.
fn possible_files() -> impl Iterator<Item = String> {
    let names = tables().map(|spec| spec.name);
    let replayed = [COMPARISON.name, RESIDUE.name, SLAB_COMPARISON.name];
    [EVENTS].into_iter().chain(names).chain(replayed).map(file_name)
}

fn make_directory(out: &Path) -> Result<(), Error> {
    match fs::metadata(out) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::NotADirectory { path: out.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(out)
            .map_err(|error| Error::io("create", out, error)),
        Err(error) => Err(Error::io("look at", out, error)),
    }
}

/// Also of files that this recording has not: files of two recordings side by side would be taken
/// for one.
fn refuse_existing(out: &Path) -> Result<(), Error> {
    for file in possible_files() {
        let path = out.join(file);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", path, error)),
            Ok(_) => return Err(Error::Exists { path }),
        }
    }
    Ok(())
}

/// Removes what an export before this one left and this one did not replace.
fn remove_others(out: &Path, done: &[Exported]) -> Result<(), Error> {
    for file in possible_files().filter(|file| done.iter().all(|done| done.file != *file)) {
        let path = out.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("replace", path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What every file says of the recording it comes from.
fn metadata(manifest: &Manifest) -> Vec<(String, String)> {
    let mut pairs = vec![
        ("kmemlab.tool", manifest.tool.clone()),
        ("kmemlab.origin", manifest.origin.clone()),
        ("kmemlab.kernel_release", manifest.host.kernel_release.clone()),
        ("kmemlab.page_size_bytes", manifest.host.page_size_bytes.to_string()),
        ("kmemlab.clock", manifest.clock.clone()),
        ("kmemlab.started_realtime_ns", manifest.started_realtime_ns.to_string()),
        ("kmemlab.started_monotonic_ns", manifest.started_monotonic_ns.to_string()),
    ];
    // Absent in a recording that was cut off: how much it lost is not known then.
    if let Some(end) = &manifest.end {
        pairs.push(("kmemlab.lost_events", end.lost_events.to_string()));
        if let Some(counted) = end.counted_events {
            pairs.push(("kmemlab.counted_events", counted.to_string()));
        }
    }
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What was written, and the file that waits for its name.
type Pending = (Exported, Complete);

fn finish(file: ParquetFile, name: &str, expected_rows: u64) -> Result<Pending, Error> {
    let file = file.finish()?;
    let (rows, bytes) = (file.rows, file.bytes);
    let missing_rows = expected_rows.saturating_sub(rows);
    Ok((Exported { file: file_name(name), rows, bytes, missing_rows }, file))
}

fn export_events(recording: &Recording, out: &Path) -> Result<Pending, Error> {
    let manifest = recording.manifest();
    let mut metadata = metadata(manifest);
    metadata.extend(events::field_metadata(manifest));
    let mut file = ParquetFile::create(out, EVENTS, &events::columns(), metadata)?;
    let mut rows = EventRows::new(manifest, &mut file.frame);
    for batch in recording.events()? {
        let batch = batch?;
        rows.start_batch(&batch, &mut file.frame);
        for event in batch.iter() {
            rows.put(&event, &mut file.frame);
            file.end_row()?;
        }
    }
    finish(file, EVENTS, recording.rows_of(format::EVENTS))
}

/// Writes any rows as `NAME.parquet` into a directory, replacing what is there by that name.
///
/// # Errors
/// The file cannot be written; nothing of it stays.
pub fn write_rows<'a>(
    out: &Path,
    name: &str,
    columns: &[TableColumn],
    rows: impl Iterator<Item = Vec<Cell<'a>>>,
) -> Result<Exported, Error> {
    let mut file = ParquetFile::create(out, name, &column_types(columns), Vec::new())?;
    let mut count = 0;
    for cells in rows {
        for (column, cell) in cells.into_iter().enumerate() {
            put(&mut file.frame, column, cell);
        }
        file.end_row()?;
        count += 1;
    }
    let (exported, complete) = finish(file, name, count)?;
    complete.publish()?;
    Ok(exported)
}

fn table_columns(spec: &TableSpec) -> Vec<(&'static str, ColumnType)> {
    column_types(spec.columns)
}

fn column_types(columns: &[TableColumn]) -> Vec<(&'static str, ColumnType)> {
    let types = columns.iter().map(|column| {
        let column_type = match column.cell {
            CellType::U64 => ColumnType::U64,
            CellType::U32 | CellType::U16 => ColumnType::U32,
            CellType::I64 => ColumnType::I64,
            CellType::Bool => ColumnType::Bool,
            CellType::Word => ColumnType::Word,
            CellType::Text => ColumnType::Text,
        };
        (column.name, column_type)
    });
    types.collect()
}

fn put(frame: &mut Frame, column: usize, cell: Cell<'_>) {
    match cell {
        Cell::Null => {}
        Cell::U64(value) => frame.put_u64(column, value),
        Cell::I64(value) => frame.put_i64(column, value),
        Cell::Bool(value) => frame.put_bool(column, value),
        Cell::Str(text) => frame.put_text(column, text),
    }
}

fn export_table(
    recording: &Recording,
    spec: &'static TableSpec,
    out: &Path,
) -> Result<Pending, Error> {
    let columns = table_columns(spec);
    let mut file = ParquetFile::create(out, spec.name, &columns, metadata(recording.manifest()))?;
    for batch in recording.table(spec)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            for column in 0..columns.len() {
                put(&mut file.frame, column, batch.cell(row, column));
            }
            file.end_row()?;
        }
    }
    finish(file, spec.name, recording.rows_of(spec.file))
}

fn export_comparison(
    manifest: &Manifest,
    rows: &[ComparisonRow],
    out: &Path,
) -> Result<Pending, Error> {
    let columns = table_columns(&COMPARISON);
    let mut file = ParquetFile::create(out, COMPARISON.name, &columns, metadata(manifest))?;
    for row in rows {
        let cells = [
            Cell::Str(&row.source),
            Cell::U64(row.time_ns),
            Cell::U64(row.node.into()),
            Cell::Str(&row.zone),
            Cell::U64(row.order.into()),
            Cell::U64(row.free_blocks),
        ];
        for (column, cell) in cells.into_iter().enumerate() {
            put(&mut file.frame, column, cell);
        }
        file.end_row()?;
    }
    finish(file, COMPARISON.name, rows.len() as u64)
}

fn export_residue(manifest: &Manifest, rows: &[MisfitRow], out: &Path) -> Result<Pending, Error> {
    let columns = table_columns(&RESIDUE);
    let mut file = ParquetFile::create(out, RESIDUE.name, &columns, metadata(manifest))?;
    for row in rows {
        let cells = [
            Cell::Str(row.evidence),
            Cell::U64(row.time_ns),
            Cell::U64(row.node.into()),
            Cell::Str(&row.zone),
            Cell::U64(row.order.into()),
            row.pfn.map_or(Cell::Null, Cell::U64),
            Cell::Str(row.cause),
            Cell::I64(row.blocks),
        ];
        for (column, cell) in cells.into_iter().enumerate() {
            put(&mut file.frame, column, cell);
        }
        file.end_row()?;
    }
    finish(file, RESIDUE.name, rows.len() as u64)
}
