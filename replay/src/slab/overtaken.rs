//! Allocations that other events overtook.
//!
//! The event of an allocation is written after the object was taken, and where the object is cleared
//! first that takes a while. An interrupt that comes in between frees its objects before the event,
//! and so does another processor: the order of the events is not that of the lists. What the kernel
//! took tells it. A processor whose slab has free objects takes from no other, and one on whose stack
//! an interrupt put a slab takes that one first: where it did neither, it had chosen before.
//!
//! Only the moment of a request is corrected so, never where it is served.

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
    /// Its size in bytes.
    pub bytes: u32,
    /// Its flags.
    pub gfp: u32,
}

/// What the events say of a slab.
#[derive(Clone, Copy, Debug, Default)]
struct Fill {
    free: u16,
    /// The event that freed an object of it when it was full.
    refilled: u32,
}

/// A processor.
#[derive(Clone, Debug, Default)]
struct Processor {
    /// The last event of a thread on it: nothing later than the choice that is looked for.
    since: u32,
    /// Slabs that interrupts put on its stack since: cache, slab, event.
    pushed: Vec<(CacheId, u32, u32)>,
    /// By cache: the slab that it took from last.
    current: Vec<u32>,
}

/// Finds them.
#[derive(Clone, Debug)]
pub struct Overtaking {
    number: u32,
    slabs: Vec<Fill>,
    cpus: Vec<Processor>,
    left_free: Vec<u16>,
    has_sheaves: Vec<bool>,
    found: Vec<Overtaken>,
}

impl Overtaking {
    /// Before the first event.
    #[must_use]
    pub fn new(caches: &Caches, learned: &Learned, cpus: usize) -> Self {
        Self {
            number: 0,
            slabs: Vec::new(),
            cpus: vec![Processor::default(); cpus.max(1)],
            left_free: learned.before.iter().map(|slab| slab.free).collect(),
            has_sheaves: caches.list().iter().map(|cache| cache.sheaf > 0).collect(),
            found: Vec::new(),
        }
    }

    /// An event comes.
    pub fn begin_event(&mut self) {
        self.number = self.number.saturating_add(1);
    }

    /// An event of a thread was gone through, which is no part of an allocation under way.
    pub fn end_event(&mut self, event: &Event) {
        let cpu = self.cpu(event);
        if event.context.is_task() {
            self.cpus[cpu].since = self.number;
            self.cpus[cpu].pushed.clear();
        }
    }

    /// What was found, by the moment.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Overtaken> {
        self.found.sort_unstable();
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

    /// The first event that this allocation cannot have come after.
    fn moment(&self, cpu: usize, object: &Object) -> Option<u32> {
        let processor = &self.cpus[cpu];
        let current = processor.current.get(object.cache.index()).copied().unwrap_or(NONE);
        if current == object.slab {
            return None;
        }
        let refilled = self.slabs.get(current as usize).filter(|fill| fill.free > 0);
        let refilled = refilled.map(|fill| fill.refilled).filter(|at| *at > processor.since);
        let mine = || processor.pushed.iter().filter(|(cache, ..)| *cache == object.cache);
        let is_pushed = mine().any(|(_, slab, _)| *slab == object.slab);
        let pushed = mine().map(|(.., at)| *at).next().filter(|_| !is_pushed);
        refilled.into_iter().chain(pushed).min()
    }

    fn is_current(&self, cache: CacheId, slab: u32) -> bool {
        self.cpus.iter().any(|cpu| cpu.current.get(cache.index()) == Some(&slab))
    }
}

impl Watch for Overtaking {
    fn created(&mut self, number: u32, slab: &KernelSlab, _: usize) {
        let free = match slab.before {
            NONE => slab.objects,
            before => self.left_free.get(before as usize).copied().unwrap_or(0),
        };
        *self.fill(number) = Fill { free, refilled: 0 };
    }

    fn destroyed(&mut self, number: u32, slab: &KernelSlab, _: &[State], _: usize) {
        for cpu in &mut self.cpus {
            if let Some(current) = cpu.current.get_mut(slab.cache.index())
                && *current == number
            {
                *current = NONE;
            }
            cpu.pushed.retain(|(_, pushed, _)| *pushed != number);
        }
    }

