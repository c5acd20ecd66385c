//! What the background works out of a recording: stalls and marks, and checkpoints of the state.
//!
//! One thread goes over the events: once to learn what no file tells of the start, once to carry
//! the state along, leaving a copy of it every so often. Whoever asks for a moment takes the copy
//! before it and goes on from there. Of a recording that grows, the thread follows the end.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kmemlab_replay::learning::Learned;
use kmemlab_replay::machine::Machine;
use kmemlab_replay::mirror::Mirror;
use kmemlab_replay::rules::Rules;
use kmemlab_replay::seeding::Seed;
use kmemlab_trace::format::{EVENTS, INDEX, MANIFEST, PAGEMAP_FIRST};
use kmemlab_trace::reader::BuddySample;
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::{EventBatch, Recording, measure};
use kmemlab_tui::Work;
use kmemlab_tui::parts::{Compared, Comparison};

use super::names::Names;
use super::sites::{Freed, Frees, Live, Sites};
use super::stalls::{self, Finder, Found};
use super::walk::{self, Beside, State, Walker};

/// What is said of a thread that ended by a bug.
pub(super) const BROKEN: &str =
    "the replay broke off here; please report it with what `kmemlab replay --check` says";
/// Events between two checkpoints.
const SPACING: u64 = 150_000;
/// Memory for checkpoints: an eighth of what is to be had, within these bounds. When it is full
/// every other one goes.
const LEAST_BYTES: u64 = 256 << 20;
const MOST_BYTES: u64 = 1 << 30;
const MEMINFO: &str = "/proc/meminfo";
/// How often a growing recording is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A copy of the state between two batches of events.
#[derive(Debug)]
pub(super) struct Checkpoint<S> {
    /// The last event in it.
    pub(super) at: Nanos,
    /// The batch that comes next.
    pub(super) batch: u64,
    /// How many frees came before.
    pub(super) frees: usize,
    pub(super) state: S,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) found: Found,
    pub(super) pages: Vec<Arc<Checkpoint<Walker>>>,
    pub(super) sites: Vec<Arc<Checkpoint<Sites>>>,
    pub(super) freed: Vec<Freed>,
    /// The state is known from here (the page map is whole) ...
    pub(super) from: Option<Nanos>,
    /// ... to here.
    pub(super) until: Option<Nanos>,
    pub(super) names: Arc<Names>,
    pub(super) uses: Arc<Vec<[u16; 9]>>,
    pub(super) uses_at: Nanos,
    /// Why the page allocator cannot be followed.
    pub(super) no_mirror: Option<String>,
    /// Why the work stopped before its end.
    pub(super) trouble: Option<String>,
    pub(super) work: Option<Work>,
    pub(super) is_done: bool,
    /// Everything that was there at the last look is gone through.
    pub(super) is_caught_up: bool,
    /// How far the mirror was from each reading of `/proc/buddyinfo`, by its time.
    pub(super) checks: Vec<Check>,
}

/// The mirror beside a reading of `/proc/buddyinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Check {
    pub(super) at: Nanos,
    /// Pages that stand at another order.
    pub(super) wrong_pages: u64,
    pub(super) free_pages: u64,
    pub(super) zones: Vec<Beside>,
}

impl Check {
    fn new(at: Nanos, zones: Vec<Beside>) -> Self {
        let wrong = zones.iter().map(|zone| measure::wrong_pages(&zone.kernel, &zone.mirror));
        let free = zones.iter().map(|zone| measure::free_pages(&zone.kernel));
        Self { at, wrong_pages: wrong.sum(), free_pages: free.sum(), zones }
    }

