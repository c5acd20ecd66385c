//! A recording from its first check to its last byte.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kmemlab_trace::format::VERSION;
use kmemlab_trace::manifest::{self, End};
use kmemlab_trace::tracepoint::{self, Group, Need};
use kmemlab_trace::writer::RecordingWriter;
use kmemlab_trace::{Manifest, privacy};

use crate::backend::{self, BackendChoice, Counting};
use crate::capture::{Backend, Count};
use crate::choice::Choice;
use crate::encode::{Encoded, Encoder, Job};
use crate::feed::{Backlog, Feeder};
use crate::host::Host;
use crate::perf::priority::Spur;
use crate::perf::{Stacks, sys};
use crate::progress::Control;
use crate::record_error::RecordError;
use crate::root::Root;
use crate::snapshots::{Ask, Shot, Snapshots};
use crate::tracefs::Tracefs;
use crate::{addresses, clock, command, doctor, features, room, slab_aliases, symbols, tasks};

mod direct_map;
mod notes;
mod run;
#[cfg(test)]
mod tests;

use notes::{count_silent, encode_notes, loss_note};
use run::{Ended, Run};

/// The second thread's name, and the third's.
const ENCODER: &str = "encoder";
const SNAPSHOTS: &str = "snapshots";
/// Empty chunks kept for the first thread at most.
const SPARE_CHUNKS: usize = 8;

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The recording's directory.
    pub output: PathBuf,
    /// Replace a recording that is there.
    pub force: bool,
    /// End after this time.
    pub duration: Option<Duration>,
    /// Record until this command ends.
    pub command: Vec<OsString>,
    /// Tracepoints to record; all, when empty.
    pub groups: Vec<Group>,
    /// Which way events come.
    pub backend: BackendChoice,
    /// Which events come with a call chain.
    pub stacks: Stacks,
    /// Which tracepoints are counted beside the rings, as a check.
    pub counting: Counting,
    /// Size of each processor's ring; by the memory that is left, when not told.
    pub ring_bytes: Option<u64>,
    /// Time between snapshots.
    pub snapshot_every: Duration,
    /// Shrink every slab cache and read `/sys/kernel/slab` at the start and at the end.
    pub slab_detail: bool,
    /// kmemlab's own command line.
    pub command_line: Vec<String>,
    /// Leave out what [`kmemlab_trace::privacy`] lists, for recordings to be shown to others.
    pub is_anonymous: bool,
    /// kmemlab and its version.
    pub tool: String,
}

