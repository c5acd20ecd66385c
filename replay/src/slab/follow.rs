//! Follows the recorded objects: which slab each address is in, which page events were the slab
//! layer's own, which frees and allocations no event showed.
//!
//! Two passes share it. The first finds out which page allocations became slabs ([`Marks`]): an
//! object event tells it later than the page event. The second knows it at the page event.

use std::collections::HashMap;

use kmemlab_trace::event::{Column, Event, Kind};

use super::caches::{CacheId, Caches, Site};
use super::frames::{Frames, Note};
use super::unseen::{Arrival, Passed, Unseen};

mod pages;
mod slabs;
mod unseen;

/// A slab of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelSlab {
    /// First page.
    pub pfn: u32,
    /// Number of its first object in tables by object.
    pub first: u32,
    /// Its place among the slabs from before the recording; `NONE` for a later one.
    pub before: u32,
    /// Its cache.
    pub cache: CacheId,
    /// Objects it holds.
    pub objects: u16,
    /// Order of its block.
    pub order: u8,
    /// Holds as many objects as the cache's slabs do.
    pub is_whole: bool,
    /// Its pages have not gone back.
    pub is_live: bool,
    /// It came in the recording, and no event told of its pages.
    pub is_unseen: bool,
    /// Migrate type of its pages, where their event was seen.
    pub migrate: u8,
}

#[cfg(test)]
impl KernelSlab {
    /// A whole slab of the first cache.
    pub(crate) fn probe(pfn: u32, first: u32, before: u32, objects: u16) -> Self {
        let (cache, order, migrate) = (CacheId(0), 0, 0);
        let (is_whole, is_live, is_unseen) = (true, true, false);
        Self { pfn, first, before, cache, objects, order, is_whole, is_live, is_unseen, migrate }
    }
}

/// A slab that no page event told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// First page.
    pub pfn: u32,
    /// Its cache.
    pub cache: CacheId,
    /// It came in the recording: its page was no slab's before.
    pub is_late: bool,
}

/// A slab about to be followed.
#[derive(Clone, Copy, Debug)]
struct Made {
    pfn: u32,
    order: Option<u8>,
    migrate: u8,
    cache: CacheId,
    cpu: usize,
    is_unseen: bool,
}

impl Made {
    /// A slab that an object told of.
    fn told(place: Place) -> Self {
        let Place { pfn, cache, .. } = place;
        Self { pfn, order: None, migrate: 0, cache, cpu: 0, is_unseen: false }
    }
}

/// No such thing.
pub const NONE: u32 = u32::MAX;

/// What is known of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// No event named it, and its slab is older than the recording.
    Untouched = 0,
    /// Allocated.
    Live = 1,
    /// Free.
    Free = 2,
    /// Allocated, and the event of the free before is still to come (6.0 and older).
    Owed = 3,
}

/// An object that an event named.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Its slab.
    pub slab: u32,
    /// Its number in tables by object.
    pub number: u32,
    /// Its cache.
    pub cache: CacheId,
    /// What was known of it before the event.
    pub was: State,
}

/// Who listens to what is followed.
pub trait Watch {
    /// A slab came to be, or was there before.
    fn created(&mut self, number: u32, slab: &KernelSlab, cpu: usize);
    /// A slab's pages went back. `states` tells what was known of its objects.
    fn destroyed(&mut self, number: u32, slab: &KernelSlab, states: &[State], cpu: usize);
    /// An object was allocated; `was` is `Live` when its free was not seen.
    fn alloc(&mut self, object: Object, slab: &KernelSlab, event: &Event);
    /// An object was freed; `was` is `Free` when its allocation was not seen.
    fn free(&mut self, object: Object, slab: &KernelSlab, event: &Event);
    /// Second pass: an object was allocated about now, and no event tells of it.
    fn unseen_alloc(&mut self, _object: Object, _cpu: usize) {}
    /// Second pass: an object was freed about now, and no event tells of it.
    fn unseen_free(&mut self, _object: Object, _cpu: usize, _is_together: bool) {}
}

