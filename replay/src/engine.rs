//! The replay itself: events and snapshots in time order, through the mirror, then the model.

use std::iter::Peekable;

use kmemlab_trace::event::{Event, Kind};
use kmemlab_trace::format;
use kmemlab_trace::manifest::Manifest;
use kmemlab_trace::reader::{BuddySamples, PageRuns, Recording};

use crate::compare::{Chunk, OpenSample};
use crate::learning::Learned;
use crate::machine::{Machine, NoMachine};
use crate::mirror::{self, Effect, Mirror};
use crate::model::Start;
use crate::outcome::{Outcome, PolicyOutcome};
use crate::policy::PolicySet;
use crate::residue::{ResidueRow, Steps};
use crate::rules::Rules;
use crate::seeding::Seed;
use crate::worker::Worker;

mod emptied;
mod habits;
mod inputs;
mod kernel;
mod kswapd;
mod lengths;
mod lists;
mod losses;
mod residue;
mod run;
mod samples;
mod start;
pub(crate) mod upper;

use emptied::Emptied;
use habits::Habits;
use inputs::Input;
use kernel::KernelCounts;
use lengths::Lengths;
use lists::Lists;
use losses::Losses;
use run::Run;
use upper::{Fate, Upper};

/// The events that the mirror or the model listen to.
const KINDS: u64 = mirror::KINDS
    | Kind::ZoneWatermarks.bit()
    | Kind::KswapdWakeup.bit()
    | Kind::KswapdWake.bit()
    | Kind::KswapdSleep.bit();
/// Events of kswapd's own work.
const KSWAPD_KINDS: u64 = Kind::KswapdWake.bit() | Kind::KswapdSleep.bit();

/// How a replay is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Rules other than the recorded release's.
    pub rules: Option<Rules>,
    /// Sets of policies to run beside the baseline.
    pub policies: Vec<PolicySet>,
    /// Monotonic nanoseconds, to tell how fast it went; it changes nothing else.
    pub clock: Option<fn() -> u64>,
    /// Check every law of both states at each sample (slow).
    pub check: bool,
    /// Follow the kernel only: no model runs.
    pub mirror_only: bool,
}

