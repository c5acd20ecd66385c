//! Recordings that are whole and do not tell the truth: does a replay panic, or break a law?
//!
//! Each sample trace is written again with some of its events left out, told twice, exchanged or
//! changed, and with the first page map whole, cut short or absent. Every checksum is right, so
//! that the lies reach the models. `SEED=n` repeats a run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kmemlab_replay::policy::{self, PolicySet};
use kmemlab_replay::stack::{StackOptions, replay_stack};
use kmemlab_replay::{Options, replay, rules_of};
use kmemlab_trace::format::{self, TABLES, TableSpec};
use kmemlab_trace::snapshot::Stamp;
use kmemlab_trace::table::Cell;
use kmemlab_trace::unit::Cpu;
use kmemlab_trace::{Event, EventBatchBuilder, Recording, RecordingWriter};

use crate::damage::words;
use crate::support::{Folder, Random, is_one_sentence, kmemlab, sample_traces, seed};

/// Each trace is lied about for so long.
const BUDGET: Duration = Duration::from_secs(8);
/// Events of a copy: enough for every layer, few enough for many copies.
const EVENTS_MAX: usize = 60_000;
/// Untrue events of a thousand.
const SHARES: [u64; 3] = [1, 20, 300];

/// How much of the first page map a copy has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PageMap {
    Whole,
    Half,
    None,
}

const PAGE_MAPS: [PageMap; 3] = [PageMap::None, PageMap::Half, PageMap::Whole];

struct Liar {
    random: Random,
    share: u64,
    /// An event of before, to tell again or to borrow from.
    other: Option<Event>,
}

impl Liar {
    /// What is told in the place of an event: nothing, one event, or two.
    fn tell(&mut self, event: Event) -> Vec<Event> {
        let other = self.other.unwrap_or(event);
        if self.random.below(8) == 0 {
            self.other = Some(event);
        }
        if self.random.below(1000) >= self.share {
            return vec![event];
        }
        let mut lie = event;
        match self.random.below(12) {
            0 | 1 => return Vec::new(),
            2 => return vec![event, event],
            3 => return vec![event, Event { time: event.time, ..other }],
            4 => lie = Event { time: event.time, ..other },
            5 => lie.pfn_or_address = other.pfn_or_address,
            6 => lie.pfn_or_address ^= 1 << self.random.below(13),
            7 => lie.pfn_or_address = self.random.next() >> self.random.below(64),
            8 => lie.order = self.random.below(12) as u8,
            9 => lie.cpu = Cpu(self.random.below(4) as u16),
            10 => {
                lie.migrate = self.random.below(7) as u8;
                lie.other_migrate = self.random.below(7) as u8;
                lie.other_order = self.random.below(12) as u8;
                lie.flag = self.random.below(4) as u8;
            }
            _ => {
                lie.end = lie.end.wrapping_add(self.random.next() >> self.random.below(64));
                let arg = self.random.below(lie.args.len() as u64) as usize;
                lie.args[arg] = self.random.next().cast_signed() >> self.random.below(64);
                lie.kind = other.kind;
            }
        }
        vec![lie]
    }
}

fn copy_table(
    from: &Recording,
    to: &mut RecordingWriter,
    spec: &'static TableSpec,
    rows_max: usize,
) {
    let mut times = from.batch_times(spec.file);
    let mut rows = 0;
    for batch in from.table(spec).unwrap() {
        let batch = batch.unwrap();
        let (before, after, _) = times.next().unwrap_or_default();
        for row in 0..batch.rows() {
            if rows < rows_max {
                let cells: Vec<Cell<'_>> =
                    (0..spec.columns.len()).map(|column| batch.cell(row, column)).collect();
                to.row(spec, &cells).unwrap();
            }
            rows += 1;
        }
        to.flush_table(spec, Stamp { before, after }).unwrap();
        to.commit().unwrap();
    }
}

/// Writes a copy in which each event is told as `tell` says.
pub(crate) fn retell(
    from: &Recording,
    to: &Path,
    page_map: PageMap,
    events_max: usize,
    tell: &mut dyn FnMut(Event) -> Vec<Event>,
) {
    let mut manifest = from.manifest().clone();
    let end = manifest.end.take();
    let mut writer = RecordingWriter::create(to, manifest, true).unwrap();
    for spec in TABLES.iter().filter(|spec| spec.file != format::INDEX) {
        let rows = from.rows_of(spec.file) as usize;
        let rows_max = match page_map {
            PageMap::None if spec.file.starts_with("pagemap") => continue,
            PageMap::Half if spec.file == format::PAGEMAP_FIRST.file => rows / 2,
            _ => rows,
        };
        if from.has(spec) {
            copy_table(from, &mut writer, spec, rows_max);
        }
    }
    let mut builder = EventBatchBuilder::new();
    let mut told = 0;
    for batch in from.events().unwrap() {
        let batch = batch.unwrap();
        for number in 0..batch.names() {
            builder.name(batch.name(number as u16));
        }
        for event in batch.iter().take(events_max.saturating_sub(told)) {
            tell(event).iter().for_each(|event| builder.push(event));
            told += 1;
        }
        writer.append_events(&mut builder).unwrap();
        writer.commit().unwrap();
        if told >= events_max {
            break;
        }
    }
    writer.finish(end.unwrap_or_default()).unwrap();
}

