//! A thread that dies ends the recording, and what was written until then can be read. The
//! recordings are of this machine: they need root and tracefs.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kmemlab_trace::Recording;

use super::{RecordOptions, record};
use crate::fault::armed;
use crate::progress::Control;
use crate::record_error::RecordError;

/// Far longer than a recording goes on without its thread.
const PLANNED: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(40);

/// Records with a thread that dies at that place; what `record` said, and the recording.
fn record_with(place: &'static str) -> Option<(RecordError, PathBuf)> {
    let may = fs::read_dir("/sys/kernel/tracing/events/kmem").is_ok()
        && fs::File::open("/proc/kpageflags").is_ok();
    if !may {
        return None;
    }
    let name = format!("kmemlab-fault-{}-{place}.kmt", std::process::id());
    let mut options = RecordOptions::new(std::env::temp_dir().join(name));
    options.force = true;
    options.duration = Some(PLANNED);
    options.snapshot_every = Duration::from_millis(1500);
    armed::arm(Some(place));
    let start = Instant::now();
    let error = record(&options, &Control::new()).unwrap_err();
    armed::arm(None);
    assert!(start.elapsed() < SOON, "it went on for {:?}", start.elapsed());
    Some((error, options.output))
}

fn events(recording: &Recording) -> u64 {
    recording.events().unwrap().map(|batch| batch.unwrap().len() as u64).sum()
}

#[test]
fn a_thread_that_dies_ends_the_recording() {
    let Some((error, output)) = record_with("snapshots") else { return };
    let text = error.to_string();
    assert!(matches!(error, RecordError::Cut { events: 1.., .. }), "{text}");
    assert!(text.contains("snapshots thread") && text.contains("injected"), "{text}");
    let recording = Recording::open(&output, false).unwrap();
    let end = recording.manifest().end.clone().unwrap();
    assert_eq!((end.reason.as_str(), end.events), ("error", events(&recording)));
    assert_eq!(recording.verify().unwrap(), 0);
    fs::remove_dir_all(&output).unwrap();

    let (error, output) = record_with("encoder").unwrap();
    let text = error.to_string();
    assert!(matches!(error, RecordError::Thread { .. }), "{text}");
    assert!(text.contains("encoder thread") && text.contains("injected"), "{text}");
    let recording = Recording::open(&output, false).unwrap();
    assert!(recording.manifest().end.is_none(), "nobody was left to end it");
    assert!(events(&recording) > 0 && recording.verify().unwrap() == 0);
    fs::remove_dir_all(&output).unwrap();
}