/// Why a replay could not be done.
#[derive(Debug)]
pub enum ReplayError {
    /// The recording cannot be read.
    Trace(kmemlab_trace::Error),
    /// The recording does not describe its machine.
    Machine(NoMachine),
    /// The recording lacks what a policy needs.
    Missing(String),
    /// A law of the model is broken: a bug.
    Law(String),
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trace(error) => error.fmt(f),
            Self::Machine(error) => error.fmt(f),
            Self::Missing(what) => f.write_str(what),
            Self::Law(law) => {
                write!(f, "the replay broke a law of its own: {law}; please report it")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<kmemlab_trace::Error> for ReplayError {
    fn from(error: kmemlab_trace::Error) -> Self {
        Self::Trace(error)
    }
}

/// Free blocks of one zone at one sample, of one source.
#[derive(Clone, Copy, Debug)]
pub struct SampleRow<'a> {
    /// `kernel`, `mirror`, `model`, or the name of a set of policies.
    pub source: &'a str,
    /// When `/proc/buddyinfo` was read.
    pub at_ns: u64,
    /// NUMA node.
    pub node: u16,
    /// Zone name.
    pub zone: &'a str,
    /// Free blocks by order.
    pub free_blocks: &'a [u64],
}

/// What a replay hands over while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// Free blocks at a sample.
    Sample(SampleRow<'a>),
    /// Something that the mirror could not explain.
    Residue(ResidueRow<'a>),
    /// A block left its per-CPU list without an event; told with [`Options::mirror_only`].
    Left {
        /// Time of the event that proves it.
        at_ns: u64,
        /// First page.
        pfn: u32,
        /// Type of that list.
        migrate: u8,
    },
    /// A block was freed; told with [`Options::mirror_only`].
    Freed {
        /// When.
        at_ns: u64,
        /// First page.
        pfn: u32,
        /// Type of its pageblock then.
        migrate: u8,
    },
}

/// The rules of the kernel that a recording tells of, and which of them a probe set.
#[must_use]
pub fn rules_of(manifest: &Manifest) -> (Rules, Vec<String>) {
    Rules::probed(&manifest.host.kernel_release, |name| manifest.feature(name))
}

/// Replays a recording through the mirror and the baseline model and compares both with the kernel.
/// `observe` is handed every comparison and all residue; it changes nothing.
pub fn replay(
    recording: &Recording,
    options: &Options,
    observe: &mut dyn FnMut(Row<'_>),
) -> Result<Outcome, ReplayError> {
    replay_under(recording, options, None, observe)
}

/// The same, with layers above the pages that ask for pages themselves.
pub(crate) fn replay_under<'a>(
    recording: &Recording,
    options: &'a Options,
    upper: Option<(&'a mut dyn Upper, &PolicySet)>,
    observe: &'a mut dyn FnMut(Row<'_>),
) -> Result<Outcome, ReplayError> {
    let manifest = recording.manifest();
    let (rules, rules_by_probe) =
        options.rules.map_or_else(|| rules_of(manifest), |rules| (rules, Vec::new()));
    let machine = Machine::of(manifest, rules).map_err(ReplayError::Machine)?;
    let mut notes = Vec::new();
    let seed = start::seed(recording, &machine, &mut notes)?;
    let start = start::numbers(recording, &machine, seed.last_read())?;
    let counts = start::next_counts(recording, &machine, start.since_ns)?;
    let mut lengths = Lengths::new(&start, counts);
    let learned = learn(recording, &machine, seed.clone(), &mut lengths)?;
    let mut replay =
        Replay::new(recording, machine, seed, (learned, lengths), start, options, observe)?;
    if let Some((upper, set)) = upper {
        replay.upper = Some(upper);
        replay.models = vec![Run::new(set.clone(), replay.mirror.memory().machine())];
    }
    if options.mirror_only {
        replay.models.clear();
    }
    replay.outcome.notes = notes;
    replay.outcome.rules_by_probe = rules_by_probe;
    let mut batches = recording.events()?;
    for batch in &mut batches {
        let batch = batch?;
        replay.names.clear();
        replay.names.extend((0..batch.names()).map(|n| batch.name(n as u16).to_owned()));
        let kinds = replay.upper.as_mut().map_or(0, |upper| upper.batch(&batch));
        for event in batch.iter_only(KINDS | kinds) {
            replay.event(&event)?;
        }
        replay.outcome.events += batch.len() as u64;
    }
    replay.outcome.damaged_batches = batches.damaged();
    let read = [format::PAGEMAP_FIRST, format::BUDDYINFO, format::ZONEINFO, format::PAGEMAP_LAST];
    for table in read {
        replay.outcome.damaged_batches += recording.damaged_in(table.file)?;
    }
    replay.finish()
}

/// The first pass: what no file tells of the start.
fn learn(
    recording: &Recording,
    machine: &Machine,
    seed: Seed,
    lengths: &mut Lengths,
) -> Result<Learned, ReplayError> {
    let mut mirror = Mirror::learning(machine, seed);
    let mut worker = Worker::new(machine.cpus, 0, None);
    let mut kswapd = kswapd::KswapdWork::default();
    for batch in recording.events()? {
        for event in batch?.iter_only(mirror::KINDS | KSWAPD_KINDS) {
            if kswapd.watch(&event) {
                continue;
            }
            lengths.watch(&event, &mirror);
            mirror.step(&event);
            worker.watch(&event);
        }
    }
    let mut learned = mirror.into_learned();
    learned.worker_ns = worker.first_run_ns();
    learned.kswapd_done = kswapd.into_list();
    Ok(learned)
}

struct Replay<'a> {
    options: &'a Options,
    observe: &'a mut dyn FnMut(Row<'_>),
    mirror: Mirror,
    /// The baseline, then the other policies.
    models: Vec<Run>,
    /// The models run from the moment the page map is whole.
    model_from: u64,
    has_begun: bool,
    seed: Seed,
    start: Start,
    habits: Habits,
    emptied: Emptied,
    lengths: Lengths,
    learned: Learned,
    next_done: usize,
    inputs: Vec<Input>,
    names: Vec<String>,
    samples: Peekable<BuddySamples>,
    open: Option<OpenSample>,
    map: Peekable<PageRuns>,
    chunk: Option<Chunk>,
    lists: Lists,
    losses: Losses,
    steps: Steps,
    next_stop: u64,
    segment_start: u64,
    first_event: Option<u64>,
    last_event: u64,
    active: Vec<bool>,
    kernel: KernelCounts,
    worker: Worker,
    upper: Option<&'a mut dyn Upper>,
    outcome: Outcome,
}