/// Writes a copy that does not tell the truth.
fn lie_about(from: &Recording, to: &Path, liar: &mut Liar, page_map: PageMap) {
    retell(from, to, page_map, EVENTS_MAX, &mut |event| liar.tell(event));
}

/// Both replays, with every law checked, each also under one of all policies.
fn replay_both(path: &Path, number: usize) -> Result<(), String> {
    let recording = Recording::open(path, true).map_err(|error| error.to_string())?;
    let (rules, _) = rules_of(recording.manifest());
    let listed = policy::all();
    let chosen = listed[number % listed.len()];
    let policies: Vec<PolicySet> = PolicySet::parse(chosen.name, &rules).into_iter().collect();
    let of_pages = if chosen.role.is_above_pages() { Vec::new() } else { policies.clone() };
    let options = Options { check: true, policies: of_pages, ..Options::default() };
    replay(&recording, &options, &mut |_| {}).map_err(|error| error.to_string())?;
    let options = StackOptions { check: true, policies, ..StackOptions::default() };
    replay_stack(&recording, &options, &mut |_, _| {}).map_err(|error| error.to_string())?;
    Ok(())
}

fn wrong(path: &Path, number: usize) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| replay_both(path, number))) {
        Err(panic) => Some(format!("panicked: {}", words(&*panic))),
        Ok(Err(sentence)) if sentence.contains("a law of its own") => Some(sentence),
        Ok(Err(sentence)) if !is_one_sentence(&sentence) => Some(format!("said {sentence:?}")),
        Ok(_) => None,
    }
}

/// The lies about one trace, as many as there is time for.
fn lies_about(trace: &Path, seed: u64) -> Vec<String> {
    let from = Recording::open(trace, false).unwrap();
    let folder = Folder::new("untrue");
    let copy: PathBuf = folder.join("untrue.kmt");
    let start = Instant::now();
    let mut failures = Vec::new();
    let mut number = 0;
    while start.elapsed() < BUDGET && failures.len() < 6 {
        let page_map = PAGE_MAPS[number % PAGE_MAPS.len()];
        let share = SHARES[number / PAGE_MAPS.len() % SHARES.len()];
        let random = Random(seed.wrapping_add(number as u64));
        lie_about(&from, &copy, &mut Liar { random, share, other: None }, page_map);
        let name = trace.display();
        failures.extend(wrong(&copy, number).map(|wrong| {
            format!("{name} SEED={seed} number {number} {page_map:?} {share}: {wrong}")
        }));
        number += 1;
    }
    eprintln!("{}: {number} untrue copies", trace.display());
    failures
}

/// What the program makes of a few of the same copies: exit 0, or 2 with a sentence.
#[test]
fn every_command_survives_lies() {
    for (trace, share) in sample_traces().iter().zip(SHARES.into_iter().cycle()) {
        let folder = Folder::new("untrue-spawned");
        let copy = folder.join("untrue.kmt");
        let from = Recording::open(trace, false).unwrap();
        let random = Random(seed());
        lie_about(&from, &copy, &mut Liar { random, share, other: None }, PageMap::Whole);
        let (copy, parquet) = (copy.to_str().unwrap(), folder.join("parquet"));
        kmemlab(["info", copy]).done_or_refused();
        kmemlab(["replay", copy]).done_or_refused();
        kmemlab(["replay", "--stack", copy]).done_or_refused();
        kmemlab(["compare", copy, trace.to_str().unwrap()]).done_or_refused();
        kmemlab(["scrub", copy, "-o", folder.join("scrub.kmt").to_str().unwrap()])
            .done_or_refused();
        kmemlab(["export", copy, "--parquet", parquet.to_str().unwrap()]).done_or_refused();
    }
}

#[test]
fn no_lie_makes_a_replay_panic_or_break_a_law() {
    let mut failures = Vec::new();
    for pair in sample_traces().chunks(2) {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                pair.iter().map(|trace| scope.spawn(|| lies_about(trace, seed()))).collect();
            failures.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
        });
    }
    assert!(failures.is_empty(), "{} went wrong:\n{}", failures.len(), failures.join("\n"));
}
