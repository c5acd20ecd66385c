//! Recordings of the kernel that the tests run on. They need root and tracefs, and say so
//! otherwise.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use kmemlab_collector::{Control, RecordError, RecordOptions, Stacks, Summary, record};
use kmemlab_trace::Recording;
use kmemlab_trace::event::{Column, Kind};
use kmemlab_trace::format;
use kmemlab_trace::tracepoint::Group;

/// One recording at a time: each takes all processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
const FORKS: &str =
    "for i in 1 2 3 4 5 6 7 8 9 10; do /bin/true; cat /proc/self/maps; done >/dev/null";

fn may_record() -> bool {
    let can = fs::read_dir("/sys/kernel/tracing/events/kmem").is_ok()
        && fs::File::open("/proc/kpageflags").is_ok();
    if !can {
        eprintln!("not run: needs root, and tracefs at /sys/kernel/tracing");
    }
    can
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("kmemlab-root-record-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn recording(&self) -> PathBuf {
        self.0.join("live.kmt")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(output: &Path, script: &str) -> RecordOptions {
    let mut options = RecordOptions::new(output);
    options.command = ["sh", "-c", script].iter().map(OsString::from).collect();
    options.snapshot_every = Duration::from_millis(200);
    options
}

fn own_nice() -> String {
    String::from_utf8(Command::new("nice").output().unwrap().stdout).unwrap().trim().to_owned()
}

/// Threads of that name in the recording's table.
fn threads_named(recording: &Recording, name: &str) -> BTreeSet<u32> {
    let mut threads = BTreeSet::new();
    for batch in recording.table(&format::TASKS).unwrap() {
        let batch = batch.unwrap();
        let rows = (0..batch.rows()).filter(|row| batch.text(*row, 2) == name);
        threads.extend(rows.map(|row| u32::try_from(batch.number(row, 0)).unwrap()));
    }
    threads
}

/// Every tracepoint's numbers fit together.
fn check_counts(recording: &Recording, summary: &Summary) {
    let mut sums = (0, 0, 0);
    for tracepoint in &recording.manifest().tracepoints {
        let recorded = tracepoint.recorded.unwrap();
        let lost = tracepoint.lost.unwrap();
        let counted = tracepoint.counted.unwrap();
        assert_eq!(recorded + lost, counted, "{}", tracepoint.name);
        sums = (sums.0 + recorded, sums.1 + lost, sums.2 + counted);
    }
    assert_eq!(sums, (summary.events, summary.lost, summary.counted.unwrap()));
    let end = recording.manifest().end.as_ref().unwrap();
    assert_eq!((end.events, end.lost_events), (summary.events, summary.lost));
}

#[test]
fn a_command_is_recorded_whole() {
    let _one = ONE_AT_A_TIME.lock();
    if !may_record() {
        return;
    }
    let folder = Folder::new("command");
    let output = folder.recording();
    let kptr_restrict = fs::read_to_string(KPTR_RESTRICT).unwrap();
    let nice = folder.0.join("nice");
    let script = format!("{FORKS}; nice >{}; sleep 1; {FORKS}; exit 3", nice.display());
    let summary = record(&options(&output, &script), &Control::new()).unwrap();
    assert_eq!(fs::read_to_string(KPTR_RESTRICT).unwrap(), kptr_restrict);
    assert_eq!((summary.reason.as_str(), summary.command_exit_status), ("command", Some(3)));
    assert_eq!(fs::read_to_string(&nice).unwrap().trim(), own_nice(), "the recorder runs first");
    assert_eq!(summary.lost, 0);
    let recording = Recording::open(&output, false).unwrap();
    check_counts(&recording, &summary);
    for table in [
        &format::PAGEMAP_FIRST,
        &format::PAGEMAP_LAST,
        &format::BUDDYINFO,
        &format::ZONEINFO,
        &format::SLABINFO,
        &format::VMSTAT,
        &format::STACKS,
        &format::SYMBOLS,
        &format::TASKS,
    ] {
        assert!(recording.has(table), "{}", table.name);
    }
    let pid = recording.manifest().recorder_pids[0];
    let (mut rows, mut last, mut kinds) = (0u64, 0, BTreeSet::new());
    let (mut of_recorder, mut of_others) = (0u64, BTreeSet::new());
    for batch in recording.events().unwrap() {
        for event in batch.unwrap().iter() {
            assert!(event.time.0 >= last, "row {rows} goes back in time");
            last = event.time.0;
            rows += 1;
            kinds.insert(event.kind);
            if event.context.is_recorder() {
                of_recorder += 1;
            } else {
                assert_ne!(event.pid.0, pid);
                of_others.insert(event.pid.0);
            }
        }
    }
    assert_eq!(rows, summary.events);
    for kind in [Kind::PageAlloc, Kind::PageFree, Kind::Kfree, Kind::CacheAlloc, Kind::CacheFree] {
        assert!(kinds.contains(&kind), "no {}", kind.name());
    }
    assert!(of_recorder > 0 && of_recorder < rows);
    let shells = threads_named(&recording, "sh");
    assert!(shells.intersection(&of_others).next().is_some(), "no event of the command itself");
    assert!(of_others.len() > 20, "one thread for each fork: {of_others:?}");
}

#[test]
fn an_anonymous_recording_names_nobody() {
    let _one = ONE_AT_A_TIME.lock();
    if !may_record() {
        return;
    }
    let folder = Folder::new("anonymous");
    let mut options = options(&folder.recording(), "exit 0");
    options.is_anonymous = true;
    options.command_line = vec!["kmemlab".to_owned()];
    record(&options, &Control::new()).unwrap();
    let recording = Recording::open(&options.output, false).unwrap();
    let manifest = recording.manifest();
    assert!(!recording.has(&format::TASKS));
    assert_eq!((manifest.command.len(), manifest.command_line.len()), (0, 0));
    assert_eq!((&*manifest.host.name, &*manifest.host.kernel_command_line), ("", ""));
    assert_eq!(manifest.privacy, "anonymous");
}

#[test]
fn call_chains_find_their_allocations() {
    let _one = ONE_AT_A_TIME.lock();
    if !may_record() {
        return;
    }
    let folder = Folder::new("stacks");
    for stacks in [Stacks::All, Stacks::Sampled(10)] {
        let mut options = options(&folder.recording(), FORKS);
        options.stacks = stacks;
        options.force = true;
        options.groups = vec![Group::Page, Group::Slab];
        let summary = record(&options, &Control::new()).unwrap();
        let recording = Recording::open(&options.output, false).unwrap();
        check_counts(&recording, &summary);
        assert_eq!(recording.manifest().stacks, stacks.to_string());
        let (mut allocations, mut with_chain) = (0u64, 0u64);
        for batch in recording.events().unwrap() {
            for event in batch.unwrap().iter().filter(|event| event.kind == Kind::PageAlloc) {
                allocations += 1;
                with_chain += u64::from(event.has(Column::Stack));
            }
        }
        let period = if stacks == Stacks::All { 1 } else { 10 };
        assert!(with_chain * period * 10 > allocations * 9, "{with_chain} of {allocations}");
        assert!(with_chain * period <= allocations + 100, "{with_chain} of {allocations}");
    }
}

#[test]
fn a_ring_that_is_too_small_tells_what_it_lost() {
    let _one = ONE_AT_A_TIME.lock();
    if !may_record() {
        return;
    }
    let folder = Folder::new("loss");
    let mut options = options(&folder.recording(), "head -c 300M /dev/zero | tail -c 1 >/dev/null");
    options.ring_bytes = Some(1);
    let summary = record(&options, &Control::new()).unwrap();
    let recording = Recording::open(&options.output, false).unwrap();
    check_counts(&recording, &summary);
    let mut told = 0;
    for batch in recording.table(&format::LOSS).into_iter().flatten() {
        let batch = batch.unwrap();
        for row in 0..batch.rows() {
            assert!(batch.number(row, 1) <= batch.number(row, 2), "a gap ends before it begins");
            told += batch.number(row, 3);
        }
    }
    assert_eq!(told, summary.lost);
    let names_an_option = summary.notes.iter().any(|note| note.contains("(--"));
    assert_eq!(names_an_option, told > 0, "{:?}", summary.notes);
}

#[test]
fn stopping_ends_in_good_order() {
    let _one = ONE_AT_A_TIME.lock();
    if !may_record() {
        return;
    }
    let folder = Folder::new("stop");
    let mut options = RecordOptions::new(folder.recording());
    let control = Control::new();
    control.stop();
    let summary = record(&options, &control).unwrap();
    assert_eq!((summary.reason.as_str(), summary.command_exit_status), ("signal", None));
    options.duration = Some(Duration::from_millis(100));
    let error = record(&options, &Control::new()).unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    options.force = true;
    let summary = record(&options, &Control::new()).unwrap();
    assert_eq!(summary.reason, "duration");
    let recording = Recording::open(&options.output, false).unwrap();
    assert!(recording.has(&format::PAGEMAP_LAST));
}

#[test]
fn nothing_is_written_for_a_command_that_is_not_there() {
    let _one = ONE_AT_A_TIME.lock();
    if !may_record() {
        return;
    }
    let folder = Folder::new("missing");
    let mut options = RecordOptions::new(folder.recording());
    options.command = vec!["kmemlab-no-such-command".into()];
    let error = record(&options, &Control::new()).unwrap_err();
    assert!(matches!(error, RecordError::NoCommand { .. }), "{error}");
    assert!(!options.output.exists());
}
