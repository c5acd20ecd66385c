//! One thing the kernel said: an event, flat, with the columns that its tracepoint fills.
//!
//! Which tracepoint fills which column is data ([`crate::tracepoint::ALL`]); what each column means
//! is data too ([`Column::ALL`]). A column that the event's tracepoint does not fill is absent
//! (null in the file), which is not the same as zero.

use crate::unit::{Cpu, Gfp, Migrate, Nanos, Order, Pfn, Pid, StackId};

/// Where the processor was when the event fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Context(pub u8);

impl Context {
    /// In a hardware interrupt.
    pub const HARDIRQ: u8 = 1;
    /// In a softirq.
    pub const SOFTIRQ: u8 = 2;
    /// In a non-maskable interrupt.
    pub const NMI: u8 = 4;
    /// The recorder itself did it.
    pub const RECORDER: u8 = 8;

    /// Not in any interrupt: the event belongs to its task.
    #[must_use]
    pub fn is_task(self) -> bool {
        self.0 & (Self::HARDIRQ | Self::SOFTIRQ | Self::NMI) == 0
    }

    /// Caused by the recorder's own threads.
    #[must_use]
    pub fn is_recorder(self) -> bool {
        self.0 & Self::RECORDER != 0
    }
}

/// Declares the columns once: the enum, and the table that documents and names them.
macro_rules! columns {
    ($($variant:ident, $name:literal, $ty:literal, $help:literal;)*) => {
        /// An optional column of the events table. The number is the bit in [`Event::present`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Column { $(#[doc = $help] $variant),* }

        impl Column {
            /// Every optional column with its name in the file, its Arrow type and its meaning.
            pub const ALL: &'static [(Column, &'static str, &'static str, &'static str)] =
                &[$((Column::$variant, $name, $ty, $help)),*];
        }
    };
}

columns! {
    PfnOrAddress, "pfn_or_address", "UInt64", "Page frame number of a page event, kernel virtual address of an object or vmap event, or the start of a range.";
    End, "end", "UInt64", "End of the range that starts at pfn_or_address.";
    Order, "order", "UInt8", "Allocation order (2^order pages).";
    OtherOrder, "other_order", "UInt8", "Second order: of the block taken by a fallback.";
    Gfp, "gfp_flags", "UInt32", "Allocation flags in the recorded kernel's bits.";
    Migrate, "migrate_type", "UInt8", "Migrate type number; the manifest names them.";
    OtherMigrate, "other_migrate_type", "UInt8", "Second migrate type: of the block taken by a fallback.";
    Flag, "flag", "UInt8", "The tracepoint's own yes/no field (percpu_refill, change_ownership, accounted, failed, sync, ...).";
    Node, "node", "Int16", "NUMA node asked for or spoken of; -1 is any.";
    Name, "name", "Dictionary(UInt16, Utf8)", "Slab cache or zone name.";
    OtherName, "other_name", "Dictionary(UInt16, Utf8)", "Second zone name.";
    Stack, "stack_id", "UInt32", "Row of the stacks table: the call chain, or the call site as a chain of one.";
    BytesRequested, "bytes_requested", "UInt64", "Bytes the caller asked for.";
    BytesAllocated, "bytes_allocated", "UInt64", "Bytes the allocator gave.";
    Arg0, "arg_0", "Int64", "First further number; the tracepoint table names it.";
    Arg1, "arg_1", "Int64", "Second further number.";
    Arg2, "arg_2", "Int64", "Third further number.";
    Arg3, "arg_3", "Int64", "Fourth further number.";
    Arg4, "arg_4", "Int64", "Fifth further number.";
    Arg5, "arg_5", "Int64", "Sixth further number.";
}

impl Column {
    /// Number of optional columns.
    pub const COUNT: usize = Self::ALL.len();