/// What could not be taken as said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FollowCounts {
    /// Object events.
    pub object_events: u64,
    /// Frees of the null pointer or of the zero-size one.
    pub null_frees: u64,
    /// Allocations that failed.
    pub failed_allocs: u64,
    /// Objects allocated while live: their free was not seen.
    pub hidden_frees: u64,
    /// Of those, found when their slab went away.
    pub hidden_frees_with_slab: u64,
    /// Objects freed while free: their allocation was not seen.
    pub hidden_allocs: u64,
    /// Objects of slabs older than the recording, freed.
    pub frees_from_before: u64,
    /// Objects outside any page that is known, or between two objects.
    pub unknown_objects: u64,
    /// Of the frees without a name, those whose page is not known to be a slab.
    pub unknown_frees: u64,
    /// Events whose cache is not the cache of their page.
    pub contradictions: u64,
    /// Requests that the page allocator served.
    pub large_kmallocs: u64,
    /// Events that tell of a large request a second time.
    pub doubled_kmallocs: u64,
    /// Slabs whose page event was not seen.
    pub unseen_slabs: u64,
    /// Page allocations that are the slab layer's.
    pub slab_pages_allocs: u64,
    /// Page frees that are the slab layer's.
    pub slab_pages_frees: u64,
    /// Slab pages by their flags that no object event named.
    pub nameless_slabs: u64,
    /// Page allocations that look like slabs by their flags and are not (socket buffers).
    pub look_alikes: u64,
    /// Slabs that only an object event told from other pages.
    pub told_by_object: u64,
    /// Requests of the slab layer for pages that failed; it falls back to the least order.
    pub failed_slab_pages: u64,
}

/// The page allocations that became slabs, by their number in the recording.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    list: Vec<(u32, CacheId)>,
}

impl Marks {
    /// The slabs in the order of their page events.
    #[must_use]
    pub fn list(&self) -> &[(u32, CacheId)] {
        &self.list
    }
}

/// A page allocation that may yet turn out to be a slab.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    sequence: u32,
    pfn: u32,
    order: u8,
    looks: Looks,
}

/// What a page allocation's flags say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looks {
    Slab,
    /// As socket buffers take them.
    Either,
    Other,
}

/// The follower.
#[derive(Debug)]
pub struct Follow<'a> {
    base: Option<u64>,
    page_shift: u32,
    frames: Frames,
    slabs: Vec<KernelSlab>,
    free_slabs: Vec<u32>,
    states: Vec<State>,
    /// Rows of `states` given back, by cache.
    free_rows: Vec<Vec<u32>>,
    /// Page allocations seen.
    sequence: u32,
    candidates: Vec<Candidate>,
    free_candidates: Vec<u32>,
    marks: Marks,
    /// In the second pass: the marks of the first, and how far it has come.
    known: Option<(&'a Marks, usize)>,
    /// Slabs that no page event told of, in the order of their first event.
    before: Vec<Place>,
    /// Runs of pages that the first page map shows in slabs; empty without one.
    slab_runs: Vec<(u32, u32)>,
    /// In the first pass: objects that processors passed over.
    passed: Option<Passed>,
    /// In the second pass: what came unseen, and by first page which slabs are still to come.
    unseen: Option<&'a Unseen>,
    to_come: HashMap<u32, Vec<u32>>,
    last_large: (u32, u64),
    late_frees: bool,
    /// Frees without a name in pages that no event had named before.
    early: HashMap<u32, Vec<u64>>,
    /// What could not be taken as said.
    pub counts: FollowCounts,
}

impl<'a> Follow<'a> {
    /// A follower up to that page frame.
    #[must_use]
    pub fn new(base: Option<u64>, page_bytes: u64, end: u32) -> Self {
        Self {
            base,
            page_shift: page_bytes.max(1).trailing_zeros(),
            frames: Frames::new(end),
            slabs: Vec::new(),
            free_slabs: Vec::new(),
            states: Vec::new(),
            free_rows: Vec::new(),
            sequence: 0,
            candidates: Vec::new(),
            free_candidates: Vec::new(),
            marks: Marks::default(),
            known: None,
            before: Vec::new(),
            slab_runs: Vec::new(),
            passed: Some(Passed::default()),
            unseen: None,
            to_come: HashMap::new(),
            last_large: (0, 0),
            late_frees: false,
            early: HashMap::new(),
            counts: FollowCounts::default(),
        }
    }

