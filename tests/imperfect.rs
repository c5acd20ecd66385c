//! Recordings that lack something: lost events in the middle, no page map.

use std::path::Path;

use serde_json::Value;

use crate::support::{Folder, at, kmemlab, number, replay};
use crate::synthetic::{BATCHES, Ending, Flaw, Synthetic};

/// Rows of residue of a cause.
fn rows(replayed: &Value, cause: &str) -> u64 {
    let sums = at(replayed, "mirror.residue_by_cause").and_then(Value::as_array).unwrap();
    sums.iter().filter(|sum| sum["cause"] == cause).map(|sum| number(sum, "rows")).sum()
}

#[track_caller]
fn text(recording: &Path) -> String {
    kmemlab(["replay", recording.to_str().unwrap()]).done().stdout
}

#[test]
fn a_whole_recording_leaves_no_residue() {
    let folder = Folder::new("whole");
    let path = folder.join("whole.kmt");
    Synthetic::write(&path, Ending::Clean);
    let replayed = replay(&path, &["--check"]);
    assert_eq!(number(&replayed, "mirror.samples"), number(&replayed, "mirror.exact_samples"));
    assert_eq!(replayed["mirror"]["residue_by_cause"], Value::Array(Vec::new()));
    assert_eq!(replayed["mirror"]["unsure"], Value::Array(Vec::new()));
    assert_eq!(number(&replayed, "mirror.wrong_pages"), 0);
    let lists = number(&replayed, "mirror.pcp_counts_compared");
    assert!(lists > 0);
    assert_eq!(number(&replayed, "mirror.pcp_counts_equal"), lists);
    assert!(text(&path).contains("Residue: none"), "{}", text(&path));
}

#[test]
fn lost_events_make_an_interval_unsure_and_the_next_sample_ends_it() {
    let folder = Folder::new("gap");
    let path = folder.join("gap.kmt");
    let gap = Synthetic::write_flawed(&path, Flaw::Gap(5)).gap.unwrap();
    let replayed = replay(&path, &["--check"]);
    assert_eq!(number(&replayed, "lost_events"), gap.lost_events);
    let intervals = at(&replayed, "mirror.unsure").and_then(Value::as_array).unwrap();
    assert_eq!(intervals.len(), 1, "{replayed:#}");
    let interval = &intervals[0];
    assert_eq!(number(interval, "from_ns"), gap.from_ns);
    assert_eq!(number(interval, "lost_events"), gap.lost_events);
    let until_ns = number(interval, "until_ns");
    assert!(until_ns > gap.to_ns && until_ns < gap.to_ns + 10_000, "{interval:#}");
    // Blocks had to move: a hundred events were lost.
    let moved = number(interval, "removed_pages") + number(interval, "added_pages");
    assert!(moved > 0, "{interval:#}");
    assert!(rows(&replayed, "lost_events") > 0, "{replayed:#}");
    // Before the gap nothing was wrong, and the gap's own sample was.
    let exact = number(&replayed, "mirror.exact_samples");
    assert!((5..BATCHES).contains(&exact), "{replayed:#}");
    let told = text(&path);
    assert!(told.contains("Unsure: 100 events are lost"), "{told}");
}

#[test]
fn without_a_page_map_the_counts_of_the_first_sample_are_the_start() {
    let folder = Folder::new("no-map");
    let path = folder.join("no-map.kmt");
    Synthetic::write_flawed(&path, Flaw::NoPageMap);
    let replayed = replay(&path, &["--check"]);
    assert_eq!(number(&replayed, "mirror.samples"), BATCHES, "{replayed:#}");
    assert_eq!(replayed["mirror"]["wrong_pages"], Value::Null);
    let notes = replayed["notes"].to_string();
    assert!(notes.contains("made-up places"), "{notes}");
    // Nearly all of the machine is free at the start: half of it must not be lost on the way.
    let last = &replayed["last_sample"]["zones"][0];
    let pages = |key: &str| {
        let blocks = last[key].as_array().unwrap();
        blocks.iter().enumerate().map(|(n, free)| free.as_u64().unwrap() << n).sum::<u64>()
    };
    let (kernel, mirror) = (pages("kernel_free_blocks"), pages("mirror_free_blocks"));
    assert!(mirror.abs_diff(kernel) * 2 < kernel, "{mirror} instead of {kernel} pages");
}
