//! The tracefs backend on a live kernel. It needs root and tracefs, and says so otherwise.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kmemlab_collector::capture::{Backend, Loss, RawRecord, Sink};
use kmemlab_collector::ftrace::TracefsBackend;
use kmemlab_collector::host::Host;
use kmemlab_collector::perf::{PerfBackend, Wanted};
use kmemlab_collector::root::Root;
use kmemlab_collector::tracefs::{Format, Tracefs};
use kmemlab_collector::{BackendChoice, Control, RecordOptions, Stacks, clock, record};
use kmemlab_trace::Recording;
use kmemlab_trace::unit::{Cpu, Nanos};

const INSTANCES: &str = "/sys/kernel/tracing/instances";
const FORKS: &str = "while :; do /bin/true; cat /proc/self/maps; done >/dev/null";
const EVENTS: [&str; 7] = [
    "kmem:mm_page_alloc",
    "kmem:mm_page_free",
    "kmem:mm_page_pcpu_drain",
    "kmem:kmalloc",
    "kmem:kfree",
    "kmem:kmem_cache_alloc",
    "kmem:kmem_cache_free",
];
const RING_BYTES: u64 = 8 << 20;
const SOFTIRQ_OR_HARDIRQ: u8 = 0x18;

/// One recording at a time: each takes all processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn may_record() -> Option<MutexGuard<'static, ()>> {
    let one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let probe = format!("{INSTANCES}/test-{}", std::process::id());
    if let Err(error) = fs::create_dir(&probe) {
        eprintln!("not run: needs root, and tracefs at /sys/kernel/tracing: {error}");
        return None;
    }
    fs::remove_dir(probe).unwrap();
    Some(one)
}

fn own_instances() -> Vec<String> {
    let own = format!("kmemlab-{}", std::process::id());
    Root::new(INSTANCES).names("").into_iter().filter(|name| name.starts_with(&own)).collect()
}

fn host() -> (Root, Tracefs, Vec<Cpu>, Vec<Wanted>) {
    let root = Root::default();
    let tracefs = Tracefs::find(&root).unwrap();
    let wanted = EVENTS.map(|name| {
        let (system, event) = name.split_once(':').unwrap();
        let id = tracefs.format(system, event).unwrap().unwrap().id;
        Wanted { name: name.to_owned(), id: id.try_into().unwrap(), is_allocation: false }
    });
    let cpus = Host::read(&root).unwrap().online_cpus;
    (root, tracefs, cpus, wanted.to_vec())
}

fn open(ring_bytes: u64, check: bool) -> TracefsBackend {
    let (root, tracefs, cpus, wanted) = host();
    let counted = if check { wanted.clone() } else { Vec::new() };
    TracefsBackend::open(&root, &tracefs, &cpus, &wanted, ring_bytes, &counted).unwrap()
}

/// Something that forks, for as long as it lives.
struct Load(Child);

impl Load {
    fn start() -> Self {
        Self(Command::new("sh").args(["-c", FORKS]).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Clone)]
struct Kept {
    cpu: Cpu,
    time: Nanos,
    bytes: Vec<u8>,
}

impl Kept {
    /// Processor, tracepoint and all its fields but the context, which each backend sees from a
    /// place of its own. Between fields stands what was in memory before.
    fn key(&self, formats: &BTreeMap<u16, Format>) -> (u16, Vec<u8>) {
        let mut key = Vec::new();
        for field in &formats[&self.id()].fields {
            if matches!(field.name.as_str(), "common_flags" | "common_preempt_count") {
                continue;
            }
            let bytes = &self.bytes[field.offset..field.offset + field.size];
            if field.is_data_loc {
                let place = u32::from_ne_bytes(bytes.try_into().unwrap()) as usize;
                key.extend(&self.bytes[place & 0xffff..(place & 0xffff) + (place >> 16)]);
            } else {
                key.extend(bytes);
            }
        }
        (self.cpu.0, key)
    }

    fn id(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]])
    }
}

#[derive(Default)]
struct Keeper {
    events: Vec<Kept>,
    losses: Vec<Loss>,
}

impl Sink for Keeper {
    fn record(&mut self, record: RawRecord<'_>) {
        let RawRecord { cpu, time, bytes, .. } = record;
        self.events.push(Kept { cpu, time, bytes: bytes.to_vec() });
    }

