//! What a replay of the layers above pages came to.

use kmemlab_trace::direct_map::DirectMap;

use crate::outcome::Outcome;
use crate::policy::Chosen;
use crate::slab::follow::FollowCounts;
use crate::slab::policy::Occupancy;
use crate::stack::rules::StackRules;
use crate::stack::sums::{CacheSample, SlabSums};
use crate::vmap::drive::VmapOutcome;

/// The whole result.
#[derive(Clone, Debug, Default)]
pub struct StackOutcome {
    /// Events of the recording.
    pub events: u64,
    /// Time of the first pass, nanoseconds; 0 without a clock.
    pub learning_ns: u64,
    /// Rules that the model decided by.
    pub rules: StackRules,
    /// Page rules that a probe of the recorded kernel set, in words.
    pub rules_by_probe: Vec<String>,
    /// The direct map as inferred.
    pub direct_map: Option<DirectMap>,
    /// What could not be taken as said.
    pub follow: FollowCounts,
    /// The recorded kernel's own policies.
    pub baseline: StackRun,
    /// The others.
    pub policies: Vec<StackRun>,
    /// Order error of a replay of the pages alone, in percent: mean and worst. Only if the laws are
    /// checked, for it takes as long again.
    pub pages_alone: Option<(f64, f64)>,
    /// What is missing, in whole sentences.
    pub notes: Vec<String>,
}

/// One set of policies over the recording.
#[derive(Clone, Debug, Default)]
pub struct StackRun {
    /// The set's name.
    pub name: String,
    /// What differs from the recorded kernel.
    pub chosen: Vec<Chosen>,
    /// The slab layer.
    pub slab: SlabOutcome,
    /// The vmalloc layer.
    pub vmap: VmapOutcome,
    /// The page model under the layers, against the kernel; `None` where events are missing.
    pub pages: Option<Outcome>,
    /// Time of the layers' own pass over the events, nanoseconds.
    pub spent_ns: u64,
}

impl StackOutcome {
    /// Events of any kind per second of the baseline's pass.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        match self.baseline.spent_ns {
            0 => 0.0,
            spent => self.events as f64 * 1e9 / spent as f64,
        }
    }
}

/// The slab layer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SlabOutcome {
    /// By cache, in the order of `/proc/slabinfo`.
    pub caches: Vec<CacheOutcome>,
    /// The call sites that waste most bytes of what they are given.
    pub sites: Vec<SiteOutcome>,
    /// Pages of all slabs at the end.
    pub pages_model: u64,
    /// Pages of all slabs at the last sample.
    pub pages_kernel: u64,
    /// Samples of `/proc/slabinfo` compared.
    pub samples: u64,
    /// All caches together, summed over the samples.
    pub sums: SlabSums,
    /// Every cache was shrunk before the last sample: what is free stands on the nodes' lists.
    pub is_shrunk: bool,
    /// What was live at the start stood in full slabs of the layer's own.
    pub starts_compact: bool,
    /// Every cache at every sample, if that was asked for.
    pub rows: Vec<CacheSample>,
    /// |model - kernel| of all slab pages, in percent of the kernel's: mean over the samples.
    pub pages_error_percent: f64,
    /// The same at its worst sample.
    pub pages_error_worst_percent: f64,
    /// Caches and samples where the followed page events give the kernel's number of slabs.
    pub followed_exact: u64,
    /// Of so many caches and samples.
    pub followed: u64,
    /// Pages that the followed events and `/proc/slabinfo` differ by, summed over the samples.
    pub followed_wrong_pages: u64,
    /// Merged caches were apart.
    pub apart: Option<Apart>,
    /// Bytes of state held by the layer and the follower.
    pub state_bytes: u64,
    /// Live objects at the end.
    pub live_objects: u64,
    /// Most objects live at once.
    pub peak_live_objects: u64,
}

/// How merged caches were told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Apart {
    /// Merged caches that were asked for objects.
    pub merged_caches: u64,
    /// Caches beside them that a function's name tells.
    pub caches_by_name: u64,
    /// Caches made for a function that tells no name.
    pub caches_by_function: u64,
    /// Objects allocated from the first.
    pub objects_by_name: u64,
    /// Objects allocated from the second.
    pub objects_by_function: u64,
}