    /// Events of frees may come after the next allocation of the object (6.0 and older).
    pub fn expect_late_frees(&mut self) {
        self.late_frees = true;
    }

    /// Makes it the second pass: slabs from before are there at once, marks are known.
    pub fn start_from(
        &mut self,
        marks: &'a Marks,
        before: &[Place],
        unseen: &'a Unseen,
        caches: &Caches,
        watch: &mut impl Watch,
    ) {
        self.known = Some((marks, 0));
        self.before = before.to_vec();
        self.passed = None;
        for (number, place) in before.iter().enumerate().filter(|(_, place)| !place.is_late) {
            self.create(Made::told(*place), number as u32, caches, watch);
        }
        self.expect(unseen);
    }

    /// Runs of pages that were in slabs when the first page map was read, by rising page frame.
    pub fn set_slab_runs(&mut self, runs: Vec<(u32, u32)>) {
        self.slab_runs = runs;
    }

    /// A slab.
    #[must_use]
    pub fn slab(&self, number: u32) -> &KernelSlab {
        &self.slabs[number as usize]
    }

    /// Every slab that is there.
    pub fn live_slabs(&self) -> impl Iterator<Item = &KernelSlab> {
        self.slabs.iter().filter(|slab| slab.is_live)
    }

    /// Slabs from before the recording that an event named: first page and cache.
    #[must_use]
    pub fn before(&self) -> &[Place] {
        &self.before
    }

