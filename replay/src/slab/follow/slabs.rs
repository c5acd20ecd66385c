//! Slabs come to be and go.

use super::{Follow, KernelSlab, Made, NONE, State, Watch};
use crate::slab::caches::{CacheId, Caches};
use crate::slab::frames::Note;
use crate::slab::numbers;

impl Follow<'_> {
    /// A slab comes to be; `before` is its number among those that no page event told of.
    pub(super) fn create(
        &mut self,
        made: Made,
        before: u32,
        caches: &Caches,
        watch: &mut impl Watch,
    ) -> u32 {
        let Made { pfn, order, migrate, cache, cpu, is_unseen } = made;
        let known = caches.get(cache);
        let full = known.map_or(0, |cache| cache.order);
        let order = order.unwrap_or(full);
        let objects = known.map_or(0, |cache| {
            let fit = ((1u64 << self.page_shift) << order) / u64::from(cache.stride.max(1));
            if order == full { cache.objects } else { fit.min(u64::from(u16::MAX)) as u16 }
        });
        let state = if before == NONE { State::Free } else { State::Untouched };
        let first = self.rows(cache, objects, order == full, state);
        let is_whole = order == full;
        let is_live = true;
        let slab = KernelSlab {
            pfn,
            first,
            before,
            cache,
            objects,
            order,
            is_whole,
            is_live,
            is_unseen,
            migrate,
        };
        let number = numbers::give(&mut self.slabs, &mut self.free_slabs, slab);
        self.frames.set_block(pfn, order, Note::Slab(number));
        watch.created(number, &slab, cpu);
        number
    }

    /// Rows of the tables by object.
    pub(super) fn rows(
        &mut self,
        cache: CacheId,
        objects: u16,
        is_full: bool,
        state: State,
    ) -> u32 {
        let place = cache.index();
        let kept = self.free_rows.get_mut(place).filter(|_| is_full).and_then(Vec::pop);
        let count = usize::from(objects);
        match kept {
            Some(first) => {
                self.states[first as usize..first as usize + count].fill(state);
                first
            }
            None => {
                let first = self.states.len() as u32;
                self.states.resize(self.states.len() + count, state);
                first
            }
        }
    }

    pub(super) fn destroy(&mut self, number: u32, cpu: usize, watch: &mut impl Watch) {
        let slab = self.slabs[number as usize];
        let (first, count) = (slab.first as usize, usize::from(slab.objects));
        let states = &self.states[first..first + count];
        let live = states.iter().filter(|state| matches!(state, State::Live)).count() as u64;
        self.counts.hidden_frees += live;
        self.counts.hidden_frees_with_slab += live;
        watch.destroyed(number, &slab, states, cpu);
        self.frames.set_block(slab.pfn, slab.order, Note::Seen);
        let place = slab.cache.index();
        if slab.is_whole && count > 0 {
            if self.free_rows.len() <= place {
                self.free_rows.resize(place + 1, Vec::new());
            }
            self.free_rows[place].push(slab.first);
        }
        if let Some(passed) = &mut self.passed {
            passed.gone(slab.cache, number);
        }
        self.slabs[number as usize].is_live = false;
        self.free_slabs.push(number);
    }
}
