//! What comes without an event: found in the first pass, made to come in the second.

use kmemlab_trace::event::Event;

use super::{Follow, Made, NONE, Object, State, Watch};
use crate::slab::caches::{CacheId, Caches};
use crate::slab::frames::Note;
use crate::slab::unseen::{Arrival, Came, Unseen};

impl<'a> Follow<'a> {
    /// First pass: a processor that goes on to another slab has left nothing free in the one before
    /// (`___slab_alloc`; sheaves hide it).
    pub(super) fn pass_over(
        &mut self,
        object: Object,
        event: &Event,
        is_alloc: bool,
        caches: &Caches,
    ) {
        let Some(passed) = &mut self.passed else { return };
        let since = passed.forget(object.number as usize);
        let (at_ns, cpu) = (event.time.0, event.cpu.0);
        if !is_alloc {
            if object.was == State::Free
                && let Some((at_ns, cpu)) = since
            {
                let came = Came::Object(event.pfn_or_address);
                passed.found.push(Arrival { at_ns, cpu, came });
            }
            return;
        }
        if caches.get(object.cache).is_none_or(|cache| cache.sheaf > 0) {
            return;
        }
        let before = passed.goes_to(object.cache, usize::from(cpu), object.slab);
        let Some(before) = before.map(|number| self.slabs[number as usize]) else { return };
        let first = before.first as usize;
        for row in first..first + usize::from(before.objects) {
            if self.states[row] == State::Free {
                passed.pass(row, at_ns, cpu);
            }
        }
    }

    /// Second pass: slabs that will come unseen.
    pub(super) fn expect(&mut self, unseen: &'a Unseen) {
        self.unseen = Some(unseen);
        for (number, slab) in (0u32..).zip(&unseen.slabs) {
            self.to_come.entry(slab.place.pfn).or_default().push(number);
        }
    }

    /// Second pass: what is known to have come by now.
    pub fn arrive(&mut self, arrival: &Arrival, caches: &Caches, watch: &mut impl Watch) {
        let cpu = usize::from(arrival.cpu);
        match arrival.came {
            Came::Object(address) => {
                if let Some((number, index)) = self.place_of(address, caches) {
                    self.allocate(number, index, cpu, watch);
                }
            }
            Came::Freed(address) | Came::FreedTogether(address) => {
                if let Some((slab, index)) = self.place_of(address, caches) {
                    let number = self.slabs[slab as usize].first + index;
                    let (was, cache) = (State::Live, self.slabs[slab as usize].cache);
                    if self.states[number as usize] == was {
                        self.states[number as usize] = State::Free;
                        let is_together = matches!(arrival.came, Came::FreedTogether(_));
                        watch.unseen_free(Object { slab, number, cache, was }, cpu, is_together);
                    }
                }
            }
            Came::Slab(number) => {
                let Some(late) = self.unseen.and_then(|it| it.slabs.get(number as usize)) else {
                    return;
                };
                let order = caches.get(late.place.cache).map_or(0, |cache| cache.order);
                let pages = late.place.pfn..late.place.pfn + (1 << order);
                let is_taken = |page: u32| matches!(self.frames.get(page), Note::Slab(_));
                // Where another slab stands it has not come yet.
                if !pages.into_iter().any(is_taken) {
                    self.come(number, cpu, caches, watch);
                }
            }
            Came::Objects(..) | Came::Grace(_) => {}
        }
    }

    /// Second pass: an object in a page that was not known to be a slab.
    pub(super) fn come_late(
        &mut self,
        pfn: u32,
        cache: CacheId,
        cpu: usize,
        caches: &Caches,
        watch: &mut impl Watch,
    ) -> u32 {
        let next = self.to_come.get(&pfn).and_then(|numbers| numbers.first().copied());
        if let Some(number) = next
            && let Some(slab) = self.come(number, cpu, caches, watch)
        {
            return slab;
        }
        let made = Made { pfn, order: None, migrate: 0, cache, cpu, is_unseen: true };
        self.create(made, NONE, caches, watch)
    }

    /// The slab that an address is in, and its place there.
    fn place_of(&self, address: u64, caches: &Caches) -> Option<(u32, u32)> {
        let Note::Slab(number) = self.frames.get(self.pfn_of(address)?) else { return None };
        let slab = self.slabs[number as usize];
        Some((number, self.index_in(&slab, address, caches)?))
    }

    /// A slab comes with the objects that are in it.
    fn come(
        &mut self,
        number: u32,
        cpu: usize,
        caches: &Caches,
        watch: &mut impl Watch,
    ) -> Option<u32> {
        let late = self.unseen?.slabs.get(number as usize)?;
        let numbers = self.to_come.get_mut(&late.place.pfn)?;
        let at = numbers.iter().position(|other| *other == number)?;
        numbers.remove(at);
        let made = Made { cpu, is_unseen: true, ..Made::told(late.place) };
        let slab = self.create(made, NONE, caches, watch);
        let first = self.slabs[slab as usize].first;
        let objects = self.slabs[slab as usize].objects;
        let early = self.early_in(slab, caches);
        for index in 0..u32::from(objects) {
            let is_free = late.free.contains(&(index as u16)) || early.contains(&index);
            if !is_free && self.states[(first + index) as usize] == State::Free {
                self.allocate(slab, index, cpu, watch);
            }
        }
        Some(slab)
    }

    /// An object is allocated that no event tells of.
    fn allocate(&mut self, slab: u32, index: u32, cpu: usize, watch: &mut impl Watch) {
        let of = self.slabs[slab as usize];
        let number = of.first + index;
        let was = self.states[number as usize];
        if was == State::Free {
            self.states[number as usize] = State::Live;
            watch.unseen_alloc(Object { slab, number, cache: of.cache, was }, cpu);
        }
    }
}
