//! What the events tell of the start: which slabs were partly free, how far, and in which order
//! they were taken.
//!
//! A first event that allocates an object in a slab older than the recording says that it was free
//! at the start; one that frees it, that it was live. Slabs that no event names are known by
//! number only, from the first `/proc/slabinfo`. These are facts about the start, not about what
//! the kernel decides later.

use std::collections::HashMap;

use kmemlab_trace::event::Event;
use kmemlab_trace::snapshot::SlabRow;

use super::caches::{CacheId, Caches};
use super::follow::{KernelSlab, NONE, Object, Place, State, Watch};
use super::graces::Graces;
use super::role::Role;
use super::trees::Trees;
use super::unseen::{Arrival, Came, LateSlab, Unseen};

/// A slab from before the recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BeforeSlab {
    /// Objects free at the start.
    pub free: u16,
    /// Objects it holds.
    pub objects: u16,
    /// Objects were allocated from it.
    pub is_taken: bool,
    /// The processor that allocated from it went on to another: it had nothing free then.
    pub is_spent: bool,
}

/// A cache at the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CacheStart {
    /// Slabs from before that an event named, by their number.
    pub slabs: Vec<u32>,
    /// Processor and slab, in the order in which allocations came to the slabs.
    pub taken: Vec<(u16, u32)>,
    /// Processor and slab of each object free at the start, in the order of their allocation; for
    /// caches with sheaves only.
    pub objects: Vec<(u16, u32)>,
    /// By processor: whether an allocation was seen on it.
    pub is_seen: Vec<bool>,
    /// By processor: the slab from before that its first allocation came from; `NONE` for none.
    pub first_slab: Vec<u32>,
    /// Slabs that no event named.
    pub nameless_slabs: u64,
    /// Free objects in those.
    pub nameless_free: u64,
    /// Threads take sheaves of it for themselves.
    pub lends: bool,
    /// Free objects that events name and that no slab had free: they rested in sheaves. `None`
    /// where no file tells.
    pub in_sheaves: Option<u64>,
}

impl CacheStart {
    fn note_first(&mut self, cpu: usize, before: u32) {
        if self.is_seen.len() <= cpu {
            self.is_seen.resize(cpu + 1, false);
            self.first_slab.resize(cpu + 1, NONE);
        }
        if !self.is_seen[cpu] {
            self.is_seen[cpu] = true;
            self.first_slab[cpu] = before;
        }
    }
}

/// The start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Learned {
    /// By the number of the slab from before.
    pub before: Vec<BeforeSlab>,
    /// By cache.
    pub caches: Vec<CacheStart>,
    /// By the number of the slab that no page event told of: where it is.
    pub places: Vec<Place>,
}

impl Learned {
    /// A cache at the start.
    #[must_use]
    pub fn cache(&self, id: CacheId) -> CacheStart {
        self.caches.get(id.index()).cloned().unwrap_or_default()
    }

    fn cache_mut(&mut self, id: CacheId) -> &mut CacheStart {
        grown(&mut self.caches, id.index())
    }
}

/// Slabs made and given back, by cache, as the page events say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlabTraffic {
    /// Made.
    pub made: u64,
    /// Given back.
    pub released: u64,
    /// Free objects that came, minus those that went, in slabs that events name.
    pub free: i64,
}

/// When a slab that no page event told of was first named.
#[derive(Clone, Copy, Debug)]
struct Named {
    at_ns: u64,
    gone_ns: u64,
    cpu: u16,
    /// By an allocation; `None` before its first event.
    by_alloc: Option<bool>,
    order: u8,
}

mod tells;