    /// The column's bit in [`Event::present`].
    #[must_use]
    pub fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The column's name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// One event, flat. Fields whose bit is not set in `present` hold zero and mean nothing: use the
/// methods, which answer `None` for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, on `CLOCK_MONOTONIC`.
    pub time: Nanos,
    /// On which processor the event fired.
    pub cpu: Cpu,
    /// The thread that was running.
    pub pid: Pid,
    /// Interrupt level, and whether the recorder did it.
    pub context: Context,
    /// How deep preemption was disabled.
    pub preempt_depth: u8,
    /// Which tracepoint: index into the recording's own list (`Recording::kinds`).
    pub kind: Kind,
    /// Which of the columns below are told.
    pub present: u32,
    /// See [`Column::PfnOrAddress`].
    pub pfn_or_address: u64,
    /// See [`Column::End`].
    pub end: u64,
    /// See [`Column::Order`].
    pub order: u8,
    /// See [`Column::OtherOrder`].
    pub other_order: u8,
    /// See [`Column::Gfp`].
    pub gfp: u32,
    /// See [`Column::Migrate`].
    pub migrate: u8,
    /// See [`Column::OtherMigrate`].
    pub other_migrate: u8,
    /// See [`Column::Flag`].
    pub flag: u8,
    /// See [`Column::Node`].
    pub node: i16,
    /// See [`Column::Name`]: an index into the stream's names.
    pub name: u16,
    /// See [`Column::OtherName`].
    pub other_name: u16,
    /// See [`Column::Stack`].
    pub stack: u32,
    /// See [`Column::BytesRequested`].
    pub bytes_requested: u64,
    /// See [`Column::BytesAllocated`].
    pub bytes_allocated: u64,
    /// See [`Column::Arg0`] and on.
    pub args: [i64; 6],
}

impl Event {
    /// An event of that kind with every optional column absent.
    #[must_use]
    pub fn new(kind: Kind, time: Nanos, cpu: Cpu, pid: Pid) -> Self {
        Self {
            time,
            cpu,
            pid,
            context: Context(0),
            preempt_depth: 0,
            kind,
            present: 0,
            pfn_or_address: 0,
            end: 0,
            order: 0,
            other_order: 0,
            gfp: 0,
            migrate: 0,
            other_migrate: 0,
            flag: 0,
            node: 0,
            name: 0,
            other_name: 0,
            stack: 0,
            bytes_requested: 0,
            bytes_allocated: 0,
            args: [0; 6],
        }
    }

    /// Whether the kernel told this column.
    #[must_use]
    #[inline]
    pub fn has(&self, column: Column) -> bool {
        self.present & column.bit() != 0
    }

    /// The page frame, for page events; `None` also for an allocation that failed (pfn -1).
    #[must_use]
    #[inline]
    pub fn pfn(&self) -> Option<Pfn> {
        self.has(Column::PfnOrAddress).then_some(Pfn(self.pfn_or_address))
    }

    /// The order, if told.
    #[must_use]
    #[inline]
    pub fn order(&self) -> Option<Order> {
        self.has(Column::Order).then_some(Order(self.order))
    }

    /// The migrate type, if told.
    #[must_use]
    #[inline]
    pub fn migrate(&self) -> Option<Migrate> {
        self.has(Column::Migrate).then_some(Migrate(self.migrate))
    }

    /// The allocation flags, if told.
    #[must_use]
    #[inline]
    pub fn gfp(&self) -> Option<Gfp> {
        self.has(Column::Gfp).then_some(Gfp(self.gfp))
    }

    /// The call chain, if told.
    #[must_use]
    #[inline]
    pub fn stack(&self) -> Option<StackId> {
        self.has(Column::Stack).then_some(StackId(self.stack))
    }

    /// The tracepoint's yes/no field, if told.
    #[must_use]
    #[inline]
    pub fn flag(&self) -> Option<bool> {
        self.has(Column::Flag).then_some(self.flag != 0)
    }

    /// One of the further numbers, if told.
    #[must_use]
    #[inline]
    pub fn arg(&self, index: usize) -> Option<i64> {
        let bit = Column::Arg0.bit() << index;
        (self.present & bit != 0).then(|| self.args[index])
    }
}

/// Declares every tracepoint this version knows, in the order of the file's dictionary.
macro_rules! kinds {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// Which tracepoint an event came from.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "`")] $variant),*,
            /// A tracepoint that a newer recorder knew and this reader does not.
            Unknown,
        }

        impl Kind {
            /// Every kind with its `system:event` name, in the order of the numbers.
            pub const ALL: &'static [(Kind, &'static str)] = &[$((Kind::$variant, $name)),*];
        }
    };
}

