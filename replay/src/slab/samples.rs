//! What `/proc/slabinfo` said, sample by sample.

use kmemlab_trace::reader::Recording;
use kmemlab_trace::snapshot::{SlabDetailRow, SlabRow, Stamp};
use kmemlab_trace::table::Cell;
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::{Error, format};

/// One read of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlabSample {
    /// When.
    pub stamp: Stamp,
    /// Its caches.
    pub rows: Vec<SlabRow>,
}

/// Every read of the file, in order of time.
pub fn all(recording: &Recording) -> Result<Vec<SlabSample>, Error> {
    let mut samples = Vec::new();
    for batch in recording.table(&format::SLABINFO)? {
        let batch = batch?;
        if batch.rows() == 0 {
            continue;
        }
        let number = |row: usize, column: usize| batch.number(row, column);
        let rows = (0..batch.rows()).map(|row| SlabRow::of(&batch, row)).collect();
        let stamp = Stamp { before: Nanos(number(0, 0)), after: Nanos(number(0, 1)) };
        samples.push(SlabSample { stamp, rows });
    }
    Ok(samples)
}

/// What `/sys/kernel/slab` said, in order of time; empty without `--slab-detail`.
pub fn detail(recording: &Recording) -> Result<Vec<SlabDetailRow>, Error> {
    let mut rows = Vec::new();
    for batch in recording.table(&format::SLAB_DETAIL)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let (before, after) = (Nanos(batch.number(row, 0)), Nanos(batch.number(row, 1)));
            rows.push(SlabDetailRow {
                stamp: Stamp { before, after },
                cache: batch.text(row, 2).to_owned(),
                key: batch.text(row, 3).to_owned(),
                value: match batch.cell(row, 4) {
                    Cell::I64(value) => value,
                    _ => 0,
                },
            });
        }
    }
    Ok(rows)
}
