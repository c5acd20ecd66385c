//! What the views beyond slabs and zones show. Built by a source, painted by a view.

use std::sync::Arc;

use kmemlab_trace::snapshot::VmallocRow;
use kmemlab_trace::unit::Nanos;

/// A place in the kernel that allocates, and what it holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Site {
    /// Function that asked.
    pub label: Arc<str>,
    /// Slab cache, `page` or `vmalloc`.
    pub cache: Arc<str>,
    /// The whole call chain, innermost first; the label alone when no chain was recorded.
    pub stack: Arc<[Arc<str>]>,
    /// Bytes given and not freed, of what was seen allocated.
    pub live_bytes: u64,
    /// Of those bytes, the ones that nobody asked for.
    pub waste_bytes: u64,
    /// Objects given and not freed.
    pub live_objects: u64,
    /// Allocations.
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Bytes allocated a second, smoothed over the last seconds.
    pub allocated_per_second: u64,
    /// Bytes freed a second, the same.
    pub freed_per_second: u64,
    /// Mean age of the live objects.
    pub age_ns: Option<u64>,
    /// Page orders asked for, a bit each.
    pub orders: u32,
    /// The kernel counts fewer objects in the cache than were seen allocated and not freed: some
    /// were freed without an event, and what this site holds is an upper bound.
    pub is_bound: bool,
}

/// A page block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Block {
    /// Index of its zone.
    pub zone: u8,
    /// Its migrate type.
    pub migrate: u8,
    /// Free pages, on buddy lists.
    pub free: u32,
    /// Pages that were allocated for another type than the block's, as far as seen.
    pub foreign: u32,
    /// Free blocks by order, as far as they are within the page block.
    pub orders: [u16; 16],
}

/// Physical memory, page block by page block.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct BlockMap {
    /// Pages of a block.
    pub pages_per_block: u32,
    /// Zones, each with its first page block and the one after its last.
    pub zones: Vec<(String, usize, usize)>,
    /// Names of the migrate types, by number.
    pub types: Vec<String>,
    /// The blocks from page frame 0 on. Those of no zone have no pages.
    pub blocks: Vec<Block>,
    /// Pages by use when the first page map was read, by block, with the names of the uses.
    pub uses: Arc<Vec<[u16; 9]>>,
    /// When that was.
    pub uses_at: Nanos,
}

/// The vmalloc space.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Vmalloc {
    /// When `/proc/vmallocinfo` was read.
    pub at: Nanos,
    /// Areas by address.
    pub areas: Vec<VmallocRow>,
    /// Pages freed and not yet unmapped, as the last free told.
    pub lazy_pages: Option<u64>,
    /// When they are unmapped.
    pub lazy_limit_pages: Option<u64>,
    /// Areas made and freed so far.
    pub made: u64,
    /// Freed.
    pub freed: u64,
}

/// One number by several tellers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compared {
    /// What kind of number: `free blocks`, `fallbacks`, `slab`, `stalls`, ...
    pub group: Arc<str>,
    /// Which one.
    pub name: Arc<str>,
    /// By teller; `None` where it does not tell.
    pub values: Vec<Option<u64>>,
    /// How much a difference of one weighs against others of the group, pages mostly.
    pub weight: u64,
}

impl Compared {
    /// The largest difference between two tellers.
    #[must_use]
    pub fn spread(&self) -> Option<u64> {
        let told = || self.values.iter().flatten();
        Some(told().max()? - told().min()?).filter(|_| told().count() > 1)
    }

    /// The difference as a share of the larger number, in thousandths.
    #[must_use]
    pub fn share(&self) -> Option<u64> {
        let most = self.values.iter().flatten().max()?;
        let share = u128::from(self.spread()?) * 1000 / u128::from((*most).max(1));
        u64::try_from(share).ok()
    }
}

/// Several tellers side by side.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Comparison {
    /// Who they are.
    pub tellers: Vec<String>,
    /// When.
    pub at: Nanos,
    /// What they say.
    pub rows: Vec<Compared>,
    /// Their agreement in a sentence each.
    pub verdicts: Vec<String>,
}

/// Upper ends of the histogram's columns: powers of two from a microsecond on.
pub const BUCKETS: usize = 24;

/// The histogram's column of a duration.
#[must_use]
pub fn bucket_of(nanos: u64) -> usize {
    let micros = nanos / 1000;
    ((64 - micros.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// Stalls of one cause and order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StallClass {
    /// Why: direct reclaim, compaction, ...
    pub cause: &'static str,
    /// Order of the request, where told.
    pub order: Option<u8>,
    /// How many.
    pub count: u64,
    /// Their sum.
    pub total_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99 of 100 were shorter.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// By duration, see [`bucket_of`].
    pub histogram: [u64; BUCKETS],
}

/// One stall.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stall {
    /// When it began.
    pub at: Nanos,
    /// How long it took.
    pub nanos: u64,
    /// Why.
    pub cause: &'static str,
    /// Order of the request, where told.
    pub order: Option<u8>,
    /// Thread.
    pub pid: u32,
    /// Its name, where known.
    pub command: Arc<str>,
    /// The call chain, innermost first, where recorded.
    pub stack: Arc<[Arc<str>]>,
}

/// Stalls up to a moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Latency {
    /// By cause and order.
    pub classes: Vec<StallClass>,
    /// The last ones, the latest first.
    pub stalls: Vec<Stall>,
}
