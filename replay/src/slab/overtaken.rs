//! Allocations and frees whose events do not stand where they took effect.
//!
//! The event of an allocation is written after the object was taken, and where the object is
//! cleared first that takes a while. An interrupt that comes in between frees its objects before
//! the event, and so does another processor, or another thread while this one waits for its new
//! slab's pages. The event of a free is written before it (6.1 and later), and another processor
//! may be done meanwhile. What the kernel took tells it. A processor whose slab has free objects
//! takes from no other, and one on whose stack a slab was put takes that one first: where it did
//! neither, it had chosen before; or the only free object there was not free yet.
//!
//! An object that is freed while free was allocated in bulk, without an event. A processor takes
//! all that is free in a slab before it goes on to another: so the object was taken when, after
//! it was last free, the first other object of its slab was, or when its slab was made.
//!
//! Only the moment of a request is corrected so, never where it is served.

use std::collections::HashMap;

use kmemlab_trace::event::Event;

use super::caches::{CacheId, Caches};
use super::follow::{KernelSlab, NONE, Object, State, Watch};
use super::learning::Learned;

/// An allocation that belongs before the event `moment`. Events count from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Overtaken {
    /// The first event that it belongs before.
    pub moment: u32,
    /// The event that tells of it.
    pub event: u32,
    /// What it takes from.
    pub cache: CacheId,
    /// Where.
    pub cpu: u16,
    /// Its size in bytes; 0 when no event tells it.
    pub bytes: u32,
    /// Its flags; 0 when no event tells them.
    pub gfp: u32,
}

/// A free that takes effect later than it was told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Late {
    /// The event that tells of it.
    pub event: u32,
    /// The event that it comes after.
    pub until: u32,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moments {
    /// By the moment.
    pub overtaken: Vec<Overtaken>,
    /// By the event.
    pub late: Vec<Late>,
}

/// What the events say of a slab.
#[derive(Clone, Copy, Debug, Default)]
struct Fill {
    free: u16,
    /// The event that freed an object of it when it was full.
    refilled: u32,
}

/// An allocation.
#[derive(Clone, Copy, Debug, Default)]
struct Alloc {
    event: u32,
    gfp: u32,
    cpu: u16,
}

/// A processor.
#[derive(Clone, Debug, Default)]
struct Processor {
    /// Slabs that were put on its stack and not taken: cache, slab, event.
    pushed: Vec<(CacheId, u32, u32)>,
    /// By cache: the slab that it took from last, and the event.
    current: Vec<(u32, u32)>,
    /// The last free on it: slab, event, and who did it.
    last_free: (u32, u32, Doer),
}

/// A thread, or the interrupts of a processor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Doer {
    pid: u32,
    interrupt_on: Option<u16>,
}

impl Doer {
    fn of(event: &Event) -> Self {
        if event.context.is_task() && event.pid.0 != 0 {
            return Self { pid: event.pid.0, interrupt_on: None };
        }
        Self { pid: 0, interrupt_on: Some(event.cpu.0) }
    }
}

/// Finds them.
#[derive(Clone, Debug)]
pub struct Overtaking {
    number: u32,
    slabs: Vec<Fill>,
    cpus: Vec<Processor>,
    /// The last event of each, and its processor.
    last: HashMap<Doer, (u32, u16)>,
    left_free: Vec<u16>,
    has_sheaves: Vec<bool>,
    /// By slab: its objects that became free since something was last taken from it.
    waiting: Vec<Vec<u32>>,
    /// By object: the first allocation from its slab since it was free, or its slab's making.
    beside: Vec<Alloc>,
    found: Moments,
}

/// Slabs of a stack that are remembered: more than any processor's stack holds.
const MAX_PUSHED: usize = 256;

impl Overtaking {
    /// Before the first event.
    #[must_use]
    pub fn new(caches: &Caches, learned: &Learned, cpus: usize) -> Self {
        Self {
            number: 0,
            slabs: Vec::new(),
            cpus: vec![Processor::default(); cpus.max(1)],
            last: HashMap::new(),
            left_free: learned.before.iter().map(|slab| slab.free).collect(),
            has_sheaves: caches.list().iter().map(|cache| cache.sheaf > 0).collect(),
            waiting: Vec::new(),
            beside: Vec::new(),
            found: Moments::default(),
        }
    }

    /// An event comes.
    pub fn begin_event(&mut self) {
        self.number = self.number.saturating_add(1);
    }

