//! What a learning pass notes, and what a later pass recalls of it.

use kmemlab_trace::event::Event;

use super::Mirror;
use crate::learning::Learned;
use crate::pages::State;

impl Mirror {
    /// The page map is whole: puts the blocks on the per-CPU lists that the first pass saw leave
    /// them, behind those that came since.
    pub fn recall_waiting(&mut self, learned: &Learned) {
        let machine = self.memory.machine();
        let lists = machine.zones.len() * machine.cpus * machine.pcp_lists();
        let first = self.memory.pcp(0, 0, 0);
        for list in first..first + lists {
            for (pfn, order) in learned.waiting(list) {
                let state = self.memory.pages.get(pfn).state();
                if state != State::Pcp && self.memory.block_at(pfn).is_none() {
                    self.memory.pages.push_back(list, pfn, State::Pcp, order);
                }
            }
        }
    }

    /// Which thread is at what, on every processor.
    pub(super) fn watch(&mut self, event: &Event) {
        let zone = self.page(event).map(|(_, zone)| zone);
        if let Some(learner) = &mut self.learner {
            learner.watch(event, zone);
        }
    }

    /// The kernel takes a page from its free lists; none of its per-CPU lists gave it back since it
    /// was freed.
    pub(super) fn learn_direct(&mut self, pfn: u32) {
        if let Some(learner) = &mut self.learner {
            learner.was_direct(pfn, self.memory.zone_of(pfn).unwrap_or(0));
        }
    }

    /// The block that a fast search took is known.
    pub(super) fn learn_search(&mut self, number: u64, pfn: u32, order: u8) {
        if let Some(learner) = &mut self.learner {
            learner.searched(number, (pfn, order));
        }
    }

    pub(super) fn learn_type(&mut self, pfn: u32, migrate: u8) {
        let block = (pfn >> self.memory.machine().block_order) as usize;
        if let Some(learner) = &mut self.learner {
            learner.block_type(block, migrate);
        }
    }

    /// A block is about to leave its free list from the head.
    pub(super) fn learn_taken(&mut self, head: u32) {
        if let Some(learner) = &mut self.learner
            && self.memory.pages.get(head).is_seed()
        {
            learner.taken(head);
        }
    }

    /// The kernel took a block of order `have` for a smaller request: its lists of this type below
    /// that order were empty. Free blocks of the start that stand there are of another type.
    pub(super) fn learn_empty(&mut self, zone: usize, orders: std::ops::Range<u8>, migrate: u8) {
        let Some(mut learner) = self.learner.take() else { return };
        let block_order = self.memory.machine().block_order;
        for order in orders {
            let list = self.memory.list(zone, order, migrate);
            let doubtful: Vec<u32> = self
                .memory
                .pages
                .iter(list)
                .filter(|pfn| self.memory.pages.get(*pfn).is_seed())
                .filter(|pfn| learner.type_of((*pfn >> block_order) as usize).is_none())
                .collect();
            for pfn in doubtful {
                // Its neighbours may have taken it along.
                if self.memory.block_type(pfn) == migrate {
                    let block = (pfn >> block_order) as usize;
                    learner.exclude(block, migrate);
                    let likeliest = learner.likeliest(block, migrate);
                    self.memory.move_block_as_seeds(pfn, likeliest);
                }
            }
        }
        self.learner = Some(learner);
    }

    /// The per-CPU list on which an unknown page of the start must have waited; once the page map
    /// is whole.
    pub(super) fn unknown_list(&self, zone: usize, event: &Event) -> Option<usize> {
        self.learner.as_ref()?;
        if event.time.0 <= self.seed.last_read() {
            return None;
        }
        let index = self.memory.machine().pcp_list(event.order, event.migrate)?;
        Some(self.memory.pcp(zone, self.cpu(event), index))
    }

    pub(super) fn learn_popped(&mut self, pfn: u32, zone: usize, event: &Event) {
        let list = self.unknown_list(zone, event);
        if let (Some(list), Some(learner)) = (list, &mut self.learner) {
            learner.popped(list, pfn, event.order);
        }
    }
}
