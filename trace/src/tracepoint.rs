//! The tracepoints that a recording can hold: one row each, with the field that fills each column.
//!
//! A new tracepoint is one name in [`Kind`] and one row here. Nothing about a tracepoint's *layout*
//! stands in the source: the recorder finds each field by name in the kernel's own `format` file.

use crate::event::{Column, Kind};

/// A family of tracepoints, as `--events` names them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// The page allocator, watermarks included.
    Page,
    /// kmalloc and the slab caches.
    Slab,
    /// The vmalloc address space and per-CPU chunks.
    Vmalloc,
    /// Compaction, migration and page isolation.
    Compaction,
    /// Direct reclaim, kswapd and the shrinkers.
    Reclaim,
    /// The out-of-memory killer and the retries before it.
    Oom,
}

impl Group {
    /// Every group with its name on the command line.
    pub const ALL: &'static [(Group, &'static str)] = &[
        (Group::Page, "page"),
        (Group::Slab, "slab"),
        (Group::Vmalloc, "vmalloc"),
        (Group::Compaction, "compaction"),
        (Group::Reclaim, "reclaim"),
        (Group::Oom, "oom"),
    ];

    /// The group's name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The group of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(group, _)| *group)
    }
}

/// How much a field is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Without it the event means nothing: recording refuses.
    Required,
    /// Some releases lack it: the column stays null.
    Optional,
}

/// A field of a tracepoint and the column it fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldUse {
    /// The field's name in the kernel's `format` file.
    pub field: &'static str,
    /// The column it fills.
    pub column: Column,
    /// Whether recording can do without.
    pub need: Need,
}

/// One tracepoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tracepoint {
    /// Its kind, which also names it.
    pub kind: Kind,
    /// The family it is asked for by.
    pub group: Group,
    /// Without it the group is not recorded at all.
    pub need: Need,
    /// Its fields.
    pub fields: &'static [FieldUse],
}

impl Tracepoint {
    /// `kmem` of `kmem:mm_page_alloc`.
    #[must_use]
    pub fn system(&self) -> &'static str {
        self.kind.name().split_once(':').map_or("", |(system, _)| system)
    }

    /// `mm_page_alloc` of `kmem:mm_page_alloc`.
    #[must_use]
    pub fn event(&self) -> &'static str {
        self.kind.name().split_once(':').map_or("", |(_, event)| event)
    }
}

const fn req(field: &'static str, column: Column) -> FieldUse {
    FieldUse { field, column, need: Need::Required }
}

const fn opt(field: &'static str, column: Column) -> FieldUse {
    FieldUse { field, column, need: Need::Optional }
}

const fn must(kind: Kind, group: Group, fields: &'static [FieldUse]) -> Tracepoint {
    Tracepoint { kind, group, need: Need::Required, fields }
}

const fn may(kind: Kind, group: Group, fields: &'static [FieldUse]) -> Tracepoint {
    Tracepoint { kind, group, need: Need::Optional, fields }
}

use Column as C;
use Group as G;
use Kind as K;

const NODE_ORDER_ZONE: &[FieldUse] =
    &[req("nid", C::Node), req("order", C::Order), opt("highest_zoneidx", C::Arg0)];
const DEFER: &[FieldUse] = &[
    req("nid", C::Node),
    req("idx", C::Arg0),
    req("order", C::Order),
    opt("considered", C::Arg1),
    opt("defer_shift", C::Arg2),
    opt("order_failed", C::Arg3),
];
const NODE_ZONE_ORDER_RET: &[FieldUse] =
    &[req("nid", C::Node), req("idx", C::Arg0), req("order", C::Order), req("ret", C::Arg1)];
const ISOLATE: &[FieldUse] = &[
    req("start_pfn", C::PfnOrAddress),
    req("end_pfn", C::End),
    req("nr_scanned", C::Arg0),
    req("nr_taken", C::Arg1),
];
const RECLAIM_BEGIN: &[FieldUse] = &[req("order", C::Order), req("gfp_flags", C::Gfp)];
const RECLAIM_END: &[FieldUse] = &[req("nr_reclaimed", C::Arg0)];
const OBJECT_ALLOC: &[FieldUse] = &[
    req("call_site", C::Stack),
    req("ptr", C::PfnOrAddress),
    opt("name", C::Name),
    req("bytes_req", C::BytesRequested),
    req("bytes_alloc", C::BytesAllocated),
    req("gfp_flags", C::Gfp),
    opt("node", C::Node),
    opt("accounted", C::Flag),
];
const OBJECT_FREE: &[FieldUse] =
    &[req("call_site", C::Stack), req("ptr", C::PfnOrAddress), opt("name", C::Name)];
const CHUNK: &[FieldUse] = &[req("base_addr", C::PfnOrAddress)];

