//! The slab layer beside `/proc/slabinfo`.

use std::path::Path;

use kmemlab_trace::Manifest;
use kmemlab_trace::format::{CellType, TableSpec};
use kmemlab_trace::table::Cell;

use super::{Pending, column, finish, metadata, put, table_columns};
use crate::error::Error;
use crate::parquet::ParquetFile;

/// The table of [`SlabComparisonRow`]s, described like the recording's own.
pub const SLAB_COMPARISON: TableSpec = TableSpec {
    name: "slab_comparison",
    file: "slab_comparison.parquet",
    help: "each cache in the kernel and in the slab model at each sample of /proc/slabinfo",
    columns: &[
        column("source", CellType::Word, "kernel or model"),
        column("time_ns", CellType::U64, "when the read of the kernel's file began"),
        column("cache", CellType::Word, "cache name"),
        column("slabs", CellType::U64, "slabs"),
        column("pages", CellType::U64, "pages of them"),
        column("active_objects", CellType::U64, "objects in use (per-CPU slabs count as full)"),
        column("waste_bytes", CellType::I64, "bytes of the pages that are no used object's"),
        column("utilisation_ppm", CellType::I64, "used objects' share of the pages, millionths"),
    ],
};

/// One cache at one moment, by one source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlabComparisonRow {
    /// `kernel` or `model`.
    pub source: &'static str,
    /// When the read of the kernel's file began.
    pub time_ns: u64,
    /// Cache name.
    pub cache: String,
    /// Slabs.
    pub slabs: u64,
    /// Pages of them.
    pub pages: u64,
    /// Objects in use, as the kernel counts them.
    pub active_objects: u64,
    /// Bytes of the pages that are no used object's.
    pub waste_bytes: i64,
    /// Used objects' share of the pages, in millionths.
    pub utilisation_ppm: i64,
}

pub(super) fn export_slabs(
    manifest: &Manifest,
    rows: &[SlabComparisonRow],
    out: &Path,
) -> Result<Pending, Error> {
    let columns = table_columns(&SLAB_COMPARISON);
    let mut file = ParquetFile::create(out, SLAB_COMPARISON.name, &columns, metadata(manifest))?;
    for row in rows {
        let cells = [
            Cell::Str(row.source),
            Cell::U64(row.time_ns),
            Cell::Str(&row.cache),
            Cell::U64(row.slabs),
            Cell::U64(row.pages),
            Cell::U64(row.active_objects),
            Cell::I64(row.waste_bytes),
            Cell::I64(row.utilisation_ppm),
        ];
        for (column, cell) in cells.into_iter().enumerate() {
            put(&mut file.frame, column, cell);
        }
        file.end_row()?;
    }
    finish(file, SLAB_COMPARISON.name, rows.len() as u64)
}