    /// Kernel and mirror side by side.
    pub(super) fn comparison(&self) -> Comparison {
        let mut rows = Vec::new();
        for zone in &self.zones {
            for (order, kernel) in zone.kernel.iter().enumerate() {
                rows.push(Compared {
                    group: "free blocks".into(),
                    name: format!("{} order {order}", zone.label).into(),
                    values: vec![Some(*kernel), zone.mirror.get(order).copied()],
                    weight: 1 << order,
                });
            }
        }
        let tellers = ["kernel", "mirror"].map(str::to_owned).to_vec();
        let percent = self.wrong_pages as f64 * 100.0 / (self.free_pages as f64).max(1.0);
        let verdict = match self.wrong_pages {
            0 => "mirror equals the kernel at every zone and order".to_owned(),
            wrong => format!("mirror: {wrong} pages at another order, {percent:.3} %"),
        };
        Comparison { tellers, at: self.at, rows, verdicts: vec![verdict] }
    }
}

impl Known {
    /// The last reading of `/proc/buddyinfo` that the mirror was held against by then.
    pub(super) fn check_before(&self, at: Nanos) -> Option<&Check> {
        let place = self.checks.partition_point(|check| check.at <= at);
        place.checked_sub(1).and_then(|place| self.checks.get(place))
    }
}

/// The background's work and what came of it.
#[derive(Debug)]
pub(super) struct Index {
    known: Mutex<Known>,
    revision: AtomicU64,
    stop: AtomicBool,
}

/// How a recording is to be gone over.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) path: PathBuf,
    pub(super) salvage: bool,
    /// It is being recorded here and now.
    pub(super) is_here: bool,
}