/// The listener of the first pass.
#[derive(Clone, Debug, Default)]
pub struct Learning {
    /// What is known so far.
    pub learned: Learned,
    /// By cache.
    pub traffic: Vec<SlabTraffic>,
    /// By cache: has sheaves.
    pub sheaves: Vec<bool>,
    /// By cache: partial slabs that a processor keeps.
    pub stack_slabs: Vec<u32>,
    /// Time of the event being heard.
    pub now_ns: u64,
    /// By cache: processors that had to make a slab.
    dry: Vec<Vec<u16>>,
    /// By cache: when the first of them had to.
    dry_ns: Vec<u64>,
    /// By object row: when it was allocated.
    alloc_ns: Vec<u64>,
    /// By cache: when slabs went whose objects were thought live, and on which processor.
    batches: Vec<Vec<(u64, u16)>>,
    /// Frees that no event showed.
    pub freed: Vec<Arrival>,
    /// Trees, whose end dates the end of their nodes.
    pub trees: Trees,
    /// When processors began to run what waited for a grace period.
    pub graces: Graces,
    /// The cache of their nodes, and the cache of the areas of an address space.
    pub tree_caches: (CacheId, CacheId),
    /// The flag of requests that may sleep.
    pub direct_reclaim: u32,
    /// The cache of signal handlers.
    pub handlers: CacheId,
    /// By call site.
    pub roles: Vec<Role>,
    /// By the number of the slab from before.
    named: Vec<Named>,
    /// Slabs from before and objects in them, by place, that were free when an event first named
    /// the slab.
    open: Vec<(u32, u16)>,
    /// By cache and processor: the slab from before, or `NONE`, that it allocates from.
    current: Vec<Vec<u32>>,
}

impl Learning {
    fn traffic_of(&mut self, cache: CacheId) -> &mut SlabTraffic {
        grown(&mut self.traffic, cache.index())
    }

    /// The cache was shrunk: what its processors held went to the node's list.
    pub fn shrunk(&mut self, cache: CacheId) {
        if let Some(current) = self.current.get_mut(cache.index()) {
            current.fill(NONE);
        }
        if let Some(dry) = self.dry.get_mut(cache.index()) {
            dry.clear();
        }
    }

    /// A processor makes a slab only when the node's list and its own stack are empty.
    fn run_dry(&mut self, cache: CacheId, cpu: u16) {
        let dry = grown(&mut self.dry, cache.index());
        if !dry.contains(&cpu) {
            dry.push(cpu);
        }
        let first = grown(&mut self.dry_ns, cache.index());
        if *first == 0 {
            *first = self.now_ns;
        }
    }

    /// A slab from before is allocated from for the first time after its processor had to make one,
    /// or after another had to and more are taken than a processor's stack holds: it was full at
    /// the start, and what is free in it was freed since.
    fn must_have_been_full(&self, cache: CacheId, cpu: u16) -> bool {
        let Some(dry) = self.dry.get(cache.index()).filter(|dry| !dry.is_empty()) else {
            return false;
        };
        let limit = self.stack_slabs.get(cache.index()).copied().unwrap_or(0) as usize;
        let taken = self
            .learned
            .caches
            .get(cache.index())
            .map_or(0, |start| start.taken.iter().filter(|(known, _)| *known == cpu).count());
        dry.contains(&cpu) || taken > limit
    }

    /// A processor allocates from a slab until nothing is free in it. An object allocated there
    /// later, whose first event that is, was live at the start and freed without an event.
    fn spend(&mut self, cache: CacheId, cpu: usize, before: u32) {
        if self.current.len() <= cache.index() {
            self.current.resize(cache.index() + 1, Vec::new());
        }
        let cpus = &mut self.current[cache.index()];
        if cpus.len() <= cpu {
            cpus.resize(cpu + 1, NONE);
        }
        let old = std::mem::replace(&mut cpus[cpu], before);
        if old != before
            && let Some(spent) = self.learned.before.get_mut(old as usize)
        {
            spent.is_spent = true;
        }
    }

    /// An object that is allocated while live was freed before, and no event told.
    fn date_free(&mut self, object: Object, event: &Event) {
        let row = object.number as usize;
        let since = std::mem::replace(grown(&mut self.alloc_ns, row), event.time.0);
        if self.alloc_tells(object, event) {
            return;
        }
        if object.was != State::Live {
            return;
        }
        let Some(batches) = self.batches.get(object.cache.index()) else { return };
        let next = batches.partition_point(|(at_ns, _)| *at_ns <= since);
        if let Some((at_ns, cpu)) = batches.get(next) {
            let came = Came::Freed(event.pfn_or_address);
            self.freed.push(Arrival { at_ns: *at_ns, cpu: *cpu, came });
        }
    }