    /// An event was gone through that is no part of an allocation under way.
    pub fn end_event(&mut self, event: &Event) {
        self.last.insert(Doer::of(event), (self.number, event.cpu.0));
    }

    /// What was found.
    #[must_use]
    pub fn into_moments(mut self) -> Moments {
        self.found.overtaken.sort_unstable();
        self.found.late.sort_unstable();
        self.found.late.dedup_by_key(|late| late.event);
        self.found
    }

    fn cpu(&self, event: &Event) -> usize {
        usize::from(event.cpu.0).min(self.cpus.len() - 1)
    }

    fn fill(&mut self, slab: u32) -> &mut Fill {
        let place = slab as usize;
        if self.slabs.len() <= place {
            self.slabs.resize(place + 1, Fill::default());
        }
        &mut self.slabs[place]
    }

    fn current(&self, cpu: usize, cache: CacheId) -> (u32, u32) {
        self.cpus[cpu].current.get(cache.index()).copied().unwrap_or((NONE, 0))
    }

    /// The first event that this allocation cannot have come after. It came after its thread's last
    /// event and after the processor's slab was used up; a thread that changed processors is not
    /// looked at.
    fn moment(&self, cpu: usize, object: &Object, event: &Event) -> Option<u32> {
        let (since, on) = self.last.get(&Doer::of(event)).copied()?;
        if on != event.cpu.0 || !event.context.is_task() {
            return None;
        }
        let (current, used) = self.current(cpu, object.cache);
        let since = since.max(used);
        let refilled = self.slabs.get(current as usize);
        let refilled = refilled.filter(|fill| fill.free > 0).map(|fill| fill.refilled);
        let later = |(cache, _, at): &&(CacheId, u32, u32)| *cache == object.cache && *at > since;
        let pushed = || self.cpus[cpu].pushed.iter().filter(later);
        let is_pushed = pushed().any(|(_, slab, _)| *slab == object.slab);
        let pushed = pushed().map(|(.., at)| *at).min().filter(|_| !is_pushed);
        refilled.filter(|at| *at > since).into_iter().chain(pushed).min()
    }

    /// The processor left its slab although objects in it are told to be free: each of them must be
    /// the last thing that another processor was seen to do.
    fn note_late(&mut self, cpu: usize, cache: CacheId) {
        let (left, _) = self.current(cpu, cache);
        let free = self.slabs.get(left as usize).map_or(0, |fill| usize::from(fill.free));
        let is_last = |it: &Processor| {
            let (slab, event, doer) = it.last_free;
            slab == left && self.last.get(&doer).is_some_and(|(last, _)| *last == event)
        };
        let others = self.cpus.iter().enumerate().filter(|(other, _)| *other != cpu);
        let late: Vec<u32> =
            others.filter(|(_, it)| is_last(it)).map(|(_, it)| it.last_free.1).collect();
        if free > 0 && late.len() == free {
            let until = self.number;
            self.found.late.extend(late.into_iter().map(|event| Late { event, until }));
        }
    }

    /// The slab has new objects.
    fn forget(&mut self, number: u32, slab: &KernelSlab) {
        let (place, end) = (number as usize, slab.first as usize + usize::from(slab.objects));
        if self.waiting.len() <= place {
            self.waiting.resize(place + 1, Vec::new());
        }
        if self.beside.len() < end {
            self.beside.resize(end, Alloc::default());
        }
        self.waiting[place].clear();
        self.beside[slab.first as usize..end].fill(Alloc::default());
    }

    /// Something was taken from a slab.
    fn note_beside(&mut self, object: &Object, event: &Event) {
        let taken = Alloc { event: self.number, gfp: event.gfp, cpu: event.cpu.0 };
        for waiting in self.waiting[object.slab as usize].drain(..) {
            self.beside[waiting as usize] = taken;
        }
        self.beside[object.number as usize] = Alloc::default();
    }

    /// An object is freed that was not seen to be allocated.
    fn note_bulk(&mut self, object: &Object, slab: &KernelSlab) {
        let taken = self.beside[object.number as usize];
        if taken.event > 0 && self.has_sheaves.get(object.cache.index()) != Some(&true) {
            let (moment, event, bytes) = (taken.event + 1, self.number, 0);
            let (cache, cpu, gfp) = (slab.cache, taken.cpu, taken.gfp);
            self.found.overtaken.push(Overtaken { moment, event, cache, cpu, bytes, gfp });
        }
    }

