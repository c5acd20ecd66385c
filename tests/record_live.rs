//! Recordings of the kernel that the tests run on: counts, ends and permissions, never a time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::support::{
    Folder, KPTR_RESTRICT, Load, info, kmemlab, may_record, number, one_at_a_time, replay,
};
use crate::synthetic::files;

/// Every tracepoint's numbers fit together, and so do the sums.
#[track_caller]
fn counts_add_up(told: &Value) {
    let mut sums = [0; 3];
    for tracepoint in told["tracepoints"].as_array().unwrap() {
        let of = |key| number(tracepoint, key);
        let row = [of("recorded_events"), of("lost_events"), of("counted_events")];
        assert_eq!(row[0] + row[1], row[2], "recorded + lost is not counted: {tracepoint:#}");
        let name = tracepoint["name"].as_str().unwrap();
        let of_kind = told["events_by_kind"].get(name).and_then(Value::as_u64);
        assert_eq!(of_kind.unwrap_or(0), row[0], "{name}: the table and the events differ");
        for (sum, part) in sums.iter_mut().zip(row) {
            *sum += part;
        }
    }
    let whole = ["events", "lost_events", "counted_events"].map(|key| number(told, key));
    assert_eq!(sums, whole, "{told:#}");
    // perf drops some events in silence on some kernels; a tracing instance never does.
    let is_silent = told["notes"].to_string().contains("in silence, only its counters");
    assert!(!is_silent || told["backend"] == "perf", "{told:#}");
}

fn is_private(output: &Path) {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(output), 0o700);
    assert_eq!(mode(&output.join("snapshots")), 0o700);
    for file in files(output) {
        assert_eq!(mode(&output.join(&file)), 0o600, "{}", file.display());
    }
    assert!(!output.join(".reserve").exists(), "the kept room was not given back");
    assert!(!output.join("manifest.json.new").exists());
}

#[test]
fn a_second_is_recorded_whole() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("second");
    let output = folder.join("live.kmt");
    let before = fs::read_to_string(KPTR_RESTRICT).unwrap();
    let load = Load::start();
    let ran = kmemlab(["record", "-d", "1s", "-o", output.to_str().unwrap()]).done();
    drop(load);
    assert_eq!(fs::read_to_string(KPTR_RESTRICT).unwrap(), before);
    assert_eq!(ran.stdout, "", "stdout is the command's");
    assert!(ran.stderr.contains("ended by duration"), "{ran:#?}");
    is_private(&output);
    let told = info(&output, &[]);
    assert_eq!(told["ended_cleanly"], true, "{told:#}");
    assert_eq!(told["ended_by"], "duration", "{told:#}");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(told["kernel_release"], release.trim());
    assert!(number(&told, "events") > 1000, "{told:#}");
    assert!(number(&told, "recorder_events") > 0, "its own events are tagged: {told:#}");
    for table in ["buddyinfo", "zoneinfo", "slabinfo", "vmstat", "pagemap_first", "pagemap_last"] {
        let tables = told["tables"].as_array().unwrap();
        assert!(tables.iter().any(|row| row["table"] == table), "no {table}: {told:#}");
    }
    counts_add_up(&told);
    let replayed = replay(&output, &["--check"]);
    assert_eq!(number(&replayed, "events"), number(&told, "events"));
    assert!(number(&replayed, "mirror.samples") > 0, "{replayed:#}");
}

#[test]
fn a_command_s_exit_status_is_told() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("status");
    for (script, status) in [("exit 3", 3), ("exit 0", 0), ("kill -9 $$", 137)] {
        let output = folder.join(format!("{status}.kmt"));
        let path = output.to_str().unwrap();
        let ran = kmemlab(["record", "-o", path, "--", "sh", "-c", script]).done();
        assert!(ran.stderr.contains("ended by command"), "{ran:#?}");
        assert!(ran.stderr.contains(&format!("exit status {status}")), "{ran:#?}");
        let told = info(&output, &[]);
        assert_eq!(number(&told, "command_exit_status"), status, "{told:#}");
        assert_eq!(told["ended_by"], "command", "{told:#}");
        assert_eq!(told["command"].as_array().unwrap().len(), 3, "{told:#}");
        counts_add_up(&told);
    }
}

/// What the command prints and reads is its own.
#[test]
fn a_command_s_output_is_untouched() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("output");
    let output = folder.join("live.kmt");
    let script = "printf 'one\\0two\\n'; echo three >&2";
    let ran = kmemlab(["record", "-o", output.to_str().unwrap(), "--", "sh", "-c", script]).done();
    assert_eq!(ran.stdout, "one\0two\n", "{ran:#?}");
    assert!(ran.stderr.lines().any(|line| line == "three"), "{ran:#?}");
}

/// A ring that is too small loses events, and says how many of which.
#[test]
fn what_is_lost_is_counted() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("lost");
    let output = folder.join("live.kmt");
    let script = "head -c 300M /dev/zero | tail -c 1 >/dev/null";
    let path = output.to_str().unwrap();
    kmemlab(["record", "--ring", "4K", "-o", path, "--", "sh", "-c", script]).done();
    let told = info(&output, &[]);
    assert!(number(&told, "lost_events") > 0, "{told:#}");
    counts_add_up(&told);
    let gaps = told["loss"].as_array().unwrap();
    let of_gaps: u64 = gaps.iter().map(|gap| number(gap, "lost_events")).sum();
    assert_eq!(of_gaps, number(&told, "lost_events"));
    let replayed = replay(&output, &["--check"]);
    assert_eq!(number(&replayed, "lost_events"), number(&told, "lost_events"));
}
