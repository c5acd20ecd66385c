//! What no file tells of the starting state, learned from the recording itself.
//!
//! `/proc` tells which pages are free at the start, but not the order of the free lists, nor the
//! type of each pageblock, nor which pages wait on the per-CPU lists. A first pass of the mirror
//! over the events finds out: a list's head shows when it is taken, a pageblock's type when it is
//! first named, a waiting page when it leaves its list. It also finds the frees that met a locked
//! per-CPU list and went past it, which shows only later. These are facts about the kernel's state
//! at the start, not its later decisions: the model starts from them and then decides by itself.
//! What the recording never touches stays unknown, and cannot matter to it.

use std::collections::HashMap;

use kmemlab_trace::event::{Event, Kind};

use crate::machine::Machine;

mod bulk;
mod spells;

use bulk::BulkRows;
use spells::Spells;

const UNTOLD: u8 = u8::MAX;

/// A set of numbers, one bit each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, number: u64) {
        let word = (number / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    pub(crate) fn has(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Facts about the starting state.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    /// When kswapd was done with its work, each time before it slept, rising.
    pub(crate) kswapd_done: Vec<u64>,
    /// Type of each pageblock, where an event named it.
    types: Vec<u8>,
    /// Type of the list on which a free block of the start was, where that need not be its
    /// pageblock's; and the first such type of each pageblock, its likeliest type of its own.
    lists: HashMap<u32, u8>,
    first_lists: HashMap<usize, u8>,
    /// The pageblock whose type was told last.
    last_told: Option<usize>,
    /// Types that a pageblock cannot have had at the start, as bits.
    excluded: Vec<u8>,
    /// Free blocks of the start in the order in which they were taken.
    taken: HashMap<u32, u32>,
    /// Blocks waiting on each per-CPU list: those that left from the head, first to last.
    heads: HashMap<usize, Vec<(u32, u8)>>,
    /// Those that left from the tail, last to first.
    tails: HashMap<usize, Vec<(u32, u8)>>,
    /// Lists that were seen empty: all that came later is known.
    emptied: Vec<bool>,
    spells: Spells,
    bulk_rows: BulkRows,
    /// Pages that left their lists in bulk, by the free before which they left, rising.
    bulk: Vec<(u64, u32)>,
    /// Frees that went past the per-CPU lists, by their number, rising.
    direct: Vec<u64>,
    /// Frees told of twice: at the start of a batch, and when the page gets to its list; and those
    /// that a drain follows at once.
    batched: Bits,
    /// The last free of each page that may be told of again.
    last_free: HashMap<u32, u64>,
    /// Pages of each zone and processor that waited at the start and were seen to leave.
    pub(crate) left: Vec<i64>,
    /// Blocks that searches and ranges took, by their number.
    searches: HashMap<u64, Vec<(u32, u8)>>,
    /// When the vmstat worker was first seen.
    pub(crate) worker_ns: Option<u64>,
}

impl Learned {
    pub(crate) fn new(machine: &Machine) -> Self {
        let blocks = (machine.end as usize).div_ceil(1 << machine.block_order);
        Self { types: vec![UNTOLD; blocks], excluded: vec![0; blocks], ..Self::default() }
    }

    /// An event named the type of a pageblock: the first one to do so tells the starting type.
    pub(crate) fn block_type(&mut self, block: usize, migrate: u8) {
        if let Some(known) = self.types.get_mut(block)
            && *known == UNTOLD
        {
            *known = migrate;
            self.last_told = Some(block);
        }
    }

    /// The type told last was that of the claim that follows: before it the pageblock had this one.
    pub(crate) fn was_claimed(&mut self, block: usize, before: u8) {
        if self.last_told == Some(block)
            && let Some(known) = self.types.get_mut(block)
        {
            *known = before;
        }
    }

    /// A free block of the start was on a list of this type.
    pub(crate) fn list_type(&mut self, head: u32, block: usize, migrate: u8) {
        self.lists.entry(head).or_insert(migrate);
        self.first_lists.entry(block).or_insert(migrate);
    }

    /// The type of the list on which a free block of the start was, if it was seen there.
    pub(crate) fn list_of(&self, head: u32) -> Option<u8> {
        self.lists.get(&head).copied()
    }

    /// The kernel passed over a list of this type as empty: a free block of the start that was
    /// thought to be on it is in a pageblock of another type.
    pub(crate) fn exclude(&mut self, block: usize, migrate: u8) {
        if let Some(excluded) = self.excluded.get_mut(block) {
            *excluded |= 1 << migrate.min(7);
        }
    }

    /// The likeliest type of a pageblock: what an event told, else `guess`, else the next one that
    /// is not excluded.
    pub(crate) fn likeliest(&self, block: usize, guess: u8) -> u8 {
        if let Some(told) = self.type_of(block) {
            return told;
        }
        let excluded = self.excluded.get(block).copied().unwrap_or(0);
        if let Some(list) = self.first_lists.get(&block).filter(|list| excluded >> **list & 1 == 0)
        {
            return *list;
        }
        let others = match guess {
            1 => [1, 2, 0],
            _ => [0, 2, 1],
        };
        // Nothing fits: HIGHATOMIC, whose lists ordinary requests do not look at.
        others.into_iter().find(|migrate| excluded >> migrate & 1 == 0).unwrap_or(3)
    }

    /// A free block of the start was at the head of its list just now.
    pub(crate) fn taken(&mut self, pfn: u32) {
        let next = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        self.taken.entry(pfn).or_insert(next);
    }

    /// A block that was not known to be on a per-CPU list left it from the head.
    pub(crate) fn popped(&mut self, list: usize, pfn: u32, order: u8) {
        if !self.is_emptied(list) {
            self.heads.entry(list).or_default().push((pfn, order));
        }
    }

    /// A block that was not known to be on a per-CPU list left it from the tail.
    pub(crate) fn drained(&mut self, list: usize, pfn: u32, order: u8) {
        if !self.is_emptied(list) {
            self.tails.entry(list).or_default().push((pfn, order));
        }
    }

    /// An event, of a page in that zone if it names one.
    #[inline]
    pub(crate) fn watch(&mut self, event: &Event, zone: Option<usize>) {
        self.spells.watch(event, zone);
        if event.kind == Kind::PageAlloc {
            self.bulk_rows.allocated(event);
        }
    }

    /// A page was freed in an interrupt, which may have found its per-CPU list locked.
    pub(crate) fn freed(&mut self, pfn: u32, number: u64, zone: usize, event: &Event) {
        self.spells.freed(pfn, number, zone, event);
    }

    /// The last free of a page went past the per-CPU lists.
    pub(crate) fn was_direct(&mut self, pfn: u32, zone: usize) {
        self.spells.was_past(pfn, zone);
    }

    /// A page was freed in an interrupt, and nothing has told since where it went.
    pub(crate) fn is_doubtful(&self, pfn: u32) -> bool {
        self.spells.is_open(pfn)
    }

    /// A page left a per-CPU list, so its last free went onto it, unless that was told otherwise.
    #[inline]
    pub(crate) fn was_listed(&mut self, pfn: u32, zone: usize) {
        self.spells.was_onto(pfn, zone);
    }

    /// A page was freed for its per-CPU list.
    pub(crate) fn freed_to_list(&mut self, pfn: u32, number: u64) {
        self.last_free.insert(pfn, number);
    }

    /// The last free of a page was one of a batch.
    pub(crate) fn was_batched(&mut self, pfn: u32) {
        if let Some(number) = self.last_free.remove(&pfn) {
            self.batched.set(number);
        }
    }

    /// A free took effect only when the drain after it was told of.
    pub(crate) fn was_late(&mut self, number: u64) {
        self.batched.set(number);
    }

    /// Frees told of twice, by their number among all frees.
    pub(crate) fn batched(&self) -> &Bits {
        &self.batched
    }

    /// A page on a per-CPU list was freed: it had left the list in bulk.
    pub(crate) fn freed_from_list(&mut self, pfn: u32, number: u64, event: &Event) {
        self.bulk_rows.freed(pfn, number, event);
    }

    /// The block that a fast search took.
    pub(crate) fn searched(&mut self, number: u64, block: (u32, u8)) {
        self.searches.entry(number).or_default().push(block);
    }

    /// Blocks that fast searches took, by their number.
    pub(crate) fn searches(&self) -> &HashMap<u64, Vec<(u32, u8)>> {
        &self.searches
    }

    /// Pages that left their lists in bulk, by the free before which they left, rising.
    pub(crate) fn bulk(&self) -> &[(u64, u32)] {
        &self.bulk
    }

    /// The pass is over.
    pub(crate) fn finish(mut self) -> Self {
        self.last_free = HashMap::new();
        self.direct = std::mem::take(&mut self.spells).finish();
        self.bulk = std::mem::take(&mut self.bulk_rows).finish();
        self
    }

    /// Frees that went past the per-CPU lists, by their number among all frees, rising.
    pub(crate) fn direct(&self) -> &[u64] {
        &self.direct
    }

    /// A per-CPU list was empty just now.
    pub(crate) fn emptied(&mut self, list: usize) {
        if self.emptied.len() <= list {
            self.emptied.resize(list + 1, false);
        }
        self.emptied[list] = true;
    }

    /// Whether all that is on a per-CPU list came since the start.
    pub(crate) fn is_emptied(&self, list: usize) -> bool {
        self.emptied.get(list).copied().unwrap_or(false)
    }

    /// The starting type of a pageblock, if an event told it.
    pub(crate) fn type_of(&self, block: usize) -> Option<u8> {
        self.types.get(block).copied().filter(|migrate| *migrate != UNTOLD)
    }

    /// Where a free block of the start stood in its list; blocks never taken stand last.
    pub(crate) fn rank(&self, pfn: u32) -> u32 {
        self.taken.get(&pfn).copied().unwrap_or(u32::MAX)
    }

    /// Pages seen to leave a per-CPU list on which they waited at the start.
    pub(crate) fn waiting_pages(&self, list: usize) -> i64 {
        self.waiting(list).map(|(_, order)| 1i64 << order).sum()
    }

    /// The blocks that waited on a per-CPU list, head to tail, as far as they were seen to leave.
    pub(crate) fn waiting(&self, list: usize) -> impl Iterator<Item = (u32, u8)> + '_ {
        let heads = self.heads.get(&list).into_iter().flatten().copied();
        heads.chain(self.tails.get(&list).into_iter().flatten().rev().copied())
    }
}