    /// Slabs that came in the recording without an event.
    #[must_use]
    pub fn late_slabs(&self) -> Vec<LateSlab> {
        let mut late = Vec::new();
        let mut number_of = vec![NONE; self.learned.places.len()];
        let places = self.learned.places.iter().zip(&self.named).enumerate();
        for (number, (place, named)) in places.filter(|(_, (place, _))| place.is_late) {
            number_of[number] = late.len() as u32;
            late.push(LateSlab {
                place: *place,
                pages: 1 << named.order,
                free: Vec::new(),
                named_ns: named.at_ns,
                gone_ns: named.gone_ns,
                cpu: named.cpu,
                is_taken: named.by_alloc == Some(true),
            });
        }
        for (before, place) in &self.open {
            if let Some(slab) = late.get_mut(number_of[*before as usize] as usize) {
                slab.free.push(*place);
            }
        }
        late
    }

    /// Objects that were free at the start in slabs that no event names, and cannot have been any
    /// more when a slab was made: the node's list was empty then. Other processors may hold some of
    /// those slabs. The objects count as allocated where at least as many that came unseen lived
    /// until an event freed them.
    #[must_use]
    pub fn spent_unseen(&self, caches: &Caches, cpus: usize, unseen: &Unseen) -> Vec<Arrival> {
        let mut found = vec![0; caches.list().len()];
        for slab in &unseen.slabs {
            let cache = slab.place.cache;
            let held = caches.get(cache).map_or(0, |cache| usize::from(cache.objects));
            found[cache.index()] += held.saturating_sub(slab.free.len()) as u64;
        }
        let first = unseen.first_slabs();
        let mut arrivals = Vec::new();
        for (index, cache) in caches.list().iter().enumerate() {
            let id = CacheId(index as u16);
            let seen = self.dry_ns.get(index).copied().filter(|at_ns| *at_ns > 0);
            let dry = seen.into_iter().chain(first.get(&id).copied()).min();
            let others = cpus.saturating_sub(1) as u64;
            let held = others * u64::from(cache.cpu_partial_slabs) * u64::from(cache.objects);
            let free = self.learned.cache(id).nameless_free.saturating_sub(held);
            if let Some(at_ns) = dry
                && (1..=found[index]).contains(&free)
            {
                arrivals.push(Arrival { at_ns, cpu: 0, came: Came::Objects(id, free) });
            }
        }
        arrivals
    }

    /// Slabs that came in the recording are not part of the start.
    pub fn set_places(&mut self, places: Vec<Place>) {
        for start in &mut self.learned.caches {
            let is_late = |number: &u32| places.get(*number as usize).is_some_and(|it| it.is_late);
            start.slabs.retain(|number| !is_late(number));
            start.taken.retain(|(_, number)| !is_late(number));
            start.objects.retain(|(_, number)| !is_late(number));
            for first in start.first_slab.iter_mut().filter(|first| is_late(first)) {
                *first = NONE;
            }
        }
        self.learned.places = places;
    }

    /// Slabs that no event names: the first `/proc/slabinfo` minus those known at that moment, and
    /// those that had come `late` by then, by cache.
    pub fn count_nameless(
        &mut self,
        rows: &[SlabRow],
        caches: &Caches,
        until: &[SlabTraffic],
        late: &HashMap<CacheId, u64>,
        most_slabs: u64,
    ) {
        for row in rows {
            let Some(id) = caches.find(&row.cache) else { continue };
            let traffic = until.get(id.index()).copied().unwrap_or_default();
            let start = self.learned.cache(id);
            let known = start.slabs.len() as u64;
            let slabs = row.slabs.min(most_slabs);
            let made = traffic.made + late.get(&id).copied().unwrap_or(0);
            let then = (slabs + traffic.released).saturating_sub(made);
            let free = row.objects.saturating_sub(row.active_objects);
            let at_start: i64 = start
                .slabs
                .iter()
                .map(|number| i64::from(self.learned.before[*number as usize].free))
                .sum();
            let told = u64::try_from(at_start + traffic.free).unwrap_or(0);
            let start = self.learned.cache_mut(id);
            start.nameless_slabs = then.saturating_sub(known);
            let room = start.nameless_slabs.saturating_mul(row.objects_per_slab);
            start.nameless_free = free.saturating_sub(told).min(room);
            start.in_sheaves = Some(u64::try_from(at_start).unwrap_or(0).saturating_sub(free));
        }
    }
}