    fn loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_second_of_forks_is_recorded_whole() {
    let Some(_one) = may_record() else { return };
    let folder = std::env::temp_dir().join(format!("kmemlab-root-tracefs-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let folder = Folder(folder);
    let mut options = RecordOptions::new(folder.0.join("live.kmt"));
    options.backend = BackendChoice::Tracefs;
    options.duration = Some(Duration::from_secs(1));
    // A dead recorder's instance, with events on.
    let dead = Command::new("true").spawn().unwrap();
    let stale = format!("{INSTANCES}/kmemlab-{}", dead.id());
    dead.wait_with_output().unwrap();
    fs::create_dir(&stale).unwrap();
    fs::write(format!("{stale}/events/kmem/kfree/enable"), "1").unwrap();
    let load = Load::start();
    let summary = record(&options, &Control::new()).unwrap();
    drop(load);
    assert_eq!(own_instances(), [""; 0]);
    assert!(!Path::new(&stale).exists());
    assert_eq!(summary.lost, 0, "{:?}", summary.notes);
    let recording = Recording::open(&options.output, false).unwrap();
    assert_eq!(recording.manifest().backend, "tracefs");
    let (mut rows, mut last) = (0u64, 0);
    for batch in recording.events().unwrap() {
        for event in batch.unwrap().iter() {
            assert!(event.time.0 >= last, "row {rows} goes back in time");
            last = event.time.0;
            rows += 1;
        }
    }
    assert_eq!(rows, summary.events);
    assert!(rows > 10_000, "{rows}");
    for tracepoint in &recording.manifest().tracepoints {
        let recorded = tracepoint.recorded.unwrap();
        let (Some(lost), Some(counted)) = (tracepoint.lost, tracepoint.counted) else {
            eprintln!("not checked: {:?}", summary.notes);
            continue;
        };
        let name = &tracepoint.name;
        assert!(recorded + lost >= counted, "{name}: {recorded} and {lost} of {counted}");
        if recorded + lost > counted {
            eprintln!("{name}: {recorded} recorded, {lost} lost, and only {counted} counted");
        }
    }
}

#[test]
fn an_instance_goes_on_every_way_out() {
    let Some(_one) = may_record() else { return };
    let mut first = open(RING_BYTES, false);
    let second = open(RING_BYTES, false);
    assert_eq!(own_instances().len(), 2);
    first.start().unwrap();
    drop(second);
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _first = first;
        panic!("in the midst of a recording");
    }));
    assert!(panicked.is_err());
    assert_eq!(own_instances(), [""; 0]);
}

#[test]
fn an_absurd_ring_is_made_smaller() {
    let Some(_one) = may_record() else { return };
    let backend = open(1 << 50, false);
    assert!(backend.ring_bytes() >= 64 << 10 && backend.ring_bytes() <= 1 << 30);
    assert!(open(1, false).ring_bytes() == 64 << 10);
}

#[test]
fn the_counters_agree_with_the_ring() {
    let Some(_one) = may_record() else { return };
    let runs = std::env::var("KMEMLAB_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let _load = Load::start();
    let (mut total, mut edge, mut apart) = (0, 0, 0);
    for run in 0..runs {
        let mut backend = open(RING_BYTES, true);
        let mut keeper = Keeper::default();
        backend.start().unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(400) {
            backend.wait(Duration::from_millis(50)).unwrap();
            backend.drain(clock::now(), &mut keeper);
        }
        backend.stop().unwrap();
        backend.drain(Nanos(u64::MAX), &mut keeper);
        let counts = backend.counts(&mut keeper).unwrap();
        let notes = backend.take_notes();
        if counts.iter().all(|count| count.counted.is_none()) {
            eprintln!("not checked: {notes:?}");
            return;
        }
        assert_eq!(notes, [""; 0]);
        for (cpu, id, agreement) in backend.agreements() {
            total += agreement.outside + agreement.edge + agreement.inside;
            edge += agreement.edge;
            let excess = agreement.excess().unwrap();
            apart += excess.unsigned_abs();
            if excess != 0 {
                eprintln!("run {run}, processor {}, tracepoint {id}: {agreement:?}", cpu.0);
            }
            // What the counter saw, the ring has; perf may drop what interrupts its own work.
            assert!(excess <= 0, "{agreement:?}");
        }
    }
    eprintln!("{runs} runs, {total} events, {edge} at an edge, {apart} not counted");
    assert!(apart * 1000 <= total);
}

#[test]
fn a_full_ring_tells_where_the_gap_is() {
    let Some(_one) = may_record() else { return };
    let mut backend = open(256 << 10, true);
    let mut keeper = Keeper::default();
    let _load = Load::start();
    backend.start().unwrap();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(250));
        backend.drain(clock::now(), &mut keeper);
    }
    std::thread::sleep(Duration::from_millis(250));
    backend.stop().unwrap();
    backend.drain(Nanos(u64::MAX), &mut keeper);
    let counts = backend.counts(&mut keeper).unwrap();
    for note in backend.take_notes() {
        assert!(note.contains("by the rings alone"), "{note}");
    }
    let told: u64 = keeper.losses.iter().map(|loss| loss.events).sum();
    let lost: Option<u64> = counts.iter().map(|count| count.lost).sum();
    assert!(told > 0);
    if let Some(lost) = lost {
        assert_eq!(lost, told, "the counters see what the ring had no room for");
    }
    let counted: Option<u64> = counts.iter().map(|count| count.counted).sum();
    if let Some(counted) = counted {
        assert_eq!(counted, told + keeper.events.len() as u64);
    }
    let mut exact = 0;
    for loss in &keeper.losses {
        assert!(loss.from <= loss.to);
        let is_within =
            |event: &&Kept| event.cpu == loss.cpu && event.time > loss.from && event.time < loss.to;
        exact += u32::from(keeper.events.iter().find(is_within).is_none());
    }
    eprintln!("{exact} of {} gaps hold no event", keeper.losses.len());
    assert!(exact > 0);
}

