//! Slab and vmalloc together over one recording, with or without a page model below them.

use std::collections::{BTreeMap, HashSet};

use kmemlab_trace::EventBatch;
use kmemlab_trace::event::{Event, Kind};

use super::drive::{Asking, Drive, Served};
use super::outcome::StackRun;
use super::{AREA_CACHE, First, Ground, Names, SLAB_KINDS, Step, VMAP_KINDS, step};
use crate::engine::upper::{Fate, Upper, UpperInput};
use crate::policy::PolicySet;
use crate::slab::caches::CacheId;
use crate::slab::follow::{Follow, NONE};
use crate::slab::policy::{Origin, PageRequest};
use crate::slab::unseen::{Arrival, Came};
use crate::vmap::drive::VmapDrive;

/// The layers in their second pass.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    ground: Ground,
    drive: Drive<'a>,
    follow: Follow<'a>,
    areas: VmapDrive<'a>,
    area_cache: CacheId,
    names: Names,
    /// What comes without an event, still to come.
    arrivals: &'a [Arrival],
    /// First pages of slabs that come without an event.
    unseen: HashSet<u32>,
    cpu: usize,
    /// The page model runs.
    has_begun: bool,
}

impl<'a> Layers<'a> {
    pub(super) fn new(ground: &'a Ground, first: &'a First, set: &PolicySet) -> Self {
        let mut drive = Drive::new(ground, first, set);
        let areas = VmapDrive::new(ground.vmap(set), &ground.vmap_samples, &first.areas);
        let mut follow = ground.follow();
        let mut asking = Asking { drive: &mut drive, pages: &mut |_| true };
        let places = &first.slabs.places;
        follow.start_from(&first.marks, places, &first.unseen, &ground.caches, &mut asking);
        drive.begin(&first.slabs);
        Self {
            ground: Ground { vmap_samples: Vec::new(), ..ground.clone() },
            drive,
            follow,
            areas,
            area_cache: ground.caches.find(AREA_CACHE).unwrap_or(CacheId::UNKNOWN),
            names: Names::default(),
            arrivals: &first.unseen.arrivals,
            unseen: first.unseen.slabs.iter().map(|slab| slab.place.pfn).collect(),
            cpu: 0,
            has_begun: false,
        }
    }

    /// Every cache at every sample is wanted.
    pub(super) fn keep_rows(&mut self) {
        self.drive.keep_rows();
    }

    pub(super) fn names(&mut self, batch: &EventBatch) {
        self.names.read(batch, &self.ground.caches);
    }

    #[inline]
    pub(super) fn step(&mut self, event: &Event, pages: &mut Served<'_>) -> Step {
        if VMAP_KINDS & event.kind.bit() != 0 {
            self.areas.event(event);
            return Step::Other;
        }
        if self.arrivals.first().is_some_and(|next| next.at_ns <= event.time.0) {
            self.arrive(event.time.0, pages);
        }
        self.drive.time(event.time.0, &self.ground);
        let Self { follow, ground, names, drive, .. } = self;
        let mut asking = Asking { drive, pages };
        asking.begin_event();
        let found = step(follow, ground, event, names, &mut asking);
        asking.end_event();
        if found == Step::Object(self.area_cache) && event.kind != Kind::CacheFree {
            self.areas.object(event);
        }
        found
    }

    /// What came without an event until now.
    fn arrive(&mut self, now: u64, pages: &mut Served<'_>) {
        while let Some((next, rest)) = self.arrivals.split_first()
            && next.at_ns <= now
        {
            self.arrivals = rest;
            self.drive.time(next.at_ns, &self.ground);
            let mut asking = Asking { drive: &mut self.drive, pages: &mut *pages };
            match next.came {
                Came::Objects(cache, objects) => {
                    asking.arrive(cache, objects, usize::from(next.cpu));
                }
                Came::Grace(grace) => asking.drive.grace(grace, usize::from(next.cpu)),
                _ => self.follow.arrive(next, &self.ground.caches, &mut asking),
            }
        }
    }

