//! The layers above pages: slab and vmalloc, replayed over the same recording as the page model.
//!
//! Two passes over the events. The first finds the direct map, the pages that became slabs and the
//! state of the slabs at the start; the second lets the layers decide and compares them with
//! `/proc/slabinfo` and `/proc/vmallocinfo`.

use kmemlab_trace::direct_map::{self, DirectMap};
use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::format;
use kmemlab_trace::reader::Recording;
use kmemlab_trace::snapshot::SlabDetailRow;

use crate::engine::upper::Upper;
use crate::engine::{Options, ReplayError, Row, replay, replay_under};
use crate::machine::Machine;
use crate::policy::PolicySet;
use crate::slab::caches::{CacheId, Caches, Site};
use crate::slab::follow::{Follow, FollowCounts, Marks, Watch};
use crate::slab::geometry::Parameters;
use crate::slab::gfp::GfpBits;
use crate::slab::learning::{Learned, Learning};
use crate::slab::overtaken::Moments;
use crate::slab::role::Role;
use crate::slab::rules::SlabRules;
use crate::slab::samples::{self, SlabSample};
use crate::slab::unseen::Unseen;
use crate::vmap;
use crate::vmap::layer::Vmap;
use crate::vmap::rules::VmapRules;
use crate::vmap::samples::VmapSample;
use crate::vmap::start::{VmapLearning, VmapStart};

mod between;
mod drive;
mod kernel;
mod layers;
mod nameless;
mod names;
mod outcome;
mod recorded;
mod routes;
mod rules;
mod sites;
mod sums;

pub use crate::vmap::drive::VmapOutcome;
use layers::Layers;
use nameless::Nameless;
use names::Names;
pub use outcome::{CacheOutcome, Cause, SiteOutcome, SlabOutcome, StackOutcome, StackRun};
use routes::Callers;
pub use rules::StackRules;
pub use sums::{CacheCount, CacheSample, SlabSums, Sums};

/// Events that the slab layer is followed by.
const SLAB_KINDS: u64 = Kind::PageAlloc.bit()
    | Kind::PageFree.bit()
    | Kind::Kmalloc.bit()
    | Kind::KmallocNode.bit()
    | Kind::Kfree.bit()
    | Kind::CacheAlloc.bit()
    | Kind::CacheAllocNode.bit()
    | Kind::CacheFree.bit();

/// Events that the vmalloc layer is followed by.
const VMAP_KINDS: u64 = Kind::VmapAlloc.bit() | Kind::VmapFree.bit() | Kind::VmapPurge.bit();

/// The cache that the kernel takes an object from for an area that no pool serves.
const AREA_CACHE: &str = "vmap_area";

/// The cache of the nodes of trees.
const NODE_CACHE: &str = "maple_node";

/// How the layers are to run.
#[derive(Clone, Debug, Default)]
pub struct StackOptions {
    /// Rules other than the recorded release's.
    pub rules: Option<StackRules>,
    /// Sets of policies to run beside the baseline.
    pub policies: Vec<PolicySet>,
    /// Monotonic nanoseconds, to tell how fast it went; it changes nothing else.
    pub clock: Option<fn() -> u64>,
    /// Check every law of the page model's state at each sample (slow).
    pub check: bool,
    /// Run the layers alone, without the page model under them.
    pub without_pages: bool,
    /// Keep every cache at every sample ([`SlabOutcome::rows`]).
    pub keep_rows: bool,
}

/// What both passes share.
#[derive(Clone, Debug)]
struct Ground {
    /// Rules of the recorded kernel: what its events mean.
    rules: SlabRules,
    vmap_rules: VmapRules,
    /// Rules that the model decides by.
    decides: StackRules,
    machine: Machine,
    page_bytes: u64,
    caches: Caches,
    sites: Vec<Site>,
    /// What call sites do, by the number of the stack.
    roles: Vec<Role>,
    /// Where merged caches are to be apart: who asks them.
    callers: Option<Callers>,
    nameless: Nameless,
    base: Option<DirectMap>,
    samples: Vec<SlabSample>,
    vmap_samples: Vec<VmapSample>,
    /// When the recorder had caches shrunk, in order of time.
    shrinks: Vec<(u64, CacheId)>,
    /// Runs of pages in slabs at the start.
    slab_runs: Vec<(u32, u32)>,
    has_pages: bool,
    has_objects: bool,
    has_areas: bool,
}

