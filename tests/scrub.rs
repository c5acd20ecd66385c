//! A copy that may be handed on replays as the recording does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kmemlab_trace::{Column, Kind, Recording, format};
use serde_json::Value;

use crate::support::{Folder, info, kmemlab, replay, sample_traces};
use crate::synthetic::{Ending, Synthetic, flip};

fn scrub(from: &Path, to: &Path) {
    kmemlab([Path::new("scrub"), from, Path::new("-o"), to]).done();
}

/// A replay's answer without how fast it went and without addresses; how many of these there were.
fn told(recording: &Path, more: &[&str]) -> (Value, usize) {
    let mut told = replay(recording, more);
    let addresses = without(&mut told);
    (told, addresses)
}

fn without(value: &mut Value) -> usize {
    let is_dropped = |key: &str| {
        key.ends_with("events_per_second")
            || ["address", "direct_map_base", "learning_ns", "spent_ns"].contains(&key)
    };
    match value {
        Value::Object(object) => {
            let before = object.len();
            object.retain(|key, _| !is_dropped(key));
            before - object.len() + object.values_mut().map(without).sum::<usize>()
        }
        Value::Array(rows) => rows.iter_mut().map(without).sum(),
        _ => 0,
    }
}

/// Every kernel address of a recording.
fn addresses(recording: &Path) -> BTreeSet<u64> {
    let recording = Recording::open(recording, false).unwrap();
    let mut found = BTreeSet::new();
    for batch in recording.events().unwrap() {
        for event in batch.unwrap().iter() {
            if event.has(Column::PfnOrAddress) {
                found.insert(event.pfn_or_address);
            }
            if event.kind == Kind::VmapAlloc {
                found.extend(event.args[1..3].iter().map(|arg| arg.cast_unsigned()));
            }
        }
    }
    for (spec, columns) in
        [(&format::STACKS, 2..3), (&format::SYMBOLS, 0..1), (&format::VMALLOCINFO, 2..4)]
    {
        for batch in recording.table(spec).unwrap() {
            let batch = batch.unwrap();
            let rows = (0..batch.rows()).flat_map(|row| columns.clone().map(move |it| (row, it)));
            found.extend(rows.map(|(row, column)| batch.number(row, column)));
        }
    }
    found.retain(|number| (0xff00_0000_0000_0000..u64::MAX - 4095).contains(number));
    found
}

#[test]
fn the_sample_traces_replay_the_same_when_scrubbed() {
    let folder = Folder::new("scrub");
    for trace in sample_traces() {
        let copy = folder.join(trace.file_name().unwrap());
        scrub(&trace, &copy);
        for more in [&[][..], &["--stack"]] {
            let (before, after) = (told(&trace, more), told(&copy, more));
            assert!(before == after, "the copy of {} {more:?} differs", trace.display());
        }
        let (before, after) = (addresses(&trace), addresses(&copy));
        assert!(!before.is_empty() && before.len() == after.len(), "{}", trace.display());
        assert!(before.is_disjoint(&after), "{}", trace.display());
        let found = info(&copy, &[]);
        assert_eq!(found["privacy"], "scrubbed", "{found:#}");
        assert_eq!(found["command"].as_array().unwrap().len(), 0, "{found:#}");
        assert!(!copy.join("tasks.arrows").exists());
        let told = fs::read_to_string(copy.join("manifest.json")).unwrap();
        assert!(!told.contains("load"), "the recorded command was load.py or /load: {told}");
    }
}

#[test]
fn nothing_is_replaced_that_was_not_meant_to_be() {
    let folder = Folder::new("scrub-force");
    let whole = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    let other = folder.join("other.kmt");
    let [whole_text, other_text] = [&whole, &other].map(|path| path.to_str().unwrap());
    kmemlab(["scrub", whole_text]).refused(&["--output"]);
    kmemlab(["scrub", "/tmp", "-o", other_text]).refused(&["/tmp", "is no kmemlab recording"]);
    kmemlab(["scrub", whole_text, "-o", other_text]).done();
    kmemlab(["scrub", whole_text, "-o", other_text]).refused(&["other.kmt", "--force"]);
    kmemlab(["scrub", "--force", whole_text, "-o", other_text]).done();
    kmemlab(["scrub", "--force", whole_text, "-o", whole_text]).refused(&["another name"]);
    let folder_text = folder.path().to_str().unwrap();
    kmemlab(["scrub", "--force", whole_text, "-o", folder_text]).refused(&["is no kmemlab"]);
    flip(&whole.join("events.arrows"), 5_000);
    let third = folder.join("third.kmt");
    kmemlab(["scrub", whole_text, "-o", third.to_str().unwrap()]).refused(&["damaged"]);
    assert!(!third.exists());
}
