//! The page allocator's state: buddy lists by zone, order and migrate type, per-CPU lists, and the
//! types of pageblocks. Mechanism only: where a page goes is decided by the mirror (the kernel
//! said so) or by the model (a policy said so).
//!
//! The steps follow `mm/page_alloc.c`: `__free_one_page` ([`Memory::free`]), `expand`
//! ([`Memory::expand`]), `move_freepages_block` ([`Memory::move_block`]).

use std::collections::BTreeSet;

use crate::machine::Machine;
use crate::pages::{NIL, Pages, State};
use crate::rules::MergeLimit;

mod laws;
mod look;
mod percpu;
mod work;

pub use work::Work;

/// Which end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Where the next request takes from.
    Head,
    /// The other end.
    Tail,
}

/// To which end of its list a freed block goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EndRule {
    /// To the tail where a merge is likely, else to the head.
    #[default]
    MergeLikely,
    /// Always to the head.
    Head,
    /// Always to the tail.
    Tail,
}

/// Types that are on the fallback lists and may merge with each other: the first three.
const MERGEABLE: u8 = 3;

/// All pages of a machine.
#[derive(Clone, Debug)]
pub struct Memory {
    machine: Machine,
    pub(crate) pages: Pages,
    zone_of: Vec<u8>,
    block_type: Vec<u8>,
    free_blocks: Vec<[u64; 16]>,
    free_pages: Vec<u64>,
    end_rule: EndRule,
    /// The blocks of each buddy list by address, for policies that ask for them.
    by_address: Option<Vec<BTreeSet<u32>>>,
    /// Work done so far.
    pub work: Work,
}

