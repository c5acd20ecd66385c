//! A new slab.

use super::{PING_PONG_STEPS, Place, Slab, Slub};
use crate::slab::caches::CacheId;
use crate::slab::follow::NONE;
use crate::slab::numbers;
use crate::slab::policy::{Origin, PageRequest, Pages};

impl Slub {
    /// `allocate_slab`: of the least order when there is no block of the usual one.
    pub(super) fn new_slab(&mut self, cache: CacheId, pages: &mut Pages<'_>) -> u32 {
        let steps = self.steps;
        let state = self.cache_mut(cache);
        state.new_slabs += 1;
        if state.last_release > 0 && steps - state.last_release < PING_PONG_STEPS {
            state.ping_pong += 1;
        }
        let (mut order, mut objects) = (state.order, state.objects);
        if order > state.least.0 && !pages(cache, order) {
            (order, objects) = state.least;
            state.least_slabs += 1;
        }
        let number = self.place_slab_of(cache, order, objects, 0, Origin::Made);
        self.requests.push(PageRequest::Alloc { slab: number, cache, order });
        number
    }

    /// A slab of the usual order with so many objects in use, on no list.
    pub(super) fn place_slab(
        &mut self,
        cache: CacheId,
        objects: u16,
        used: u16,
        origin: Origin,
    ) -> u32 {
        let order = self.caches[cache.index()].order;
        self.place_slab_of(cache, order, objects, used, origin)
    }

    fn place_slab_of(
        &mut self,
        cache: CacheId,
        order: u8,
        objects: u16,
        used: u16,
        origin: Origin,
    ) -> u32 {
        let state = self.cache_mut(cache);
        state.slabs += 1;
        state.room += u64::from(objects);
        state.pages += 1 << order;
        let (place, next, previous) = (Place::Full, NONE, NONE);
        let slab = Slab { cache, objects, used, place, order, next, previous, origin };
        numbers::give(&mut self.slabs, &mut self.free_slabs, slab)
    }
}
