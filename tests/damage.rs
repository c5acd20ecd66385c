//! Does any damage make it panic, hang, or answer in more than a sentence? No oracle needed.
//!
//! Each file of a recording is cut and has bits flipped, in place; the recording is then opened, read
//! whole and replayed in this process, with a look-out for panics and for the clock.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use kmemlab_replay::Options;
use kmemlab_trace::{Recording, format};

use crate::support::{
    Folder, Load, Random, is_one_sentence, kmemlab, may_record, one_at_a_time, sample_traces, seed,
};
use crate::synthetic::{Ending, Synthetic, copy, files};

/// One read and replay of a harmed recording never takes so long.
const STUCK: Duration = Duration::from_secs(30);
/// All harm of one recording takes about so long at most: large ones are harmed in fewer places.
const BUDGET: Duration = Duration::from_secs(14);
const CUTS: u64 = 64;
const FLIPS: u64 = 200;

/// One way to harm a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut(u64),
    Flip(u64),
}

/// Opens and reads all there is, then replays it. The error's sentence, if there is one.
fn read_all(path: &Path, salvage: bool) -> Result<(), String> {
    let recording = Recording::open(path, salvage).map_err(|error| error.to_string())?;
    for batch in recording.events().map_err(|error| error.to_string())? {
        let batch = batch.map_err(|error| error.to_string())?;
        let sum = batch.iter().fold(0u64, |sum, event| {
            sum.wrapping_add(event.pfn_or_address).wrapping_add(batch.name(event.name).len() as u64)
        });
        std::hint::black_box(sum);
    }
    for spec in format::TABLES.iter().filter(|spec| recording.has(spec)) {
        for batch in recording.table(spec).map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            for row in 0..batch.rows() {
                for column in 0..spec.columns.len() {
                    std::hint::black_box(batch.cell(row, column));
                }
            }
        }
    }
    let options = Options { check: true, ..Options::default() };
    let replayed = kmemlab_replay::replay(&recording, &options, &mut |_| {});
    replayed.map(drop).map_err(|error| error.to_string())
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// What is wrong with how the recording is read, if anything is.
fn wrong(path: &Path, salvage: bool) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| read_all(path, salvage))) {
        Err(panic) => Some(format!("panicked: {}", words(&*panic))),
        Ok(Err(sentence)) if !is_one_sentence(&sentence) => Some(format!("said {sentence:?}")),
        Ok(Err(sentence)) if sentence.contains("law") => Some(sentence),
        Ok(_) => None,
    }
}

/// Where an Arrow stream's messages begin: each batch begins with one.
fn borders(bytes: &[u8]) -> Vec<u64> {
    let starts = (0..bytes.len().saturating_sub(4)).step_by(8);
    starts.filter(|at| bytes[*at..*at + 4] == [0xff; 4]).map(|at| at as u64).collect()
}

/// `count` offsets spread over a file, each a little off its place by chance.
fn spread(size: u64, count: u64, random: &mut Random) -> Vec<u64> {
    let count = count.min(size);
    let step = |n: u64| n * size / count.max(1);
    (0..count).map(|n| step(n) + random.below((step(n + 1) - step(n)).max(1))).collect()
}

fn harms(bytes: &[u8], share: f64, random: &mut Random) -> Vec<Harm> {
    let size = bytes.len() as u64;
    let some = |count: u64| ((count as f64 * share) as u64).clamp(4, count);
    let mut at_borders = borders(bytes);
    let keep = some(at_borders.len().max(4) as u64) as usize;
    let every = at_borders.len().div_ceil(keep).max(1);
    at_borders = at_borders.into_iter().step_by(every).collect();
    let cuts = at_borders.into_iter().chain(spread(size, some(CUTS), random)).map(Harm::Cut);
    let flips = spread(size, some(FLIPS), random).into_iter().map(Harm::Flip);
    cuts.chain(flips).collect()
}

