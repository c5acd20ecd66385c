//! The state a replay starts from: the free pages of the first page map, as maximal aligned blocks.
//!
//! `KPF_BUDDY` is set on every page of a free block, so runs of free pages decompose uniquely into
//! the blocks that the buddy lists hold (two free buddies always merge), except at borders of
//! special pageblocks. The lists' order comes from [`Learned`], else blocks stand by rising
//! address.

use kmemlab_trace::reader::BuddySample;
use kmemlab_trace::snapshot::{PageRun, PageUse};

use crate::learning::Learned;
use crate::machine::Machine;
use crate::memory::{End, Memory};

mod rooms;

/// Where an event stands against the reading of its page in the page map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The map was read later: it already holds what the event did.
    Before,
    /// Within the read: the map may hold it or not.
    During,
    /// The map was read earlier: the event changes it.
    After,
}

/// Pages that share one read of the page map.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    start: u32,
    before: u64,
    after: u64,
}

/// Free pages and pageblock types at the start.
#[derive(Clone, Debug, Default)]
pub struct Seed {
    chunks: Vec<Chunk>,
    /// Runs of free pages: first and one past the last.
    free: Vec<(u32, u32)>,
    /// Pages of each pageblock in use by the kernel itself, and by users.
    kernel_pages: Vec<u16>,
    user_pages: Vec<u16>,
    last_read: u64,
    is_made_up: bool,
}

impl Seed {
    /// An empty seed for a machine.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        let blocks = (machine.end as usize).div_ceil(1 << machine.block_order);
        Self { kernel_pages: vec![0; blocks], user_pages: vec![0; blocks], ..Self::default() }
    }

    /// Adds the next run of the page map; runs come in rising order.
    pub fn add(&mut self, run: &PageRun, machine: &Machine) {
        let Ok(start) = u32::try_from(run.pfn.0) else { return };
        let end = (run.pfn.0.saturating_add(run.pages)).min(u64::from(machine.end)) as u32;
        if start >= end {
            return;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.before != run.stamp.before.0) {
            let (before, after) = (run.stamp.before.0, run.stamp.after.0);
            self.chunks.push(Chunk { start, before, after });
            self.last_read = self.last_read.max(after);
        }
        match run.page_use {
            PageUse::Free => match self.free.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => self.free.push((start, end)),
            },
            PageUse::Lru => count(&mut self.user_pages, start, end, machine.block_order),
            PageUse::Slab | PageUse::PageTable => {
                count(&mut self.kernel_pages, start, end, machine.block_order);
            }
            _ => {}
        }
    }

    /// Free blocks as many as a sample of `/proc/buddyinfo` tells, at made-up places: no two
    /// buddies of one order, which would have merged. For recordings without a page map. Answers
    /// also the pages for which there was no room.
    #[must_use]
    pub fn made_up(machine: &Machine, sample: &BuddySample) -> (Self, u64) {
        let mut seed = Self { is_made_up: true, ..Self::new(machine) };
        let mut homeless = 0;
        for row in &sample.zones {
            if let Some(zone) = machine.zone(row.node, &row.zone) {
                let blocks = &row.free_blocks;
                homeless += rooms::fill(machine, zone, blocks, &mut seed.free);
            }
        }
        seed.free.sort_unstable();
        let (before, after) = (sample.stamp.before.0, sample.stamp.after.0);
        seed.chunks.push(Chunk { start: 0, before, after });
        seed.last_read = after;
        (seed, homeless)
    }

    /// The places of the free blocks are made up.
    #[must_use]
    #[inline]
    pub fn is_made_up(&self) -> bool {
        self.is_made_up
    }

    /// Nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Where an event at that time stands against the reading of that page.
    #[must_use]
    #[inline]
    pub fn phase(&self, pfn: u32, time: u64) -> Phase {
        if time > self.last_read {
            return Phase::After;
        }
        let index = self.chunks.partition_point(|chunk| chunk.start <= pfn);
        let Some(chunk) = index.checked_sub(1).and_then(|index| self.chunks.get(index)) else {
            return Phase::After;
        };
        if time < chunk.before {
            Phase::Before
        } else if time <= chunk.after {
            Phase::During
        } else {
            Phase::After
        }
    }

    /// Pages of a pageblock that users had when the map was read: what the kernel counts as movable
    /// when it considers claiming the block.
    #[must_use]
    pub fn user_pages(&self, block: usize) -> u16 {
        self.user_pages.get(block).copied().unwrap_or(0)
    }

    /// The moment from which every event changes the page map.
    #[must_use]
    pub fn last_read(&self) -> u64 {
        self.last_read
    }

    /// Puts the free blocks on their lists, in the learned order. Pageblocks whose type was not
    /// learned are guessed: one with more kernel pages (slab, page tables) than user pages is
    /// UNMOVABLE, all others MOVABLE; a guess that the first pass refuted gives way to the next.
    pub(crate) fn fill(&self, memory: &mut Memory, learned: Option<&Learned>) {
        let block_order = memory.machine().block_order;
        for (block, (kernel, user)) in self.kernel_pages.iter().zip(&self.user_pages).enumerate() {
            let guess = if kernel > user { 0 } else { 1 };
            let migrate = learned.map_or(guess, |learned| learned.likeliest(block, guess));
            memory.set_block_type((block as u32) << block_order, migrate);
        }
        let top = memory.machine().orders - 1;
        let mut blocks = Vec::new();
        for &(start, end) in &self.free {
            let mut at = start;
            while at < end {
                let order = largest_block(at, end, top, memory);
                blocks.push((learned.map_or(u32::MAX, |learned| learned.rank(at)), at, order));
                at += 1 << order;
            }
        }
        blocks.sort_unstable();
        for (_, pfn, order) in blocks {
            let list = learned.and_then(|learned| learned.list_of(pfn));
            memory.insert(pfn, order, list.unwrap_or(memory.block_type(pfn)), End::Tail);
            memory.pages.mark_seed(pfn);
        }
    }
}

/// The largest aligned block that starts at `at` and ends within the run and the zone.
fn largest_block(at: u32, end: u32, top: u8, memory: &Memory) -> u8 {
    let mut order = if at == 0 { top } else { (at.trailing_zeros() as u8).min(top) };
    let fits = |order: u8| {
        let last = u64::from(at) + (1u64 << order) - 1;
        last < u64::from(end) && memory.zone_of(at) == memory.zone_of(last as u32)
    };
    while order > 0 && !fits(order) {
        order -= 1;
    }
    order
}

fn count(blocks: &mut [u16], start: u32, end: u32, block_order: u8) {
    let size = 1u32 << block_order;
    let mut at = start;
    while at < end {
        let stop = end.min((at | (size - 1)).saturating_add(1));
        if let Some(pages) = blocks.get_mut((at >> block_order) as usize) {
            *pages += (stop - at) as u16;
        }
        at = stop;
    }
}
