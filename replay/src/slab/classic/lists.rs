//! The lists of partial and of free slabs.

use super::{Classic, List};
use crate::slab::caches::CacheId;
use crate::slab::follow::NONE;

const PARTIAL: usize = 0;
const FREE: usize = 1;

impl Classic {
    /// The slab that objects are taken from next.
    pub(super) fn first_with_room(&mut self, cache: CacheId) -> Option<u32> {
        let state = &mut self.caches[cache.index()];
        let partial = state.ends[PARTIAL].0;
        if partial != NONE {
            return Some(partial);
        }
        // Taking a free slab tells the reaper to leave the others alone.
        state.is_free_touched = true;
        Some(state.ends[FREE].0).filter(|slab| *slab != NONE)
    }

    /// The free slab that is given back next.
    pub(super) fn last_free(&self, cache: CacheId) -> Option<u32> {
        Some(self.caches[cache.index()].ends[FREE].1).filter(|slab| *slab != NONE)
    }

    pub(super) fn link_head(&mut self, slab: u32, list: List) {
        let next = self.ends(slab, list).0;
        self.link(slab, list, NONE, next);
    }

    pub(super) fn link_tail(&mut self, slab: u32, list: List) {
        let previous = self.ends(slab, list).1;
        self.link(slab, list, previous, NONE);
    }

    fn ends(&self, slab: u32, list: List) -> (u32, u32) {
        let which = if list == List::Free { FREE } else { PARTIAL };
        self.caches[self.slabs[slab as usize].cache.index()].ends[which]
    }

    fn link(&mut self, slab: u32, list: List, previous: u32, next: u32) {
        let one = &mut self.slabs[slab as usize];
        (one.list, one.previous, one.next) = (list, previous, next);
        let cache = one.cache;
        if previous != NONE {
            self.slabs[previous as usize].next = slab;
        }
        if next != NONE {
            self.slabs[next as usize].previous = slab;
        }
        let state = &mut self.caches[cache.index()];
        let which = if list == List::Free { FREE } else { PARTIAL };
        let ends = &mut state.ends[which];
        if previous == NONE {
            ends.0 = slab;
        }
        if next == NONE {
            ends.1 = slab;
        }
        if list == List::Free {
            state.free_slabs += 1;
        } else {
            state.partial += 1;
        }
    }

    pub(super) fn unlink(&mut self, slab: u32) {
        let one = self.slabs[slab as usize];
        if !matches!(one.list, List::Partial | List::Free) {
            return;
        }
        self.slabs[slab as usize].list = List::Full;
        if one.previous != NONE {
            self.slabs[one.previous as usize].next = one.next;
        }
        if one.next != NONE {
            self.slabs[one.next as usize].previous = one.previous;
        }
        let state = &mut self.caches[one.cache.index()];
        let which = if one.list == List::Free { FREE } else { PARTIAL };
        let ends = &mut state.ends[which];
        if one.previous == NONE {
            ends.0 = one.next;
        }
        if one.next == NONE {
            ends.1 = one.previous;
        }
        if one.list == List::Free {
            state.free_slabs -= 1;
        } else {
            state.partial -= 1;
        }
    }
}
