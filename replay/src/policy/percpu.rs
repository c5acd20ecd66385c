//! How long per-CPU lists grow and how much moves at once between them and the buddy lists.

use std::fmt::Debug;
use std::sync::Arc;

use super::Entry;
use crate::machine::ZoneSpan;
use crate::rules::{PcpHigh, Rules};

mod auto;
mod fixed;
mod low_watermark;
mod off;

/// Largest order that is not "costly".
const COSTLY_ORDER: u8 = 3;
/// `CONFIG_PCP_BATCH_SCALE_MAX`: how far a batch may be scaled up, as a power of two.
const SCALE_MAX: u32 = 5;

/// Limits and counters of the lists of one zone and processor, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerCpu {
    /// Pages on the lists.
    pub count: i64,
    /// Limit above which a free drains.
    pub high: i64,
    /// Least value of `high`.
    pub high_min: i64,
    /// Largest value of `high`.
    pub high_max: i64,
    /// Pages moved at once, unscaled.
    pub batch: i64,
    /// How far the next refill is scaled up.
    pub alloc_factor: u32,
    /// Pages freed lately (6.7 and later).
    pub free_count: i64,
    /// How far the next drain is scaled up (6.6 and older).
    pub free_factor: u32,
    /// The last free was of order 1 to 3.
    pub freed_high_order: bool,
}

impl PerCpu {
    /// What a free leaves in the counters.
    pub(crate) fn note_free(&mut self, order: u8) {
        self.alloc_factor >>= 1;
        self.freed_high_order = is_high_order(order);
        if self.free_count < self.batch << SCALE_MAX {
            self.free_count += 1 << order;
        }
    }

    /// What an allocation leaves in the counters.
    pub(crate) fn note_alloc(&mut self) {
        self.free_count >>= 1;
        self.free_factor >>= 1;
    }

    /// What a refill of order 0 leaves in the counters.
    pub(crate) fn note_refill(&mut self) {
        self.alloc_factor = (self.alloc_factor + 1).min(SCALE_MAX);
    }

    /// What a drain leaves in the counters.
    pub(crate) fn note_drain(&mut self) {
        self.free_factor = (self.free_factor + 1).min(SCALE_MAX);
    }
}

/// An order above 0 that is not costly.
fn is_high_order(order: u8) -> bool {
    order > 0 && order <= COSTLY_ORDER
}

/// What weighs on a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// kswapd is at work (`ZONE_RECLAIM_ACTIVE`).
    pub reclaiming: bool,
    /// Free pages were below the high watermark (`ZONE_BELOW_HIGH`).
    pub below_high: bool,
}

/// Decides on per-CPU lists. The mechanism keeps `count`; everything else is the policy's.
pub trait PerCpuPolicy: Debug + Send + Sync {
    /// Whether anything is kept per CPU at all.
    fn is_on(&self) -> bool {
        true
    }

    /// The limits at the start, and when the zone's size or watermarks change: `told` are those of
    /// the recorded kernel, `cpus` the processors that share the zone.
    fn limits(&self, told: PerCpu, _zone: &ZoneSpan, _cpus: usize) -> PerCpu {
        told
    }

    /// A block is asked for (before a refill).
    fn allocated(&self, pcp: &mut PerCpu) {
        pcp.note_alloc();
    }

    /// Blocks of one refill.
    fn refill_blocks(&self, pcp: &mut PerCpu, order: u8, pressure: Pressure) -> i64;

    /// A block was freed to the lists and counted: pages to drain, if any.
    fn freed(&self, pcp: &mut PerCpu, order: u8, pressure: Pressure) -> Option<i64>;

    /// The vmstat worker comes by, once a second: pages to drain, a batch at a time.
    fn decay(&self, _pcp: &mut PerCpu) -> i64 {
        0
    }
}

pub(super) fn baseline(rules: &Rules) -> Arc<dyn PerCpuPolicy> {
    match rules.pcp_high {
        PcpHigh::SixBatches => Arc::new(fixed::Fixed { batch: None, high: None }),
        PcpHigh::LowWatermark => Arc::new(low_watermark::LowWatermark::of(rules)),
        PcpHigh::Auto => Arc::new(auto::Auto::of(rules)),
    }
}

/// Every per-CPU list policy.
pub const ALL: &[Entry<dyn PerCpuPolicy>] =
    &[auto::ENTRY, low_watermark::ENTRY, fixed::ENTRY, off::ENTRY];

/// Blocks of a refill of one batch: fewer of the higher orders, two at least.
fn batch_blocks(batch: i64, order: u8) -> i64 {
    if order > 0 && batch > 1 { (batch >> order).max(2) } else { batch }
}
