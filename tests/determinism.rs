//! A replay is a function of the recording.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Folder, kmemlab, number, replay, sample_traces};
use crate::synthetic::{Ending, Synthetic};

/// All that a replay tells, without how fast it went.
fn told(recording: &Path, more: &[&str]) -> Value {
    let mut told = replay(recording, more);
    for part in ["mirror", "model"] {
        let part = told[part].as_object_mut().unwrap();
        for key in ["events_per_second", "page_events_per_second"] {
            assert!(part.remove(key).is_some(), "no {key}");
        }
    }
    told
}

fn is_a_function(recording: &Path) {
    let first = told(recording, &[]);
    assert_eq!(first["digest"].as_str().unwrap().len(), 16, "{first:#}");
    assert_eq!(first, told(recording, &[]), "{}", recording.display());
    // Looking closer changes nothing, and finds no law broken.
    assert_eq!(first, told(recording, &["--check"]), "{}", recording.display());
}

#[test]
fn the_sample_traces_replay_the_same_twice() {
    for trace in sample_traces() {
        is_a_function(&trace);
    }
}

#[test]
fn the_synthetic_recordings_replay_the_same_twice() {
    let folder = Folder::new("determinism");
    for (name, ending) in [("whole.kmt", Ending::Clean), ("cut.kmt", Ending::CutOff)] {
        is_a_function(&Synthetic::write(&folder.join(name), ending).path);
    }
}

/// Where a recording lies and when it was written changes nothing either.
#[test]
fn equal_recordings_have_equal_digests() {
    let folder = Folder::new("equal");
    let of = |name: &str| told(&Synthetic::write(&folder.join(name), Ending::Clean).path, &[]);
    assert_eq!(of("one.kmt"), of("another.kmt"));
}

#[test]
fn every_release_s_rules_replay_the_synthetic_recording() {
    let folder = Folder::new("rules");
    let path: PathBuf = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    for rules in ["5.10", "5.15", "6.1", "6.6", "6.8", "6.12", "6.15", "6.18"] {
        let args = ["replay", "--check", "--rules", rules, path.to_str().unwrap()];
        kmemlab(args).done();
    }
}

/// Its events leave no freedom: see `synthetic.rs`.
#[test]
fn the_mirror_explains_the_synthetic_recording_exactly() {
    let folder = Folder::new("exact");
    let recording = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    let told = replay(&recording, &["--check"]);
    let samples = number(&told, "mirror.samples");
    assert!(samples >= crate::synthetic::BATCHES, "{told:#}");
    assert_eq!(number(&told, "mirror.exact_samples"), samples, "{told:#}");
    assert_eq!(number(&told, "mirror.wrong_pages"), 0, "{told:#}");
    assert_eq!(number(&told, "unmatched_frees"), 0, "{told:#}");
    assert_eq!(number(&told, "unmatched_allocs"), 0, "{told:#}");
    assert!(number(&told, "mirror.free_pages") > 0, "{told:#}");
}
