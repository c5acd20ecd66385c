//! Blocks taken off the buddy lists under the zone lock, and refills of per-CPU lists.

use kmemlab_trace::event::Event;

use super::{Effect, Mirror, Run};
use crate::pages::State;
use crate::residue::Cause;
use crate::seeding::Phase;

impl Mirror {
    /// A refill or direct allocation took a block off a buddy list, under the zone lock.
    pub(super) fn zone_locked(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.possible_page(event) else { return };
        let (order, migrate) = (event.order, event.migrate);
        if !self.take(pfn, order, migrate, event) {
            return;
        }
        let refill = event.flag().unwrap_or(order <= self.memory.machine().rules.pcp_max_order);
        if refill {
            self.refilled(pfn, zone, order, migrate, event);
        } else {
            self.close_run(event);
        }
    }

    /// Takes a block off the buddy lists. `false` when the page map, read later, already knows
    /// better and the page is free in it.
    pub(super) fn take(&mut self, pfn: u32, order: u8, migrate: u8, event: &Event) -> bool {
        self.learn_direct(pfn);
        match self.seed.phase(pfn, event.time.0) {
            Phase::Before => return self.memory.block_at(pfn).is_none(),
            Phase::During if self.memory.block_at(pfn).is_none() => return true,
            Phase::During | Phase::After => {}
        }
        if !self.holds(pfn, order) {
            self.refute_guess(pfn, self.memory.zone_of(pfn).unwrap_or(0));
            self.recall(pfn, order);
        }
        if self.seed.is_made_up() && !self.holds(pfn, order) {
            self.take_for_made_up(pfn, order);
            return true;
        }
        match self.memory.block_at(pfn) {
            Some((head, have)) if have >= order => {
                self.learn_taken(head);
                self.learn_list(head, migrate);
                // Blocks that compaction took from unknown places still stand on the lists.
                let is_certain = self.residue.ambiguous_isolations == 0;
                if have > order && is_certain && self.learner.is_some() {
                    let zone = self.memory.zone_of(pfn).unwrap_or(0);
                    self.learn_empty(zone, order..have, migrate);
                }
                if head == pfn {
                    self.memory.remove(pfn);
                    self.memory.expand(pfn, order, have, migrate);
                } else {
                    self.memory.carve(head, pfn, order);
                }
                if self.memory.machine().rules.lists_follow_blocks() {
                    self.memory.set_block_type(pfn, migrate);
                }
            }
            _ => self.take_pieces(pfn, order),
        }
        true
    }

    /// Whether a free block holds all of `[pfn, pfn + 2^order)`.
    pub(super) fn holds(&self, pfn: u32, order: u8) -> bool {
        self.memory.block_at(pfn).is_some_and(|(_, have)| have >= order)
    }

    /// Pages of the range that were thought to be on a per-CPU list, or allocated in bulk, were in
    /// fact freed straight to the buddy lists: the kernel just took them from there.
    pub(super) fn recall(&mut self, pfn: u32, order: u8) {
        self.recall_range(pfn, pfn + (1 << order));
    }

    /// The same of any range.
    pub(super) fn recall_range(&mut self, start: u32, end: u32) {
        let mut at = start;
        while at < end {
            let node = self.memory.pages.get(at);
            match node.state() {
                State::Pcp => {
                    self.memory.pages.unlink(at);
                }
                State::Limbo => {
                    self.effects.push(Effect::Returned { pfn: at, order: node.order() });
                }
                _ => {
                    at += 1;
                    continue;
                }
            }
            self.learn_direct(at);
            self.residue.direct_frees += 1 << node.order();
            self.misfit(Cause::DirectFree, at, node.order(), -1);
            self.make_sure_taken(at, node.order());
            let migrate = self.memory.block_type(at);
            self.memory.free(at, node.order(), migrate, false);
            at += 1 << node.order();
        }
    }

