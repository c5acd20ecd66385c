//! Where the screen's numbers come from: a recording now, the live kernel later.

use kmemlab_trace::measure;
use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::unit::{Nanos, NodeId};

use crate::history::History;

/// What may go wrong in a source: its implementors live above this crate and bring errors of
/// several.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// A row of moments, each of which can be looked at.
pub trait Source {
    /// Everything but the snapshots themselves.
    fn outline(&self) -> &Outline;

    /// The state at [`Outline::times`]`[index]`.
    ///
    /// # Errors
    /// The snapshot cannot be read.
    fn load(&mut self, index: usize) -> Result<Snapshot, SourceError>;
}

/// What is known of a source before any snapshot of it is looked at.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outline {
    /// What it is.
    pub about: About,
    /// The moments, ascending.
    pub times: Vec<Nanos>,
    /// Fragmentation over all of them.
    pub history: History,
    /// Events missing from it.
    pub loss: Loss,
}

/// What is being looked at, for the titles.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// kmemlab's version.
    pub version: String,
    /// Name of the recording.
    pub name: String,
    /// The machine and its kernel.
    pub host: String,
    /// Bytes of a page there.
    pub page_size_bytes: u64,
    /// Where the clock counts from.
    pub start: Nanos,
    /// Wall clock at that moment, nanoseconds since 1970.
    pub start_realtime_ns: u64,
    /// What a reader should know, in whole sentences.
    pub notes: Vec<String>,
}

/// Events that are missing, because a ring had no room for them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loss {
    /// In all.
    pub events: u64,
    /// Times that a ring told of a gap.
    pub gaps: u64,
    /// Processors whose ring told of one.
    pub cpus: u64,
    /// Events lost between the snapshot before and each snapshot.
    pub by_snapshot: Vec<u64>,
}

/// The state at one moment. `None` means "not told", never zero.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// When.
    pub at: Nanos,
    /// Zones in the kernel's order.
    pub zones: Vec<ZoneState>,
    /// Slab caches.
    pub slabs: Option<SlabSample>,
}

/// A zone. Pages, unless said otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ZoneState {
    /// Its node.
    pub node: NodeId,
    /// Its name.
    pub zone: String,
    /// Free blocks by order; empty when not told.
    pub free_blocks: Vec<u64>,
    /// Pages given to the page allocator.
    pub managed: Option<u64>,
    /// Free pages by the zone's own counter.
    pub free: Option<u64>,
    /// Below this, allocations reclaim directly.
    pub min: Option<u64>,
    /// Below this, kswapd wakes.
    pub low: Option<u64>,
    /// Above this, kswapd sleeps.
    pub high: Option<u64>,
    /// Pages on all per-CPU lists.
    pub percpu: Option<u64>,
}

/// `/proc/slabinfo` at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlabSample {
    /// When it was read: near the snapshot's time, not at it.
    pub at: Nanos,
    /// Its caches.
    pub rows: Vec<SlabRow>,
}

impl ZoneState {
    /// `Node 0 Normal`
    #[must_use]
    pub fn label(&self) -> String {
        format!("Node {} {}", self.node, self.zone)
    }

    /// Free pages: the zone's counter, else the sum of its free blocks.
    #[must_use]
    pub fn free_pages(&self) -> Option<u64> {
        let counted = || measure::free_pages(&self.free_blocks);
        self.free.or_else(|| (!self.free_blocks.is_empty()).then(counted))
    }
}

impl Snapshot {
    /// Free blocks by order of all zones together.
    #[must_use]
    pub fn free_blocks(&self) -> Vec<u64> {
        sum_blocks(self.zones.iter().map(|zone| zone.free_blocks.as_slice()))
    }
}

/// Free blocks by order of all zones together.
pub fn sum_blocks<'a>(zones: impl Iterator<Item = &'a [u64]>) -> Vec<u64> {
    let mut sum = Vec::new();
    for blocks in zones {
        if sum.len() < blocks.len() {
            sum.resize(blocks.len(), 0);
        }
        for (total, blocks) in sum.iter_mut().zip(blocks) {
            *total += blocks;
        }
    }
    sum
}
