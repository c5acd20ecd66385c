//! What a replay writes down.

use crate::memory::Work;
use crate::mirror::{PcpHits, Residue};
use crate::model::{FallbackCounts, ModelCounts};
use crate::policy::PolicySet;
use crate::residue::ResidueTable;

/// The result of a replay.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Rules row used.
    pub rules: String,
    /// Where the kernel was found to work otherwise than its release's row says.
    pub rules_by_probe: Vec<String>,
    /// Events of every kind.
    pub events: u64,
    /// Of those, the page allocator's.
    pub page_events: u64,
    /// Events that the recording's rings dropped.
    pub lost_events: u64,
    /// Batches passed over because they are damaged.
    pub damaged_batches: u64,
    /// Time of the first event.
    pub start_ns: u64,
    /// Span of the events, nanoseconds.
    pub span_ns: u64,
    /// When the models began: the page map was whole.
    pub began_ns: u64,
    /// The mirror against the kernel.
    pub mirror: MirrorResult,
    /// The model against the kernel.
    pub model: ModelResult,
    /// The model under other policies than the recorded kernel's.
    pub policies: Vec<PolicyOutcome>,
    /// Counts by zone and order at the sample where the model was worst.
    pub worst: Option<Comparison>,
    /// Counts by zone and order at the last sample.
    pub last: Option<Comparison>,
    /// Digest of the mirror's and the model's final states.
    pub digest: u64,
    /// What a reader should know, in whole sentences.
    pub notes: Vec<String>,
}

/// What a set of policies came to.
#[derive(Clone, Debug)]
pub struct PolicyOutcome {
    /// The set.
    pub policies: PolicySet,
    /// Against the kernel: here a difference is the policies' doing, but for the baseline's.
    pub result: ModelResult,
    /// Counts by zone and order where it differed most from the kernel.
    pub worst: Option<Comparison>,
    /// Counts by zone and order at the last sample.
    pub last: Option<Comparison>,
}

/// The mirror against the kernel.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MirrorResult {
    /// Samples of `/proc/buddyinfo` compared.
    pub samples: u64,
    /// Samples equal at every zone and order at some moment of their reading.
    pub exact_samples: u64,
    /// Sum over inexact samples of the pages at a wrong order.
    pub sample_wrong_pages: u64,
    /// Pages of the last page map that are free in one and not in the other; `None` without one.
    pub wrong_pages: Option<u64>,
    /// Free pages of the last page map.
    pub free_pages: u64,
    /// Of the wrong pages: free only in the mirror.
    pub mirror_only_pages: u64,
    /// Of the wrong pages: free only in the kernel.
    pub kernel_only_pages: u64,
    /// Samples whose reading no event of the page allocator fell into.
    pub quiet_samples: u64,
    /// Of those, the ones equal at every zone and order.
    pub exact_quiet_samples: u64,
    /// What could not be taken as said, by cause.
    pub residue: Residue,
    /// The same by place, zone, cause and order, with steps between samples and the last page map.
    pub table: ResidueTable,
    /// The mirror's per-CPU lists against `/proc/zoneinfo`.
    pub pcp_counts: PcpCounts,
    /// Pages that the zones grew by while recording.
    pub new_pages: u64,
    /// When events are missing and the state is unsure.
    pub unsure: Vec<Unsure>,
    /// How well the per-CPU lists were followed.
    pub pcp_hits: PcpHits,
    /// Bytes of state.
    pub state_bytes: u64,
    /// Speed.
    pub speed: Speed,
}

/// Pages on the per-CPU lists: the mirror against `/proc/zoneinfo`, each zone and processor at each
/// sample once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PcpCounts {
    /// Counts compared.
    pub compared: u64,
    /// Those equal at some moment of their reading.
    pub equal: u64,
    /// Largest difference, pages.
    pub worst_pages: u64,
    /// Sum of all differences, pages.
    pub wrong_pages: u64,
    /// Pages on the lists at the start that never left them: taken as given from the first sample.
    pub unknown_pages: u64,
}

/// An interval in which events are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unsure {
    /// Last event known before the gap.
    pub from_ns: u64,
    /// The sample at which all counts were equal again, or were made so; `None` to the end.
    pub until_ns: Option<u64>,
    /// Events missing.
    pub lost_events: u64,
    /// Pages taken off the mirror's lists to make its counts the kernel's.
    pub removed_pages: u64,
    /// Pages put on them: places unknown unless they waited on a per-CPU list.
    pub added_pages: u64,
}

/// The model against the kernel.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ModelResult {
    /// Mean order error over samples and zones with events, percent.
    pub order_error_mean_percent: f64,
    /// Largest order error of any sample and zone with events, percent.
    pub order_error_worst_percent: f64,
    /// Order error of all zones together, events or not, mean over samples, percent.
    pub order_difference_percent: f64,
    /// Where allocations went.
    pub placement: Placement,
    /// Unusable free space index: mean and worst difference, by order.
    pub unusable: Vec<UnusableError>,
    /// Unusable free space index of the whole machine, by order.
    pub unusable_index: Vec<UnusableIndex>,
    /// Fallbacks.
    pub fallback: FallbackError,
    /// Refills and drains of the per-CPU lists.
    pub moved: MovedError,
    /// Work done.
    pub work: Work,
    /// Allocations that the kernel failed.
    pub kernel_failures: u64,
    /// Times that the kernel woke kswapd.
    pub kernel_kswapd_wakes: u64,
    /// Order error over time.
    pub drift: Vec<DriftPoint>,
    /// What the model did.
    pub counts: ModelCounts,
    /// Bytes of state, bindings included.
    pub state_bytes: u64,
    /// Speed.
    pub speed: Speed,
    /// What layers above the pages asked for.
    pub own: OwnCounts,
}

