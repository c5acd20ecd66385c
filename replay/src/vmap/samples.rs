//! What `/proc/vmallocinfo` said, sample by sample.

use kmemlab_trace::reader::Recording;
use kmemlab_trace::snapshot::Stamp;
use kmemlab_trace::table::Cell;
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::{Error, format};

/// One line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    /// First address.
    pub start: u64,
    /// Bytes, guard page included.
    pub size: u64,
    /// Backing pages.
    pub pages: u64,
    /// Freed and not yet purged.
    pub is_lazy: bool,
    /// Taken by `pcpu_get_vm_areas`, which no event tells of.
    pub is_percpu: bool,
}

/// One read of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmapSample {
    /// When.
    pub stamp: Stamp,
    /// Its areas, by rising address.
    pub rows: Vec<Row>,
}

/// Every read of the file, in order of time.
pub fn all(recording: &Recording) -> Result<Vec<VmapSample>, Error> {
    let mut samples = Vec::new();
    for batch in recording.table(&format::VMALLOCINFO)? {
        let batch = batch?;
        if batch.rows() == 0 {
            continue;
        }
        let mut rows: Vec<Row> = (0..batch.rows())
            .map(|row| Row {
                start: batch.number(row, 2),
                size: batch.number(row, 4),
                pages: match batch.cell(row, 6) {
                    Cell::U64(pages) => pages,
                    _ => 0,
                },
                is_lazy: batch.text(row, 7).contains("unpurged"),
                is_percpu: batch.text(row, 5).starts_with("pcpu_get_vm_areas"),
            })
            .collect();
        rows.sort_unstable();
        rows.dedup_by_key(|row| row.start);
        let (before, after) = (Nanos(batch.number(0, 0)), Nanos(batch.number(0, 1)));
        samples.push(VmapSample { stamp: Stamp { before, after }, rows });
    }
    Ok(samples)
}
