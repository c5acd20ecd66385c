//! The replay itself: events and snapshots in time order, through the mirror, then the model.

use std::iter::Peekable;

use kmemlab_trace::event::{Event, Kind};
use kmemlab_trace::format;
use kmemlab_trace::reader::{BuddySamples, PageRuns, Recording};

use crate::binding::Bindings;
use crate::compare::{Chunk, OpenSample, Tally};
use crate::learning::Learned;
use crate::machine::{Machine, NoMachine};
use crate::mirror::{self, Mirror};
use crate::model::{FallbackCounts, Model, Start};
use crate::outcome::Outcome;
use crate::rules::Rules;
use crate::seeding::Seed;
use crate::worker::Worker;

mod emptied;
mod habits;
mod inputs;
mod lengths;
mod samples;
mod start;

use emptied::Emptied;
use habits::Habits;
use inputs::Input;
use lengths::Lengths;

/// The events that the mirror or the model listen to.
const KINDS: u64 =
    mirror::KINDS | Kind::ZoneWatermarks.bit() | Kind::KswapdWake.bit() | Kind::KswapdSleep.bit();

/// How a replay is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Rules other than the recorded release's.
    pub rules: Option<Rules>,
    /// Monotonic nanoseconds, to tell how fast it went; it changes nothing else.
    pub clock: Option<fn() -> u64>,
    /// Check every law of both states at each sample (slow).
    pub check: bool,
}

/// Why a replay could not be done.
#[derive(Debug)]
pub enum ReplayError {
    /// The recording cannot be read.
    Trace(kmemlab_trace::Error),
    /// The recording does not describe its machine.
    Machine(NoMachine),
    /// A law of the model is broken: a bug.
    Law(String),
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trace(error) => error.fmt(f),
            Self::Machine(error) => error.fmt(f),
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
    /// `kernel`, `mirror` or `model`.
    pub source: &'static str,
    /// When `/proc/buddyinfo` was read.
    pub at_ns: u64,
    /// NUMA node.
    pub node: u16,
    /// Zone name.
    pub zone: &'a str,
    /// Free blocks by order.
    pub free_blocks: &'a [u64],
}

