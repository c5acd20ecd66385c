//! What differs between kernel releases in the slab layer, as data: one row a release that changed
//! something. Files are `mm/slub.c` where no other is named.

/// How the order of a slab is searched for (`calculate_order`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderSearch {
    /// Up to 6.6: fewer and fewer objects, then any waste.
    FewerObjects,
    /// 6.7 and later: up to half of a slab wasted, then the least order.
    HalfOnce,
}

/// What the slab layer does differently from one release to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabRules {
    /// First release (major, minor) this row is for.
    pub since: (u16, u16),
    /// How an order is found.
    pub order_search: OrderSearch,
    /// `nr_cpu_ids`, not the present processors, set the wanted number of objects.
    pub counts_possible_cpus: bool,
    /// A processor's partial slabs are bounded as slabs, not as free objects (5.16).
    pub cpu_partial_in_slabs: bool,
    /// `__GFP_COMP` is set for slabs of order 0 too.
    pub order0_is_compound: bool,
    /// Large kmalloc of a variable size is told twice (`__kmalloc_large_node_noprof`).
    pub large_kmalloc_twice: bool,
    /// The event of a free comes before the free (6.1).
    pub free_event_first: bool,
    /// Caches with sheaves: name and capacity (6.18).
    pub sheaf_caches: &'static [(&'static str, u32)],
    /// The caller that allocates the vectors of object owners, by the start of its name.
    pub vector_site: &'static str,
    /// Accounted kmallocs have caches of their own, `kmalloc-cg-*` (5.14).
    pub cgroup_kmalloc: bool,
    /// A kernel may be built with caches of their own for `msg_msg` and `memdup_user` (6.11).
    pub bucket_kmalloc: bool,
}

const V5_10: SlabRules = SlabRules {
    since: (5, 10),
    order_search: OrderSearch::FewerObjects,
    counts_possible_cpus: true,
    cpu_partial_in_slabs: false,
    order0_is_compound: false,
    large_kmalloc_twice: false,
    free_event_first: false,
    sheaf_caches: &[],
    vector_site: "memcg_alloc_page_obj_cgroups",
    cgroup_kmalloc: false,
    bucket_kmalloc: false,
};
/// `calculate_order` counts present processors (5.12); `KMALLOC_CGROUP` (`include/linux/slab.h`).
const V5_14: SlabRules =
    SlabRules { since: (5, 14), counts_possible_cpus: false, cgroup_kmalloc: true, ..V5_10 };
/// `slub_set_cpu_partial` (5.16); `kmem_cache_free` tells first (6.1).
const V6_1: SlabRules = SlabRules {
    since: (5, 16),
    cpu_partial_in_slabs: true,
    free_event_first: true,
    vector_site: "memcg_alloc_slab_cgroups",
    ..V5_14
};
/// `calculate_order` without the loop over objects (6.7).
const V6_7: SlabRules = SlabRules { since: (6, 7), order_search: OrderSearch::HalfOnce, ..V6_1 };
/// Every slab is compound; `alloc_slab_obj_exts`; two events of a large kmalloc (6.10).
const V6_10: SlabRules = SlabRules {
    since: (6, 10),
    order0_is_compound: true,
    large_kmalloc_twice: true,
    vector_site: "alloc_slab_obj_exts",
    ..V6_7
};
/// `kmem_buckets_create` (`mm/slab_common.c`).
const V6_11: SlabRules = SlabRules { since: (6, 11), bucket_kmalloc: true, ..V6_10 };
/// Sheaves and barns.
const V6_18: SlabRules = SlabRules {
    since: (6, 18),
    sheaf_caches: &[("maple_node", 32), ("vm_area_struct", 32)],
    ..V6_11
};

/// Every row, oldest first.
pub const ALL: &[SlabRules] = &[V5_10, V5_14, V6_1, V6_7, V6_10, V6_11, V6_18];

impl SlabRules {
    /// The rules of a kernel release; the newest for what cannot be read.
    #[must_use]
    pub fn of(release: &str) -> Self {
        *crate::rules::row_of(ALL, |row| row.since, release).unwrap_or(&V5_10)
    }

    /// The name of the row: its first release.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.since.0, self.since.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_gets_the_newest_row_not_newer_than_it() {
        for (release, since) in [
            ("5.10.89", (5, 10)),
            ("6.1.119", (5, 16)),
            ("6.6.63", (5, 16)),
            ("6.10.1", (6, 10)),
            ("6.12.117", (6, 11)),
            ("6.18.44-fc", (6, 18)),
            ("nonsense", (6, 18)),
        ] {
            assert_eq!(SlabRules::of(release).since, since, "{release}");
        }
    }
}
