//! The vmalloc address space: which hole an area gets, and when a freed one comes back.

use std::fmt::Debug;
use std::sync::Arc;

use super::{Entry, Param};
use crate::vmap::layer::Tuning;
use crate::vmap::space::Fit;

/// Decides on the vmalloc space.
pub trait VmapLayer: Debug + Send + Sync {
    /// What differs from the recorded kernel.
    fn tuning(&self) -> Tuning;
}

impl VmapLayer for Tuning {
    fn tuning(&self) -> Tuning {
        *self
    }
}

pub(super) fn baseline() -> Arc<dyn VmapLayer> {
    Arc::new(Tuning::default())
}

/// Every vmalloc policy.
pub const ALL: &[Entry<dyn VmapLayer>] = &[
    Entry {
        name: "vmap-recorded",
        help: "The lowest hole that is large enough, pools by processor, purges as recorded.",
        source: "alloc_vmap_area, __purge_vmap_area_lazy, 5.10 to 6.18",
        params: &[],
        make: |_, _| Ok(baseline()),
    },
    Entry {
        name: "vmap-no-pools",
        help: "First fit without pools: what is purged goes back to the free space.",
        source: "alloc_vmap_area, 6.8 and older",
        params: &[],
        make: |_, _| Ok(Arc::new(Tuning { no_pools: true, ..Tuning::default() })),
    },
    Entry {
        name: "vmap-best-fit",
        help: "The smallest hole that is large enough, without pools.",
        source: "best fit (Wilson et al., Dynamic Storage Allocation, 1995)",
        params: &[],
        make: |_, _| Ok(Arc::new(Tuning { fit: Fit::Best, no_pools: true, ..Tuning::default() })),
    },
    Entry {
        name: "vmap-lazy",
        help: "Freed areas are purged at another number of pages, at once.",
        source: "lazy_max_pages with another constant",
        params: &[Param {
            name: "pages",
            default: "16384 for 2 processors",
            help: "pages that may wait, 0 to 2^32",
        }],
        make: |params, _| {
            let pages = params.number("pages", 0..=1 << 32)?;
            Ok(Arc::new(Tuning { lazy_max_pages: pages, ..Tuning::default() }))
        },
    },
];