kinds! {
    PageAlloc = "kmem:mm_page_alloc",
    PageFree = "kmem:mm_page_free",
    PageFreeBatched = "kmem:mm_page_free_batched",
    ZoneLocked = "kmem:mm_page_alloc_zone_locked",
    PcpDrain = "kmem:mm_page_pcpu_drain",
    ExtFrag = "kmem:mm_page_alloc_extfrag",
    ZoneWatermarks = "kmem:mm_setup_per_zone_wmarks",
    LowmemReserve = "kmem:mm_setup_per_zone_lowmem_reserve",
    TotalReserve = "kmem:mm_calculate_totalreserve_pages",
    Kmalloc = "kmem:kmalloc",
    KmallocNode = "kmem:kmalloc_node",
    Kfree = "kmem:kfree",
    CacheAlloc = "kmem:kmem_cache_alloc",
    CacheAllocNode = "kmem:kmem_cache_alloc_node",
    CacheFree = "kmem:kmem_cache_free",
    VmapAlloc = "vmalloc:alloc_vmap_area",
    VmapFree = "vmalloc:free_vmap_area_noflush",
    VmapPurge = "vmalloc:purge_vmap_area_lazy",
    PercpuChunkCreate = "percpu:percpu_create_chunk",
    PercpuChunkDestroy = "percpu:percpu_destroy_chunk",
    CompactionBegin = "compaction:mm_compaction_begin",
    CompactionEnd = "compaction:mm_compaction_end",
    CompactionTry = "compaction:mm_compaction_try_to_compact_pages",
    CompactionFinished = "compaction:mm_compaction_finished",
    CompactionSuitable = "compaction:mm_compaction_suitable",
    CompactionDeferred = "compaction:mm_compaction_deferred",
    CompactionDefer = "compaction:mm_compaction_defer_compaction",
    CompactionDeferReset = "compaction:mm_compaction_defer_reset",
    IsolateFree = "compaction:mm_compaction_isolate_freepages",
    FastIsolateFree = "compaction:mm_compaction_fast_isolate_freepages",
    IsolateMigrate = "compaction:mm_compaction_isolate_migratepages",
    CompactionMigrate = "compaction:mm_compaction_migratepages",
    KcompactdWakeup = "compaction:mm_compaction_wakeup_kcompactd",
    KcompactdWake = "compaction:mm_compaction_kcompactd_wake",
    KcompactdSleep = "compaction:mm_compaction_kcompactd_sleep",
    MigratePages = "migrate:mm_migrate_pages",
    PagesIsolated = "page_isolation:test_pages_isolated",
    DirectReclaimBegin = "vmscan:mm_vmscan_direct_reclaim_begin",
    DirectReclaimEnd = "vmscan:mm_vmscan_direct_reclaim_end",
    MemcgReclaimBegin = "vmscan:mm_vmscan_memcg_reclaim_begin",
    MemcgReclaimEnd = "vmscan:mm_vmscan_memcg_reclaim_end",
    NodeReclaimBegin = "vmscan:mm_vmscan_node_reclaim_begin",
    NodeReclaimEnd = "vmscan:mm_vmscan_node_reclaim_end",
    KswapdWakeup = "vmscan:mm_vmscan_wakeup_kswapd",
    KswapdWake = "vmscan:mm_vmscan_kswapd_wake",
    KswapdSleep = "vmscan:mm_vmscan_kswapd_sleep",
    ShrinkInactive = "vmscan:mm_vmscan_lru_shrink_inactive",
    ShrinkSlabStart = "vmscan:mm_shrink_slab_start",
    ShrinkSlabEnd = "vmscan:mm_shrink_slab_end",
    OomVictim = "oom:mark_victim",
    OomRetryZone = "oom:reclaim_retry_zone",
    OomCompactRetry = "oom:compact_retry",
}

impl Kind {
    /// The `system:event` name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("unknown", |(_, name)| name)
    }

    /// The kind's bit in a set of kinds.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The kind with that `system:event` name, [`Kind::Unknown`] if this version has none.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == name).map_or(Self::Unknown, |(kind, _)| *kind)
    }
}
