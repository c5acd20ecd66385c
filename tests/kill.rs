//! A recorder that is killed leaves a recording; one that is asked to stop leaves a whole one.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Folder, KPTR_RESTRICT, Load, Random, end_of, info, kmemlab, may_record, number, one_at_a_time,
    replay, seed, signal, start_recording,
};

const KILLS: u64 = 20;
/// On a slow host, where the kernel takes seconds to close a recorder's events, fewer.
const BUDGET: Duration = Duration::from_secs(7);
/// So long after the manifest some event is on the disk: a batch gets there within a second.
const LONG: Duration = Duration::from_millis(2000);
/// So long after the start there is a manifest, on a busy host too.
const LATE: Duration = Duration::from_secs(10);

fn kptr_restrict() -> String {
    fs::read_to_string(KPTR_RESTRICT).unwrap().trim().to_owned()
}

/// From 50 ms to 1.5 s, the short ones more often: most of what can go wrong is at the start.
fn moment(random: &mut Random) -> Duration {
    let share = random.below(1000) as f64 / 1000.0;
    Duration::from_secs_f64(0.05 * 30f64.powf(share))
}

/// Lets a recorder run for so long, or for [`LONG`] after its manifest is there if `is_long`, and
/// kills it. Returns for how long the manifest was there.
fn run_and_kill(output: &Path, after: Duration, is_long: bool) -> Duration {
    let start = Instant::now();
    let mut child = start_recording(output, &[]);
    let mut told: Option<Instant> = None;
    loop {
        if told.is_none() && output.join("manifest.json").exists() {
            told = Some(Instant::now());
        }
        let since = told.map_or(Duration::ZERO, |told| told.elapsed());
        let is_over = if is_long { since > LONG } else { start.elapsed() >= after };
        if is_over || start.elapsed() > LATE {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    assert!(child.try_wait().unwrap().is_none(), "the recorder ended by itself");
    // The kernel takes its time to close all events of a killed recorder.
    let ran = told.map_or(Duration::ZERO, |told| told.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    ran
}

/// What is left of a recorder is readable; `ran` is for how long its manifest was there.
fn check_remainder(output: &Path, ran: Duration) -> bool {
    if !output.join("manifest.json").exists() {
        kmemlab([Path::new("info"), output]).refused(&["is no kmemlab recording"]);
        kmemlab([Path::new("replay"), output]).refused(&["is no kmemlab recording"]);
        return false;
    }
    let told = info(output, &[]);
    assert_eq!(told["ended_cleanly"], false, "{told:#}");
    assert_eq!(told["ended_by"], Value::Null, "{told:#}");
    if ran > LONG {
        let notes = &told["notes"];
        assert!(number(&told, "events") > 0, "no event {ran:?} after the manifest: {notes}");
    }
    let path = output.to_str().unwrap();
    kmemlab(["replay", "--json", path]).done_or_refused();
    kmemlab(["replay", "--json", "--salvage", path]).done_or_refused();
    number(&told, "events") > 0
}

#[test]
fn what_a_killed_recorder_leaves_is_readable() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let seed = seed();
    let mut random = Random(seed);
    let before = kptr_restrict();
    let folder = Folder::new("kill");
    let _load = Load::start();
    let mut with_events = 0;
    let start = Instant::now();
    for n in 0..KILLS {
        if start.elapsed() > BUDGET {
            crate::support::skipped(&format!("the last {} of {KILLS} kills", KILLS - n));
            break;
        }
        let output = folder.join("killed.kmt");
        let _ = fs::remove_dir_all(&output);
        let after = moment(&mut random);
        eprintln!("SEED={seed}: kill {n} after {after:?}");
        let ran = run_and_kill(&output, after, n == 0);
        with_events += u64::from(check_remainder(&output, ran));
    }
    assert!(with_events >= 1, "no remainder holds events");
    let output = folder.join("next.kmt");
    kmemlab(["record", "-d", "100ms", "-o", output.to_str().unwrap()]).done();
    let told = info(&output, &[]);
    assert_eq!(told["ended_cleanly"], true, "{told:#}");
    assert_eq!(kptr_restrict(), before, "kernel.kptr_restrict is not as it was");
}

/// The recorder shows the kernel's addresses to itself for a moment; it is killed in that moment.
#[test]
fn the_next_recorder_puts_back_what_a_killed_one_left() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let before = kptr_restrict();
    if before == "1" {
        return crate::support::skipped("kernel.kptr_restrict is 1 here: no recorder changes it");
    }
    let folder = Folder::new("kptr");
    let output = folder.join("killed.kmt");
    let mut is_caught = false;
    for _ in 0..10 {
        let _ = fs::remove_dir_all(&output);
        let mut child = start_recording(&output, &["-d", "500ms"]);
        while child.try_wait().unwrap().is_none() && !is_caught {
            is_caught = kptr_restrict() == "1";
        }
        let _ = child.kill();
        child.wait().unwrap();
        // Killed a moment too late, it has put the setting back already.
        is_caught = kptr_restrict() == "1";
        if is_caught {
            break;
        }
    }
    if !is_caught {
        return crate::support::skipped("no recorder was caught while it showed addresses");
    }
    let ran = kmemlab(["record", "-d", "50ms", "--force", "-o", output.to_str().unwrap()]);
    let after = kptr_restrict();
    fs::write(KPTR_RESTRICT, &before).unwrap();
    ran.done();
    assert_eq!(after, before, "kernel.kptr_restrict stays as a killed recorder left it");
}

#[test]
fn a_recorder_that_is_asked_to_stop_ends_in_good_order() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("signal");
    let _load = Load::start();
    for (name, after) in [("INT", 1200), ("TERM", 300)] {
        let output = folder.join(format!("{name}.kmt"));
        let child = start_recording(&output, &[]);
        thread::sleep(Duration::from_millis(after));
        signal(&child, name);
        let ran = end_of(child, Duration::from_secs(20)).done();
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("ended by signal"), "{ran:#?}");
        let told = info(&output, &[]);
        assert_eq!(told["ended_cleanly"], true, "{told:#}");
        assert_eq!(told["ended_by"], "signal", "{told:#}");
        assert!(number(&told, "events") > 0, "{told:#}");
        replay(&output, &[]);
    }
}

/// The command that is recorded gets the signal's meaning too: it does not outlive the recorder.
#[test]
fn a_stopped_recorder_takes_its_command_along() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("signal-command");
    let output = folder.join("command.kmt");
    let child = start_recording(&output, &["--", "sleep", "1000"]);
    thread::sleep(Duration::from_millis(1000));
    signal(&child, "TERM");
    end_of(child, Duration::from_secs(20)).done();
    let told = info(&output, &[]);
    assert_eq!(told["ended_by"], "signal", "{told:#}");
    assert_eq!(number(&told, "command_exit_status"), 128 + 15, "{told:#}");
}
