//! Without a page map: blocks whose number is known and whose place is not.
//!
//! `/proc/buddyinfo` tells how many free blocks there are; they are put at made-up places. When an
//! event names a page of such a block, the block moves elsewhere; when the kernel takes a block
//! that the mirror does not have, a made-up one is used up, the smallest that is large enough, as
//! the kernel would have chosen it.

use kmemlab_trace::event::{Event, Kind};

use super::Mirror;
use crate::memory::End;
use crate::pages::State;

impl Mirror {
    /// An event names a page: a block that only was put there moves elsewhere.
    pub(super) fn make_room(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.page(event) else { return };
        if matches!(event.kind, Kind::IsolateFree | Kind::FastIsolateFree) {
            return;
        }
        let mut at = pfn;
        let end = pfn.saturating_add(1 << event.order.min(15));
        while at < end {
            let Some((head, order)) = self.memory.block_at(at) else {
                at += 1;
                continue;
            };
            at = head.saturating_add(1 << order);
            if self.memory.pages.get(head).is_seed() {
                self.move_made_up(head, zone);
            }
        }
    }

    fn move_made_up(&mut self, head: u32, zone: usize) {
        let (order, migrate) = self.memory.remove(head);
        // Not to the place that it has to leave.
        self.memory.note(head, State::Live, order);
        if let Some(place) = self.unknown_place(zone, order) {
            self.put_made_up(place, order, migrate);
        }
        self.memory.note(head, State::Unknown, 0);
    }

    fn put_made_up(&mut self, pfn: u32, order: u8, migrate: u8) {
        self.memory.insert(pfn, order, migrate, End::Tail);
        self.memory.pages.mark_seed(pfn);
    }

    /// The kernel took a block that the mirror does not hold whole: what is free of it is taken,
    /// and made-up blocks stand for the rest, with which it had merged.
    pub(super) fn take_for_made_up(&mut self, pfn: u32, order: u8) {
        if self.holds(pfn, order) || order == 0 || !self.is_partly_free(pfn, order) {
            let zone = self.memory.zone_of(pfn).unwrap_or(0);
            if !self.holds(pfn, order) && self.use_made_up(zone, order) {
                self.residue.made_up_pages += 1 << order;
            } else {
                self.take_pieces(pfn, order);
            }
            return;
        }
        let half = order - 1;
        self.take_for_made_up(pfn, half);
        self.take_for_made_up(pfn + (1 << half), half);
    }

    fn is_partly_free(&self, pfn: u32, order: u8) -> bool {
        (pfn..pfn + (1 << order)).any(|page| self.memory.block_at(page).is_some())
    }

    /// Uses up a made-up block for one that the kernel took. `false` when there is none.
    fn use_made_up(&mut self, zone: usize, wanted: u8) -> bool {
        let machine = self.memory.machine();
        let (orders, types) = (machine.orders, machine.types);
        for order in wanted..orders {
            for migrate in 0..types {
                let list = self.memory.list(zone, order, migrate);
                let found = self.memory.front(list);
                let Some(head) = found.filter(|pfn| self.memory.pages.get(*pfn).is_seed()) else {
                    continue;
                };
                self.memory.remove(head);
                for half in (wanted..order).rev() {
                    self.put_made_up(head + (1 << half), half, migrate);
                }
                return true;
            }
        }
        false
    }
}
