//! Fallbacks to another migrate type, in the three regimes of `mm/page_alloc.c`.

use kmemlab_trace::event::Event;

use super::Mirror;
use crate::memory::End;
use crate::rules::Fallback;
use crate::seeding::Phase;

impl Mirror {
    /// A request took from another migrate type.
    pub(super) fn fallback(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.possible_page(event) else { return };
        if self.memory.machine().rules.fallback == Fallback::MoveThenCount {
            self.fallback_before_taking(pfn, event);
            return;
        }
        let cpu = self.cpu(event);
        let run = self.runs[cpu];
        let is_small_claim =
            run.open && run.pid == event.pid.0 && run.last == pfn && run.order == event.order;
        if is_small_claim {
            // The taking was told first, under the new type.
            self.learn_claim(pfn, event.other_migrate);
            self.claim_block(pfn, event.migrate);
            return;
        }
        let phase = self.seed.phase(pfn, event.time.0);
        if phase == Phase::Before {
            return;
        }
        let (wanted, taken) = (event.order, event.other_order);
        if !self.holds(pfn, taken) {
            self.recall(pfn, taken.min(self.memory.machine().orders - 1));
        }
        // A capture names a block that never reached the lists.
        let Some((head, have)) = self.memory.block_at(pfn) else { return };
        if head != pfn || have < wanted {
            return;
        }
        self.learn_taken(pfn);
        self.learn_type(pfn, event.other_migrate);
        self.memory.remove(pfn);
        let is_claim = taken >= self.memory.machine().block_order;
        let rest = if is_claim { event.migrate } else { event.other_migrate };
        if is_claim {
            self.memory.set_range_type(pfn, have, event.migrate);
        }
        self.memory.expand(pfn, wanted, have, rest);
        self.refilled(pfn, zone, wanted, event.migrate, event);
    }

    /// Regime of 6.9 and older: the block changes lists first, and is taken by the next event.
    pub(super) fn fallback_before_taking(&mut self, pfn: u32, event: &Event) {
        if self.seed.phase(pfn, event.time.0) == Phase::Before {
            return;
        }
        // It stood at the head of its list, which it is about to leave.
        if let Some((head, _)) = self.memory.block_at(pfn) {
            self.learn_taken(head);
        }
        // The type told is that of the list; the pageblock's was likely the same if it changed.
        self.learn_list(pfn, event.other_migrate);
        if event.flag != 0 {
            self.learn_type(pfn, event.other_migrate);
        }
        let machine = self.memory.machine();
        let (block_order, taken) = (machine.block_order, event.other_order);
        let may_claim = taken >= block_order / 2 || event.migrate != 1;
        if taken >= block_order {
            self.memory.set_range_type(pfn, taken, event.migrate);
        } else if may_claim {
            self.memory.move_block(pfn, event.migrate);
            if event.flag != 0 {
                self.memory.set_block_type(pfn, event.migrate);
            }
            return;
        }
        if let Some((head, _)) = self.memory.block_at(pfn) {
            let (order, _) = self.memory.remove(head);
            self.memory.insert(head, order, event.migrate, End::Tail);
        }
    }

    /// The free blocks of a pageblock that are not yet on the claiming type's lists move to them.
    pub(super) fn claim_block(&mut self, pfn: u32, migrate: u8) {
        let zone = self.memory.zone_of(pfn).unwrap_or(0);
        for head in self.memory.free_heads(pfn) {
            let node = self.memory.pages.get(head);
            if node.list() != self.memory.list(zone, node.order(), migrate) {
                let (order, _) = self.memory.remove(head);
                self.memory.insert(head, order, migrate, End::Tail);
            }
        }
        self.memory.set_block_type(pfn, migrate);
    }
}
