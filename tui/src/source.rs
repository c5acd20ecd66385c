//! Where the screen's numbers come from: a recording, one that is still being written, or `/proc`.

use std::collections::BTreeMap;
use std::sync::Arc;

use kmemlab_trace::measure;
use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::unit::{Nanos, NodeId};

use crate::app::View;
use crate::history::History;
use crate::marks::Marks;
use crate::parts::{BlockMap, Comparison, Latency, Site, Vmalloc};

/// What may go wrong in a source: its implementors live above this crate and bring errors of
/// several.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// A stretch of time, any moment of which can be looked at. A live one grows at its end.
pub trait Source {
    /// Everything but the moments themselves.
    fn outline(&self) -> &Outline;

    /// Takes in what is new; tells whether the outline changed, or what [`Self::load`] would
    /// answer.
    ///
    /// # Errors
    /// The source is gone. What was known of it can still be loaded.
    fn refresh(&mut self) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// The state at a moment, as far as the view needs it.
    ///
    /// # Errors
    /// That moment cannot be read.
    fn load(&mut self, at: Nanos, view: View) -> Result<Snapshot, SourceError>;
}

/// What is known of a source before any moment of it is looked at.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outline {
    /// What it is.
    pub about: About,
    /// When `/proc` was read, ascending: where steps lead.
    pub times: Vec<Nanos>,
    /// Where the time bar begins.
    pub begin: Nanos,
    /// Where it ends.
    pub end: Nanos,
    /// Fragmentation over all of it.
    pub history: History,
    /// Events missing from it.
    pub loss: Loss,
    /// Moments worth a look.
    pub marks: Arc<Marks>,
    /// It grows.
    pub is_live: bool,
    /// What is still being worked out in the background.
    pub work: Option<Work>,
}

/// Work in the background.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// What it is for.
    pub what: String,
    /// How much of it is done, in hundredths.
    pub percent: u8,
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
}

/// A part of a snapshot, or why it is not there.
#[derive(Clone, PartialEq, Debug)]
pub enum Told<T> {
    /// Here it is.
    Yes(T),
    /// A sentence that says what is missing, and what mends it.
    No(String),
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self::No(String::new())
    }
}

impl<T> Told<T> {
    /// The part, if it is there.
    pub fn yes(&self) -> Option<&T> {
        match self {
            Self::Yes(part) => Some(part),
            Self::No(_) => None,
        }
    }
}

/// The state at one moment. `None` means "not told", never zero.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// When.
    pub at: Nanos,
    /// When the free blocks were read from `/proc`; `None` when they are those of this very
    /// moment, rebuilt from the events.
    pub zones_at: Option<Nanos>,
    /// How far the rebuilt state was from the last reading of `/proc` before.
    pub mirror_error: Option<MirrorError>,
    /// Zones in the kernel's order.
    pub zones: Vec<ZoneState>,
    /// Share of time that tasks waited for memory.
    pub pressure: Option<Pressure>,
    /// What `/proc/vmstat` counted, a second, in the order of the screen.
    pub counters: Vec<(&'static str, u64)>,
    /// Slab caches.
    pub slabs: Told<SlabSample>,
    /// Places that allocate.
    pub sites: Told<Vec<Site>>,
    /// Page blocks.
    pub blocks: Told<Arc<BlockMap>>,
    /// The vmalloc space.
    pub vmalloc: Told<Vmalloc>,
    /// Several tellers side by side.
    pub comparison: Told<Comparison>,
    /// Stalls up to this moment.
    pub latency: Told<Arc<Latency>>,
}

/// The state as rebuilt from the events, held against the kernel's own word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MirrorError {
    /// When `/proc/buddyinfo` was read.
    pub at: Nanos,
    /// Pages that stand at another order.
    pub wrong_pages: u64,
    /// Free pages.
    pub free_pages: u64,
}

/// `/proc/pressure/memory`, averages over ten seconds, in hundredths of a percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// Some task waited.
    pub some: u32,
    /// All tasks waited.
    pub full: u32,
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
    /// Active objects of each cache one reading earlier, and when that was.
    pub before: Option<(Nanos, Arc<BTreeMap<String, u64>>)>,
    /// The site that holds most of each cache, where events tell.
    pub top_sites: Arc<BTreeMap<Arc<str>, Arc<str>>>,
}

impl SlabSample {
    /// Active objects by cache.
    #[must_use]
    pub fn active(&self) -> BTreeMap<String, u64> {
        self.rows.iter().map(|row| (row.cache.clone(), row.active_objects)).collect()
    }
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