impl<'a> Replay<'a> {
    fn new(
        recording: &Recording,
        machine: Machine,
        seed: Seed,
        learned: (Learned, Lengths),
        start: Start,
        options: &'a Options,
        observe: &'a mut dyn FnMut(Row<'_>),
    ) -> Result<Self, ReplayError> {
        let (learned, lengths) = learned;
        let baseline = PolicySet::baseline(&machine.rules);
        let sets = std::iter::once(&baseline).chain(&options.policies);
        let models = sets.map(|set| Run::new(set.clone(), &machine)).collect();
        let batches = start.pcps.iter().step_by(machine.cpus).map(|pcp| pcp.batch);
        let steps = Steps::new(&machine, &batches.collect::<Vec<_>>());
        let mut outcome = Outcome { rules: machine.rules.name(), ..Outcome::default() };
        outcome.lost_events = recording.manifest().end.as_ref().map_or(0, |end| end.lost_events);
        Ok(Self {
            options,
            observe,
            active: vec![false; machine.zones.len()],
            worker: Worker::new(machine.cpus, start.since_ns, learned.worker_ns),
            mirror: Mirror::new(&machine, seed.clone(), Some(&learned)),
            models,
            model_from: start.since_ns,
            has_begun: false,
            seed,
            start,
            habits: Habits::default(),
            emptied: Emptied::default(),
            lengths,
            learned,
            next_done: 0,
            inputs: Vec::new(),
            names: Vec::new(),
            samples: recording.buddyinfo()?.peekable(),
            open: None,
            map: recording.page_map(&format::PAGEMAP_LAST)?.peekable(),
            chunk: None,
            lists: Lists::new(recording.zoneinfo()?),
            losses: Losses::of(recording)?,
            steps,
            next_stop: 0,
            segment_start: 0,
            first_event: None,
            last_event: 0,
            kernel: KernelCounts::new(machine.cpus),
            upper: None,
            outcome,
        })
    }

    /// The page map is whole: from here the models decide by themselves, from the kernel's own
    /// state.
    fn begin_models(&mut self) {
        self.mirror.recall_waiting(&self.learned);
        self.lengths.settle(&mut self.start, &self.learned.left, self.mirror.memory());
        self.inputs.clear();
        for run in &mut self.models {
            run.begin(self.mirror.memory(), &self.seed, &self.start);
        }
        self.kernel.moved.begin();
        self.has_begun = true;
        if let Some(upper) = &mut self.upper {
            upper.begin(&mut |input| self.inputs.push(Input::Upper(input)));
        }
    }

    fn now(&self) -> u64 {
        self.options.clock.map_or(0, |clock| clock())
    }

    #[inline]
    fn event(&mut self, event: &Event) -> Result<(), ReplayError> {
        let time = event.time.0;
        if self.first_event.is_none() {
            self.first_event = Some(time);
            self.segment_start = self.now();
        }
        if time > self.next_stop {
            self.stop(time)?;
        }
        if !self.has_begun && time > self.model_from {
            self.begin_models();
        }
        self.last_event = time;
        while self.learned.kswapd_done.get(self.next_done).is_some_and(|done| time > *done) {
            self.inputs.push(Input::Kswapd { awake: false });
            self.next_done += 1;
        }
        let fate = self.upper_event(event);
        if fate != Fate::Object {
            self.page_event(event, fate);
        }
        if let Some(upper) = &mut self.upper {
            upper.take(&mut |input| self.inputs.push(Input::Upper(input)));
        }
        if self.inputs.len() >= 65_536 {
            self.run_models();
        }
        if self.open.is_some() || self.lists.is_open() {
            self.look();
        }
        Ok(())
    }

    /// Whose the event is. A layer above may ask meanwhile whether the model has pages.
    #[inline]
    fn upper_event(&mut self, event: &Event) -> Fate {
        let Some(upper) = self.upper.take() else { return Fate::Pages };
        let fate = upper.event(event, &mut |input| {
            self.inputs.push(Input::Upper(input));
            self.run_models();
            self.models.first().is_some_and(Run::has_granted)
        });
        self.upper = Some(upper);
        fate
    }

    /// The mirror follows, the models are told.
    fn page_event(&mut self, event: &Event, fate: Fate) {
        self.mirror.step(event);
        if !self.mirror.misfits().is_empty() {
            self.misfits(event);
        }
        if self.options.mirror_only {
            self.tell_pages(event);
        }
        if !self.has_begun
            && let Some((_, zone)) = self.mirror.page(event)
        {
            self.habits.watch(event, self.mirror.effects(), zone, &mut self.start);
        }
        self.listen(event, fate);
    }

    fn tell_pages(&mut self, event: &Event) {
        let at_ns = event.time.0;
        for effect in self.mirror.effects() {
            if let Effect::Bulk { pfn, migrate, .. } = *effect {
                (self.observe)(Row::Left { at_ns, pfn, migrate });
            }
        }
        if event.kind == Kind::PageFree
            && let Some((pfn, _)) = self.mirror.page(event)
        {
            let migrate = self.mirror.memory().block_type(pfn);
            (self.observe)(Row::Freed { at_ns, pfn, migrate });
        }
    }

    fn finish(mut self) -> Result<Outcome, ReplayError> {
        self.run_models();
        self.close_passed(u64::MAX);
        self.open_reached(u64::MAX)?;
        self.lists_reached(u64::MAX);
        self.finish_steps();
        self.finish_losses();
        let mut outcome = self.outcome;
        outcome.start_ns = self.first_event.unwrap_or(0);
        outcome.span_ns = self.last_event - self.first_event.unwrap_or(self.last_event);
        outcome.began_ns = self.model_from;
        outcome.mirror.residue = self.mirror.residue;
        outcome.mirror.pcp_hits = self.mirror.pcp_hits;
        outcome.mirror.state_bytes = self.mirror.memory().state_bytes();
        let mut digest = self.mirror.memory().digest();
        self.kernel.moved.finish();
        outcome.mirror.speed.events = outcome.events;
        outcome.mirror.speed.page_events = outcome.page_events;
        for (index, mut run) in self.models.into_iter().enumerate() {
            if let Some(state) = run.digest() {
                digest = digest.rotate_left(1) ^ state;
            }
            let result = run.finish(&self.kernel, &outcome);
            let (worst, last) = (run.tally.worst.take(), run.tally.last.take());
            if index == 0 {
                (outcome.model, outcome.worst, outcome.last) = (result, worst, last);
            } else {
                let policies = run.policies;
                outcome.policies.push(PolicyOutcome { policies, result, worst, last });
            }
        }
        outcome.digest = digest;
        Ok(outcome)
    }
}
