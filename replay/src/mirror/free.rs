//! Frees: to a per-CPU list, past it, or straight to the buddy lists; and drains.

use kmemlab_trace::event::{Event, Kind};

use super::{Effect, Mirror};
use crate::pages::State;
use crate::residue::Cause;
use crate::seeding::Phase;

impl Mirror {
    /// A free begins: the page goes to a per-CPU list, or straight to the buddy lists.
    pub(super) fn page_free(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.possible_page(event) else { return };
        let order = event.order;
        if event.context.is_task() {
            self.close_run(event);
        }
        let is_direct = self.count_free(pfn, zone, event);
        if self.is_kept(pfn, order, zone, event) {
            self.residue.kept_frees += 1;
            self.effects.push(Effect::Kept { pfn });
            return;
        }
        let phase = self.seed.phase(pfn, event.time.0);
        match self.memory.pages.get(pfn).state() {
            State::Pcp => {
                // It had left its list without an event.
                if let Some(learner) = &mut self.learner {
                    learner.freed_from_list(pfn, self.frees, event);
                }
                self.leave_in_bulk(pfn);
            }
            State::Isolated => self.confirm_guess(pfn, zone),
            State::Live | State::Limbo => {}
            State::Free | State::Unknown if phase != Phase::After => {
                if self.memory.block_at(pfn).is_some() {
                    return;
                }
            }
            State::Free | State::Unknown if self.memory.block_at(pfn).is_some() => {
                if !self.swap_guess(pfn, order, zone) {
                    self.residue.unmatched_frees += 1;
                    self.take_hidden(pfn, order);
                } else {
                    self.split_taken(pfn, order);
                }
            }
            State::Free => {}
            State::Unknown if self.split_taken(pfn, order) => self.confirm_guess(pfn, zone),
            State::Unknown => self.residue.frees_from_before += 1,
        }
        if phase == Phase::After {
            self.make_sure_taken(pfn, order);
        }
        let migrate = self.memory.block_type(pfn);
        match self.memory.machine().pcp_list(order, migrate) {
            Some(_) if is_direct && phase == Phase::Before => {
                self.memory.note(pfn, State::Unknown, 0);
            }
            Some(_) if is_direct => {
                self.residue.direct_frees += 1 << order;
                self.memory.free(pfn, order, migrate, false);
            }
            Some(index) => self.free_to_list(pfn, zone, index, event),
            None if phase == Phase::Before => self.memory.note(pfn, State::Unknown, 0),
            None => self.memory.free(pfn, order, migrate, false),
        }
    }

    /// The block goes to the head of its per-CPU list; one of a batch waits until that is told.
    fn free_to_list(&mut self, pfn: u32, zone: usize, index: usize, event: &Event) {
        if let Some(learner) = &mut self.learner {
            learner.freed_to_list(pfn, self.frees);
        }
        let list = if self.batched.has(self.frees) {
            self.effects.push(Effect::Batched);
            self.memory.batch()
        } else {
            self.memory.pcp(zone, self.cpu(event), index)
        };
        self.memory.push_front(list, pfn, State::Pcp, event.order);
        let cpu = self.cpu(event);
        self.last_free[cpu] = Some((pfn, self.frees));
    }

    /// A drain tells when the free before it took effect: another processor may have taken blocks
    /// since the free was told of.
    #[inline]
    pub(super) fn settle_free(&mut self, event: &Event) {
        let cpu = self.cpu(event);
        let Some((pfn, number)) = self.last_free[cpu].take() else { return };
        if event.kind != Kind::PcpDrain {
            return;
        }
        if let Some(learner) = &mut self.learner {
            learner.was_late(number);
        } else {
            self.reach_list(pfn, cpu);
        }
    }

    /// A thread that could not move a page gives its place back to compaction (`compaction_free`):
    /// told as a free, but the page stays in compaction's hands.
    fn is_kept(&mut self, pfn: u32, order: u8, zone: usize, event: &Event) -> bool {
        if !self.migrating.contains(&event.pid.0) {
            return false;
        }
        if self.memory.block_at(pfn).is_some() && !self.swap_guess(pfn, order, zone) {
            return false;
        }
        let is_isolated = self.covering(pfn) == State::Isolated;
        if is_isolated {
            self.confirm_guess(pfn, zone);
        }
        is_isolated
    }

    /// What is known of the block that holds a page.
    pub(super) fn covering(&self, pfn: u32) -> State {
        let states = (0..self.memory.machine().orders).map(|order| {
            let node = self.memory.pages.get(pfn >> order << order);
            if node.order() >= order { node.state() } else { State::Unknown }
        });
        states.into_iter().find(|state| *state != State::Unknown).unwrap_or(State::Unknown)
    }

