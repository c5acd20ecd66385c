//! After lost events: the mirror's counts are made those of a sample of `/proc/buddyinfo`.

use super::Mirror;
use crate::memory::End;
use crate::pages::State;
use crate::residue::Cause;

impl Mirror {
    /// Why a page is free in the kernel only (`is_free`) or in the mirror only.
    pub(crate) fn cause_of(&self, pfn: u32, is_free: bool) -> Cause {
        if !is_free {
            return self.guess_beside(pfn).unwrap_or(Cause::UnseenAllocation);
        }
        if let Some(cause) = self.guessed_for(pfn) {
            return cause;
        }
        match self.covering(pfn) {
            State::Pcp | State::Limbo => Cause::DirectFree,
            State::Isolated => Cause::Isolation,
            _ => Cause::UnseenFree,
        }
    }

    /// Makes a zone's counts the kernel's: surplus blocks leave their lists from the head, where
    /// the kernel takes; missing ones come from the tails of the per-CPU lists, where the kernel
    /// drains, or are put at unknown places. Answers the pages removed and added.
    pub(crate) fn resync(&mut self, zone: usize, kernel: &[u64]) -> (u64, u64) {
        let (mut removed, mut added) = (0, 0);
        for order in (0..self.memory.machine().orders).rev() {
            let wanted = kernel.get(usize::from(order)).copied().unwrap_or(0);
            while self.memory.free_blocks(zone)[usize::from(order)] > wanted {
                self.take_any(zone, order);
                removed += 1 << order;
            }
        }
        for order in (0..self.memory.machine().orders).rev() {
            let wanted = kernel.get(usize::from(order)).copied().unwrap_or(0);
            let mut lacking =
                wanted.saturating_sub(self.memory.free_blocks(zone)[usize::from(order)]);
            while lacking > 0 && self.put_any(zone, order) {
                lacking -= 1;
                added += 1 << order;
            }
        }
        (removed, added)
    }

    /// The first block of that order, of the likeliest type.
    fn take_any(&mut self, zone: usize, order: u8) {
        let types = [1, 0, 2].into_iter().chain(3..self.memory.machine().types);
        let head = types
            .map(|migrate| self.memory.list(zone, order, migrate))
            .find_map(|list| self.memory.front(list));
        if let Some(head) = head {
            self.memory.remove(head);
        }
    }

    /// Puts a block on its list without merging, where nothing is known to be.
    fn put_any(&mut self, zone: usize, order: u8) -> bool {
        let waiting = self.waiting_place(zone, order);
        let Some(pfn) = waiting.or_else(|| self.unknown_place(zone, order)) else { return false };
        if self.memory.pages.get(pfn).state() == State::Pcp {
            self.memory.pages.unlink(pfn);
        }
        self.memory.forget_inner(pfn, order);
        self.memory.note(pfn, State::Unknown, 0);
        self.memory.insert(pfn, order, self.memory.block_type(pfn), End::Tail);
        true
    }

    /// The block that has waited longest on a per-CPU list of that order.
    fn waiting_place(&self, zone: usize, order: u8) -> Option<u32> {
        let machine = self.memory.machine();
        let lists = (0..machine.cpus).flat_map(|cpu| {
            (0..machine.pcp_lists())
                .filter(|index| machine.pcp_list_order(*index) == order)
                .map(move |index| (cpu, index))
        });
        let longest = lists
            .map(|(cpu, index)| self.memory.pcp(zone, cpu, index))
            .max_by_key(|list| self.memory.pages.lists[*list].len)?;
        self.memory.back(longest).filter(|pfn| !self.merges(*pfn, order))
    }

    /// A block would merge with its buddy: it can not stand on a list as it is.
    fn merges(&self, pfn: u32, order: u8) -> bool {
        let buddy = self.memory.pages.get(pfn ^ (1 << order));
        buddy.state() == State::Free && buddy.order() == order
    }

    /// A place of a zone where nothing is known to be, from where the last one was found downwards.
    pub(super) fn unknown_place(&mut self, zone: usize, order: u8) -> Option<u32> {
        let span = &self.memory.machine().zones[zone];
        let (start, end, size) = (span.start, span.end, 1u32 << order);
        let from = self.cursors[zone] & !(size - 1);
        let down = |from: u32, to: u32| {
            let blocks = (from & !(size - 1)).saturating_sub(to) / size;
            (0..blocks).map(move |n| (from & !(size - 1)) - (n + 1) * size)
        };
        let fits = |at: &u32| {
            self.memory.zone_of(*at) == Some(zone)
                && !self.merges(*at, order)
                && self.is_unknown(*at, order)
        };
        let found = down(from, start).find(fits).or_else(|| down(end, from).find(fits))?;
        self.cursors[zone] = found;
        Some(found)
    }

    /// Nothing is known of any page of a block.
    fn is_unknown(&self, pfn: u32, order: u8) -> bool {
        let known = |at: u32| self.memory.pages.get(at).state() != State::Unknown;
        let mut inner = pfn..pfn + (1 << order);
        let is_covered = (order..self.memory.machine().orders).any(|above| {
            let node = self.memory.pages.get(pfn >> above << above);
            node.state() != State::Unknown && node.order() >= above
        });
        !is_covered && !inner.any(known)
    }
}
