//! What a replay of the layers above pages came to.

use crate::slab::base::DirectMap;
use crate::slab::follow::FollowCounts;
use crate::slab::policy::Occupancy;
use crate::vmap::drive::VmapOutcome;

/// The whole result.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StackOutcome {
    /// Events of the recording.
    pub events: u64,
    /// Time of the first pass, nanoseconds; 0 without a clock.
    pub learning_ns: u64,
    /// Time of the second pass.
    pub spent_ns: u64,
    /// The direct map as inferred.
    pub direct_map: Option<DirectMap>,
    /// What could not be taken as said.
    pub follow: FollowCounts,
    /// The slab layer.
    pub slab: SlabOutcome,
    /// The vmalloc layer.
    pub vmap: VmapOutcome,
    /// What is missing, in whole sentences.
    pub notes: Vec<String>,
}

impl StackOutcome {
    /// Events of any kind per second of the second pass.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        if self.spent_ns == 0 { 0.0 } else { self.events as f64 * 1e9 / self.spent_ns as f64 }
    }
}

/// The slab layer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SlabOutcome {
    /// Name of the policy.
    pub policy: String,
    /// By cache, in the order of `/proc/slabinfo`.
    pub caches: Vec<CacheOutcome>,
    /// Samples of `/proc/slabinfo` compared.
    pub samples: u64,
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
    /// Bytes of state held by the layer and the follower.
    pub state_bytes: u64,
    /// Live objects at the end.
    pub live_objects: u64,
    /// Most objects live at once.
    pub peak_live_objects: u64,
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
    /// Pages of the model's slabs at the end.
    pub pages_model: u64,
    /// Bytes asked for by the allocations.
    pub asked_bytes: u64,
    /// Bytes given for them.
    pub given_bytes: u64,
}