impl Ground {
    fn new(recording: &Recording, forced: Option<StackRules>) -> Result<Self, ReplayError> {
        let manifest = recording.manifest();
        let (own, _) = StackRules::recorded(manifest);
        let (rules, decides) = (own.slab, forced.unwrap_or(own));
        let machine = Machine::of(manifest, decides.pages).map_err(ReplayError::Machine)?;
        let page_bytes = page_bytes(recording);
        let parameters = Parameters::of_host(page_bytes, manifest.host.cpus.len() as u32);
        let gfp = GfpBits::of(manifest);
        let samples = samples::all(recording)?;
        let mut caches = Caches::new(&[], rules, parameters, gfp);
        for row in samples.iter().flat_map(|sample| &sample.rows) {
            caches.add_row(row);
        }
        let recorded = |name: &str| manifest.tracepoints.iter().any(|it| it.name == name);
        let detail = samples::detail(recording)?;
        for row in &detail {
            caches.correct(row);
        }
        let shrinks = shrinks(&detail, &caches);
        let mut ground = Self {
            shrinks,
            rules,
            vmap_rules: own.vmap,
            decides,
            machine,
            page_bytes,
            caches,
            sites: sites::read(recording, rules.vector_site)?,
            roles: sites::roles(recording)?,
            nameless: Nameless::default(),
            base: None,
            callers: None,
            samples,
            // Without events nothing moves, and there is nothing to compare.
            vmap_samples: if recorded(Kind::VmapAlloc.name()) {
                vmap::samples::all(recording)?
            } else {
                Vec::new()
            },
            slab_runs: direct_map::slab_runs(recording)?,
            has_areas: recorded(Kind::VmapAlloc.name()),
            has_pages: recorded(Kind::PageAlloc.name()),
            has_objects: recorded(Kind::CacheAlloc.name()),
        };
        ground.nameless = Nameless::read(recording, &mut ground.caches, &ground.samples)?;
        ground.base = base_of(recording)?;
        Ok(ground)
    }

    fn follow<'a>(&self) -> Follow<'a> {
        let base = self.base.map(|map| map.base);
        let mut follow = Follow::new(base, self.page_bytes, self.machine.end);
        follow.set_slab_runs(self.slab_runs.clone());
        if !self.rules.free_event_first {
            follow.expect_late_frees();
        }
        follow
    }

    /// The vmalloc layer, with nothing in it yet.
    fn vmap(&self, set: &PolicySet) -> Vmap {
        let cpus = self.machine.cpus;
        let lazy = vmap::rules::lazy_max_pages(cpus as u32, self.page_bytes);
        let mut tuning = set.vmap.tuning();
        tuning.is_forced = self.decides.vmap != self.vmap_rules;
        Vmap::new(self.decides.vmap, tuning, cpus, lazy, self.page_bytes)
    }

    #[inline]
    fn site(&self, event: &Event) -> Site {
        let is_nameless = matches!(event.kind, Kind::CacheAlloc | Kind::CacheAllocNode)
            && !event.has(Column::Name);
        if is_nameless {
            return Site::Of(self.nameless.of(event));
        }
        self.sites.get(event.stack as usize).copied().unwrap_or_default()
    }
}

fn page_bytes(recording: &Recording) -> u64 {
    recording.manifest().host.page_size_bytes.max(4096)
}

/// The base of the direct map: what the events tell, else what the recorder stored.
fn base_of(recording: &Recording) -> Result<Option<DirectMap>, ReplayError> {
    let inferred = direct_map::infer(recording, u64::MAX)?;
    Ok(inferred.or_else(|| recording.manifest().direct_map()))
}

/// When caches were shrunk.
fn shrinks(detail: &[SlabDetailRow], caches: &Caches) -> Vec<(u64, CacheId)> {
    let shrunk = detail.iter().filter(|row| row.key == "shrunk");
    let of = |row: &SlabDetailRow| caches.find(&row.cache).map(|id| (row.stamp.after.0, id));
    let mut list: Vec<(u64, CacheId)> = shrunk.filter_map(of).collect();
    list.sort_unstable();
    list
}

