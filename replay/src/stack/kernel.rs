//! How full the recorded kernel's slabs are, told by the events: an object's address tells its
//! slab.
//!
//! The same figures that a slab layer gives of its own slabs, so that the two can be compared. What
//! is from before is as full at the start as its objects' first events say; a slab that no event
//! names is as full as the first `/proc/slabinfo` leaves it, and stays so.

use super::sums::Fullness;
use crate::slab::caches::{CacheId, Caches};
use crate::slab::follow::{KernelSlab, NONE};
use crate::slab::learning::Learned;
use crate::slab::policy::{Occupancy, SlabPolicy};
use crate::slab::slub::{PING_PONG_STEPS, nameless_used};

/// A slab that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slab {
    cache: CacheId,
    live: u16,
    objects: u16,
    is_there: bool,
}

/// A cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cache {
    last_release: u64,
    ping_pong: u64,
    /// Slabs that no event names.
    nameless: Occupancy,
    nameless_room: u64,
}

/// What a cache of the kernel holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// How full its slabs are.
    pub(super) occupancy: Occupancy,
    /// Room for objects in them.
    pub(super) room: u64,
    /// Slabs made soon after one was given back.
    pub(super) ping_pong: u64,
}

/// The kernel's slabs.
#[derive(Clone, Debug, Default)]
pub(super) struct KernelSlabs {
    /// By the follower's number.
    slabs: Vec<Slab>,
    caches: Vec<Cache>,
    /// Objects asked for and given back, as a slab layer counts them.
    steps: u64,
}

impl KernelSlabs {
    /// The slabs that no event names.
    pub(super) fn new(caches: &Caches, learned: &Learned) -> Self {
        let mut kernel = Self::default();
        for (index, cache) in caches.list().iter().enumerate() {
            let start = learned.cache(CacheId(index as u16));
            let nameless_room = start.nameless_slabs * u64::from(cache.objects);
            let mut told = Cache { nameless_room, ..Cache::default() };
            for used in nameless_used(&start, cache.objects) {
                told.nameless.add(u32::from(used), u32::from(cache.objects));
            }
            kernel.caches.push(told);
        }
        kernel
    }

    fn cache(&mut self, cache: CacheId) -> Option<&mut Cache> {
        if cache == CacheId::UNKNOWN {
            return None;
        }
        if self.caches.len() <= cache.index() {
            self.caches.resize(cache.index() + 1, Cache::default());
        }
        self.caches.get_mut(cache.index())
    }

    /// A slab came to be, or was there before with so many objects.
    pub(super) fn created(&mut self, number: u32, slab: &KernelSlab, live: u16) {
        let index = number as usize;
        if self.slabs.len() <= index {
            let none = Slab { cache: CacheId::UNKNOWN, live: 0, objects: 0, is_there: false };
            self.slabs.resize(index + 1, none);
        }
        let (cache, objects) = (slab.cache, slab.objects);
        self.slabs[index] = Slab { cache, live, objects, is_there: true };
        let steps = self.steps;
        if slab.before == NONE
            && let Some(state) = self.cache(cache)
            && state.last_release > 0
            && steps - state.last_release < PING_PONG_STEPS
        {
            state.ping_pong += 1;
        }
    }

    /// A slab's pages went back.
    pub(super) fn destroyed(&mut self, number: u32, cache: CacheId) {
        if let Some(slab) = self.slabs.get_mut(number as usize) {
            slab.is_there = false;
        }
        let steps = self.steps;
        if let Some(state) = self.cache(cache) {
            state.last_release = steps;
        }
    }

    /// An object was asked for or given back; `by` is what it changes in its slab.
    pub(super) fn step(&mut self, number: u32, by: i16) {
        self.steps += 1;
        if let Some(slab) = self.slabs.get_mut(number as usize) {
            slab.live = slab.live.saturating_add_signed(by).min(slab.objects);
        }
    }

    /// How full all slabs of a layer are, and the kernel's.
    pub(super) fn fullness(&self, layer: &dyn SlabPolicy, caches: &Caches) -> (Fullness, Fullness) {
        let (mut model, mut kernel) = (Fullness::default(), Fullness::default());
        let (occupancy, held) = (layer.occupancy(), self.held());
        for (index, cache) in caches.list().iter().enumerate() {
            let stride = u64::from(cache.stride);
            let room = layer.counts(CacheId(index as u16)).objects;
            let mine = occupancy.get(index).copied().unwrap_or_default();
            model.add(&mine, room, stride);
            let held = held.get(index).copied().unwrap_or_default();
            kernel.add(&held.occupancy, held.room, stride);
        }
        (model, kernel)
    }

    /// Every cache now.
    pub(super) fn held(&self) -> Vec<Held> {
        let of = |cache: &Cache| Held {
            occupancy: cache.nameless,
            room: cache.nameless_room,
            ping_pong: cache.ping_pong,
        };
        let mut list: Vec<Held> = self.caches.iter().map(of).collect();
        for slab in self.slabs.iter().filter(|slab| slab.is_there) {
            if let Some(held) = list.get_mut(slab.cache.index()) {
                held.occupancy.add(u32::from(slab.live), u32::from(slab.objects));
                held.room += u64::from(slab.objects);
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(before: u32) -> KernelSlab {
        KernelSlab::probe(8, 0, before, 8)
    }

    #[test]
    fn objects_fill_the_slabs_that_their_addresses_name() {
        let mut kernel = KernelSlabs::default();
        kernel.created(0, &slab(3), 6);
        kernel.created(1, &slab(NONE), 0);
        for _ in 0..2 {
            kernel.step(1, 1);
        }
        kernel.step(0, -1);
        let held = kernel.held()[0];
        let expect = Occupancy { live: 7, partial_free: 3 + 6, empty_slabs: 0, sparse_slabs: 1 };
        assert_eq!((held.occupancy, held.room, held.ping_pong), (expect, 16, 0));
    }

    #[test]
    fn a_slab_made_soon_after_one_went_is_a_ping_pong() {
        let mut kernel = KernelSlabs::default();
        kernel.created(0, &slab(NONE), 0);
        kernel.step(0, 1);
        kernel.destroyed(0, CacheId(0));
        kernel.created(0, &slab(NONE), 0);
        assert_eq!(kernel.held()[0].ping_pong, 1);
        kernel.destroyed(0, CacheId(0));
        for _ in 0..PING_PONG_STEPS {
            kernel.step(7, 1);
        }
        kernel.created(0, &slab(NONE), 0);
        assert_eq!(kernel.held()[0].ping_pong, 1, "long after");
    }
}