impl RecordOptions {
    /// Everything, into that directory, until told to stop.
    #[must_use]
    pub fn new(output: impl Into<PathBuf>) -> Self {
        Self {
            output: output.into(),
            force: false,
            duration: None,
            command: Vec::new(),
            groups: Vec::new(),
            backend: BackendChoice::Auto,
            stacks: Stacks::None,
            counting: Counting::All,
            ring_bytes: None,
            snapshot_every: Duration::from_secs(1),
            slab_detail: false,
            command_line: Vec::new(),
            is_anonymous: false,
            tool: concat!("kmemlab ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// What was recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The recording's directory.
    pub output: PathBuf,
    /// Events in it.
    pub events: u64,
    /// Events that the rings dropped.
    pub lost: u64,
    /// Events that the counters saw; `None` unless all tracepoints were counted.
    pub counted: Option<u64>,
    /// Of the tracepoints that were counted: recorded, lost, counted.
    pub checked: Option<[u64; 3]>,
    /// Bytes on disk.
    pub bytes: u64,
    /// From the first to the last moment of events.
    pub elapsed: Duration,
    /// `duration`, `command` or `signal`.
    pub reason: String,
    /// The command's exit status; 128 and the signal's number if one ended it.
    pub command_exit_status: Option<i32>,
    /// What could not be recorded and why.
    pub notes: Vec<String>,
}

/// Records this host until the duration is over, the command ends or `control` says stop.
///
/// # Errors
/// Nothing can be recorded here, or writing failed; [`RecordError::Cut`] when part of it was kept.
pub fn record(options: &RecordOptions, control: &Control) -> Result<Summary, RecordError> {
    let root = Root::default();
    check_host(&root)?;
    addresses::put_back_after_kill(&root);
    let program = command::find(&options.command)?;
    let host = Host::read(&root)?;
    let tracefs = Tracefs::find(&root)?;
    let choice = Choice::make(&tracefs, &options.groups, &host.kernel_release)?;
    // The rings come first: if the kernel refuses them, there is no output to take away again.
    let (mut backend, note) = backend::open(&root, &tracefs, &host, &choice, options)?;
    let mut manifest = first_manifest(options, &host, &choice, &*backend);
    manifest.host.features = features::probe(&root, &tracefs);
    manifest.host.slab_aliases = slab_aliases::read(&root);
    let writer = RecordingWriter::create(&options.output, manifest, options.force)?;

    let bytes = Arc::new(AtomicU64::new(writer.bytes_written()));
    let (jobs, queue) = mpsc::sync_channel(room::queue_jobs(room::available_bytes(&root)));
    let (spare_in, spare_out) = mpsc::sync_channel(SPARE_CHUNKS);
    let backlog = Backlog::new(AtomicUsize::new(0));
    let layout = choice.layout.clone();
    let encoder = Encoder::new(writer, layout, Arc::clone(&bytes), Arc::clone(&backlog));
    let encoder = spawn(ENCODER, move || encoder.run(&queue, &spare_in))?;
    let mut seen = tasks::Seen::new(options.is_anonymous);
    let at_start = seen.scan(&root);
    let ranges = host.page_map_ranges();
    let snapshots = Snapshots::new(root.clone(), ranges, jobs.clone(), seen)
        .with_slab_detail(options.slab_detail);
    let snapshots = SnapshotThread::start(snapshots, options.snapshot_every)?;
    let mut feeder = Feeder::new(jobs, spare_out, backlog);
    feeder.send(Job::Shot(Shot::Tasks(at_start)));

    let run = Run {
        options,
        control,
        program,
        backend: &mut *backend,
        feeder,
        encoder: Spur::of(&encoder),
        bytes,
    };
    let mut ended = run.until_done(&root, &snapshots);
    let mut notes = choice.notes.clone();
    notes.extend(note);
    notes.extend(backend.take_notes());
    // The kernel has its memory back while the rest is written.
    drop(backend);
    match snapshots.join() {
        Ok(told) => notes.extend(told),
        // What was recorded until then is completed all the same.
        Err(error) => ended.error = Some(error),
    }
    let encoded = join(ENCODER, encoder)?;
    finish(&root, options, &choice, encoded, ended, notes)
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RecordError> {
    let thread = thread::Builder::new().name(format!("kmemlab-{name}")).spawn(work);
    thread.map_err(|error| RecordError::Thread { thread: name, why: error.to_string() })
}

fn join<T>(name: &'static str, thread: JoinHandle<T>) -> Result<T, RecordError> {
    thread.join().map_err(|panic| {
        let why = panic.downcast_ref::<String>().cloned();
        let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        RecordError::Thread { thread: name, why: why.unwrap_or_default() }
    })
}

/// The thread that takes snapshots, and the two ways to talk with it.
#[derive(Debug)]
struct SnapshotThread {
    asks: Sender<Ask>,
    done: Receiver<()>,
    thread: JoinHandle<Vec<String>>,
}

impl SnapshotThread {
    fn start(snapshots: Snapshots, every: Duration) -> Result<Self, RecordError> {
        let (asks, asked) = mpsc::channel();
        let (tell_done, done) = mpsc::channel();
        let thread = spawn(SNAPSHOTS, move || snapshots.run(&asked, &tell_done, every))?;
        Ok(Self { asks, done, thread })
    }

    fn join(self) -> Result<Vec<String>, RecordError> {
        drop(self.asks);
        join(SNAPSHOTS, self.thread)
    }
}

/// The doctor's checks, of which any failed one means that there is nothing to record.
fn check_host(root: &Root) -> Result<(), RecordError> {
    let required: Vec<(&str, &str, Vec<&str>)> = tracepoint::ALL
        .iter()
        .filter(|it| it.need == Need::Required)
        .map(|it| {
            let fields = it.fields.iter().filter(|field| field.need == Need::Required);
            (it.system(), it.event(), fields.map(|field| field.field).collect())
        })
        .collect();
    let wanted: Vec<(&str, &str, &[&str])> =
        required.iter().map(|(system, event, fields)| (*system, *event, &fields[..])).collect();
    let failed =
        doctor::check(root, &wanted).into_iter().find(|check| check.state == doctor::State::Fail);
    failed.map_or(Ok(()), |check| {
        Err(RecordError::Host { name: check.name, found: check.found, mend: check.mend })
    })
}

fn first_manifest(
    options: &RecordOptions,
    host: &Host,
    choice: &Choice,
    backend: &dyn Backend,
) -> Manifest {
    let realtime = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let lossy = |word: &OsString| word.to_string_lossy().into_owned();
    let mut manifest = Manifest {
        format_version: VERSION,
        tool: options.tool.clone(),
        origin: "kernel".to_owned(),
        backend: backend.name().to_owned(),
        started_realtime_ns: u64::try_from(realtime.as_nanos()).unwrap_or(0),
        started_monotonic_ns: clock::now().0,
        clock: "CLOCK_MONOTONIC".to_owned(),
        command: options.command.iter().map(lossy).collect(),
        command_line: options.command_line.clone(),
        host: host_facts(host),
        tracepoints: choice.records.clone(),
        absent_tracepoints: choice.absent.clone(),
        stacks: options.stacks.to_string(),
        ring_bytes: backend.ring_bytes(),
        snapshot_every_ns: u64::try_from(options.snapshot_every.as_nanos()).unwrap_or(u64::MAX),
        notes: choice.notes.clone(),
        ..Manifest::default()
    };
    if options.is_anonymous {
        manifest.leave_names_out();
        manifest.privacy = privacy::ANONYMOUS.to_owned();
    }
    manifest
}

fn host_facts(host: &Host) -> manifest::Host {
    let zones = host.zones.iter().map(|zone| manifest::Zone {
        node: zone.node.0,
        name: zone.name.clone(),
        start_pfn: zone.start_pfn.unwrap_or_default().0,
        spanned_pages: zone.spanned_pages,
        present_pages: zone.present_pages,
        managed_pages: zone.managed_pages,
        protection_pages: zone.protection_pages.clone(),
    });
    manifest::Host {
        name: host.name.clone(),
        kernel_release: host.kernel_release.clone(),
        kernel_version: host.kernel_version.clone(),
        architecture: host.architecture.clone(),
        kernel_command_line: host.kernel_command_line.clone(),
        page_size_bytes: host.page_size_bytes,
        orders: host.orders,
        pageblock_order: host.pageblock_order.unwrap_or_default().0,
        migrate_types: host.migrate_types.clone(),
        cpus: host.online_cpus.iter().map(|cpu| cpu.0).collect(),
        zones: zones.collect(),
        settings: host.settings.clone(),
        ..manifest::Host::default()
    }
}

/// Adds up each tracepoint's numbers over the processors.
fn sum_up(choice: &Choice, counts: &[Count], recorded: &[u64]) -> Vec<manifest::TracepointRecord> {
    let mut records = choice.records.clone();
    for (index, record) in records.iter_mut().enumerate() {
        let of_this = || counts.iter().filter(|count| u64::from(count.id) == record.id);
        let recorded = recorded[choice.kinds[index] as usize];
        let counted: Option<u64> = of_this().map(|count| count.counted).sum();
        let lost: Option<u64> = of_this().map(|count| count.lost).sum();
        record.recorded = Some(recorded);
        record.counted = counted.filter(|_| !counts.is_empty());
        // Before 6.0 the kernel counts losses by ring only.
        record.lost = lost
            .filter(|_| !counts.is_empty())
            .or_else(|| counted.map(|counted| counted.saturating_sub(recorded)));
    }
    records
}

/// Completes the recording, or says in it why it was cut.
fn finish(
    root: &Root,
    options: &RecordOptions,
    choice: &Choice,
    mut encoded: Encoded,
    mut ended: Ended,
    notes: Vec<String>,
) -> Result<Summary, RecordError> {
    let counts = std::mem::take(&mut ended.counts);
    let mut records = sum_up(choice, &counts, &encoded.recorded);
    let silence = count_silent(&mut records);
    let sum = |of: fn(&manifest::TracepointRecord) -> Option<u64>| -> u64 {
        records.iter().filter_map(of).sum()
    };
    let events = encoded.writer.events_written();
    // Rings alone do not tell of which tracepoint the lost ones were.
    let is_by_tracepoint = !counts.is_empty() && records.iter().all(|record| record.lost.is_some());
    let lost = if is_by_tracepoint { sum(|record| record.lost) } else { encoded.lost };
    let is_counted = |record: &&manifest::TracepointRecord| record.counted.is_some();
    let checked = records.iter().filter(is_counted);
    let checked = checked.clone().next().is_some().then(|| {
        let numbers = |record: &manifest::TracepointRecord| {
            [record.recorded, record.lost, record.counted].map(Option::unwrap_or_default)
        };
        checked.map(numbers).fold([0; 3], |[a, b, c], [d, e, f]| [a + d, b + e, c + f])
    });
    let counted = records.iter().all(|r| is_counted(&r)).then(|| sum(|record| record.counted));
    let mut all_notes = notes;
    all_notes.extend(encode_notes(&encoded));
    let ring_bytes = encoded.writer.manifest_mut().ring_bytes;
    all_notes.extend(loss_note(encoded.lost, ring_bytes, ended.stalled));
    if encoded.error.is_none() && ended.error.is_none() {
        all_notes.extend(silence);
    }
    let mut error = encoded.error.take().or_else(|| ended.error.take());
    if error.is_none() {
        match symbols::write(root, &encoded.addresses, &mut encoded.writer) {
            Ok(note) => all_notes.extend(note),
            Err(failed) => error = Some(failed.into()),
        }
    }
    let manifest = encoded.writer.manifest_mut();
    manifest.tracepoints = records;
    manifest.notes.clone_from(&all_notes);
    let end = End {
        reason: error.as_ref().map_or(ended.reason, reason_of).to_owned(),
        monotonic_ns: ended.stopped.0,
        command_exit_status: ended.command_exit_status,
        events,
        lost_events: lost,
        counted_events: counted,
        recorder_cpu_ns: sys::process_cpu_ns().saturating_sub(ended.cpu_before_ns),
        ..End::default()
    };
    let bytes = encoded.writer.bytes_written();
    if let Some(error) = error {
        encoded.writer.abandon(end)?;
        let output = options.output.clone();
        return Err(RecordError::Cut { output, events, source: Box::new(error) });
    }
    let manifest = encoded.writer.finish(end)?;
    direct_map::store(&options.output, manifest);
    Ok(Summary {
        output: options.output.clone(),
        events,
        lost,
        counted,
        checked,
        bytes,
        elapsed: Duration::from_nanos(ended.stopped.0.saturating_sub(ended.started.0)),
        reason: ended.reason.to_owned(),
        command_exit_status: ended.command_exit_status,
        notes: all_notes,
    })
}

fn reason_of(error: &RecordError) -> &'static str {
    if error.is_disk_full() { "disk full" } else { "error" }
}