    fn alloc(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let (cpu, cache) = (self.cpu(event), object.cache);
        if self.has_sheaves.get(cache.index()) != Some(&true)
            && event.context.is_task()
            && let Some(moment) = self.moment(cpu, &object)
        {
            let bytes = event.bytes_requested.min(u64::from(u32::MAX)) as u32;
            let (gfp, cpu) = (event.gfp, event.cpu.0);
            let event = self.number;
            self.found.push(Overtaken { moment, event, cache, cpu, bytes, gfp });
        }
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
        let current = &mut self.cpus[cpu].current;
        if current.len() <= cache.index() {
            current.resize(cache.index() + 1, NONE);
        }
        current[cache.index()] = object.slab;
    }

    fn free(&mut self, object: Object, _: &KernelSlab, event: &Event) {
        let number = self.number;
        let fill = self.fill(object.slab);
        let was_full = fill.free == 0;
        fill.free = fill.free.saturating_add(u16::from(object.was != State::Free));
        if !was_full {
            return;
        }
        fill.refilled = number;
        if !event.context.is_task() && !self.is_current(object.cache, object.slab) {
            let cpu = self.cpu(event);
            self.cpus[cpu].pushed.push((object.cache, object.slab, number));
        }
    }
}

/// Goes through the list while the events pass.
#[derive(Clone, Debug)]
pub struct Ahead<'a, T> {
    list: &'a [Overtaken],
    number: u32,
    parked: Vec<(u32, T)>,
}

impl<'a, T: Copy> Ahead<'a, T> {
    /// Before the first event.
    #[must_use]
    pub fn new(list: &'a [Overtaken]) -> Self {
        Self { list, number: 0, parked: Vec::new() }
    }

    /// The next event comes.
    pub fn begin_event(&mut self) {
        self.number = self.number.saturating_add(1);
    }

    /// An allocation that is due before this event.
    #[inline]
    pub fn next_due(&mut self) -> Option<Overtaken> {
        let (first, rest) = self.list.split_first()?;
        if first.moment > self.number {
            return None;
        }
        self.list = rest;
        Some(*first)
    }

    /// Keeps what it got until its event comes.
    pub fn park(&mut self, of: &Overtaken, token: T) {
        self.parked.push((of.event, token));
    }

    /// What the allocation that this event tells of got before.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if self.parked.is_empty() {
            return None;
        }
        let place = self.parked.iter().position(|(event, _)| *event == self.number)?;
        Some(self.parked.swap_remove(place).1)
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
            let mut event = Event::new(kind, Nanos(0), Cpu(cpu), Pid(7));
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
            self.0.into_list().iter().map(|it| (it.moment, it.event)).collect()
        }
    }

    fn slab_of(slab: u32) -> KernelSlab {
        KernelSlab {
            pfn: slab,
            first: slab * 2,
            before: NONE,
            cache: PROBE,
            objects: 2,
            order: 0,
            is_whole: true,
            is_live: true,
        }
    }

    #[test]
    fn an_interrupt_that_fills_the_stack_overtook_what_is_not_taken_from_there() {
        // `put_cpu_partial` puts slab 0 on top of processor 0's stack, `___slab_alloc` takes the top.
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
    fn what_is_made_ahead_is_handed_out_with_its_own_event() {
        let (moment, event) = (2, 4);
        let due = Overtaken { moment, event, cache: PROBE, cpu: 0, bytes: 8, gfp: 0 };
        let list = [due];
        let mut ahead = Ahead::new(&list);
        ahead.begin_event();
        assert_eq!(ahead.next_due(), None);
        ahead.begin_event();
        assert_eq!(ahead.next_due(), Some(due));
        ahead.park(&due, 11_u32);
        assert_eq!(ahead.take(), None);
        ahead.begin_event();
        ahead.begin_event();
        assert_eq!(ahead.take(), Some(11));
    }
}
