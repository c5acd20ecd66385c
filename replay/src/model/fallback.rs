//! The buddy lists: a block of one's own type, or what the fallback policy says.

use super::{Flags, Model};
use crate::memory::End;
use crate::policy::block::FreeList;
use crate::policy::fallback::{Ask, Mode, Take};

/// Types that requests may ask for; the others (HIGHATOMIC, CMA, ISOLATE) never fall back.
const REQUESTED_TYPES: u8 = 3;

/// Fallbacks taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FallbackCounts {
    /// Blocks of at least a pageblock taken over.
    pub whole_claims: u64,
    /// Pageblocks taken over because enough of them was free or alike.
    pub small_claims: u64,
    /// Blocks taken out of another type's pageblock.
    pub steals: u64,
}

impl Model {
    /// A block for a request, from its own type or another (`__rmqueue`).
    pub(super) fn remove_block(
        &mut self,
        zone: usize,
        order: u8,
        migrate: u8,
        flags: Flags,
        mode: &mut Mode,
    ) -> Option<u32> {
        if *mode == Mode::Normal || self.policies.fallback.looks_at_own(*mode) {
            let own = self.remove_smallest(zone, order, migrate);
            if own.is_some() {
                return own;
            }
        }
        if migrate >= REQUESTED_TYPES {
            return None;
        }
        let ask = Ask { zone, order, migrate, no_fragment: flags.no_fragment };
        let verdict = self.policies.fallback.decide(&self.view(), &ask, mode);
        self.memory.work.lists_scanned += verdict.lists;
        for _ in 0..verdict.boosts {
            self.boost(zone, flags);
        }
        self.fall_back(&ask, verdict.take?)
    }

    /// Takes a block of a type from the smallest order that has one (`__rmqueue_smallest`).
    pub(super) fn remove_smallest(&mut self, zone: usize, order: u8, migrate: u8) -> Option<u32> {
        for have in order..self.memory.machine().orders {
            let list = self.memory.list(zone, have, migrate);
            if let Some(head) = self.memory.front(list) {
                let pfn = if self.takes_head {
                    head
                } else {
                    self.chosen(FreeList { zone, order: have, migrate }).unwrap_or(head)
                };
                self.memory.remove(pfn);
                self.memory.expand(pfn, order, have, migrate);
                return Some(pfn);
            }
            self.memory.work.lists_scanned += 1;
        }
        None
    }

    /// The block policy's choice, if it is on that list.
    fn chosen(&mut self, list: FreeList) -> Option<u32> {
        let (pfn, looked) = self.policies.block.choose(&self.view(), list)?;
        self.memory.work.blocks_looked_at += looked;
        let here = self.memory.list(list.zone, list.order, list.migrate);
        self.memory.is_on(pfn, here).then_some(pfn)
    }

    /// Does what the policy said, if it is legal: the block named is free, of that order, in the
    /// zone asked, and not of the type that asks.
    fn fall_back(&mut self, ask: &Ask, take: Take) -> Option<u32> {
        let (head, order) = match take {
            Take::Whole { head, order }
            | Take::WholeByList { head, order }
            | Take::OneBlock { head, order }
            | Take::Steal { head, order, .. } => (head, order),
            Take::Pageblock { head } | Take::FreeBlocks { head } => (head, 0),
        };
        let (block, have) = self.memory.block_at(head)?;
        let whole = matches!(take, Take::Whole { .. } | Take::WholeByList { .. });
        let is_legal = self.memory.zone_of(head) == Some(ask.zone)
            && match take {
                Take::Pageblock { .. } | Take::FreeBlocks { .. } => true,
                Take::OneBlock { .. } => block == head && have == order,
                _ => block == head && have == order && order >= ask.order,
            }
            && (!whole || order >= self.memory.machine().block_order);
        if !is_legal {
            self.counts.illegal_verdicts += 1;
            return None;
        }
        self.apply(ask, take)
    }

    fn apply(&mut self, ask: &Ask, take: Take) -> Option<u32> {
        let (order, migrate) = (ask.order, ask.migrate);
        match take {
            Take::Whole { head, order: have } => {
                self.memory.remove(head);
                self.memory.set_range_type(head, have, migrate);
                self.memory.expand(head, order, have, migrate);
                self.fallbacks.whole_claims += 1;
                return Some(head);
            }
            Take::WholeByList { head, order: have } => {
                self.memory.set_range_type(head, have, migrate);
                self.memory.remove(head);
                self.memory.insert(head, have, migrate, End::Tail);
                self.fallbacks.whole_claims += 1;
            }
            Take::Pageblock { head } => {
                self.memory.move_block(head, migrate);
                self.memory.set_block_type(head, migrate);
                self.fallbacks.small_claims += 1;
            }
            Take::FreeBlocks { head } => {
                self.memory.move_block(head, migrate);
                self.fallbacks.steals += 1;
            }
            Take::OneBlock { head, order: have } => {
                self.memory.remove(head);
                self.memory.insert(head, have, migrate, End::Tail);
                self.fallbacks.steals += 1;
            }
            Take::Steal { head, order: have, other } => {
                self.memory.remove(head);
                self.memory.expand(head, order, have, other);
                self.fallbacks.steals += 1;
                return Some(head);
            }
        }
        self.remove_smallest(ask.zone, order, migrate)
    }

    /// A fallback below a pageblock raises the zone's watermarks, so that kswapd frees some whole
    /// pageblocks (`boost_watermark`).
    fn boost(&mut self, zone: usize, flags: Flags) {
        let pageblock = 1u64 << self.memory.machine().block_order;
        let marks = &mut self.marks[zone];
        if self.boost_factor == 0 || self.managed[zone] < 4 * pageblock || marks.high == 0 {
            return;
        }
        let limit = (marks.high * self.boost_factor / 10_000).max(pageblock);
        marks.boost = (marks.boost + pageblock).min(limit);
        self.boosted[zone] |= flags.wakes_kswapd;
    }
}