    /// Bytes of state held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let slabs = self.slabs.len() * size_of::<KernelSlab>();
        let candidates = self.candidates.len() * size_of::<Candidate>();
        self.frames.bytes() + (slabs + self.states.len() + candidates) as u64
    }

    /// Ends the first pass.
    #[must_use]
    pub fn into_marks(mut self) -> (Marks, Vec<Place>, Vec<Arrival>, FollowCounts) {
        for candidate in std::mem::take(&mut self.candidates) {
            if candidate.looks == Looks::Slab {
                self.counts.nameless_slabs += 1;
                self.marks.list.push((candidate.sequence, CacheId::UNKNOWN));
            }
        }
        self.marks.list.sort_unstable();
        let found = self.passed.map_or_else(Vec::new, |passed| passed.found);
        (self.marks, self.before, found, self.counts)
    }

    /// An object event. Answers its cache.
    pub fn object(
        &mut self,
        event: &Event,
        named: CacheId,
        site: Site,
        caches: &Caches,
        watch: &mut impl Watch,
    ) -> Option<CacheId> {
        self.counts.object_events += 1;
        let is_alloc = !matches!(event.kind, Kind::Kfree | Kind::CacheFree);
        let address = event.pfn_or_address;
        if address <= 16 {
            let count =
                if is_alloc { &mut self.counts.failed_allocs } else { &mut self.counts.null_frees };
            *count += 1;
            return None;
        }
        if is_alloc
            && event.has(Column::BytesAllocated)
            && event.bytes_allocated > LARGEST_CLASS
            && matches!(event.kind, Kind::Kmalloc | Kind::KmallocNode)
        {
            self.large_kmalloc(event);
            return None;
        }
        let number = self.slab_of(event, named, site, caches, watch)?;
        let slab = self.slabs[number as usize];
        let Some(index) = self.index_in(&slab, address, caches) else {
            self.counts.unknown_objects += 1;
            return None;
        };
        let object_number = slab.first + index;
        let was = self.states[object_number as usize];
        let object = Object { slab: number, number: object_number, cache: slab.cache, was };
        if self.passed.is_some() {
            self.pass_over(object, event, is_alloc, caches);
        }
        if is_alloc {
            self.counts.hidden_frees += u64::from(was == State::Live);
            let owed = was == State::Live && self.late_frees;
            self.states[object_number as usize] = if owed { State::Owed } else { State::Live };
            watch.alloc(object, &slab, event);
        } else if was == State::Owed {
            self.states[object_number as usize] = State::Live;
        } else {
            self.counts.hidden_allocs += u64::from(was == State::Free);
            self.counts.frees_from_before += u64::from(was == State::Untouched);
            self.states[object_number as usize] = State::Free;
            watch.free(object, &slab, event);
        }
        Some(slab.cache)
    }

    /// Served by the page allocator; told twice where its size is not a constant.
    fn large_kmalloc(&mut self, event: &Event) {
        let same = (event.pid.0, event.pfn_or_address);
        if self.last_large == same {
            self.counts.doubled_kmallocs += 1;
            self.last_large = (0, 0);
        } else {
            self.counts.large_kmallocs += 1;
            self.last_large = same;
        }
        let Some(pfn) = self.pfn_of(event.pfn_or_address) else { return };
        if let Note::Block(number) = self.frames.get(pfn) {
            self.candidates[number as usize].looks = Looks::Other;
            self.drop_candidate(number);
            self.frames.set(pfn, Note::Seen);
        }
    }

    fn pfn_of(&self, address: u64) -> Option<u32> {
        let pfn = address.wrapping_sub(self.base?) >> self.page_shift;
        self.frames.holds(pfn).then_some(pfn as u32)
    }

    #[inline]
    fn index_in(&self, slab: &KernelSlab, address: u64, caches: &Caches) -> Option<u32> {
        let start = self.base? + (u64::from(slab.pfn) << self.page_shift);
        let offset = address.wrapping_sub(start) as u32;
        let stride = caches.get(slab.cache)?.stride;
        let index = offset / stride;
        (index < u32::from(slab.objects) && index * stride == offset).then_some(index)
    }

    /// The slab that the object is in; one that is not known yet comes to be now.
    fn slab_of(
        &mut self,
        event: &Event,
        named: CacheId,
        site: Site,
        caches: &Caches,
        watch: &mut impl Watch,
    ) -> Option<u32> {
        let Some(pfn) = self.pfn_of(event.pfn_or_address) else {
            self.counts.unknown_objects += 1;
            return None;
        };
        let note = self.frames.get(pfn);
        let cache = match event.kind {
            Kind::Kmalloc | Kind::KmallocNode => caches.of_kmalloc(event, site),
            _ => match site {
                Site::Of(cache) if named == CacheId::UNKNOWN => cache,
                _ => named,
            },
        };
        let cpu = usize::from(event.cpu.0);
        if let Note::Slab(number) = note {
            let slab = self.slabs[number as usize];
            let is_other = named != CacheId::UNKNOWN && named != slab.cache;
            if slab.cache != CacheId::UNKNOWN && !is_other && caches.fits(slab.cache, event) {
                return Some(number);
            }
            if cache == CacheId::UNKNOWN {
                self.counts.unknown_objects += 1;
                return None;
            }
            // The page went to another cache unseen.
            self.counts.contradictions += u64::from(slab.cache != CacheId::UNKNOWN);
            self.destroy(number, cpu, watch);
        }
        if cache == CacheId::UNKNOWN {
            let count = if event.kind == Kind::Kfree {
                &mut self.counts.unknown_frees
            } else {
                &mut self.counts.unknown_objects
            };
            *count += 1;
            if event.kind == Kind::Kfree && note == Note::None && self.early.len() < MAX_EARLY {
                self.early.entry(pfn).or_default().push(event.pfn_or_address);
            }
            return None;
        }
        Some(self.discover(pfn, note, cache, caches, cpu, watch))
    }
}

/// Pages that frees without a name are kept for.
const MAX_EARLY: usize = 1 << 20;
/// Largest request that a cache serves, in bytes.
const LARGEST_CLASS: u64 = 8192;
