//! The lists of partial slabs: the node's, doubly linked, and each processor's stack.

use super::sheaf::Sheaves;
use super::{Place, Slub};
use crate::slab::caches::CacheId;
use crate::slab::follow::NONE;
use crate::slab::policy::Occupancy;

impl Slub {
    /// The next slab to take from the node: the first, or the fullest where the policy says so.
    pub(super) fn pick(&self, cache: CacheId) -> u32 {
        let head = self.caches[cache.index()].head;
        if !self.tuning.fullest_first {
            return head;
        }
        let (mut best, mut at) = (head, head);
        while at != NONE {
            if self.free_of(at) < self.free_of(best) {
                best = at;
            }
            at = self.slabs[at as usize].next;
        }
        best
    }

    pub(super) fn link_tail(&mut self, cache: CacheId, number: u32) {
        let tail = self.caches[cache.index()].tail;
        self.link(cache, number, tail, NONE);
    }

    pub(super) fn link_head(&mut self, cache: CacheId, number: u32) {
        let head = self.caches[cache.index()].head;
        self.link(cache, number, NONE, head);
    }

    fn link(&mut self, cache: CacheId, number: u32, previous: u32, next: u32) {
        let free = u64::from(self.free_of(number));
        let slab = &mut self.slabs[number as usize];
        slab.place = Place::Node;
        (slab.previous, slab.next) = (previous, next);
        match previous {
            NONE => self.caches[cache.index()].head = number,
            _ => self.slabs[previous as usize].next = number,
        }
        match next {
            NONE => self.caches[cache.index()].tail = number,
            _ => self.slabs[next as usize].previous = number,
        }
        let state = &mut self.caches[cache.index()];
        state.partial += 1;
        state.node_free += free;
    }

    pub(super) fn unlink(&mut self, cache: CacheId, number: u32) {
        let free = u64::from(self.free_of(number));
        let slab = &mut self.slabs[number as usize];
        let (previous, next) = (slab.previous, slab.next);
        (slab.previous, slab.next) = (NONE, NONE);
        slab.place = Place::Full;
        match previous {
            NONE => self.caches[cache.index()].head = next,
            _ => self.slabs[previous as usize].next = next,
        }
        match next {
            NONE => self.caches[cache.index()].tail = previous,
            _ => self.slabs[next as usize].previous = previous,
        }
        let state = &mut self.caches[cache.index()];
        state.partial -= 1;
        state.node_free -= free;
    }

    pub(super) fn push_stack(&mut self, cache: CacheId, cpu: usize, number: u32) {
        let free = self.free_of(number);
        let holder = &mut self.caches[cache.index()].cpus[cpu];
        let below = holder.stack;
        holder.stack = number;
        holder.stack_slabs += 1;
        holder.stack_objects += free;
        let slab = &mut self.slabs[number as usize];
        slab.place = Place::CpuPartial;
        slab.next = below;
    }

    pub(super) fn pop_stack(&mut self, cache: CacheId, cpu: usize) -> u32 {
        let number = self.caches[cache.index()].cpus[cpu].stack;
        if number == NONE {
            return NONE;
        }
        let free = self.free_of(number);
        let slab = &mut self.slabs[number as usize];
        let below = slab.next;
        slab.next = NONE;
        let holder = &mut self.caches[cache.index()].cpus[cpu];
        holder.stack = below;
        holder.stack_slabs -= 1;
        holder.stack_objects =
            if below == NONE { 0 } else { holder.stack_objects.saturating_sub(free) };
        number
    }

    /// `__kmem_cache_do_shrink`: empty slabs go back, then those with few free objects first.
    pub(super) fn sort_partial(&mut self, cache: CacheId) {
        let mut numbers = Vec::new();
        let mut at = self.caches[cache.index()].head;
        while at != NONE {
            numbers.push(at);
            at = self.slabs[at as usize].next;
        }
        // Each with up to 32 free objects moves to the head of its own class, fullest class first.
        let mut few: Vec<Vec<u32>> = vec![Vec::new(); SHRINK_CLASSES];
        for number in numbers {
            let slab = self.slabs[number as usize];
            let free = usize::from(slab.objects - slab.used);
            if slab.used == 0 {
                self.unlink(cache, number);
                self.discard(number);
            } else if free <= SHRINK_CLASSES && free > 0 {
                self.unlink(cache, number);
                few[free - 1].push(number);
            }
        }
        for class in few.into_iter().rev() {
            for number in class {
                self.link_head(cache, number);
            }
        }
    }

    /// How full the slabs are, by cache.
    pub(super) fn walk_occupancy(&self) -> Vec<Occupancy> {
        let mut list = vec![Occupancy::default(); self.caches.len()];
        // Objects that rest in sheaves are out of their slabs and in nobody's hands.
        let mut resting = vec![0_u16; self.slabs.len()];
        let sheaves = self.caches.iter().filter_map(|cache| cache.sheaves.as_deref());
        for token in sheaves.flat_map(Sheaves::objects) {
            resting[*token as usize] += 1;
        }
        for (slab, resting) in self.slabs.iter().zip(resting) {
            if slab.place != Place::Gone {
                let used = u32::from(slab.used.saturating_sub(resting));
                list[slab.cache.index()].add(used, u32::from(slab.objects));
            }
        }
        list
    }
}

/// `SHRINK_PROMOTE_MAX`.
const SHRINK_CLASSES: usize = 32;
