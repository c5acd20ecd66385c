//! What can be said of recordings and model runs: comparisons of two, and exports for notebooks and
//! query engines.
//!
//! [`compare::compare`] holds two of them against each other, with the model's own error beside
//! every difference. With the feature `parquet`, `export_parquet` writes a recording as a directory
//! of Parquet files: `events.parquet`, one file for each table that the recording has
//! (`buddyinfo.parquet`, `slabinfo.parquet`, ...) and, after a replay, `comparison.parquet`,
//! `residue.parquet` and, of slab events, `slab_comparison.parquet`. Times are nanoseconds of
//! `CLOCK_MONOTONIC`; column names end in their unit; null means that the kernel did not tell.
//! `EVENT_COLUMNS` describes the events' columns, [`kmemlab_trace::format::TABLES`] all others.
//!
//! # Opening an export in Python
//!
//! pandas, which can read the columns that it needs and no others:
//!
//! ```python
//! import pandas as pd
//! events = pd.read_parquet("export/events.parquet", columns=["time_ns", "kind", "order"],
//!                          dtype_backend="pyarrow")  # keeps whole numbers whole beside nulls
//! allocs = events[events["kind"] == "kmem:mm_page_alloc"]
//! allocs.groupby("order").size()
//! ```
//!
//! pyarrow, which can go through a recording larger than memory, and shows what the file says of
//! itself (kernel, wall clock at the start, which field of which tracepoint is in which column):
//!
//! ```python
//! import pyarrow.parquet as pq
//! events = pq.ParquetFile("export/events.parquet")
//! print(events.metadata.metadata[b"kmemlab.kernel_release"])
//! for batch in events.iter_batches(columns=["time_ns", "pfn"]):
//!     ...
//! ```
//!
//! DuckDB, which queries the files where they are and joins them:
//!
//! ```python
//! import duckdb
//! duckdb.sql("""
//!     select symbol, count(*) as allocs, sum(bytes_allocated) as bytes
//!     from 'export/events.parquet'
//!     join 'export/stacks.parquet' using (stack_id)
//!     join 'export/symbols.parquet' on symbols.address = stacks.address
//!     where kind = 'kmem:kmalloc' and frame = 0
//!     group by symbol order by bytes desc limit 10
//! """).show()
//! ```
//!
//! The wall clock of an event is `started_realtime_ns + time_ns - started_monotonic_ns`, both from
//! the file's metadata.

pub mod compare;
#[cfg(feature = "parquet")]
mod error;
#[cfg(feature = "parquet")]
mod events;
#[cfg(feature = "parquet")]
mod export;
#[cfg(feature = "parquet")]
mod frame;
#[cfg(feature = "parquet")]
mod parquet;

#[cfg(feature = "parquet")]
pub use error::Error;
#[cfg(feature = "parquet")]
pub use events::EVENT_COLUMNS;
#[cfg(feature = "parquet")]
pub use export::{
    COMPARISON, ComparisonRow, ExportOptions, Exported, MisfitRow, RESIDUE, Replayed,
    SLAB_COMPARISON, SlabComparisonRow, export_parquet, write_rows,
};
