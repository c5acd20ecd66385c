//! The replay itself: events and snapshots in time order, through the mirror, then the model.

use std::iter::Peekable;

use kmemlab_trace::event::{Event, Kind};
use kmemlab_trace::format;
use kmemlab_trace::reader::{BuddySample, BuddySamples, PageRuns, Recording};
use kmemlab_trace::unit::NodeId;

use crate::binding::{Bindings, Bound};
use crate::compare::{Chunk, OpenSample, Tally};
use crate::learning::Learned;
use crate::machine::{Machine, NoMachine};
use crate::mirror::{self, Effect, Mirror};
use crate::model::{FallbackCounts, Model, Request, Start};
use crate::outcome::Outcome;
use crate::rules::Rules;
use crate::seeding::Seed;
use crate::worker::Worker;

mod start;

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

/// What the model is told, in order: requests and frees, never places.
#[derive(Clone, Copy, Debug)]
enum Input {
    Alloc { kernel: u32, request: Request },
    Bulk { kernel: u32, request: Request },
    Free { cpu: usize, kernel: u32, order: u8, direct: bool },
    Told { kernel: u32, order: u8 },
    Isolated { kernel: u32, order: u8 },
    Moved { cpu: usize, kernel: u32 },
    Marks { node: NodeId, zone: u16, marks: [u64; 3] },
    Kswapd { awake: bool },
    Decay { cpu: usize },
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
    let release = &recording.manifest().host.kernel_release;
    let rules = options.rules.unwrap_or_else(|| Rules::of(release));
    let machine = Machine::of(recording.manifest(), rules).map_err(ReplayError::Machine)?;
    let mut notes = Vec::new();
    let seed = start::seed(recording, &machine, &mut notes)?;
    let start = start::numbers(recording, &machine, seed.last_read())?;
    let learned = learn(recording, &machine, seed.clone())?;
    let mut replay = Replay::new(recording, machine, seed, learned, start, options, observe)?;
    replay.outcome.notes = notes;
    for batch in &mut recording.events()? {
        let batch = batch?;
        replay.names.clear();
        replay.names.extend((0..batch.names()).map(|n| batch.name(n as u16).to_owned()));
        for event in batch.iter_only(KINDS) {
            replay.event(&event)?;
        }
        replay.outcome.events += batch.len() as u64;
    }
    replay.finish()
}