/// One cache.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CacheOutcome {
    /// Name.
    pub name: String,
    /// Slabs that the model made.
    pub new_slabs_model: u64,
    /// Slabs that the kernel made, by its page events.
    pub new_slabs_kernel: u64,
    /// Slabs that the model gave back.
    pub released_slabs_model: u64,
    /// Slabs that the kernel gave back.
    pub released_slabs_kernel: u64,
    /// Slabs at the last sample.
    pub slabs_model: u64,
    /// Slabs at the last sample.
    pub slabs_kernel: u64,
    /// Slabs at the last sample, by following the page events.
    pub slabs_followed: u64,
    /// Objects counted as used at the last sample.
    pub active_objects_model: u64,
    /// Objects counted as used at the last sample.
    pub active_objects_kernel: u64,
    /// Frees that no event showed.
    pub hidden_frees: u64,
    /// Allocations that no event showed.
    pub hidden_allocs: u64,
    /// Object events.
    pub events: u64,
    /// How full the model's slabs are at the end.
    pub occupancy: Occupancy,
    /// Slabs that the model made soon after it gave one back.
    pub ping_pong: u64,
    /// Slabs that the model made of the least order, for want of memory.
    pub min_order_model: u64,
    /// Slabs that the kernel made of a lower order than the cache's.
    pub min_order_kernel: u64,
    /// Pages of the model's slabs at the end.
    pub pages_model: u64,
    /// Bytes asked for by the allocations.
    pub asked_bytes: u64,
    /// Bytes given for them.
    pub given_bytes: u64,
    /// Bytes from one object to the next.
    pub stride_bytes: u64,
    /// Why events are missing, as far as it can be told.
    pub cause: Cause,
    /// Room for objects in the model's slabs at the end.
    pub room: u64,
    /// How full the kernel's slabs are at the end, by its objects' addresses.
    pub occupancy_kernel: Occupancy,
    /// Room for objects in the kernel's slabs at the end, likewise.
    pub room_kernel: u64,
    /// Slabs that the kernel made soon after it gave one back.
    pub ping_pong_kernel: u64,
    /// Objects free on the nodes' lists at the last sample, as `/proc/slabinfo` counts them.
    pub listed_free_kernel: u64,
    /// The same of the model.
    pub listed_free_model: u64,
}

impl SlabOutcome {
    /// Slabs made of a lower order than the cache's for want of memory: by the model, by the
    /// kernel.
    #[must_use]
    pub fn min_orders(&self) -> (u64, u64) {
        let of = |cache: &CacheOutcome| (cache.min_order_model, cache.min_order_kernel);
        self.caches.iter().map(of).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }
}

impl CacheOutcome {
    /// Share of the model's room that holds live objects, in percent.
    #[must_use]
    pub fn utilisation_percent(&self) -> f64 {
        self.occupancy.live as f64 * 100.0 / self.room.max(1) as f64
    }

    /// The same of the kernel.
    #[must_use]
    pub fn utilisation_kernel_percent(&self) -> f64 {
        self.occupancy_kernel.live as f64 * 100.0 / self.room_kernel.max(1) as f64
    }

    /// Bytes free in slabs that are neither empty nor full.
    #[must_use]
    pub fn partial_waste_bytes(&self) -> u64 {
        self.occupancy.partial_free * self.stride_bytes
    }

    /// What model and kernel differ by in bytes free on the nodes' lists, at the last sample.
    #[must_use]
    pub fn listed_waste_error_bytes(&self) -> u64 {
        self.listed_free_model.abs_diff(self.listed_free_kernel) * self.stride_bytes
    }

    /// The same of the kernel.
    #[must_use]
    pub fn partial_waste_kernel_bytes(&self) -> u64 {
        self.occupancy_kernel.partial_free * self.stride_bytes
    }
}

/// Why events of a cache are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cause {
    /// None are.
    #[default]
    Complete,
    /// Sheaves: `kfree_rcu` puts objects into them and tells nothing.
    Sheaf,
    /// Objects allocated and freed in bulk.
    Bulk,
    /// Objects freed in bulk only: `kfree_rcu`.
    KfreeRcu,
    /// Threads whose events no tracer shows: whole slabs came unseen.
    HiddenThreads,
}

impl Cause {
    /// Its name in JSON; `None` when nothing is missing.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::Sheaf => Some("sheaf"),
            Self::Bulk => Some("bulk"),
            Self::KfreeRcu => Some("kfree_rcu"),
            Self::HiddenThreads => Some("hidden threads"),
        }
    }
}

/// A call site.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SiteOutcome {
    /// Its row in the table of stacks.
    pub stack: u32,
    /// Kernel address.
    pub address: u64,
    /// `function+0xoffset`.
    pub name: String,
    /// Objects allocated.
    pub allocs: u64,
    /// Bytes asked for.
    pub asked_bytes: u64,
    /// Bytes given.
    pub given_bytes: u64,
}
