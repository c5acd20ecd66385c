//! What a learning pass notes, and what a later pass recalls of it.

use kmemlab_trace::event::Event;

use super::Mirror;
use crate::learning::Learned;
use crate::memory::Memory;
use crate::pages::{Node, State};

/// Pages of a zone and processor that waited at the start and were seen to leave.
fn seen_to_leave(memory: &Memory, learned: &Learned, zone: usize, cpu: usize) -> i64 {
    let lists = 0..memory.machine().pcp_lists();
    lists.map(|index| learned.waiting_pages(memory.pcp(zone, cpu, index))).sum()
}

impl Mirror {
    /// What a learning mirror has learned.
    pub fn into_learned(self) -> Learned {
        let mut learned = self.learner.unwrap_or_default().finish();
        let machine = self.memory.machine();
        for set in 0..machine.zones.len() * machine.cpus {
            let (zone, cpu) = (set / machine.cpus, set % machine.cpus);
            learned.left.push(seen_to_leave(&self.memory, &learned, zone, cpu));
        }
        learned
    }

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
                    self.memory.push_back(list, pfn, State::Pcp, order);
                    // Nobody knows how it came there.
                    self.memory.pages.mark_fresh(pfn);
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

    /// Pages of each zone and processor that are known to wait now, less those that waited at the
    /// start and have been seen to leave: with all of these ever seen to, those known to wait now.
    pub(crate) fn known_waiting(&self) -> Vec<i64> {
        let machine = self.memory.machine();
        let sets =
            (0..machine.zones.len()).flat_map(|zone| (0..machine.cpus).map(move |cpu| (zone, cpu)));
        sets.map(|(zone, cpu)| {
            let known = self.memory.pcp_pages(zone, cpu) as i64;
            let left = |learner: &Learned| seen_to_leave(&self.memory, learner, zone, cpu);
            known - self.learner.as_ref().map_or(0, left)
        })
        .collect()
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

    /// A free block is on the list of this type.
    pub(super) fn learn_list(&mut self, head: u32, migrate: u8) {
        let machine = self.memory.machine();
        let block = (head >> machine.block_order) as usize;
        let follows = machine.rules.lists_follow_blocks();
        let is_seed = self.memory.pages.get(head).is_seed();
        let Some(learner) = &mut self.learner else { return };
        if follows {
            learner.block_type(block, migrate);
        } else if is_seed {
            learner.list_type(head, block, migrate);
        }
    }

    /// A claim just told of the type that the pageblock had before.
    pub(super) fn learn_claim(&mut self, pfn: u32, before: u8) {
        let block = (pfn >> self.memory.machine().block_order) as usize;
        if let Some(learner) = &mut self.learner {
            learner.was_claimed(block, before);
        }
    }

    /// A block thought to be on a per-CPU list is not there, and was not allocated in bulk: it was
    /// freed to the list of another type, which is its pageblock's.
    pub(super) fn learn_not(&mut self, pfn: u32, migrate: u8) {
        let block = (pfn >> self.memory.machine().block_order) as usize;
        if let Some(learner) = &mut self.learner
            && learner.type_of(block).is_none()
        {
            learner.exclude(block, migrate);
            let likeliest = learner.likeliest(block, self.memory.block_type(pfn));
            self.memory.set_block_type(pfn, likeliest);
        }
    }

    /// A block left a per-CPU list with this type: its pageblock's when it was freed, unless it
    /// keeps that of the list it was taken from.
    pub(super) fn left_type(&mut self, pfn: u32, node: Node, migrate: u8) {
        let is_known = matches!(node.state(), State::Pcp | State::Limbo) && !node.is_fresh();
        if !is_known && !self.memory.machine().rules.lists_follow_blocks() {
            return;
        }
        self.learn_type(pfn, migrate);
        self.memory.set_block_type(pfn, migrate);
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
        let learner = self.learner.as_ref()?;
        if event.time.0 <= self.seed.last_read() {
            return None;
        }
        let list = |migrate: u8| {
            let index = self.memory.machine().pcp_list(event.order, migrate)?;
            Some(self.memory.pcp(zone, self.cpu(event), index))
        };
        // Where that list was seen empty since, the page's pageblock had another type when the
        // page was freed.
        let others = (0..3).filter_map(list).find(|other| !learner.is_emptied(*other));
        list(event.migrate).filter(|told| !learner.is_emptied(*told)).or(others)
    }

    pub(super) fn learn_popped(&mut self, pfn: u32, zone: usize, event: &Event) {
        let list = self.unknown_list(zone, event);
        if let (Some(list), Some(learner)) = (list, &mut self.learner) {
            learner.popped(list, pfn, event.order);
        }
    }
}