/// The first pass: what no file tells of the start.
fn learn(recording: &Recording, machine: &Machine, seed: Seed) -> Result<Learned, ReplayError> {
    let mut mirror = Mirror::learning(machine, seed);
    let mut worker = Worker::new(machine.cpus, 0, None);
    for batch in recording.events()? {
        for event in batch?.iter_only(mirror::KINDS) {
            mirror.step(&event);
            worker.watch(&event);
        }
    }
    let mut learned = mirror.into_learned().unwrap_or_default();
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
        learned: Learned,
        start: Start,
        options: &'a Options,
        observe: &'a mut dyn FnMut(SampleRow<'_>),
    ) -> Result<Self, ReplayError> {
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
        self.listen(event);
        if self.inputs.len() >= 65_536 {
            self.run_model();
        }
        if self.open.is_some() {
            self.look();
        }
        Ok(())
    }

    /// What the model may know of the event.
    #[inline]
    fn listen(&mut self, event: &Event) {
        let (mut direct, mut late) = (false, false);
        for effect in self.mirror.effects() {
            self.inputs.push(match *effect {
                Effect::Direct { .. } => {
                    direct = true;
                    continue;
                }
                Effect::Late { .. } => {
                    late = true;
                    continue;
                }
                Effect::Bulk { cpu, pfn, order, migrate } => Input::Bulk {
                    kernel: pfn,
                    request: Request { cpu, order, gfp: 0xcc0, migrate },
                },
                Effect::Returned { pfn, order } => {
                    let cpu = usize::from(event.cpu.0);
                    Input::Free { cpu, kernel: pfn, order, direct: true }
                }
                Effect::Isolated { pfn, order } => Input::Isolated { kernel: pfn, order },
                Effect::Moved { cpu, pfn } => Input::Moved { cpu, kernel: pfn },
            });
        }
        let cpu = usize::from(event.cpu.0).min(self.mirror.memory().machine().cpus - 1);
        if let Some(cpu) = self.worker.watch(event) {
            self.inputs.push(Input::Decay { cpu });
        }
        match event.kind {
            Kind::PageAlloc => {
                self.outcome.page_events += 1;
                let Some(kernel) = self.pfn(event) else { return };
                let (order, gfp, migrate) = (event.order, event.gfp, event.migrate);
                let request = Request { cpu, order, gfp, migrate };
                self.inputs.push(if late {
                    Input::Told { kernel, order }
                } else {
                    Input::Alloc { kernel, request }
                });
            }
            Kind::PageFree => {
                self.outcome.page_events += 1;
                let Some(kernel) = self.pfn(event) else { return };
                self.inputs.push(Input::Free { cpu, kernel, order: event.order, direct });
            }
            Kind::PageFreeBatched | Kind::ZoneLocked | Kind::PcpDrain => {
                self.outcome.page_events += 1;
            }
            Kind::ExtFrag => {
                self.outcome.page_events += 1;
                self.count_fallback(event);
            }
            Kind::ZoneWatermarks => {
                let marks = [event.args[0], event.args[1], event.args[2]].map(|m| m.max(0) as u64);
                let node = NodeId(event.node.max(0) as u16);
                self.inputs.push(Input::Marks { node, zone: event.name, marks });
                self.run_model();
            }
            Kind::KswapdWake => self.inputs.push(Input::Kswapd { awake: true }),
            Kind::KswapdSleep => self.inputs.push(Input::Kswapd { awake: false }),
            _ => {}
        }
    }

    #[inline]
    fn pfn(&mut self, event: &Event) -> Option<u32> {
        let pfn = u32::try_from(event.pfn()?.0).ok()?;
        let zone = self.mirror.memory().zone_of(pfn)?;
        self.active[zone] = true;
        Some(pfn)
    }

    fn count_fallback(&mut self, event: &Event) {
        if self.model.is_none() {
            return;
        }
        let block_order = self.mirror.memory().machine().block_order;
        if event.other_order >= block_order {
            self.kernel_fallbacks.whole_claims += 1;
        } else if event.flag != 0 {
            self.kernel_fallbacks.small_claims += 1;
        } else {
            self.kernel_fallbacks.steals += 1;
        }
    }

    /// The model catches up with the mirror.
    fn run_model(&mut self) {
        let begin = self.now();
        self.outcome.mirror.speed.spent_ns += begin - self.segment_start.min(begin);
        let mut inputs = std::mem::take(&mut self.inputs);
        if let Some(mut model) = self.model.take() {
            for input in &inputs {
                self.input(&mut model, *input);
            }
            self.model = Some(model);
        }
        inputs.clear();
        self.inputs = inputs;
        let end = self.now();
        self.outcome.model.speed.spent_ns += end - begin;
        self.segment_start = end;
    }

    #[inline]
    fn input(&mut self, model: &mut Model, input: Input) {
        match input {
            Input::Alloc { kernel, request } => self.alloc(model, kernel, &request, false),
            Input::Bulk { kernel, request } => self.alloc(model, kernel, &request, true),
            Input::Free { cpu, kernel, order, direct } => {
                let bound = self.bindings.take(kernel, order);
                let pfn = bound.map_or(kernel, |bound| bound.pfn);
                self.bindings.note_freed(kernel, Bound { pfn, order });
                if direct {
                    model.free_direct(pfn, order);
                } else {
                    model.free(cpu, pfn, order);
                }
            }
            Input::Told { kernel, order } => {
                // The model served it when the mirror found it missing.
                let bound = self.bindings.take(kernel, order);
                let bound = bound.unwrap_or(Bound { pfn: kernel, order });
                self.bindings.bind(kernel, bound);
                self.placed(model, kernel, bound.pfn, order);
            }
            Input::Isolated { kernel, order } => {
                if let Some(pfn) = model.isolate(kernel, order) {
                    self.bindings.bind(kernel, Bound { pfn, order });
                }
            }
            Input::Moved { cpu, kernel } => {
                if let Some(pfn) = self.bindings.freed(kernel) {
                    model.move_freed(cpu, pfn);
                }
            }
            Input::Marks { node, zone, marks } => {
                let name = self.names.get(usize::from(zone)).cloned().unwrap_or_default();
                model.set_watermarks(node, &name, marks[0], marks[1], marks[2]);
            }
            Input::Kswapd { awake: true } => model.kswapd_woke(),
            Input::Kswapd { awake: false } => model.kswapd_slept(),
            Input::Decay { cpu } => model.decay(cpu),
        }
    }

    #[inline]
    fn alloc(&mut self, model: &mut Model, kernel: u32, request: &Request, is_bulk: bool) {
        // A block that the kernel allocates twice was freed unseen, and popped as the last one freed.
        if let Some(old) = self.bindings.take(kernel, request.order) {
            model.free(request.cpu, old.pfn, old.order);
        }
        let Some(pfn) = model.alloc(request) else { return };
        if !is_bulk {
            self.placed(model, kernel, pfn, request.order);
        }
        self.bindings.bind(kernel, Bound { pfn, order: request.order });
    }

    /// Compares where an allocation went; bulk ones are not compared, for want of an event.
    #[inline]
    fn placed(&mut self, model: &Model, kernel: u32, pfn: u32, order: u8) {
        let block_order = model.memory().machine().block_order;
        let placement = &mut self.outcome.model.placement;
        let is_exact = u64::from(pfn == kernel);
        placement.allocs += 1;
        placement.exact += is_exact;
        placement.same_block += u64::from(pfn >> block_order == kernel >> block_order);
        if order == 0 {
            placement.order0_allocs += 1;
            placement.order0_exact += is_exact;
        }
    }

    /// Time has reached a sample or a chunk of the page map, or passed its end.
    fn stop(&mut self, time: u64) -> Result<(), ReplayError> {
        while let Some(cpu) = self.worker.due(time) {
            self.inputs.push(Input::Decay { cpu });
        }
        while time > self.next_stop {
            self.close_passed(time);
            self.open_reached(time)?;
            let begin = |at: Option<u64>| at.unwrap_or(u64::MAX);
            let sample = match &self.open {
                Some(open) => open.sample.stamp.after.0,
                None => begin(peek_sample(&mut self.samples).map(|s| s.stamp.before.0)),
            };
            let chunk = match &self.chunk {
                Some(chunk) => chunk.runs.first().map_or(0, |run| run.stamp.after.0),
                None => begin(peek_run(&mut self.map)),
            };
            let worker = self.worker.next_due_ns();
            self.next_stop = sample.min(chunk).min(worker).max(time);
            if self.next_stop == time {
                break;
            }
        }
        Ok(())
    }

    fn close_passed(&mut self, time: u64) {
        if self.open.as_ref().is_some_and(|open| time > open.sample.stamp.after.0)
            && let Some(open) = self.open.take()
        {
            open.close(&mut self.outcome.mirror);
        }
        let passed = |chunk: &Chunk| chunk.runs.first().is_none_or(|run| time > run.stamp.after.0);
        if self.chunk.as_ref().is_some_and(passed)
            && let Some(mut chunk) = self.chunk.take()
        {
            chunk.close(self.mirror.memory(), &mut self.outcome.mirror);
        }
    }

    fn open_reached(&mut self, time: u64) -> Result<(), ReplayError> {
        while self.open.is_none()
            && peek_sample(&mut self.samples).is_none_or(|sample| sample.stamp.before.0 < time)
        {
            let Some(sample) = self.samples.next() else { break };
            let sample = sample?;
            self.run_model();
            self.compare(&sample)?;
            let mut open = OpenSample::new(sample);
            open.look(self.mirror.memory());
            if open.sample.stamp.after.0 < time {
                open.close(&mut self.outcome.mirror);
            } else {
                self.open = Some(open);
            }
        }
        while self.chunk.is_none() && peek_run(&mut self.map).is_none_or(|before| before < time) {
            let Some(mut chunk) = self.next_chunk()? else { break };
            chunk.open(self.mirror.memory());
            if chunk.runs.first().is_some_and(|run| run.stamp.after.0 >= time) {
                self.chunk = Some(chunk);
            } else {
                chunk.close(self.mirror.memory(), &mut self.outcome.mirror);
            }
        }
        Ok(())
    }

    /// The next runs of the last page map that share one read.
    fn next_chunk(&mut self) -> Result<Option<Chunk>, ReplayError> {
        let Some(first) = self.map.next() else { return Ok(None) };
        let first = first?;
        let mut runs = vec![first];
        while let Some(Ok(run)) = self.map.peek() {
            if run.stamp != first.stamp {
                break;
            }
            runs.push(*run);
            self.map.next();
        }
        Ok(Some(Chunk::new(runs)))
    }

    /// Samples taken before the first page map was whole have no mirror to compare with.
    fn compare(&mut self, sample: &BuddySample) -> Result<(), ReplayError> {
        let start = self.first_event.unwrap_or(0);
        let Some(model) = &self.model else { return Ok(()) };
        let (mirror, model) = (self.mirror.memory(), model.memory());
        self.tally.model(sample, start, mirror, model, &self.active);
        for row in &sample.zones {
            let Some(zone) = mirror.machine().zone(row.node, &row.zone) else { continue };
            let sources = [
                ("kernel", row.free_blocks.as_slice()),
                ("mirror", mirror.free_blocks(zone)),
                ("model", model.free_blocks(zone)),
            ];
            for (source, free_blocks) in sources {
                let at_ns = sample.stamp.before.0;
                let (node, zone) = (row.node.0, row.zone.as_str());
                (self.observe)(SampleRow { source, at_ns, node, zone, free_blocks });
            }
        }
        if self.options.check {
            mirror.check().map_err(|law| ReplayError::Law(format!("mirror: {law}")))?;
            model.check().map_err(|law| ReplayError::Law(format!("model: {law}")))?;
        }
        Ok(())
    }

    fn look(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.look(self.mirror.memory())
            && let Some(open) = self.open.take()
        {
            open.close(&mut self.outcome.mirror);
        }
    }

    fn finish(mut self) -> Result<Outcome, ReplayError> {
        self.close_passed(u64::MAX);
        self.open_reached(u64::MAX)?;
        self.run_model();
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

fn peek_sample(samples: &mut Peekable<BuddySamples>) -> Option<&BuddySample> {
    samples.peek().and_then(|sample| sample.as_ref().ok())
}

fn peek_run(map: &mut Peekable<PageRuns>) -> Option<u64> {
    map.peek().and_then(|run| run.as_ref().ok()).map(|run| run.stamp.before.0)
}
