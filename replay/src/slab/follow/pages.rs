//! Page events: which of them are the slab layer's own.

use kmemlab_trace::event::Event;

use super::{Candidate, Follow, Looks, Made, NONE, Place, State, Watch};
use crate::slab::caches::{CacheId, Caches};
use crate::slab::frames::Note;
use kmemlab_trace::direct_map::is_slab_like;

/// No block of pages is larger.
const MAX_ORDER: u8 = 14;

impl Follow<'_> {
    /// A page allocation. Answers the slab it became, where that is known already.
    pub fn page_alloc(
        &mut self,
        event: &Event,
        caches: &Caches,
        watch: &mut impl Watch,
    ) -> Option<u32> {
        let sequence = self.sequence;
        self.sequence += 1;
        let pfn = event.pfn().filter(|pfn| self.frames.holds(pfn.0))?.0 as u32;
        let cpu = usize::from(event.cpu.0);
        match self.frames.get(pfn) {
            Note::Slab(number) => self.destroy(number, cpu, watch),
            Note::Block(number) => self.drop_candidate(number),
            Note::None | Note::Seen => {}
        }
        if let Some((marks, next)) = &mut self.known {
            let cache = match marks.list.get(*next) {
                Some((marked, cache)) if *marked == sequence => {
                    *next += 1;
                    *cache
                }
                _ => {
                    self.frames.set(pfn, Note::Seen);
                    return None;
                }
            };
            self.counts.slab_pages_allocs += 1;
            let (order, migrate) = (Some(event.order.min(MAX_ORDER)), event.migrate);
            let made = Made { pfn, order, migrate, cache, cpu, is_unseen: false };
            return Some(self.create(made, NONE, caches, watch));
        }
        let looks = self.looks(event, caches);
        let candidate = Candidate { sequence, pfn, order: event.order.min(MAX_ORDER), looks };
        let number = match self.free_candidates.pop() {
            Some(number) => {
                self.candidates[number as usize] = candidate;
                number
            }
            None => {
                self.candidates.push(candidate);
                self.candidates.len() as u32 - 1
            }
        };
        self.frames.set(pfn, Note::Block(number));
        None
    }

    /// Whether a page allocation that failed was the slab layer's.
    pub fn is_failed_slab(&mut self, event: &Event, caches: &Caches) -> bool {
        let is_slab = event.pfn().is_none() && self.looks(event, caches) == Looks::Slab;
        self.counts.failed_slab_pages += u64::from(is_slab);
        is_slab
    }

    pub(super) fn looks(&self, event: &Event, caches: &Caches) -> Looks {
        let (gfp, flags) = (caches.gfp(), event.gfp);
        let is_compound = flags & gfp.comp != 0 || !caches.rules().order0_is_compound;
        if !is_slab_like(flags, event.order, gfp) || !is_compound {
            return Looks::Other;
        }
        let as_socket = event.order == 3
            && flags & gfp.kswapd_reclaim != 0
            && flags & (gfp.direct_reclaim | gfp.nomemalloc) == 0;
        if as_socket { Looks::Either } else { Looks::Slab }
    }

    /// A candidate that is freed or covered without an object event.
    pub(super) fn drop_candidate(&mut self, number: u32) {
        let candidate = &mut self.candidates[number as usize];
        match candidate.looks {
            Looks::Slab => {
                self.counts.nameless_slabs += 1;
                self.marks.list.push((candidate.sequence, CacheId::UNKNOWN));
            }
            Looks::Either => self.counts.look_alikes += 1,
            Looks::Other => {}
        }
        candidate.looks = Looks::Other;
        self.free_candidates.push(number);
    }

    /// A page free. Answers whether the pages were a slab's.
    pub fn page_free(&mut self, event: &Event, watch: &mut impl Watch) -> bool {
        let Some(pfn) = event.pfn().filter(|pfn| self.frames.holds(pfn.0)) else { return false };
        let pfn = pfn.0 as u32;
        match self.frames.get(pfn) {
            Note::Slab(number) => {
                self.destroy(number, usize::from(event.cpu.0), watch);
                self.counts.slab_pages_frees += 1;
                true
            }
            Note::Block(number) => {
                self.drop_candidate(number);
                self.frames.set(pfn, Note::Seen);
                false
            }
            Note::None | Note::Seen => {
                self.frames.set(pfn, Note::Seen);
                false
            }
        }
    }

    /// An object event in a page that was not known to be a slab.
    pub(super) fn discover(
        &mut self,
        pfn: u32,
        note: Note,
        cache: CacheId,
        caches: &Caches,
        cpu: usize,
        watch: &mut impl Watch,
    ) -> u32 {
        for order in 0..=10u8 {
            let head = pfn >> order << order;
            let Note::Block(number) = self.frames.get(head) else { continue };
            let candidate = self.candidates[number as usize];
            if candidate.pfn != head || candidate.order < order {
                continue;
            }
            self.counts.slab_pages_allocs += 1;
            self.counts.told_by_object += u64::from(candidate.looks != Looks::Slab);
            self.candidates[number as usize].looks = Looks::Other;
            self.free_candidates.push(number);
            self.marks.list.push((candidate.sequence, cache));
            let order = Some(candidate.order);
            let made = Made { pfn: head, order, migrate: 0, cache, cpu, is_unseen: false };
            return self.create(made, NONE, caches, watch);
        }
        let order = caches.get(cache).map_or(0, |cache| cache.order);
        let head = pfn >> order << order;
        if self.known.is_some() {
            return self.come_late(head, cache, cpu, caches, watch);
        }
        let is_late = note != Note::None || !self.was_slab(head);
        let place = Place { pfn: head, cache, is_late };
        self.counts.unseen_slabs += u64::from(is_late);
        self.before.push(place);
        let before = self.before.len() as u32 - 1;
        let number = self.create(Made { cpu, ..Made::told(place) }, before, caches, watch);
        self.recall_early(number, caches);
        number
    }

    /// Whether the page was in a slab when the page map was read; taken for granted without one.
    fn was_slab(&self, pfn: u32) -> bool {
        let after = self.slab_runs.partition_point(|(start, _)| *start <= pfn);
        self.slab_runs.is_empty() || after > 0 && pfn < self.slab_runs[after - 1].1
    }

    /// Objects freed before it was known that their page is a slab.
    pub(super) fn recall_early(&mut self, number: u32, caches: &Caches) {
        let first = self.slabs[number as usize].first;
        for index in self.early_in(number, caches) {
            self.states[(first + index) as usize] = State::Free;
        }
    }

    /// Their places in the slab.
    pub(super) fn early_in(&mut self, number: u32, caches: &Caches) -> Vec<u32> {
        let slab = self.slabs[number as usize];
        let mut found = Vec::new();
        if self.early.is_empty() {
            return found;
        }
        for page in slab.pfn..slab.pfn + (1 << slab.order) {
            let addresses = self.early.remove(&page).unwrap_or_default();
            let places = addresses.iter().filter_map(|it| self.index_in(&slab, *it, caches));
            found.extend(places);
        }
        found
    }
}