    fn is_current(&self, cache: CacheId, slab: u32) -> bool {
        (0..self.cpus.len()).any(|cpu| self.current(cpu, cache).0 == slab)
    }
}

impl Watch for Overtaking {
    fn created(&mut self, number: u32, slab: &KernelSlab, cpu: usize) {
        let free = match slab.before {
            NONE => slab.objects,
            before => self.left_free.get(before as usize).copied().unwrap_or(0),
        };
        *self.fill(number) = Fill { free, refilled: 0 };
        self.forget(number, slab);
        if slab.before == NONE {
            let objects = slab.first..slab.first + u32::from(slab.objects);
            self.waiting[number as usize].extend(objects);
            let made = Alloc { event: self.number, gfp: 0, cpu: cpu as u16 };
            let (first, count) = (slab.first as usize, usize::from(slab.objects));
            self.beside[first..first + count].fill(made);
        }
    }

    fn destroyed(&mut self, number: u32, slab: &KernelSlab, _: &[State], _: usize) {
        for cpu in &mut self.cpus {
            if let Some(current) = cpu.current.get_mut(slab.cache.index())
                && current.0 == number
            {
                current.0 = NONE;
            }
            cpu.pushed.retain(|(_, pushed, _)| *pushed != number);
        }
    }

    fn alloc(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let (cpu, cache) = (self.cpu(event), object.cache);
        let has_sheaves = self.has_sheaves.get(cache.index()) == Some(&true);
        if !has_sheaves && self.current(cpu, cache).0 != object.slab {
            if let Some(moment) = self.moment(cpu, &object, event) {
                let bytes = event.bytes_requested.min(u64::from(u32::MAX)) as u32;
                let (gfp, cpu) = (event.gfp, event.cpu.0);
                let event = self.number;
                self.found.overtaken.push(Overtaken { moment, event, cache, cpu, bytes, gfp });
            } else {
                self.note_late(cpu, cache);
            }
        }
        self.note_beside(&object, event);
        let was_free = match object.was {
            State::Free => true,
            State::Untouched => {
                let left = self.left_free.get_mut(slab.before as usize).filter(|left| **left > 0);
                left.map(|left| *left -= 1).is_some()
            }
            State::Live | State::Owed => false,
        };
        let fill = self.fill(object.slab);
        fill.free = fill.free.saturating_sub(u16::from(was_free));
        let number = self.number;
        let processor = &mut self.cpus[cpu];
        processor.pushed.retain(|(_, pushed, _)| *pushed != object.slab);
        if processor.current.len() <= cache.index() {
            processor.current.resize(cache.index() + 1, (NONE, 0));
        }
        processor.current[cache.index()] = (object.slab, number);
    }