/// Harms each file of the copy in each way and puts it right again; tells `told` of each case
/// before it runs. Returns what went wrong.
fn harm_all(copy: &Path, told: &Sender<String>) -> Vec<String> {
    let mut random = Random(seed());
    let start = Instant::now();
    let mut failures: Vec<String> = wrong(copy, false).into_iter().collect();
    let once = start.elapsed();
    let files = files(copy);
    // Twice for each case; most cases end early, so this is on the safe side.
    let cases = files.len() as f64 * (CUTS + FLIPS) as f64 * 2.0;
    let share = (BUDGET.as_secs_f64() / (once.as_secs_f64() * cases)).min(1.0);
    for file in files {
        let path = copy.join(&file);
        let whole = fs::read(&path).unwrap();
        for harm in harms(&whole, share, &mut random) {
            let mut bytes = whole.clone();
            match harm {
                Harm::Cut(at) => bytes.truncate(at as usize),
                Harm::Flip(at) => bytes[at as usize] ^= 1 << random.below(8),
            }
            fs::write(&path, bytes).unwrap();
            for salvage in [false, true] {
                let case = format!("{} {harm:?} salvage {salvage}", file.display());
                let _ = told.send(case.clone());
                failures.extend(wrong(copy, salvage).map(|wrong| format!("{case}: {wrong}")));
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    failures
}

/// Runs [`harm_all`] with one eye on the clock.
#[track_caller]
fn survives(recording: &Path) {
    let folder = Folder::new("damage");
    let copied = folder.join("harmed.kmt");
    copy(recording, &copied);
    let (tell, told) = mpsc::channel();
    let worker = thread::spawn(move || harm_all(&copied, &tell));
    let (mut last, mut cases) = (String::new(), 0);
    loop {
        match told.recv_timeout(STUCK) {
            Ok(case) => {
                last = case;
                cases += 1;
            }
            Err(RecvTimeoutError::Timeout) => panic!("SEED={}: stuck at {last}", seed()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let failures = worker.join().unwrap();
    assert!(
        failures.is_empty(),
        "SEED={}: {} of {cases} cases of {} went wrong, such as\n{}",
        seed(),
        failures.len(),
        recording.display(),
        failures[..failures.len().min(12)].join("\n")
    );
}

#[test]
fn a_whole_synthetic_recording_survives_any_damage() {
    let folder = Folder::new("damage-whole");
    survives(&Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path);
}

#[test]
fn a_synthetic_recording_cut_off_survives_any_damage() {
    let folder = Folder::new("damage-cut-off");
    survives(&Synthetic::write(&folder.join("cut.kmt"), Ending::CutOff).path);
}

#[test]
fn the_sample_traces_survive_any_damage() {
    // Each gets its own thread's time: two at once on two processors.
    for pair in sample_traces().chunks(2) {
        thread::scope(|scope| {
            for trace in pair {
                scope.spawn(|| survives(trace));
            }
        });
    }
}

#[test]
fn a_live_recording_survives_any_damage() {
    if !may_record() {
        return;
    }
    let folder = Folder::new("damage-live");
    let output = folder.join("live.kmt");
    {
        let _one = one_at_a_time();
        let _load = Load::start();
        let path = output.to_str().unwrap();
        kmemlab(["record", "-d", "200ms", "--stacks", "sampled:50", "-o", path]).done();
    }
    survives(&output);
}

/// The same through the program, in a few places: exit 0, or 2 with a sentence.
#[test]
fn the_program_survives_as_the_library_does() {
    let folder = Folder::new("damage-spawned");
    let original = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    let harmed = folder.join("harmed.kmt");
    copy(&original, &harmed);
    let mut random = Random(seed());
    for file in files(&original) {
        let path = harmed.join(&file);
        let whole = fs::read(&path).unwrap();
        for n in 0..3 {
            let mut bytes = whole.clone();
            let at = random.below(whole.len() as u64) as usize;
            if n == 0 {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << random.below(8);
            }
            fs::write(&path, bytes).unwrap();
            for command in ["info", "replay"] {
                let args = [PathBuf::from(command), harmed.clone()];
                kmemlab(&args).done_or_refused();
                kmemlab(args.iter().chain([&PathBuf::from("--salvage")])).done_or_refused();
            }
        }
        fs::write(&path, whole).unwrap();
    }
}