/// Every event of perf is in tracefs; those that only tracefs has are printed by their context.
#[test]
fn perf_has_no_event_that_tracefs_lacks() {
    let Some(_one) = may_record() else { return };
    let (_, place, cpus, wanted) = host();
    let formats: BTreeMap<u16, Format> = wanted
        .iter()
        .map(|wanted| {
            let (system, event) = wanted.name.split_once(':').unwrap();
            (wanted.id, place.format(system, event).unwrap().unwrap())
        })
        .collect();
    let mut tracefs = open(4 * RING_BYTES, false);
    let mut perf = PerfBackend::open(&cpus, &wanted, Stacks::None, 4 * RING_BYTES, 4096).unwrap();
    let (mut of_tracefs, mut of_perf) = (Keeper::default(), Keeper::default());
    let load = Load::start();
    tracefs.start().unwrap();
    perf.start().unwrap();
    let from = clock::now();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        tracefs.wait(Duration::from_millis(20)).unwrap();
        tracefs.drain(clock::now(), &mut of_tracefs);
        perf.drain(clock::now(), &mut of_perf);
    }
    let to = clock::now();
    perf.stop().unwrap();
    tracefs.stop().unwrap();
    drop(load);
    tracefs.drain(Nanos(u64::MAX), &mut of_tracefs);
    perf.drain(Nanos(u64::MAX), &mut of_perf);
    let counts = perf.counts(&mut of_perf).unwrap();
    tracefs.counts(&mut of_tracefs).unwrap();
    assert_eq!(tracefs.take_notes(), [""; 0]);
    assert!(of_tracefs.losses.is_empty() && of_perf.losses.is_empty());

    let mut open: BTreeMap<(u16, Vec<u8>), VecDeque<usize>> = BTreeMap::new();
    for (index, event) in of_tracefs.events.iter().enumerate() {
        open.entry(event.key(&formats)).or_default().push_back(index);
    }
    let mut is_in_both = vec![false; of_tracefs.events.len()];
    let mut only_perf = 0u64;
    for event in &of_perf.events {
        // The same bytes may come again: the one at the same time is meant.
        let same = open.get_mut(&event.key(&formats)).and_then(|indices| {
            let near =
                |index: &usize| of_tracefs.events[*index].time.0.abs_diff(event.time.0) < 1_000_000;
            indices.iter().position(near).and_then(|at| indices.remove(at))
        });
        match same {
            Some(index) => is_in_both[index] = true,
            None => only_perf += 1,
        }
    }
    let mut only_tracefs: BTreeMap<(u16, &str), u64> = BTreeMap::new();
    for (event, is_in_both) in of_tracefs.events.iter().zip(&is_in_both) {
        if !is_in_both && event.time > from && event.time < to {
            let in_interrupt = event.bytes[2] & SOFTIRQ_OR_HARDIRQ != 0;
            let context = if in_interrupt { "interrupt" } else { "task" };
            *only_tracefs.entry((event.id(), context)).or_default() += 1;
        }
    }
    let counted: u64 = counts.iter().filter_map(|count| count.counted).sum();
    let untold = counted - of_perf.events.len() as u64;
    eprintln!(
        "{} events of tracefs, {} of perf, which counted {untold} more; only in perf {only_perf}; \
         only in tracefs, by tracepoint and context: {only_tracefs:?}",
        of_tracefs.events.len(),
        of_perf.events.len(),
    );
    assert_eq!(only_perf, 0);
    let missing: u64 = only_tracefs.values().sum();
    assert!(missing >= untold.saturating_sub(2), "perf counts what tracefs records");
}