/// How often the model put an allocation where the kernel did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// Allocations compared.
    pub allocs: u64,
    /// At the very page frame.
    pub exact: u64,
    /// In the same pageblock.
    pub same_block: u64,
    /// Allocations of order 0 compared.
    pub order0_allocs: u64,
    /// Those at the very page frame.
    pub order0_exact: u64,
}

impl Placement {
    /// Share of allocations at the kernel's page frame, percent.
    #[must_use]
    pub fn exact_percent(&self) -> f64 {
        percent(self.exact, self.allocs)
    }

    /// Share of order-0 allocations at the kernel's page frame, percent.
    #[must_use]
    pub fn order0_exact_percent(&self) -> f64 {
        percent(self.order0_exact, self.order0_allocs)
    }

    /// Share of allocations in the kernel's pageblock, percent.
    #[must_use]
    pub fn same_block_percent(&self) -> f64 {
        percent(self.same_block, self.allocs)
    }
}

pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Difference of the unusable free space index at one order, in points (hundredths).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct UnusableError {
    /// Order.
    pub order: u8,
    /// Mean of the absolute difference over samples and zones with events.
    pub mean_points: f64,
    /// Largest.
    pub worst_points: f64,
}

/// The unusable free space index of all zones together at one order, in points (hundredths).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct UnusableIndex {
    /// Order.
    pub order: u8,
    /// The kernel's, mean over the samples.
    pub kernel_mean_points: f64,
    /// The model's, mean over the samples.
    pub model_mean_points: f64,
    /// The kernel's at the last sample.
    pub kernel_last_points: f64,
    /// The model's at the last sample.
    pub model_last_points: f64,
    /// Mean over the samples of the absolute difference.
    pub error_mean_points: f64,
    /// The largest difference of any sample.
    pub error_worst_points: f64,
}

/// Refills and drains of per-CPU lists, recorded and modelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MovedError {
    /// The kernel's refills.
    pub kernel_refills: u64,
    /// The model's refills.
    pub model_refills: u64,
    /// Pairs of the two with the same order and number of blocks.
    pub equal_refills: u64,
    /// The kernel's drains.
    pub kernel_drains: u64,
    /// The model's drains.
    pub model_drains: u64,
    /// Pairs of the two with the same number of pages.
    pub equal_drains: u64,
}

impl MovedError {
    /// Share of the refills that have one of equal size on the other side, percent.
    #[must_use]
    pub fn equal_refills_percent(&self) -> f64 {
        share(self.equal_refills, self.kernel_refills.max(self.model_refills))
    }

    /// Share of the drains that have one of equal size on the other side, percent.
    #[must_use]
    pub fn equal_drains_percent(&self) -> f64 {
        share(self.equal_drains, self.kernel_drains.max(self.model_drains))
    }
}

/// A share in percent; of nothing, all.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { percent(part, whole) }
}

/// Fallbacks by kind, recorded and modelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FallbackError {
    /// Recorded `mm_page_alloc_extfrag` events.
    pub kernel: FallbackCounts,
    /// The model's.
    pub model: FallbackCounts,
}

/// Order error at one sample.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct DriftPoint {
    /// Time since the first sample, nanoseconds.
    pub since_ns: u64,
    /// Order error over all zones with events, percent.
    pub order_error_percent: f64,
}

/// How fast a replay went.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Speed {
    /// Time spent, nanoseconds; 0 when no clock was given.
    pub spent_ns: u64,
    /// Events of any kind gone through in that time.
    pub events: u64,
    /// Of those, the page allocator's.
    pub page_events: u64,
}

impl Speed {
    /// Events of any kind per second.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        per_second(self.events, self.spent_ns)
    }

    /// Page events per second.
    #[must_use]
    pub fn page_events_per_second(&self) -> f64 {
        per_second(self.page_events, self.spent_ns)
    }
}

fn per_second(count: u64, spent_ns: u64) -> f64 {
    if spent_ns == 0 { 0.0 } else { count as f64 * 1e9 / spent_ns as f64 }
}

/// Free blocks at one sample.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    /// When the kernel's file was read.
    pub at_ns: u64,
    /// Time since the first event.
    pub since_ns: u64,
    /// Zones.
    pub zones: Vec<ZoneComparison>,
}

/// Free blocks of one zone at one sample, by order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ZoneComparison {
    /// NUMA node.
    pub node: u16,
    /// Zone name.
    pub zone: String,
    /// `/proc/buddyinfo`.
    pub kernel: Vec<u64>,
    /// The mirror.
    pub mirror: Vec<u64>,
    /// The model.
    pub model: Vec<u64>,
}

/// What layers above the pages asked for and gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnCounts {
    /// Blocks taken.
    pub allocs: u64,
    /// Blocks given back.
    pub frees: u64,
    /// Requests that found no memory.
    pub failures: u64,
    /// Blocks given back that were never placed: they were there before, nobody knows where.
    pub unplaced: u64,
}