/// The place in a table, which grows as far as that.
#[inline]
fn grown<T: Clone + Default>(table: &mut Vec<T>, place: usize) -> &mut T {
    if table.len() <= place {
        table.resize(place + 1, T::default());
    }
    &mut table[place]
}

impl Watch for Learning {
    fn created(&mut self, _: u32, slab: &KernelSlab, cpu: usize) {
        if slab.cache == CacheId::UNKNOWN {
            return;
        }
        if slab.before == NONE {
            let traffic = self.traffic_of(slab.cache);
            traffic.made += 1;
            traffic.free += i64::from(slab.objects);
            self.run_dry(slab.cache, cpu as u16);
            return;
        }
        self.learned.before.push(BeforeSlab { objects: slab.objects, ..BeforeSlab::default() });
        self.named.push(Named {
            at_ns: self.now_ns,
            gone_ns: u64::MAX,
            cpu: cpu as u16,
            by_alloc: None,
            order: slab.order,
        });
        self.learned.cache_mut(slab.cache).slabs.push(slab.before);
    }

    fn destroyed(&mut self, _: u32, slab: &KernelSlab, states: &[State], cpu: usize) {
        if slab.cache == CacheId::UNKNOWN {
            return;
        }
        let live = states.iter().filter(|state| matches!(state, State::Live)).count();
        if live > 0 {
            grown(&mut self.batches, slab.cache.index()).push((self.now_ns, cpu as u16));
        }
        if slab.cache == self.tree_caches.0 {
            let rows = slab.first..slab.first + states.len() as u32;
            self.trees.gone(rows, self.now_ns);
        }
        let traffic = self.traffic_of(slab.cache);
        traffic.released += 1;
        traffic.free -= states.len() as i64 - live as i64;
        if let Some(before) = self.learned.before.get_mut(slab.before as usize) {
            let untouched = states.iter().filter(|state| **state == State::Untouched).count();
            before.free += untouched as u16;
            self.named[slab.before as usize].gone_ns = self.now_ns;
            let untouched = (0u16..).zip(states).filter(|(_, it)| **it == State::Untouched);
            self.open.extend(untouched.map(|(place, _)| (slab.before, place)));
        }
    }

    fn alloc(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let cpu = event.cpu.0;
        self.date_free(object, event);
        self.learned.cache_mut(object.cache).note_first(usize::from(cpu), slab.before);
        let has_sheaves = self.sheaves.get(object.cache.index()) == Some(&true);
        if !has_sheaves {
            self.spend(object.cache, usize::from(cpu), slab.before);
        }
        self.traffic_of(object.cache).free -= i64::from(object.was != State::Live);
        if slab.before == NONE {
            return;
        }
        self.named[slab.before as usize].by_alloc.get_or_insert(true);
        if !has_sheaves && !self.learned.before[slab.before as usize].is_taken {
            let was_full = self.must_have_been_full(object.cache, cpu);
            self.learned.before[slab.before as usize].is_spent |= was_full;
        }
        let is_spent = self.learned.before[slab.before as usize].is_spent;
        let is_unseen = object.was == State::Untouched && is_spent;
        self.traffic[object.cache.index()].free += i64::from(is_unseen);
        let before = &mut self.learned.before[slab.before as usize];
        let is_free_at_start = object.was == State::Untouched && !before.is_spent;
        before.free += u16::from(is_free_at_start);
        if is_free_at_start {
            self.open.push((slab.before, (object.number - slab.first) as u16));
        }
        let is_first = !before.is_taken;
        before.is_taken = true;
        let start = self.learned.cache_mut(object.cache);
        if is_first {
            start.taken.push((cpu, slab.before));
        }
        if is_free_at_start && has_sheaves {
            self.learned.cache_mut(object.cache).objects.push((cpu, slab.before));
        }
    }

    fn free(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        self.free_tells(object, event);
        if let Some(named) = self.named.get_mut(slab.before as usize) {
            named.by_alloc.get_or_insert(false);
        }
        self.traffic_of(object.cache).free += i64::from(object.was != State::Free);
    }
}