    /// Nobody serves the layers' requests for pages.
    pub(super) fn forget_requests(&mut self) {
        self.drive.requests().0.clear();
    }

    pub(super) fn finish(mut self) -> StackRun {
        let slab = self.drive.finish(&self.ground, &self.follow);
        StackRun { slab, vmap: self.areas.finish(), ..StackRun::default() }
    }
}

impl Upper for Layers<'_> {
    fn batch(&mut self, batch: &EventBatch) -> u64 {
        self.names(batch);
        SLAB_KINDS | VMAP_KINDS
    }

    fn event(&mut self, event: &Event, ask: &mut dyn FnMut(UpperInput) -> bool) -> Fate {
        let kind = event.kind.bit();
        if (SLAB_KINDS | VMAP_KINDS) & kind == 0 {
            return Fate::Pages;
        }
        self.cpu = usize::from(event.cpu.0).min(self.ground.machine.cpus - 1);
        let is_page = matches!(event.kind, Kind::PageAlloc | Kind::PageFree);
        let has_begun = self.has_begun;
        let mut pages = |request| !has_begun || ask(UpperInput::Try { request });
        match self.step(event, &mut pages) {
            Step::SlabPages => Fate::Own,
            _ if is_page => Fate::Pages,
            _ => Fate::Object,
        }
    }

    fn owns(&self, pfn: u32) -> bool {
        self.unseen.contains(&pfn)
    }

    /// The layer's slabs are where the kernel's are, as far as both have as many.
    fn begin(&mut self, ask: &mut dyn FnMut(UpperInput)) {
        self.has_begun = true;
        self.drive.requests().0.clear();
        let mut before: BTreeMap<u32, u32> = BTreeMap::new();
        let mut made: BTreeMap<(CacheId, u8), Vec<u32>> = BTreeMap::new();
        for slab in self.follow.live_slabs() {
            if slab.before != NONE {
                before.insert(slab.before, slab.pfn);
            } else {
                made.entry((slab.cache, slab.order)).or_default().push(slab.pfn);
            }
        }
        let mut without = Vec::new();
        self.drive.policy().slabs(&mut |number, cache, order, origin| {
            let place = match origin {
                Origin::Nameless => return,
                Origin::Before(slab) => before.remove(&slab),
                Origin::Made => None,
            };
            let place = place.or_else(|| made.get_mut(&(cache, order)).and_then(Vec::pop));
            match place {
                Some(pfn) => ask(UpperInput::Bind { number, pfn }),
                None => without.push((number, cache, order)),
            }
        });
        let order_of = |slab: &crate::slab::follow::KernelSlab| slab.order;
        for slab in self.follow.live_slabs() {
            let left = made.get_mut(&(slab.cache, slab.order));
            let is_left = before.remove(&slab.before).is_some()
                || left.is_some_and(|list| list.contains(&slab.pfn));
            if is_left {
                ask(UpperInput::Drop { pfn: slab.pfn, order: order_of(slab) });
            }
        }
        let gfp = self.drive.requests().1;
        for (number, cache, order) in without {
            let request = self.drive.page_request(0, cache, order, gfp);
            ask(UpperInput::Alloc { number, request });
        }
    }

    #[inline]
    fn take(&mut self, ask: &mut dyn FnMut(UpperInput)) {
        let (requests, gfp) = self.drive.requests();
        if requests.is_empty() {
            return;
        }
        let list = std::mem::take(requests);
        for request in &list {
            match *request {
                PageRequest::Alloc { slab, cache, order } => {
                    let request = self.drive.page_request(self.cpu, cache, order, gfp);
                    if self.has_begun {
                        ask(UpperInput::Alloc { number: slab, request });
                    }
                }
                PageRequest::Free { slab, order } => {
                    if self.has_begun {
                        ask(UpperInput::Free { number: slab, cpu: self.cpu, order });
                    }
                }
            }
        }
        let (requests, _) = self.drive.requests();
        *requests = list;
        requests.clear();
    }
}