/// Replays the layers above pages. `observe` is told what the page model under them comes to, with
/// the name of the set of policies.
pub fn replay_stack(
    recording: &Recording,
    options: &StackOptions,
    observe: &mut dyn FnMut(&str, Row<'_>),
) -> Result<StackOutcome, ReplayError> {
    let now = || options.clock.map_or(0, |clock| clock());
    let begin = now();
    let mut ground = Ground::new(recording, options.rules)?;
    if options.policies.iter().any(|set| set.slab.is_unmerged()) {
        ground.callers = Some(Callers::read(recording)?);
    }
    let first = learn(recording, &mut ground)?;
    let learned_at = now();
    let baseline = PolicySet::baseline(&ground.machine.rules);
    let mut outcome = StackOutcome {
        follow: first.counts,
        direct_map: ground.base,
        rules: ground.decides,
        rules_by_probe: rules::by_probe(recording.manifest(), options.rules),
        learning_ns: learned_at - begin,
        events: recording.rows_of(format::EVENTS),
        baseline: run(recording, &ground, &first, &baseline, options, observe)?,
        ..StackOutcome::default()
    };
    if options.check && outcome.baseline.pages.is_some() {
        let alone = replay(recording, &Options::default(), &mut |_| {})?.model;
        let (mean, worst) = (alone.order_error_mean_percent, alone.order_error_worst_percent);
        outcome.pages_alone = Some((mean, worst));
    }
    for set in &options.policies {
        outcome.policies.push(run(recording, &ground, &first, set, options, observe)?);
    }
    notes(&ground, &mut outcome);
    outcome.notes.extend(base_note(ground.base, recording.manifest().direct_map()));
    if options.rules.is_some() {
        outcome.notes.push(ground.decides.note(&ground.caches));
    }
    Ok(outcome)
}

/// One set of policies: the layers alone, compared with the kernel's files, then over the page
/// model.
fn run(
    recording: &Recording,
    ground: &Ground,
    first: &First,
    set: &PolicySet,
    options: &StackOptions,
    observe: &mut dyn FnMut(&str, Row<'_>),
) -> Result<StackRun, ReplayError> {
    let now = || options.clock.map_or(0, |clock| clock());
    let begin = now();
    let mut layers = Layers::new(ground, first, set);
    if options.keep_rows {
        layers.keep_rows();
    }
    for batch in recording.events()? {
        let batch = batch?;
        layers.names(&batch);
        for event in batch.iter_only(SLAB_KINDS | VMAP_KINDS) {
            layers.step(&event, &mut |_| true);
        }
        layers.forget_requests();
    }
    let mut run = layers.finish();
    run.name.clone_from(&set.name);
    run.chosen.clone_from(&set.chosen);
    run.spent_ns = now() - begin;
    if ground.has_pages && ground.has_objects && !options.without_pages {
        let mut layers = Layers::new(ground, first, set);
        if options.keep_rows {
            layers.keep_rows();
        }
        let (clock, check) = (options.clock, options.check);
        let rules = options.rules.map(|rules| rules.pages);
        let options = Options { rules, clock, check, ..Options::default() };
        let upper = Some((&mut layers as &mut dyn Upper, set));
        let pages = replay_under(recording, &options, upper, &mut |row| observe(&set.name, row))?;
        run.pages = Some(pages);
        // Slabs hang on what the page model has; areas do not.
        run.slab = layers.finish().slab;
    }
    sites::name(recording, &mut run.slab.sites)?;
    Ok(run)
}

#[inline]
fn step(
    follow: &mut Follow<'_>,
    ground: &mut Ground,
    event: &Event,
    names: &mut Names,
    watch: &mut impl Watch,
) -> Step {
    match event.kind {
        Kind::PageAlloc if event.pfn().is_none() => {
            match follow.is_failed_slab(event, &ground.caches) {
                true => Step::SlabPages,
                false => Step::Other,
            }
        }
        Kind::PageAlloc => match follow.page_alloc(event, &ground.caches, watch) {
            Some(_) => Step::SlabPages,
            None => Step::Other,
        },
        Kind::PageFree if follow.page_free(event, watch) => Step::SlabPages,
        Kind::PageFree => Step::Other,
        _ => {
            let named = names.cache_of(event, &mut ground.caches);
            let site = ground.site(event);
            match follow.object(event, named, site, &ground.caches, watch) {
                Some(cache) => Step::Object(cache),
                None => Step::Other,
            }
        }
    }
}

/// What an event turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Pages of a slab.
    SlabPages,
    /// An object of that cache.
    Object(CacheId),
    Other,
}

/// What the first pass found.
struct First {
    slabs: Learned,
    marks: Marks,
    unseen: Unseen,
    areas: VmapStart,
    counts: FollowCounts,
    moments: Moments,
    /// By sheaf that a thread took for itself: how many objects it wanted.
    wanted: Vec<u8>,
}

/// The first pass.
fn learn(recording: &Recording, ground: &mut Ground) -> Result<First, ReplayError> {
    let mut follow = ground.follow();
    let mut learning = Learning::default();
    let sheaves = ground.caches.list().iter().map(|cache| cache.sheaf > 0);
    learning.sheaves = sheaves.collect();
    let cache_of = |name| ground.caches.find(name).unwrap_or(CacheId::UNKNOWN);
    learning.tree_caches = (cache_of(NODE_CACHE), cache_of("vm_area_struct"));
    learning.handlers = cache_of("sighand_cache");
    learning.direct_reclaim = ground.caches.gfp().direct_reclaim;
    learning.roles.clone_from(&ground.roles);
    let stacks = ground.caches.list().iter().map(|cache| cache.cpu_partial_slabs);
    learning.stack_slabs = stacks.collect();
    let first_sample = ground.samples.first().map_or(u64::MAX, |sample| sample.stamp.after.0);
    let mut until_sample = None;
    let vmap_samples = std::mem::take(&mut ground.vmap_samples);
    let cpus = ground.machine.cpus;
    let mut areas = VmapLearning::new(
        vmap_samples.first(),
        cpus,
        ground.has_objects,
        ground.vmap_rules,
        ground.page_bytes,
    );
    let area_cache = ground.caches.find(AREA_CACHE).unwrap_or(CacheId::UNKNOWN);
    let mut names = Names::default();
    let mut shrinks = ground.shrinks.clone().into_iter().peekable();
    for batch in recording.events()? {
        let batch = batch?;
        names.read(&batch, &ground.caches);
        for event in batch.iter_only(SLAB_KINDS | VMAP_KINDS) {
            learning.now_ns = event.time.0;
            while let Some((_, cache)) = shrinks.next_if(|(at, _)| event.time.0 > *at) {
                learning.shrunk(cache);
            }
            if until_sample.is_none() && event.time.0 > first_sample {
                until_sample = Some(learning.traffic.clone());
            }
            if VMAP_KINDS & event.kind.bit() != 0 {
                areas.event(&event);
                continue;
            }
            let found = step(&mut follow, ground, &event, &mut names, &mut learning);
            if let (Step::Object(cache), Some(callers)) = (found, &mut ground.callers) {
                callers.see(cache, &event);
            }
            if found == Step::Object(area_cache) && event.kind != Kind::CacheFree {
                areas.object(&event);
            }
        }
    }
    let (marks, places, found, counts) = follow.into_marks();
    learning.set_places(places);
    let until_sample = until_sample.unwrap_or_else(|| learning.traffic.clone());
    let areas = areas.into_start();
    ground.vmap_samples = vmap_samples;
    let unseen = between::unseen(recording, ground, &mut learning, found, &until_sample)?;
    let (slabs, moments) = (learning.learned, Moments::default());
    let wanted = learning.trees.wanted;
    let mut first = First { slabs, marks, unseen, areas, counts, moments, wanted };
    first.moments = between::moments(recording, ground, &first)?;
    Ok(first)
}

/// What the events tell and what the recorder stored may differ.
fn base_note(told: Option<DirectMap>, stored: Option<DirectMap>) -> Option<String> {
    let (told, stored) = (told?, stored?);
    (told.base != stored.base).then(|| {
        format!(
            "the manifest says that the direct map begins at {:#x}, the events say {:#x} ({} of {} \
             votes): the events are followed",
            stored.base, told.base, told.votes, told.of
        )
    })
}

/// What is missing, in whole sentences.
fn notes(ground: &Ground, outcome: &mut StackOutcome) {
    let has_vmallocinfo = !ground.vmap_samples.is_empty();
    let object_events = outcome.follow.object_events;
    let mut note = |text: &str| outcome.notes.push(text.to_owned());
    if !ground.has_objects || object_events == 0 {
        note(
            "no object events are recorded: the slab layer has nothing to replay; record with \
              --events page,slab,vmalloc",
        );
    } else if ground.base.is_none() {
        note(
            "the base of the direct map could not be inferred: too few page events of the slab \
              layer are followed by their first object, so objects are not matched to pages",
        );
    }
    if !ground.has_pages {
        note(
            "no page events are recorded: slabs are known by their objects only, so none is seen \
              to be made or given back by the kernel",
        );
    }
    if ground.has_areas && !has_vmallocinfo {
        note("no /proc/vmallocinfo with addresses is recorded: the vmalloc space starts empty");
    } else if !ground.has_areas {
        note(
            "no vmalloc events are recorded (6.2 and later have them): the vmalloc space is not \
              replayed",
        );
    }
    if ground.samples.is_empty() && ground.has_objects {
        note("no /proc/slabinfo is recorded: geometry is computed and nothing is compared");
    }
}