    /// Takes what is free of a range that is not one free block.
    pub(super) fn take_pieces(&mut self, pfn: u32, order: u8) {
        let (mut at, end) = (pfn, pfn + (1 << order));
        let missing = self.residue.missing_takes;
        while at < end {
            match self.memory.block_at(at) {
                Some((head, have)) => {
                    let piece = if head == at && at + (1 << have) <= end { have } else { 0 };
                    self.memory.carve(head, at, piece);
                    at += 1 << piece;
                }
                None => {
                    self.residue.missing_takes += 1;
                    at += 1;
                }
            }
        }
        let missing = self.residue.missing_takes - missing;
        if missing == 1 << order {
            self.misfit(Cause::UnseenFree, pfn, order, -1);
        } else if missing > 0 {
            self.misfit(Cause::UnseenFree, pfn, 0, -(missing as i64));
        }
    }

    /// A block taken under the zone lock goes to the tail of a per-CPU list.
    pub(super) fn refilled(
        &mut self,
        pfn: u32,
        zone: usize,
        order: u8,
        migrate: u8,
        event: &Event,
    ) {
        let Some(index) = self.memory.machine().pcp_list(order, migrate) else {
            self.close_run(event);
            return;
        };
        let cpu = self.cpu(event);
        let list = self.memory.pcp(zone, cpu, index);
        let run = self.runs[cpu];
        if run.open && run.pid == event.pid.0 && run.list == list {
            self.runs[cpu].taken += 1;
            self.runs[cpu].last = pfn;
            // A refill of more than one block proves that the list was empty.
            if run.taken == 1 {
                for _ in 0..run.before {
                    self.leave_silently(list, cpu, migrate);
                }
                if let Some(learner) = &mut self.learner {
                    learner.emptied(list);
                }
            }
        } else {
            self.end_run(cpu, pfn, event);
            let before = self.memory.pages.lists[list].len;
            let pid = event.pid.0;
            let (first, last) = (pfn, pfn);
            self.runs[cpu] =
                Run { pid, list, before, taken: 1, first, last, migrate, order, open: true };
        }
        self.make_sure_taken(pfn, order);
        self.memory.push_back(list, pfn, State::Pcp, order);
        self.memory.pages.mark_fresh(pfn);
    }

    /// The block at the head of a per-CPU list has left it without an event.
    pub(super) fn leave_silently(&mut self, list: usize, cpu: usize, migrate: u8) {
        if let Some(pfn) = self.memory.front(list) {
            self.leave(pfn, cpu, migrate);
        }
    }

    /// A block anywhere on a per-CPU list has left it without an event.
    pub(super) fn leave_in_bulk(&mut self, pfn: u32) {
        let (cpu, index) = self.memory.pcp_of(self.memory.pages.get(pfn).list());
        let migrate = self.memory.machine().pcp_list_type(index);
        self.leave(pfn, cpu, migrate);
    }

    fn leave(&mut self, pfn: u32, cpu: usize, migrate: u8) {
        let node = self.memory.pages.unlink(pfn);
        let order = node.order();
        self.memory.note(pfn, State::Limbo, order);
        if node.is_fresh() {
            self.memory.pages.mark_fresh(pfn);
        } else if order > 0 {
            self.learn_not(pfn, migrate);
        }
        self.residue.bulk_pages += 1 << order;
        self.effects.push(Effect::Bulk { cpu, pfn, order, migrate });
    }

    /// A refill is over. The task that refilled took the first block of it at once: if the next it
    /// tells of is another block, then it did so in bulk.
    pub(super) fn end_run(&mut self, cpu: usize, next: u32, event: &Event) {
        let run = self.runs[cpu];
        self.runs[cpu].open = false;
        let is_same_task = run.open && run.pid == event.pid.0 && event.context.is_task();
        if is_same_task && next != run.first && self.memory.front(run.list) == Some(run.first) {
            self.leave_silently(run.list, cpu, run.migrate);
        }
    }

    pub(super) fn close_run(&mut self, event: &Event) {
        let cpu = self.cpu(event);
        self.runs[cpu].open = false;
    }
}
