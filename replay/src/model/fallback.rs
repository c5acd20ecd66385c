//! Taking from another migrate type when one's own lists are empty.
//!
//! `find_suitable_fallback`, `__rmqueue_claim`, `try_to_claim_block`, `__rmqueue_steal` of 6.15 and
//! later; `__rmqueue_fallback` and `steal_suitable_fallback` of 6.14 and older.

use super::{Flags, Model};
use crate::memory::End;
use crate::rules::Fallback;

/// The types a request turns to, in order: UNMOVABLE, MOVABLE, RECLAIMABLE.
const ORDER_OF_TYPES: [[u8; 2]; 3] = [[2, 1], [2, 0], [0, 1]];

/// How a bulk is being served: it does not turn back to what it found empty (`enum rmqueue_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Normal,
    Claim,
    Steal,
}

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
        let regime = self.memory.machine().rules.fallback;
        if *mode == Mode::Normal || regime != Fallback::ClaimThenSteal {
            let own = self.remove_smallest(zone, order, migrate);
            if own.is_some() {
                return own;
            }
        }
        if usize::from(migrate) >= ORDER_OF_TYPES.len() {
            return None;
        }
        if regime != Fallback::ClaimThenSteal {
            return self.fall_back_older(zone, order, migrate, flags);
        }
        if *mode != Mode::Steal {
            *mode = Mode::Claim;
            let claimed = self.claim(zone, order, migrate, flags);
            if claimed.is_some() {
                *mode = Mode::Normal;
                return claimed;
            }
        }
        if flags.no_fragment {
            return None;
        }
        let stolen = self.steal(zone, order, migrate);
        if stolen.is_some() {
            *mode = Mode::Steal;
        }
        stolen
    }

    /// Whether a block of that order may be taken over (`should_try_claim_block`).
    fn may_claim(&self, order: u8, migrate: u8) -> bool {
        order >= self.memory.machine().block_order / 2 || migrate != 1
    }

    /// The first type in the request's order that has a block of exactly that order.
    fn candidate(&self, zone: usize, order: u8, migrate: u8) -> Option<u8> {
        let types = ORDER_OF_TYPES.get(usize::from(migrate))?;
        types.iter().copied().find(|&other| self.memory.free_of_type(zone, order, other) > 0)
    }

    fn lowest_order(&self, order: u8, flags: Flags) -> u8 {
        let block_order = self.memory.machine().block_order;
        if flags.no_fragment && order < block_order { block_order } else { order }
    }

    /// From the largest order down: take over a block, or a pageblock that is mostly free or
    /// alike (`__rmqueue_claim`).
    fn claim(&mut self, zone: usize, order: u8, migrate: u8, flags: Flags) -> Option<u32> {
        let lowest = self.lowest_order(order, flags);
        for have in (lowest..self.memory.machine().orders).rev() {
            if !self.may_claim(have, migrate) {
                return None;
            }
            let Some(other) = self.candidate(zone, have, migrate) else { continue };
            let list = self.memory.list(zone, have, other);
            let Some(head) = self.memory.front(list) else { continue };
            if let Some(pfn) = self.try_claim(zone, head, have, order, migrate, other, flags) {
                return Some(pfn);
            }
        }
        None
    }

    /// `try_to_claim_block`.
    #[allow(clippy::too_many_arguments)] // the kernel's own arguments, one for one
    fn try_claim(
        &mut self,
        zone: usize,
        head: u32,
        have: u8,
        order: u8,
        migrate: u8,
        other: u8,
        flags: Flags,
    ) -> Option<u32> {
        if have >= self.memory.machine().block_order {
            self.memory.remove(head);
            self.memory.set_range_type(head, have, migrate);
            self.memory.expand(head, order, have, migrate);
            self.fallbacks.whole_claims += 1;
            return Some(head);
        }
        self.boost(zone, flags);
        if !self.is_mostly_ours(head, migrate, other) {
            return None;
        }
        self.memory.move_block(head, migrate);
        self.memory.set_block_type(head, migrate);
        self.fallbacks.small_claims += 1;
        self.remove_smallest(zone, order, migrate)
    }

    /// At least half of the pageblock is free or of the request's kind.
    fn is_mostly_ours(&self, head: u32, migrate: u8, other: u8) -> bool {
        let block_order = self.memory.machine().block_order;
        let pages = 1u64 << block_order;
        let start = head >> block_order << block_order;
        let span = &self.memory.machine().zones[self.memory.zone_of(head).unwrap_or(0)];
        if start < span.start || u64::from(start) + pages > u64::from(span.end) {
            return false;
        }
        let free = self.memory.free_in_block(head);
        let movable = self.movable_in_block[(head >> block_order) as usize];
        let movable = u64::from(movable).min(pages - free);
        let alike = match (migrate, other) {
            (1, _) => movable,
            (_, 1) => pages - free - movable,
            _ => 0,
        };
        free + alike >= pages / 2
    }

    /// From the smallest order up: take a block and leave its rest to its type
    /// (`__rmqueue_steal`).
    fn steal(&mut self, zone: usize, order: u8, migrate: u8) -> Option<u32> {
        for have in order..self.memory.machine().orders {
            let Some(other) = self.candidate(zone, have, migrate) else { continue };
            let list = self.memory.list(zone, have, other);
            let Some(pfn) = self.memory.front(list) else { continue };
            self.memory.remove(pfn);
            self.memory.expand(pfn, order, have, other);
            self.fallbacks.steals += 1;
            return Some(pfn);
        }
        None
    }

    /// 6.14 and older: the largest candidate first, or the smallest when it may not be claimed
    /// (`__rmqueue_fallback`).
    fn fall_back_older(
        &mut self,
        zone: usize,
        order: u8,
        migrate: u8,
        flags: Flags,
    ) -> Option<u32> {
        let lowest = self.lowest_order(order, flags);
        let orders = self.memory.machine().orders;
        let largest = (lowest..orders)
            .rev()
            .find_map(|have| self.candidate(zone, have, migrate).map(|other| (have, other)))?;
        let (mut have, mut other) = largest;
        if !self.may_claim(have, migrate) && migrate == 1 && have > order {
            (have, other) = (order..orders)
                .find_map(|have| self.candidate(zone, have, migrate).map(|other| (have, other)))?;
        }
        let list = self.memory.list(zone, have, other);
        let head = self.memory.front(list)?;
        let block_order = self.memory.machine().block_order;
        let moves_first = self.memory.machine().rules.fallback == Fallback::MoveThenCount;
        if have >= block_order {
            self.memory.set_range_type(head, have, migrate);
            self.fallbacks.whole_claims += 1;
            self.memory.remove(head);
            self.memory.insert(head, have, migrate, End::Tail);
        } else {
            self.boost(zone, flags);
            // Up to 6.9 the block may be on another list than its pageblock's.
            let before = self.memory.block_type(head);
            let is_ours =
                self.may_claim(have, migrate) && self.is_mostly_ours(head, migrate, before);
            if is_ours {
                self.memory.move_block(head, migrate);
                self.memory.set_block_type(head, migrate);
                self.fallbacks.small_claims += 1;
            } else if moves_first {
                self.fallbacks.steals += 1;
                if self.may_claim(have, migrate) {
                    self.memory.move_block(head, migrate);
                } else {
                    self.memory.remove(head);
                    self.memory.insert(head, have, migrate, End::Tail);
                }
            } else {
                self.fallbacks.steals += 1;
                self.memory.remove(head);
                self.memory.expand(head, order, have, other);
                return Some(head);
            }
        }
        self.remove_smallest(zone, order, migrate)
    }

    /// A fallback below a pageblock raises the zone's watermarks, so that kswapd frees some whole
    /// pageblocks (`boost_watermark`).
    fn boost(&mut self, zone: usize, flags: Flags) {
        let pageblock = 1u64 << self.memory.machine().block_order;
        let marks = &mut self.marks[zone];
        let managed = self.memory.machine().zones[zone].managed;
        if self.boost_factor == 0 || managed < 4 * pageblock || !flags.wakes_kswapd {
            return;
        }
        let limit = (marks.high * self.boost_factor / 10_000).max(pageblock);
        marks.boost = (marks.boost + pageblock).min(limit);
    }
}
