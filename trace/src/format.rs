//! The recording's constants: versions, file names and the tables beside the events.
//!
//! `docs/format.md` is generated from what stands here and checked by a test.

/// Raised by a change of bytes, never by a release.
pub const VERSION: u64 = 1;
/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The events stream.
pub const EVENTS: &str = "events.arrows";
/// The index of every batch of every stream.
pub const INDEX: &str = "index.arrows";
/// Checksums of the index, part by part: it vouches for the index of a recording that was cut off.
pub const INDEX_CRC: &str = "index.crc";
/// Room kept for the last manifest, so that a full disk can still be told in it.
pub const RESERVE: &str = ".reserve";

/// Type of a table's column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CellType {
    /// Unsigned number.
    U64,
    /// Unsigned number below 2^32.
    U32,
    /// Unsigned number below 2^16.
    U16,
    /// Signed number.
    I64,
    /// Yes or no.
    Bool,
    /// One of few texts, stored once.
    Word,
    /// A text.
    Text,
}

/// A column of a table: its name ends in the unit where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableColumn {
    /// Name in the file.
    pub name: &'static str,
    /// Type.
    pub cell: CellType,
    /// Whether a row may have none.
    pub nullable: bool,
    /// What it means.
    pub help: &'static str,
}

/// A table of the recording: one Arrow IPC stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableSpec {
    /// Name, also in exports.
    pub name: &'static str,
    /// File in the recording.
    pub file: &'static str,
    /// What it holds.
    pub help: &'static str,
    /// Its columns.
    pub columns: &'static [TableColumn],
}

const fn col(name: &'static str, cell: CellType, help: &'static str) -> TableColumn {
    TableColumn { name, cell, nullable: false, help }
}

const fn maybe(name: &'static str, cell: CellType, help: &'static str) -> TableColumn {
    TableColumn { name, cell, nullable: true, help }
}

use CellType::{Bool, I64, Text, U16, U32, U64, Word};

const BEFORE: TableColumn = col("read_start_ns", U64, "just before the file was read");
const AFTER: TableColumn = col("read_end_ns", U64, "just after the file was read");
const NODE: TableColumn = col("node", U16, "NUMA node");
const ZONE: TableColumn = col("zone", Word, "zone name; empty for numbers of the whole node");

/// Every batch of every stream, written after the batch itself: what is not here is not whole.
pub const INDEX_TABLE: TableSpec = TableSpec {
    name: "index",
    file: INDEX,
    help: "one row a batch of any stream: where it is, its checksum and its time",
    columns: &[
        col("stream", Word, "file of the stream"),
        col("offset_bytes", U64, "first byte of the batch (or of the schema, when rows is 0)"),
        col("length_bytes", U64, "bytes, dictionaries before the batch included"),
        col("crc32", U32, "CRC-32 (IEEE) of those bytes"),
        col("rows", U64, "rows of the batch"),
        col("first_time_ns", U64, "time of the first row"),
        col("last_time_ns", U64, "time of the last row"),
        col("has_dictionary", Bool, "dictionaries precede the batch: needed by all later ones"),
    ],
};

/// `/proc/buddyinfo`.
pub const BUDDYINFO: TableSpec = TableSpec {
    name: "buddyinfo",
    file: "snapshots/buddyinfo.arrows",
    help: "/proc/buddyinfo: free blocks by zone and order",
    columns: &[
        BEFORE,
        AFTER,
        NODE,
        ZONE,
        col("order", U16, "block order"),
        col("free_blocks", U64, "free blocks of exactly this order"),
    ],
};

/// `/proc/pagetypeinfo`.
pub const PAGETYPEINFO: TableSpec = TableSpec {
    name: "pagetypeinfo",
    file: "snapshots/pagetypeinfo.arrows",
    help: "/proc/pagetypeinfo: free blocks by migrate type, and pageblocks by migrate type (not atomic)",
    columns: &[
        BEFORE,
        AFTER,
        NODE,
        ZONE,
        col("migrate_type", Word, "as the file's heading spells it"),
        maybe("order", U16, "order of the free blocks; null: pageblocks of this type"),
        col("blocks", U64, "blocks"),
        col("is_lower_bound", Bool, "the kernel stopped counting here"),
    ],
};

/// `/proc/zoneinfo`.
pub const ZONEINFO: TableSpec = TableSpec {
    name: "zoneinfo",
    file: "snapshots/zoneinfo.arrows",
    help: "/proc/zoneinfo: one number a row",
    columns: &[
        BEFORE,
        AFTER,
        NODE,
        ZONE,
        maybe("cpu", U16, "for numbers of a per-CPU page list"),
        col("key", Word, "the file's own key (pcp_* for per-CPU lists, protection_N)"),
        col("value", I64, "in the file's own unit, mostly pages"),
    ],
};