    fn free(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let (number, cpu) = (self.number, self.cpu(event));
        if object.was == State::Free {
            self.note_bulk(&object, slab);
        }
        self.beside[object.number as usize] = Alloc::default();
        self.waiting[object.slab as usize].push(object.number);
        let fill = self.fill(object.slab);
        let was_full = fill.free == 0;
        fill.free = fill.free.saturating_add(u16::from(object.was != State::Free));
        if was_full {
            fill.refilled = number;
        }
        let is_pushed = was_full && !self.is_current(object.cache, object.slab);
        let processor = &mut self.cpus[cpu];
        processor.last_free = (object.slab, number, Doer::of(event));
        if is_pushed {
            if processor.pushed.len() >= MAX_PUSHED {
                processor.pushed.remove(0);
            }
            processor.pushed.push((object.cache, object.slab, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::geometry::Parameters;
    use crate::slab::gfp::GfpBits;
    use crate::slab::rules::SlabRules;
    use kmemlab_trace::event::{Context, Kind};
    use kmemlab_trace::unit::{Cpu, Nanos, Pid};

    const PROBE: CacheId = CacheId(0);

    /// A cache whose slabs hold two objects; slabs 0, 1 and 2 are full.
    struct Scene(Overtaking);

    impl Scene {
        fn new() -> Self {
            let rules = SlabRules::of("6.1");
            let host = Parameters::of_host(4096, 2);
            let mut caches = Caches::new(&[], rules, host, GfpBits::default());
            caches.named("probe", 2048);
            let mut scene = Self(Overtaking::new(&caches, &Learned::default(), 2));
            for slab in 0..3 {
                scene.0.created(slab, &slab_of(slab), 0);
                for _ in 0..2 {
                    scene.event(0, 0, slab, true, State::Free);
                }
            }
            scene
        }

        fn event(&mut self, cpu: u16, context: u8, slab: u32, is_alloc: bool, was: State) -> u32 {
            let kind = if is_alloc { Kind::CacheAlloc } else { Kind::CacheFree };
            let mut event = Event::new(kind, Nanos(0), Cpu(cpu), Pid(7 + u32::from(cpu)));
            event.context = Context(context);
            let object = Object { slab, number: slab * 2, cache: PROBE, was };
            self.0.begin_event();
            if is_alloc {
                self.0.alloc(object, &slab_of(slab), &event);
            } else {
                self.0.free(object, &slab_of(slab), &event);
            }
            self.0.end_event(&event);
            self.0.number
        }

        fn alloc(&mut self, cpu: u16, slab: u32) -> u32 {
            self.event(cpu, 0, slab, true, State::Free)
        }

        fn free(&mut self, cpu: u16, context: u8, slab: u32) -> u32 {
            self.event(cpu, context, slab, false, State::Live)
        }

        fn found(self) -> Vec<(u32, u32)> {
            self.0.into_moments().overtaken.iter().map(|it| (it.moment, it.event)).collect()
        }
    }

    fn slab_of(slab: u32) -> KernelSlab {
        KernelSlab::probe(slab, slab * 2, NONE, 2)
    }

    #[test]
    fn an_interrupt_that_fills_the_stack_overtook_what_is_not_taken_from_there() {
        // `put_cpu_partial` puts slab 0 on processor 0's stack, `___slab_alloc` takes the top.
        let mut scene = Scene::new();
        let freed = scene.free(0, Context::SOFTIRQ, 0);
        scene.free(0, Context::SOFTIRQ, 0);
        scene.0.created(3, &slab_of(3), 0);
        let told = scene.alloc(0, 3);
        assert_eq!(scene.found(), [(freed, told)]);
        let mut scene = Scene::new();
        scene.free(0, Context::SOFTIRQ, 0);
        scene.alloc(0, 0);
        assert_eq!(scene.found(), [], "taken from the top: after the interrupt");
        let mut scene = Scene::new();
        scene.free(0, 0, 0);
        scene.0.created(3, &slab_of(3), 0);
        scene.alloc(0, 3);
        assert_eq!(scene.found(), [], "the thread itself freed it before");
    }

    #[test]
    fn a_processor_whose_slab_has_free_objects_had_chosen_before_they_were_freed() {
        // `get_freelist` takes what others freed into the processor's own slab, here slab 2.
        let mut scene = Scene::new();
        let freed = scene.free(1, 0, 2);
        scene.0.created(3, &slab_of(3), 0);
        let told = scene.alloc(0, 3);
        assert_eq!(scene.found(), [(freed, told)]);
        let mut scene = Scene::new();
        scene.free(1, 0, 2);
        scene.free(0, 0, 1);
        scene.0.created(3, &slab_of(3), 0);
        scene.alloc(0, 3);
        assert_eq!(scene.found(), [], "its thread did something else since: not explained so");
    }

    #[test]
    fn a_free_that_another_processor_passed_by_takes_effect_later() {
        // `__slab_free` of the only free object in slab 2, which processor 0 leaves all the same;
        // `kmem_cache_free` tells before it.
        let mut scene = Scene::new();
        scene.free(0, 0, 0);
        scene.alloc(0, 0);
        let freed = scene.free(1, 0, 0);
        scene.event(0, 0, 1, false, State::Free);
        let told = scene.alloc(0, 1);
        assert_eq!(scene.0.clone().into_moments().late, [Late { event: freed, until: told }]);
        assert_eq!(scene.found(), []);
    }

    #[test]
    fn what_was_taken_in_bulk_was_taken_beside_what_is_told() {
        // `kmem_cache_alloc_bulk` after the one allocation that is told (`mas_alloc_nodes`, 6.1).
        let mut scene = Scene::new();
        scene.0.created(3, &slab_of(3), 1);
        let told = scene.alloc(1, 3);
        scene.alloc(1, 2);
        let mut event = Event::new(Kind::CacheFree, Nanos(0), Cpu(0), Pid(7));
        event.context = Context(Context::SOFTIRQ);
        let object = Object { slab: 3, number: 7, cache: PROBE, was: State::Free };
        scene.0.begin_event();
        scene.0.free(object, &slab_of(3), &event);
        let freed = scene.0.number;
        let found = scene.0.into_moments().overtaken;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].moment, found[0].event, found[0].cpu), (told + 1, freed, 1));
    }
}