impl Memory {
    /// A machine with every page unknown and every pageblock MOVABLE, as after boot.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        let zones = machine.zones.len();
        let buddy = zones * usize::from(machine.orders) * usize::from(machine.types);
        let pcp = zones * machine.cpus * machine.pcp_lists();
        let pages = Pages::new(machine.end, machine.block_order, buddy + pcp + 1);
        let blocks = (machine.end as usize).div_ceil(1 << machine.block_order);
        let mut zone_of = vec![u8::MAX; blocks];
        for (index, zone) in machine.zones.iter().enumerate() {
            let first = (zone.start >> machine.block_order) as usize;
            let last = ((zone.end - 1) >> machine.block_order) as usize;
            for owner in &mut zone_of[first..=last] {
                if *owner == u8::MAX {
                    *owner = index as u8;
                }
            }
        }
        Self {
            machine: machine.clone(),
            pages,
            zone_of,
            block_type: vec![1; blocks],
            free_blocks: vec![[0; 16]; zones],
            free_pages: vec![0; zones],
            end_rule: EndRule::default(),
            by_address: None,
            work: Work::default(),
        }
    }

    /// From here on freed blocks go to that end, and lists are kept by address as well, or not.
    pub(crate) fn obey(&mut self, end_rule: EndRule, by_address: bool) {
        self.end_rule = end_rule;
        self.by_address = by_address.then(|| {
            let lists = self.pcp(0, 0, 0);
            (0..lists).map(|list| self.pages.iter(list).collect()).collect()
        });
    }

    /// The block of a list with the lowest address, where lists are kept by address.
    #[inline]
    pub(crate) fn lowest(&self, list: usize) -> Option<u32> {
        self.by_address.as_ref().and_then(|lists| lists[list].first().copied())
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The zone holding a page.
    #[must_use]
    #[inline]
    pub fn zone_of(&self, pfn: u32) -> Option<usize> {
        let zone = *self.zone_of.get((pfn >> self.machine.block_order) as usize)?;
        (zone != u8::MAX && pfn < self.machine.end).then_some(usize::from(zone))
    }

    /// The migrate type of a page's pageblock.
    #[must_use]
    #[inline]
    pub fn block_type(&self, pfn: u32) -> u8 {
        self.block_type.get((pfn >> self.machine.block_order) as usize).copied().unwrap_or(1)
    }

    /// Sets the type of a page's pageblock, without moving its free pages.
    #[inline]
    pub fn set_block_type(&mut self, pfn: u32, migrate: u8) {
        if let Some(kept) = self.block_type.get_mut((pfn >> self.machine.block_order) as usize) {
            *kept = migrate;
        }
    }

    /// The buddy list of a zone, order and type.
    #[inline]
    pub(crate) fn list(&self, zone: usize, order: u8, migrate: u8) -> usize {
        let migrate = migrate.min(self.machine.types - 1);
        (zone * usize::from(self.machine.orders) + usize::from(order))
            * usize::from(self.machine.types)
            + usize::from(migrate)
    }

    /// The per-CPU list of a zone, processor and list index.
    #[inline]
    pub(crate) fn pcp(&self, zone: usize, cpu: usize, index: usize) -> usize {
        let zones = self.machine.zones.len();
        let buddy = zones * usize::from(self.machine.orders) * usize::from(self.machine.types);
        let cpu = cpu.min(self.machine.cpus - 1);
        buddy + (zone * self.machine.cpus + cpu) * self.machine.pcp_lists() + index
    }

    /// The list of blocks that are freed in a batch and have not yet got to their per-CPU list.
    #[inline]
    pub(crate) fn batch(&self) -> usize {
        self.pages.lists.len() - 1
    }

    /// The first block of a list.
    #[inline]
    pub(crate) fn front(&self, list: usize) -> Option<u32> {
        let head = self.pages.lists[list].head;
        (head != NIL).then_some(head)
    }

    /// The last block of a list.
    #[inline]
    pub(crate) fn back(&self, list: usize) -> Option<u32> {
        let tail = self.pages.lists[list].tail;
        (tail != NIL).then_some(tail)
    }

    /// Free blocks of a zone by order.
    #[must_use]
    pub fn free_blocks(&self, zone: usize) -> &[u64] {
        &self.free_blocks[zone][..usize::from(self.machine.orders)]
    }

    /// Whether a free block stands on that list.
    pub(crate) fn is_on(&self, pfn: u32, list: usize) -> bool {
        let node = self.pages.get(pfn);
        node.state() == State::Free && node.list() == list
    }

    /// Free pages of a zone.
    #[must_use]
    #[inline]
    pub fn free_pages(&self, zone: usize) -> u64 {
        self.free_pages[zone]
    }

    /// Free blocks of a zone, order and type.
    #[must_use]
    #[inline]
    pub fn free_of_type(&self, zone: usize, order: u8, migrate: u8) -> u64 {
        u64::from(self.pages.lists[self.list(zone, order, migrate)].len)
    }

    /// The blocks of a list, head first.
    #[must_use]
    pub fn list_of(&self, zone: usize, order: u8, migrate: u8) -> Vec<u32> {
        self.pages.iter(self.list(zone, order, migrate)).collect()
    }

    /// The free block holding a page: its head and order.
    #[must_use]
    #[inline]
    pub fn block_at(&self, pfn: u32) -> Option<(u32, u8)> {
        for order in 0..self.machine.orders {
            let head = pfn >> order << order;
            // The same head answers for several orders: look at it once.
            if order > 0 && pfn >> (order - 1) & 1 == 0 {
                continue;
            }
            let node = self.pages.get(head);
            if node.state() == State::Free && pfn - head < 1 << node.order() {
                return Some((head, node.order()));
            }
        }
        None
    }

    #[inline]
    fn is_free_block(&self, pfn: u32, order: u8) -> bool {
        let node = self.pages.get(pfn);
        node.state() == State::Free && node.order() == order
    }

    /// Puts a free block on a list as it is: no merging.
    #[inline]
    pub fn insert(&mut self, pfn: u32, order: u8, migrate: u8, end: End) {
        let Some(zone) = self.zone_of(pfn) else { return };
        let list = self.list(zone, order, migrate);
        match end {
            End::Head => self.push_front(list, pfn, State::Free, order),
            End::Tail => self.push_back(list, pfn, State::Free, order),
        }
        if let Some(blocks) = &mut self.by_address {
            blocks[list].insert(pfn);
        }
        self.free_blocks[zone][usize::from(order)] += 1;
        self.free_pages[zone] += 1 << order;
    }

    /// Notes a state that is on no list.
    #[inline]
    pub(crate) fn note(&mut self, pfn: u32, state: State, order: u8) {
        self.make_sure_not_free(pfn);
        self.pages.note(pfn, state, order);
    }

    /// Links a block in front of a list, as [`Self::insert`] does with a free one.
    #[inline]
    pub(crate) fn push_front(&mut self, list: usize, pfn: u32, state: State, order: u8) {
        self.make_sure_not_free(pfn);
        self.pages.push_front(list, pfn, state, order);
    }

    /// Links a block behind a list.
    #[inline]
    pub(crate) fn push_back(&mut self, list: usize, pfn: u32, state: State, order: u8) {
        self.make_sure_not_free(pfn);
        self.pages.push_back(list, pfn, state, order);
    }

    /// No recording says that a page changes hands and that it is free, but a damaged one may.
    #[inline]
    fn make_sure_not_free(&mut self, pfn: u32) {
        if self.pages.get(pfn).state() == State::Free {
            self.remove(pfn);
        }
    }

    /// A block changes hands whole: what was known of its pages is stale.
    pub(crate) fn forget_inner(&mut self, pfn: u32, order: u8) {
        let span = 1u32.checked_shl(u32::from(order)).unwrap_or(u32::MAX);
        let end = pfn.saturating_add(span).min(self.machine.end);
        let block = 1u32 << self.machine.block_order;
        let mut at = pfn;
        while at < end {
            match self.pages.get(at).state() {
                State::Pcp => {
                    self.pages.unlink(at);
                }
                State::Live | State::Limbo | State::Isolated => {
                    self.pages.note(at, State::Unknown, 0);
                }
                State::Free => {
                    self.remove(at);
                }
                State::Unknown => {}
            }
            // An untouched pageblock has nothing beyond its head.
            let is_head = at & (block - 1) == 0;
            at += if is_head && !self.pages.is_touched(at) { block } else { 1 };
        }
    }

    /// Takes a free block off its list; answers its order and type.
    #[inline]
    pub fn remove(&mut self, pfn: u32) -> (u8, u8) {
        let node = self.pages.unlink(pfn);
        if let Some(blocks) = &mut self.by_address {
            blocks[node.list()].remove(&pfn);
        }
        let order = node.order();
        let migrate = (node.list() % usize::from(self.machine.types)) as u8;
        if let Some(zone) = self.zone_of(pfn) {
            self.free_blocks[zone][usize::from(order)] -= 1;
            self.free_pages[zone] -= 1 << order;
        }
        (order, migrate)
    }

    /// Gives back the upper halves of a block of order `high` of which the lowest part of order
    /// `low` is taken: each to the head of its list (`expand`).
    #[inline]
    pub fn expand(&mut self, pfn: u32, low: u8, high: u8, migrate: u8) {
        for order in (low..high).rev() {
            self.insert(pfn + (1 << order), order, migrate, End::Head);
            self.work.splits += 1;
        }
    }

    /// Takes exactly `[pfn, pfn + 2^order)` out of a larger free block at `head`, giving back the
    /// rest around it.
    pub fn carve(&mut self, head: u32, pfn: u32, order: u8) {
        let (mut have, migrate) = self.remove(head);
        let mut at = head;
        while have > order {
            have -= 1;
            let upper = at + (1 << have);
            let (kept, given) = if pfn >= upper { (upper, at) } else { (at, upper) };
            self.insert(given, have, migrate, End::Head);
            self.work.splits += 1;
            at = kept;
        }
    }

    /// Frees a block: merges it with its buddies and puts the result on its list
    /// (`__free_one_page`). Blocks above the pageblock's order are cut first where the release
    /// does.
    pub fn free(&mut self, pfn: u32, order: u8, migrate: u8, to_tail: bool) {
        if order > 0 {
            self.forget_inner(pfn, order);
        }
        let limit = if self.machine.rules.split_large_frees {
            self.machine.block_order
        } else {
            self.machine.orders - 1
        };
        if order <= limit {
            self.free_one(pfn, order, migrate, to_tail);
            return;
        }
        let step = 1u32 << limit;
        let pages = 1u64.checked_shl(u32::from(order)).unwrap_or(0);
        let end = (u64::from(pfn) + pages).min(u64::from(self.machine.end)) as u32;
        let mut at = pfn;
        while at < end {
            self.free_one(at, limit, self.block_type(at), to_tail);
            at += step;
        }
    }

    fn free_one(&mut self, pfn: u32, order: u8, migrate: u8, to_tail: bool) {
        let Some(zone) = self.zone_of(pfn) else { return };
        let top = self.machine.orders - 1;
        let (mut at, mut have) = (pfn, order);
        self.note(pfn, State::Unknown, 0);
        while have < top {
            let buddy = at ^ (1 << have);
            if !self.is_free_block(buddy, have) || self.zone_of(buddy) != Some(zone) {
                break;
            }
            if have >= self.machine.block_order && !self.may_merge(at, buddy, have, migrate) {
                break;
            }
            self.remove(buddy);
            self.work.merges += 1;
            at &= !(1 << have);
            have += 1;
        }
        let is_tail = match self.end_rule {
            _ if to_tail => true,
            EndRule::MergeLikely => self.is_merge_likely(at, have, top),
            EndRule::Head => false,
            EndRule::Tail => true,
        };
        self.insert(at, have, migrate, if is_tail { End::Tail } else { End::Head });
    }

    /// Puts a free block of the start where one stands that was freed just now.
    pub(crate) fn put_in_front(&mut self, head: u32) {
        let top = self.machine.orders - 1;
        let (order, migrate) = self.remove(head);
        let end = if self.is_merge_likely(head, order, top) { End::Tail } else { End::Head };
        self.insert(head, order, migrate, end);
        self.pages.mark_seed(head);
    }

    /// Whether two blocks of at least a pageblock may become one; retypes the partner where the
    /// release does.
    fn may_merge(&mut self, at: u32, buddy: u32, order: u8, migrate: u8) -> bool {
        let theirs = self.block_type(buddy);
        if theirs == migrate {
            return true;
        }
        let isolate = self.machine.types - 1;
        let allowed = match self.machine.rules.merge_limit {
            MergeLimit::Isolated => theirs != isolate && migrate != isolate,
            MergeLimit::SpecialTypes => theirs < MERGEABLE && migrate < MERGEABLE,
        };
        if allowed && self.machine.rules.merge_retypes {
            let start = buddy.min(at ^ (1 << order));
            self.set_range_type(start, order, migrate);
        }
        allowed
    }

    /// Sets the type of every pageblock of a block.
    pub fn set_range_type(&mut self, pfn: u32, order: u8, migrate: u8) {
        let step = 1u32 << self.machine.block_order;
        let end = pfn.saturating_add(1 << order);
        let mut at = pfn;
        while at < end {
            self.set_block_type(at, migrate);
            at += step;
        }
    }

    /// The block's parent has a free buddy of the parent's order: a merge is likely soon, so the
    /// block waits at the tail (`buddy_merge_likely`).
    fn is_merge_likely(&self, pfn: u32, order: u8, top: u8) -> bool {
        if order + 2 > top {
            return false;
        }
        let parent = pfn & !(1 << order);
        let other = parent ^ (1 << (order + 1));
        self.is_free_block(other, order + 1) && self.zone_of(other) == self.zone_of(pfn)
    }

    /// Moves every free block of a page's pageblock to another type's lists, in rising order, to
    /// their tails (`move_freepages_block`). Answers the pages moved.
    pub fn move_block(&mut self, pfn: u32, migrate: u8) -> u64 {
        let mut moved = 0;
        for head in self.free_heads(pfn) {
            let (order, _) = self.remove(head);
            self.insert(head, order, migrate, End::Tail);
            moved += 1 << order;
        }
        moved
    }

    /// Moves a pageblock to another type because it always had that type: marks of the start stay.
    pub(crate) fn move_block_as_seeds(&mut self, pfn: u32, migrate: u8) {
        for head in self.free_heads(pfn) {
            let is_seed = self.pages.get(head).is_seed();
            let (order, _) = self.remove(head);
            self.insert(head, order, migrate, End::Tail);
            if is_seed {
                self.pages.mark_seed(head);
            }
        }
        self.set_block_type(pfn, migrate);
    }

    /// The free blocks that start in a page's pageblock, in rising order.
    pub(crate) fn free_heads(&self, pfn: u32) -> Vec<u32> {
        let start = pfn >> self.machine.block_order << self.machine.block_order;
        let end = start + (1 << self.machine.block_order);
        let mut heads = Vec::new();
        let mut at = start;
        while at < end {
            let node = self.pages.get(at);
            if node.state() == State::Free {
                heads.push(at);
                at += 1 << node.order();
            } else {
                at += 1;
            }
        }
        heads
    }

    /// Bytes of state held.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.pages.bytes() + (self.zone_of.len() + self.block_type.len()) as u64
    }
}