/// `/proc/slabinfo`.
pub const SLABINFO: TableSpec = TableSpec {
    name: "slabinfo",
    file: "snapshots/slabinfo.arrows",
    help: "/proc/slabinfo: one cache a row",
    columns: &[
        BEFORE,
        AFTER,
        col("cache", Word, "cache name"),
        col("active_objects", U64, "objects in use (per-CPU slabs count as full)"),
        col("objects", U64, "objects there is room for"),
        col("object_size_bytes", U64, "size of an object with padding"),
        col("objects_per_slab", U64, "objects in a slab"),
        col("pages_per_slab", U64, "pages of a slab"),
        col("active_slabs", U64, "slabs in use"),
        col("slabs", U64, "slabs"),
    ],
};

/// `/sys/kernel/slab`.
pub const SLAB_DETAIL: TableSpec = TableSpec {
    name: "slab_detail",
    file: "snapshots/slab_detail.arrows",
    help: "/sys/kernel/slab: one file of one cache a row; limits and what processors keep, the rest \
           with --slab-detail only",
    columns: &[
        BEFORE,
        AFTER,
        col("cache", Word, "cache name, as in slabinfo"),
        col(
            "key",
            Word,
            "the file's name; slabs_cpu_partial.N: of processor N; shrunk: the recorder had the cache \
             shrunk then",
        ),
        col("value", I64, "the first number in it; of slabs_cpu_partial the slabs"),
    ],
};

/// `/proc/vmstat`.
pub const VMSTAT: TableSpec = TableSpec {
    name: "vmstat",
    file: "snapshots/vmstat.arrows",
    help: "/proc/vmstat: one counter a row",
    columns: &[BEFORE, AFTER, col("key", Word, "counter"), col("value", U64, "its value")],
};

/// `/proc/vmallocinfo`.
pub const VMALLOCINFO: TableSpec = TableSpec {
    name: "vmallocinfo",
    file: "snapshots/vmallocinfo.arrows",
    help: "/proc/vmallocinfo: one area a row",
    columns: &[
        BEFORE,
        AFTER,
        col("start_address", U64, "first address"),
        col("end_address", U64, "first address after the area and its guard page"),
        col("area_bytes", U64, "bytes, guard page included"),
        maybe("caller", Word, "function that asked for it"),
        maybe("pages", U64, "backing pages"),
        col("flags", Word, "the line's remaining words"),
    ],
};

const PAGEMAP_COLUMNS: &[TableColumn] = &[
    BEFORE,
    AFTER,
    col("start_pfn", U64, "first page of the run"),
    col("pages", U32, "pages in the run"),
    col("page_use", Word, "free, slab, lru, compound, page_table, hugetlb, absent, untold, other"),
];

/// The page map before anything else happened.
pub const PAGEMAP_FIRST: TableSpec = TableSpec {
    name: "pagemap_first",
    file: "pagemap-first.arrows",
    help: "/proc/kpageflags at the start, as runs of pages of one use",
    columns: PAGEMAP_COLUMNS,
};

/// The page map after everything else.
pub const PAGEMAP_LAST: TableSpec = TableSpec {
    name: "pagemap_last",
    file: "pagemap-last.arrows",
    help: "/proc/kpageflags at the end, as runs of pages of one use",
    columns: PAGEMAP_COLUMNS,
};

/// Call chains.
pub const STACKS: TableSpec = TableSpec {
    name: "stacks",
    file: "stacks.arrows",
    help: "call chains, each once: one frame a row",
    columns: &[
        col("stack_id", U32, "what stack_id in the events means"),
        col("frame", U16, "0 is the innermost function"),
        col("address", U64, "kernel address"),
    ],
};

/// Symbols of the addresses in [`STACKS`].
pub const SYMBOLS: TableSpec = TableSpec {
    name: "symbols",
    file: "symbols.arrows",
    help: "names of the addresses in stacks, resolved when the recording ended",
    columns: &[
        col("address", U64, "kernel address"),
        maybe("symbol", Text, "function; null when unknown"),
        col("offset_bytes", U64, "how far into the function"),
    ],
};

/// Threads and their commands.
pub const TASKS: TableSpec = TableSpec {
    name: "tasks",
    file: "tasks.arrows",
    help: "threads seen in /proc at the start and at the end",
    columns: &[
        col("pid", U32, "thread id, as in the events"),
        col("process_id", U32, "thread group id"),
        col("command", Text, "the thread's name"),
    ],
};

/// Events that the rings dropped.
pub const LOSS: TableSpec = TableSpec {
    name: "loss",
    file: "loss.arrows",
    help: "events that a ring had no room for",
    columns: &[
        col("cpu", U16, "whose ring"),
        col("from_ns", U64, "last event known before the gap"),
        col("to_ns", U64, "when the ring told of the gap"),
        col("lost_events", U64, "events missing"),
    ],
};

/// Every table beside the events, in the order of the documentation.
pub const TABLES: &[TableSpec] = &[
    BUDDYINFO,
    PAGETYPEINFO,
    ZONEINFO,
    SLABINFO,
    SLAB_DETAIL,
    VMSTAT,
    VMALLOCINFO,
    PAGEMAP_FIRST,
    PAGEMAP_LAST,
    STACKS,
    SYMBOLS,
    TASKS,
    LOSS,
    INDEX_TABLE,
];