/// Replays a recording through the mirror and the baseline model and compares both with the kernel.
/// `observe` is handed every comparison; it changes nothing.
pub fn replay(
    recording: &Recording,
    options: &Options,
    observe: &mut dyn FnMut(SampleRow<'_>),
) -> Result<Outcome, ReplayError> {
    let manifest = recording.manifest();
    let (rules, rules_by_probe) = options.rules.map_or_else(
        || Rules::probed(&manifest.host.kernel_release, |name| manifest.feature(name)),
        |rules| (rules, Vec::new()),
    );
    let machine = Machine::of(manifest, rules).map_err(ReplayError::Machine)?;
    let mut notes = Vec::new();
    let seed = start::seed(recording, &machine, &mut notes)?;
    let start = start::numbers(recording, &machine, seed.last_read())?;
    let counts = start::next_counts(recording, &machine, start.since_ns)?;
    let mut lengths = Lengths::new(&start, counts);
    let learned = learn(recording, &machine, seed.clone(), &mut lengths)?;
    let mut replay =
        Replay::new(recording, machine, seed, (learned, lengths), start, options, observe)?;
    replay.outcome.notes = notes;
    replay.outcome.rules_by_probe = rules_by_probe;
    let mut batches = recording.events()?;
    for batch in &mut batches {
        let batch = batch?;
        replay.names.clear();
        replay.names.extend((0..batch.names()).map(|n| batch.name(n as u16).to_owned()));
        for event in batch.iter_only(KINDS) {
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
    for batch in recording.events()? {
        for event in batch?.iter_only(mirror::KINDS) {
            lengths.watch(&event, &mirror);
            mirror.step(&event);
            worker.watch(&event);
        }
    }
    let mut learned = mirror.into_learned();
    learned.worker_ns = worker.first_run_ns();
    Ok(learned)
}

struct Replay<'a> {
    options: &'a Options,
    observe: &'a mut dyn FnMut(SampleRow<'_>),
    mirror: Mirror,
    /// Runs from the moment the page map is whole.
    model: Option<Model>,
    model_from: u64,
    seed: Seed,
    start: Start,
    habits: Habits,
    emptied: Emptied,
    lengths: Lengths,
    learned: Learned,
    bindings: Bindings,
    inputs: Vec<Input>,
    names: Vec<String>,
    tally: Tally,
    samples: Peekable<BuddySamples>,
    open: Option<OpenSample>,
    map: Peekable<PageRuns>,
    chunk: Option<Chunk>,
    next_stop: u64,
    segment_start: u64,
    first_event: Option<u64>,
    last_event: u64,
    active: Vec<bool>,
    kernel_fallbacks: FallbackCounts,
    worker: Worker,
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
        observe: &'a mut dyn FnMut(SampleRow<'_>),
    ) -> Result<Self, ReplayError> {
        let (learned, lengths) = learned;
        let bindings = Bindings::new(machine.end, machine.block_order, machine.orders);
        let mut outcome = Outcome { rules: machine.rules.name(), ..Outcome::default() };
        outcome.lost_events = recording.manifest().end.as_ref().map_or(0, |end| end.lost_events);
        Ok(Self {
            options,
            observe,
            active: vec![false; machine.zones.len()],
            worker: Worker::new(machine.cpus, start.since_ns, learned.worker_ns),
            mirror: Mirror::new(&machine, seed.clone(), Some(&learned)),
            model: None,
            model_from: start.since_ns,
            seed,
            start,
            habits: Habits::default(),
            emptied: Emptied::default(),
            lengths,
            learned,
            bindings,
            inputs: Vec::new(),
            names: Vec::new(),
            tally: Tally::default(),
            samples: recording.buddyinfo()?.peekable(),
            open: None,
            map: recording.page_map(&format::PAGEMAP_LAST)?.peekable(),
            chunk: None,
            next_stop: 0,
            segment_start: 0,
            first_event: None,
            last_event: 0,
            kernel_fallbacks: FallbackCounts::default(),
            outcome,
        })
    }

    /// The page map is whole: from here the model decides by itself, from the kernel's own state.
    fn begin_model(&mut self) {
        self.mirror.recall_waiting(&self.learned);
        self.lengths.settle(&mut self.start, &self.learned.left, self.mirror.memory());
        self.inputs.clear();
        let model = Model::new(self.mirror.memory().clone(), &self.seed, &self.start);
        self.model = Some(model);
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
        if self.model.is_none() && time > self.model_from {
            self.begin_model();
        }
        self.last_event = time;
        self.mirror.step(event);
        if self.model.is_none()
            && let Some((_, zone)) = self.mirror.page(event)
        {
            self.habits.watch(event, self.mirror.effects(), zone, &mut self.start);
        }
        self.listen(event);
        if self.inputs.len() >= 65_536 {
            self.run_model();
        }
        if self.open.is_some() {
            self.look();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome, ReplayError> {
        self.run_model();
        self.close_passed(u64::MAX);
        self.open_reached(u64::MAX)?;
        let mut outcome = self.outcome;
        outcome.span_ns = self.last_event - self.first_event.unwrap_or(self.last_event);
        outcome.mirror.residue = self.mirror.residue;
        outcome.mirror.pcp_hits = self.mirror.pcp_hits;
        outcome.mirror.state_bytes = self.mirror.memory().state_bytes();
        let mut digest = self.mirror.memory().digest();
        if let Some(model) = &self.model {
            outcome.model.counts = model.counts;
            outcome.model.state_bytes = model.state_bytes() + self.bindings.bytes();
            outcome.model.fallback.model = model.fallbacks;
            digest = digest.rotate_left(1) ^ model.memory().digest();
        }
        outcome.digest = digest;
        outcome.model.fallback.kernel = self.kernel_fallbacks;
        for speed in [&mut outcome.mirror.speed, &mut outcome.model.speed] {
            speed.events = outcome.events;
            speed.page_events = outcome.page_events;
        }
        self.tally.finish(&mut outcome.model);
        outcome.worst = self.tally.worst.take();
        outcome.last = self.tally.last.take();
        Ok(outcome)
    }
}
