//! Does any damage make it panic, hang, or answer in more than a sentence? No oracle needed.
//!
//! Each file of a recording is cut and has bits flipped, in place; the recording is then opened,
//! read whole and replayed through the library, with a look-out for panics, aborts and the clock.

use std::any::Any;
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kmemlab_replay::Options;
use kmemlab_trace::{Recording, format};

use crate::support::{
    Folder, Load, Random, is_one_sentence, kmemlab, may_record, one_at_a_time, sample_traces, seed,
    wait,
};
use crate::synthetic::{Ending, Synthetic, copy, files};

/// All cases of one recording never take so long.
const STUCK: Duration = Duration::from_secs(60);
/// Failures that end the process, after which it is enough.
const ENDS_MAX: usize = 6;
/// The harm of one recording takes so long at most: large ones are harmed in fewer places.
const BUDGET: Duration = Duration::from_secs(15);
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
    let replayed = kmemlab_replay::replay(&recording, &Options::default(), &mut |_| {});
    replayed.map(drop).map_err(|error| error.to_string())
}

pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// What is wrong with how the recording is read, if anything is.
fn wrong(path: &Path, salvage: bool) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| read_all(path, salvage))) {
        Err(panic) => Some(format!("panicked: {}", words(&*panic))),
        Ok(Err(sentence)) if !is_one_sentence(&sentence) => Some(format!("said {sentence:?}")),
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

fn harms(bytes: &[u8], random: &mut Random) -> Vec<Harm> {
    let size = bytes.len() as u64;
    let cuts = borders(bytes).into_iter().chain(spread(size, CUTS, random)).map(Harm::Cut);
    let flips = spread(size, FLIPS, random).into_iter().map(Harm::Flip);
    cuts.chain(flips).collect()
}

/// Harms the files of the copy in each way and puts them right again, in an order by chance, from
/// case number `first` on. Each case's name is written down before it runs and its failure after
/// it, so that both survive the process.
fn harm_all(folder: &Path, first: usize) {
    let copy = folder.join("harmed.kmt");
    let failed = |what: String| {
        let path = folder.join("failures");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{what}").unwrap();
    };
    let start = Instant::now();
    wrong(&copy, false).into_iter().for_each(failed);
    let mut random = Random(seed());
    let mut cases = Vec::new();
    for file in files(&copy) {
        let whole = Arc::new(fs::read(copy.join(&file)).unwrap());
        let harms = harms(&whole, &mut random);
        cases.extend(harms.into_iter().map(|harm| (file.clone(), Arc::clone(&whole), harm)));
    }
    for index in (1..cases.len()).rev() {
        cases.swap(index, random.below(index as u64 + 1) as usize);
    }
    for (number, (file, whole, harm)) in cases.iter().enumerate().skip(first) {
        if start.elapsed() > BUDGET {
            let done = format!("{number} of {} cases in the time there is", cases.len());
            return fs::write(folder.join("done"), done).unwrap();
        }
        let mut bytes = whole.to_vec();
        match *harm {
            Harm::Cut(at) => bytes.truncate(at as usize),
            Harm::Flip(at) => bytes[at as usize] ^= 1 << (at % 8),
        }
        fs::write(copy.join(file), bytes).unwrap();
        for salvage in [false, true] {
            let case = format!("{} {harm:?} salvage {salvage}", file.display());
            fs::write(folder.join("case"), format!("{number} {case}")).unwrap();
            let wrong = wrong(&copy, salvage).map(|wrong| format!("{case}: {wrong}"));
            wrong.into_iter().for_each(failed);
        }
        fs::write(copy.join(file), &**whole).unwrap();
    }
    fs::write(folder.join("done"), format!("all {} cases", cases.len())).unwrap();
}

const HARM: &str = "KMEMLAB_SUITE_HARM";
const FIRST: &str = "KMEMLAB_SUITE_HARM_FIRST";

/// The work of [`survives`], in a process of its own: a failed allocation ends a process.
#[test]
fn harm_what_the_environment_names() {
    let Some(folder) = std::env::var_os(HARM).map(PathBuf::from) else { return };
    harm_all(&folder, std::env::var(FIRST).unwrap().parse().unwrap());
}

/// Harms a copy of the recording until all cases are through; an abort or a case that hangs is a
/// failure too, after which the next case goes on.
#[track_caller]
fn survives(recording: &Path) {
    let folder = Folder::new("damage");
    let harmed = folder.join("harmed.kmt");
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (mut first, mut failures) = (0, Vec::new());
    for _ in 0..ENDS_MAX {
        let _ = fs::remove_dir_all(&harmed);
        copy(recording, &harmed);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "damage::harm_what_the_environment_names", "--nocapture"]);
        child.env(HARM, folder.path()).env(FIRST, first.to_string());
        child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = wait(&mut child.spawn().unwrap(), STUCK);
        if status.is_some_and(|status| status.success()) {
            eprintln!("{}: {}", recording.display(), text("done"));
            break;
        }
        let last = text("case");
        let (number, case) = last.split_once(' ').unwrap_or(("0", "the whole recording"));
        let how = status.map_or("hangs".to_owned(), |status| status.to_string());
        failures.push(format!("{case}: ended the process: {how}"));
        first = number.parse::<u64>().unwrap() + 1;
    }
    failures.extend(text("failures").lines().map(str::to_owned));
    assert!(
        failures.is_empty(),
        "SEED={}: {} cases of {} went wrong, such as\n{}",
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
        kmemlab(["record", "-d", "20ms", "--stacks", "sampled:50", "-o", path]).done();
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