/// Every tracepoint, in the order of [`Kind`].
pub const ALL: &[Tracepoint] = &[
    must(
        K::PageAlloc,
        G::Page,
        &[
            req("pfn", C::PfnOrAddress),
            req("order", C::Order),
            req("gfp_flags", C::Gfp),
            req("migratetype", C::Migrate),
        ],
    ),
    must(K::PageFree, G::Page, &[req("pfn", C::PfnOrAddress), req("order", C::Order)]),
    may(K::PageFreeBatched, G::Page, &[req("pfn", C::PfnOrAddress)]),
    must(
        K::ZoneLocked,
        G::Page,
        &[
            req("pfn", C::PfnOrAddress),
            req("order", C::Order),
            req("migratetype", C::Migrate),
            opt("percpu_refill", C::Flag),
        ],
    ),
    must(
        K::PcpDrain,
        G::Page,
        &[req("pfn", C::PfnOrAddress), req("order", C::Order), req("migratetype", C::Migrate)],
    ),
    must(
        K::ExtFrag,
        G::Page,
        &[
            req("pfn", C::PfnOrAddress),
            req("alloc_order", C::Order),
            req("fallback_order", C::OtherOrder),
            req("alloc_migratetype", C::Migrate),
            req("fallback_migratetype", C::OtherMigrate),
            req("change_ownership", C::Flag),
        ],
    ),
    may(
        K::ZoneWatermarks,
        G::Page,
        &[
            req("node_id", C::Node),
            req("name", C::Name),
            req("watermark_min", C::Arg0),
            req("watermark_low", C::Arg1),
            req("watermark_high", C::Arg2),
            opt("watermark_promo", C::Arg3),
        ],
    ),
    may(
        K::LowmemReserve,
        G::Page,
        &[
            req("node_id", C::Node),
            req("name", C::Name),
            req("upper_name", C::OtherName),
            req("lowmem_reserve", C::Arg0),
        ],
    ),
    may(K::TotalReserve, G::Page, &[req("totalreserve_pages", C::Arg0)]),
    must(K::Kmalloc, G::Slab, OBJECT_ALLOC),
    may(K::KmallocNode, G::Slab, OBJECT_ALLOC),
    must(K::Kfree, G::Slab, OBJECT_FREE),
    must(K::CacheAlloc, G::Slab, OBJECT_ALLOC),
    may(K::CacheAllocNode, G::Slab, OBJECT_ALLOC),
    must(K::CacheFree, G::Slab, OBJECT_FREE),
    may(
        K::VmapAlloc,
        G::Vmalloc,
        &[
            req("addr", C::PfnOrAddress),
            req("size", C::BytesRequested),
            req("align", C::Arg0),
            req("vstart", C::Arg1),
            req("vend", C::Arg2),
            req("failed", C::Flag),
        ],
    ),
    may(
        K::VmapFree,
        G::Vmalloc,
        &[req("va_start", C::PfnOrAddress), req("nr_lazy", C::Arg0), req("nr_lazy_max", C::Arg1)],
    ),
    may(
        K::VmapPurge,
        G::Vmalloc,
        &[req("start", C::PfnOrAddress), req("end", C::End), req("npurged", C::Arg0)],
    ),
    may(K::PercpuChunkCreate, G::Vmalloc, CHUNK),
    may(K::PercpuChunkDestroy, G::Vmalloc, CHUNK),
    may(
        K::CompactionBegin,
        G::Compaction,
        &[
            req("zone_start", C::PfnOrAddress),
            req("zone_end", C::End),
            req("migrate_pfn", C::Arg0),
            req("free_pfn", C::Arg1),
            req("sync", C::Flag),
        ],
    ),
    may(
        K::CompactionEnd,
        G::Compaction,
        &[
            req("zone_start", C::PfnOrAddress),
            req("zone_end", C::End),
            req("migrate_pfn", C::Arg0),
            req("free_pfn", C::Arg1),
            req("sync", C::Flag),
            req("status", C::Arg2),
        ],
    ),
    may(
        K::CompactionTry,
        G::Compaction,
        &[req("order", C::Order), req("gfp_mask", C::Gfp), req("prio", C::Arg0)],
    ),
    may(K::CompactionFinished, G::Compaction, NODE_ZONE_ORDER_RET),
    may(K::CompactionSuitable, G::Compaction, NODE_ZONE_ORDER_RET),
    may(K::CompactionDeferred, G::Compaction, DEFER),
    may(K::CompactionDefer, G::Compaction, DEFER),
    may(K::CompactionDeferReset, G::Compaction, DEFER),
    may(K::IsolateFree, G::Compaction, ISOLATE),
    may(K::FastIsolateFree, G::Compaction, ISOLATE),
    may(K::IsolateMigrate, G::Compaction, ISOLATE),
    may(
        K::CompactionMigrate,
        G::Compaction,
        &[req("nr_migrated", C::Arg0), req("nr_failed", C::Arg1)],
    ),
    may(K::KcompactdWakeup, G::Compaction, NODE_ORDER_ZONE),
    may(K::KcompactdWake, G::Compaction, NODE_ORDER_ZONE),
    may(K::KcompactdSleep, G::Compaction, &[req("nid", C::Node)]),
    may(
        K::MigratePages,
        G::Compaction,
        &[
            req("succeeded", C::Arg0),
            req("failed", C::Arg1),
            opt("thp_succeeded", C::Arg2),
            opt("thp_split", C::Arg3),
            req("mode", C::Arg4),
            req("reason", C::Arg5),
        ],
    ),
    may(
        K::PagesIsolated,
        G::Compaction,
        &[req("start_pfn", C::PfnOrAddress), req("end_pfn", C::End), req("fin_pfn", C::Arg0)],
    ),
    may(K::DirectReclaimBegin, G::Reclaim, RECLAIM_BEGIN),
    may(K::DirectReclaimEnd, G::Reclaim, RECLAIM_END),
    may(K::MemcgReclaimBegin, G::Reclaim, RECLAIM_BEGIN),
    may(K::MemcgReclaimEnd, G::Reclaim, RECLAIM_END),
    may(
        K::NodeReclaimBegin,
        G::Reclaim,
        &[req("nid", C::Node), req("order", C::Order), req("gfp_flags", C::Gfp)],
    ),
    may(K::NodeReclaimEnd, G::Reclaim, RECLAIM_END),
    may(
        K::KswapdWakeup,
        G::Reclaim,
        &[
            req("nid", C::Node),
            req("zid", C::Arg0),
            req("order", C::Order),
            opt("gfp_flags", C::Gfp),
        ],
    ),
    may(
        K::KswapdWake,
        G::Reclaim,
        &[req("nid", C::Node), req("zid", C::Arg0), req("order", C::Order)],
    ),
    may(K::KswapdSleep, G::Reclaim, &[req("nid", C::Node)]),
    may(
        K::ShrinkInactive,
        G::Reclaim,
        &[
            req("nid", C::Node),
            req("nr_scanned", C::Arg0),
            req("nr_reclaimed", C::Arg1),
            opt("nr_dirty", C::Arg2),
            opt("nr_writeback", C::Arg3),
            opt("priority", C::Arg4),
        ],
    ),
    may(
        K::ShrinkSlabStart,
        G::Reclaim,
        &[
            opt("nid", C::Node),
            req("nr_objects_to_shrink", C::Arg0),
            req("cache_items", C::Arg1),
            req("total_scan", C::Arg2),
            opt("priority", C::Arg3),
            opt("gfp_flags", C::Gfp),
        ],
    ),
    may(
        K::ShrinkSlabEnd,
        G::Reclaim,
        &[
            opt("nid", C::Node),
            req("retval", C::Arg0),
            req("unused_scan", C::Arg1),
            req("new_scan", C::Arg2),
            req("total_scan", C::Arg3),
        ],
    ),
    may(K::OomVictim, G::Oom, &[req("pid", C::Arg0)]),
    may(
        K::OomRetryZone,
        G::Oom,
        &[
            req("node", C::Node),
            req("zone_idx", C::Arg0),
            req("order", C::Order),
            req("reclaimable", C::Arg1),
            req("available", C::Arg2),
            req("min_wmark", C::Arg3),
            req("no_progress_loops", C::Arg4),
            req("wmark_check", C::Flag),
        ],
    ),
    may(
        K::OomCompactRetry,
        G::Oom,
        &[
            req("order", C::Order),
            req("priority", C::Arg0),
            req("result", C::Arg1),
            req("retries", C::Arg2),
            req("max_retries", C::Arg3),
            req("ret", C::Flag),
        ],
    ),
];

/// The tracepoint of a kind; `None` for [`Kind::Unknown`].
#[must_use]
pub fn of(kind: Kind) -> Option<&'static Tracepoint> {
    ALL.get(kind as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_kinds_and_complete() {
        assert_eq!(ALL.len(), Kind::ALL.len());
        for (row, (kind, name)) in ALL.iter().zip(Kind::ALL) {
            assert_eq!(row.kind, *kind);
            assert_eq!(format!("{}:{}", row.system(), row.event()), *name);
        }
    }

    #[test]
    fn no_tracepoint_fills_a_column_twice() {
        for row in ALL {
            let mut bits = 0u32;
            for field in row.fields {
                assert_eq!(bits & field.column.bit(), 0, "{} {}", row.kind.name(), field.field);
                bits |= field.column.bit();
            }
        }
    }
}