    /// Numbers the free. `true` when the first pass found that it goes past the per-CPU lists.
    pub(super) fn count_free(&mut self, pfn: u32, zone: usize, event: &Event) -> bool {
        self.frees += 1;
        if !event.context.is_task()
            && let Some(learner) = &mut self.learner
        {
            learner.freed(pfn, self.frees, zone, event);
        }
        while let Some((_, pfn)) = self.bulk.next_if(|(number, _)| *number <= self.frees) {
            if self.memory.pages.get(pfn).state() == State::Pcp {
                self.leave_in_bulk(pfn);
            }
        }
        let is_direct = self.next_direct == Some(self.frees);
        if is_direct {
            self.next_direct = self.direct.next();
            self.effects.push(Effect::Direct { pfn, order: event.order });
        }
        is_direct
    }

    /// Splits the allocated block that holds `[pfn, pfn + 2^order)`, so that the piece can be freed
    /// alone (a huge page that was split, a compaction target). `false` when none holds it.
    pub(super) fn split_taken(&mut self, pfn: u32, order: u8) -> bool {
        for above in order + 1..self.memory.machine().orders {
            let head = pfn >> above << above;
            let node = self.memory.pages.get(head);
            let is_taken = matches!(node.state(), State::Live | State::Limbo | State::Isolated);
            if !is_taken || node.order() < above {
                continue;
            }
            let (mut at, mut have) = (head, node.order());
            while have > order {
                have -= 1;
                let upper = at + (1 << have);
                let (kept, other) = if pfn >= upper { (upper, at) } else { (at, upper) };
                let known = self.memory.pages.get(other).state();
                if !matches!(known, State::Free | State::Pcp) {
                    self.memory.note(other, node.state(), have);
                }
                at = kept;
            }
            return true;
        }
        false
    }

    /// The page goes to this processor's list now: its place in the list is known from here.
    pub(super) fn page_free_batched(&mut self, event: &Event) {
        if let Some((pfn, _)) = self.possible_page(event) {
            let cpu = self.cpu(event);
            self.reach_list(pfn, cpu);
        }
    }

    /// A freed block gets to the head of its list on that processor.
    fn reach_list(&mut self, pfn: u32, cpu: usize) {
        let node = self.memory.pages.get(pfn);
        let Some(zone) = self.memory.zone_of(pfn) else { return };
        if node.state() != State::Pcp {
            return;
        }
        self.memory.pages.unlink(pfn);
        let migrate = self.memory.block_type(pfn);
        let order = node.order();
        if let Some(index) = self.memory.machine().pcp_list(order, migrate) {
            let list = self.memory.pcp(zone, cpu, index);
            if let Some(learner) = &mut self.learner {
                learner.was_batched(pfn);
            }
            if node.list() == self.memory.batch() {
                self.effects.push(Effect::Moved { cpu, pfn, order });
            }
            self.memory.push_front(list, pfn, State::Pcp, order);
        }
    }

    /// The page map, read later, knows a page as free: the event tells that it was freed between
    /// others of which the map, read earlier there, did not know.
    fn was_freed(&mut self, pfn: u32) {
        if let Some((head, _)) = self.memory.block_at(pfn)
            && self.memory.pages.get(head).is_seed()
        {
            self.memory.put_in_front(head);
        }
    }

    /// The kernel drains from the tail: what stands behind a drained block is not on the list. If
    /// it was freed in an interrupt, it went past the list.
    fn recall_behind(&mut self, pfn: u32, list: usize) {
        while let Some(last) = self.memory.back(list).filter(|last| *last != pfn) {
            if !self.learner.as_ref().is_some_and(|learner| learner.is_doubtful(last)) {
                return;
            }
            let order = self.memory.pages.get(last).order();
            self.recall(last, order);
        }
    }

    /// A block left a per-CPU list and is on the buddy lists, merged.
    pub(super) fn pcp_drain(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.possible_page(event) else { return };
        let order = event.order;
        if event.context.is_task() {
            self.close_run(event);
        }
        let node = self.memory.pages.get(pfn);
        if node.state() == State::Pcp {
            self.pcp_hits.drains += 1;
            let at_tail = self.memory.back(node.list()) == Some(pfn);
            self.pcp_hits.at_tail += u64::from(at_tail);
            if !at_tail {
                self.recall_behind(pfn, node.list());
            }
            self.memory.pages.unlink(pfn);
        }
        if let Some(learner) = &mut self.learner {
            learner.was_listed(pfn, zone);
        }
        let phase = self.seed.phase(pfn, event.time.0);
        if phase != Phase::After {
            self.was_freed(pfn);
        }
        if phase == Phase::Before {
            return;
        }
        if node.state() != State::Pcp && self.memory.block_at(pfn).is_some() {
            if phase == Phase::After {
                self.residue.double_drains += 1;
                self.misfit(Cause::UnseenAllocation, pfn, order, 1);
            }
            return;
        }
        match node.state() {
            State::Limbo => self.effects.push(Effect::Returned { pfn, order }),
            State::Unknown => {
                let list = self.unknown_list(zone, event);
                if let (Some(list), Some(learner)) = (list, &mut self.learner) {
                    learner.drained(list, pfn, order);
                }
            }
            _ => {}
        }
        self.make_sure_taken(pfn, order);
        self.left_type(pfn, node, event.migrate);
        self.memory.free(pfn, order, event.migrate, false);
    }
}