impl Index {
    /// Starts the background's work.
    pub(super) fn start(plan: Plan) -> std::io::Result<Arc<Self>> {
        let index = Arc::new(Self {
            known: Mutex::default(),
            revision: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let shared = Arc::clone(&index);
        thread::Builder::new().name("index".to_owned()).spawn(move || {
            let mut worker = Worker::new(plan, &shared);
            // A bug of the replay must not take the screen along.
            let ran = catch_unwind(AssertUnwindSafe(|| worker.run()));
            let trouble = match ran {
                Ok(ran) => ran.err().map(|error| error.to_string()),
                Err(_) => Some(BROKEN.to_owned()),
            };
            let mut known = shared.known();
            known.trouble = trouble;
            known.work = None;
            known.is_done = true;
            drop(known);
            shared.tell();
        })?;
        Ok(index)
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with every change of what is known.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn tell(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// Ends the work early.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How large a recording's index and manifest are: when neither changes, nothing is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Extent(Option<u64>, Option<u64>);

impl Extent {
    pub(super) fn of(plan: &Plan) -> Self {
        let length = |name| plan.path.join(name).metadata().map(|meta| meta.len()).ok();
        Self(length(INDEX), length(MANIFEST))
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The background's thread.
struct Worker<'a> {
    plan: Plan,
    index: &'a Index,
    finder: Finder,
    /// Batches whose stalls are found already.
    found_batches: u64,
    live: Live,
    /// Of the checkpoints of the pages, how many are left out between two.
    skip: u32,
    budget_bytes: u64,
    skipped: u32,
    since_checkpoint: u64,
    frees: usize,
    next_batch: u64,
}

impl<'a> Worker<'a> {
    fn new(plan: Plan, index: &'a Index) -> Self {
        Self {
            plan,
            index,
            finder: Finder::default(),
            found_batches: 0,
            live: Live::default(),
            skip: 0,
            budget_bytes: budget(),
            skipped: 0,
            since_checkpoint: 0,
            frees: 0,
            next_batch: 0,
        }
    }

    fn open(&self) -> Outcome<Recording> {
        Ok(Recording::open(&self.plan.path, self.plan.salvage)?)
    }

    fn run(&mut self) -> Outcome<()> {
        let mut recording = self.open()?;
        // The page map is the first thing that a recorder writes, and takes it half a second.
        let is_early = |recording: &Recording| {
            recording.manifest().end.is_none()
                && self.plan.is_here
                && recording.batches_of(kmemlab_trace::format::BUDDYINFO.file) < 2
        };
        while is_early(&recording) && !self.index.is_stopped() {
            self.say("waiting for the page map", 0);
            thread::sleep(LOOK);
            recording = self.open()?;
        }
        let names = Arc::new(Names::read(&recording, self.plan.is_here)?);
        self.index.known().names = names;
        let mirror = match self.mirror(&recording) {
            Ok(mirror) => Some(mirror),
            Err(why) => {
                self.index.known().no_mirror = Some(why.to_string());
                None
            }
        };
        let with_pages = recording.manifest().stacks != "none";
        let mut walker = Walker::new(mirror);
        let mut sites = Sites::new(with_pages);
        self.index.known().from = Some(self.index.known_from(&walker));
        self.checkpoint(&walker, &sites, Nanos(0));
        loop {
            self.walk(&recording, &mut walker, &mut sites)?;
            let is_over = recording.manifest().end.is_some();
            if is_over || self.index.is_stopped() {
                return Ok(());
            }
            {
                let mut known = self.index.known();
                known.work = None;
                known.is_caught_up = true;
            }
            self.index.tell();
            recording = self.wait_for_more(recording)?;
        }
    }

    /// Looks again until there is more, or the recorder is done.
    fn wait_for_more(&self, mut recording: Recording) -> Outcome<Recording> {
        // Looked at once more in any case: it may have grown since it was opened.
        let mut seen = Extent::default();
        while recording.manifest().end.is_none()
            && recording.batches_of(EVENTS) <= self.next_batch
            && !self.index.is_stopped()
        {
            let now = Extent::of(&self.plan);
            if now == seen {
                thread::sleep(LOOK);
            } else {
                recording = self.open()?;
                seen = now;
            }
        }
        let names = Arc::new(Names::read(&recording, self.plan.is_here)?);
        self.index.known().names = names;
        Ok(recording)
    }

    fn say(&self, what: &str, percent: u64) {
        let work = Work { what: what.to_owned(), percent: percent.min(100) as u8 };
        self.index.known().work = Some(work);
        self.index.tell();
    }

    /// The mirror at the start of the recording, from the page map and a first pass.
    fn mirror(&mut self, recording: &Recording) -> Outcome<Mirror> {
        let manifest = recording.manifest();
        if !recording.has(&PAGEMAP_FIRST) {
            return Err("The recording has no page map: record as root on a kernel with \
                        /proc/kpageflags."
                .into());
        }
        let machine = Machine::of(manifest, Rules::of(&manifest.host.kernel_release))?;
        let mut seed = Seed::new(&machine);
        for run in recording.page_map(&PAGEMAP_FIRST)? {
            seed.add(&run?, &machine);
        }
        let (uses, uses_at) = walk::uses(recording, &machine)?;
        {
            let mut known = self.index.known();
            (known.uses, known.uses_at) = (uses, uses_at);
        }
        let learned = self.learn(recording, &machine, &seed)?;
        Ok(Mirror::new(&machine, seed, learned.as_ref()))
    }

    /// The first pass: what no file tells of the start. Of what is recorded now, only the beginning
    /// can be learned from.
    fn learn(
        &mut self,
        recording: &Recording,
        machine: &Machine,
        seed: &Seed,
    ) -> Outcome<Option<Learned>> {
        let mut mirror = Mirror::learning(machine, seed.clone());
        let batches = recording.batches_of(EVENTS).max(1);
        for (number, batch) in (0..).zip(recording.events()?) {
            let batch = batch?;
            for event in batch.iter_only(kmemlab_replay::mirror::KINDS) {
                mirror.step(&event);
            }
            self.find(number, &batch);
            if self.index.is_stopped() {
                break;
            }
            self.say("indexing", number * 40 / batches);
        }
        Ok(Some(mirror.into_learned()))
    }

    /// Stalls and marks of a batch, each batch once.
    fn find(&mut self, number: u64, batch: &EventBatch) {
        if number < self.found_batches {
            return;
        }
        self.found_batches = number + 1;
        let mut known = self.index.known();
        for event in batch.iter_only(stalls::KINDS) {
            self.finder.step(&event, &mut known.found);
        }
    }

    /// Carries the state to the end of what is there.
    fn walk(
        &mut self,
        recording: &Recording,
        walker: &mut Walker,
        sites: &mut Sites,
    ) -> Outcome<()> {
        let batches = recording.batches_of(EVENTS).max(1);
        let mut samples = self.samples(recording)?;
        for batch in recording.events_from(self.next_batch)? {
            let batch = batch?;
            self.find(self.next_batch, &batch);
            sites.begin(&batch);
            let mut freed = Vec::new();
            let mut frees = Frees::Learn(&mut self.live, &mut freed);
            let mut due = samples.front().map_or(u64::MAX, |sample| sample.stamp.before.0);
            for event in batch.iter_only(walker.kinds() | sites.kinds()) {
                if event.time.0 > due {
                    due = check(self.index, &mut samples, walker, event.time);
                }
                walker.step(&event, &mut frees);
                sites.step(&event, &mut frees);
            }
            let last = batch.iter().last().map_or(Nanos(0), |event| event.time);
            self.next_batch += 1;
            self.frees += freed.len();
            self.since_checkpoint += batch.len() as u64;
            {
                let mut known = self.index.known();
                known.freed.extend(freed);
                known.until = Some(last);
            }
            if self.since_checkpoint >= SPACING {
                self.checkpoint(walker, sites, last);
            }
            if self.index.is_stopped() {
                return Ok(());
            }
            self.say("indexing", 40 + self.next_batch * 60 / batches);
        }
        Ok(())
    }

    /// The readings of `/proc/buddyinfo` that the mirror was not held against yet.
    fn samples(&self, recording: &Recording) -> Outcome<VecDeque<BuddySample>> {
        let done = self.index.known().checks.last().map_or(Nanos(0), |check| check.at);
        let from = Nanos(done.0 + 1);
        let mut samples = VecDeque::new();
        for sample in recording.buddyinfo_within(from, Nanos(u64::MAX))? {
            let sample = sample?;
            if sample.stamp.before >= from {
                samples.push_back(sample);
            }
        }
        Ok(samples)
    }

    /// Leaves copies. Those of the sites are small; of those of the pages every other one goes
    /// when there are too many.
    fn checkpoint(&mut self, walker: &Walker, sites: &Sites, at: Nanos) {
        let (batch, frees) = (self.next_batch, self.frees);
        let state = sites.clone();
        let small = Arc::new(Checkpoint { at, batch, frees, state });
        let is_due = self.skipped >= self.skip;
        let large = is_due.then(|| {
            let state = walker.clone();
            Arc::new(Checkpoint { at, batch, frees, state })
        });
        self.skipped = if is_due { 0 } else { self.skipped + 1 };
        self.since_checkpoint = 0;
        let mut known = self.index.known();
        known.sites.push(small);
        known.pages.extend(large);
        let bytes: u64 = known.pages.iter().map(|known| known.state.bytes()).sum();
        if bytes > self.budget_bytes && known.pages.len() > 2 {
            let mut number = 0;
            known.pages.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.skip = self.skip * 2 + 1;
        }
    }
}

fn budget() -> u64 {
    let text = std::fs::read_to_string(MEMINFO).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes =
        lines.next().and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    let available = kibibytes.unwrap_or(0u64).saturating_mul(1024);
    (available / 8).clamp(LEAST_BYTES, MOST_BYTES)
}

/// Holds the mirror against the readings up to a moment; tells when the next one is due.
fn check(index: &Index, samples: &mut VecDeque<BuddySample>, walker: &Walker, now: Nanos) -> u64 {
    let mut known = index.known();
    while let Some(sample) = samples.front() {
        let at = sample.stamp.before;
        if at >= now {
            return at.0;
        }
        if let Some(zones) = walker.beside(&sample.zones)
            && known.from.is_some_and(|from| at > from)
        {
            known.checks.push(Check::new(at, zones));
        }
        samples.pop_front();
    }
    u64::MAX
}

impl Index {
    /// From when on every event changes the page map.
    fn known_from(&self, walker: &Walker) -> Nanos {
        walker.mirror.as_ref().map_or(Nanos(0), |_| self.known().uses_at)
    }
}
