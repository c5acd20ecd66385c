//! The command line's promises: help, keys, pipes.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Folder, KMEMLAB, at, info, kmemlab, number, replay, run};
use crate::synthetic::{Ending, Synthetic};

const COMMANDS: [&str; 7] = ["record", "info", "replay", "export", "top", "tui", "doctor"];

#[test]
fn help_and_version_are_answers() {
    let version = kmemlab(["--version"]).done();
    assert_eq!(version.stdout, format!("kmemlab {}\n", env!("CARGO_PKG_VERSION")));
    let help = kmemlab(["--help"]).done();
    assert_eq!(help.stderr, "");
    for command in COMMANDS {
        assert!(help.stdout.contains(&format!("  {command}")), "{command} is not in the help");
        for option in ["--help", "-h"] {
            let help = kmemlab([command, option]).done();
            assert!(help.stdout.contains(&format!("Usage: kmemlab {command}")), "{help:#?}");
            assert_eq!(help.stderr, "", "{help:#?}");
        }
    }
}

/// Lines for people fit an 80-column terminal's help.
#[test]
fn every_option_has_a_help() {
    for command in COMMANDS {
        let help = kmemlab([command, "-h"]).done().stdout;
        let mut lines = help.lines().peekable();
        while let Some(line) = lines.next() {
            let option = line.trim_start();
            if !option.starts_with('-') {
                continue;
            }
            let is_told = option.contains("  ")
                || lines.peek().is_some_and(|next| next.starts_with("          "));
            assert!(is_told, "kmemlab {command}: {line:?} has no help");
        }
    }
}

#[test]
fn info_has_its_keys() {
    let folder = Folder::new("info-keys");
    let recording = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    let told = info(&recording, &[]);
    for key in ["events", "lost_events", "counted_events"] {
        number(&told, key);
    }
    assert_eq!(number(&told, "events"), Synthetic::events());
    assert_eq!(number(&told, "counted_events"), Synthetic::events());
    assert_eq!(number(&told, "lost_events"), 0);
    assert!(told["bytes_per_event"].as_f64().unwrap() > 0.0);
    assert_eq!(told["ended_cleanly"], true);
    assert_eq!(told["kernel_release"], "6.18.0");
    let kinds = told["events_by_kind"].as_object().unwrap();
    let sum: u64 = kinds.values().filter_map(Value::as_u64).sum();
    assert_eq!(sum, Synthetic::events());
    assert!(told["call_sites"].to_string().contains("site_0+0x10"), "{told:#}");
}

const REPLAY_NUMBERS: [&str; 13] = [
    "mirror.samples",
    "mirror.exact_samples",
    "mirror.wrong_pages",
    "mirror.free_pages",
    "mirror.events_per_second",
    "model.order_error_mean_percent",
    "model.order_error_worst_percent",
    "model.pfn_exact_percent",
    "model.same_pageblock_percent",
    "model.events_per_second",
    "lost_events",
    "unmatched_frees",
    "events",
];

#[test]
fn replay_has_its_keys() {
    let folder = Folder::new("replay-keys");
    let recording = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    let told = replay(&recording, &[]);
    for key in REPLAY_NUMBERS {
        let value = at(&told, key).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value >= 0.0), "{key} is no number in {told:#}");
    }
    let digest = told["digest"].as_str().unwrap();
    assert!(u64::from_str_radix(digest, 16).is_ok(), "{digest}");
    assert_eq!(number(&told, "events"), Synthetic::events());
}

/// The texts for people and the JSON tell the same numbers.
#[test]
fn text_and_json_agree() {
    let folder = Folder::new("agree");
    let recording = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    let text = |command: &str| kmemlab([OsStr::new(command), recording.as_os_str()]).done().stdout;
    assert!(text("info").contains("2,400"), "{}", text("info"));
    let digest = replay(&recording, &[])["digest"].as_str().unwrap().to_owned();
    assert!(text("replay").contains(&format!("digest {digest}")));
}

#[test]
fn no_colours_and_no_line_ends_in_a_pipe() {
    let folder = Folder::new("plain");
    let recording = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    for command in ["info", "replay"] {
        for option in ["--json", "--salvage"] {
            let args = [OsStr::new(command), OsStr::new(option), recording.as_os_str()];
            let ran = kmemlab(args).done();
            assert!(!ran.stdout.contains('\u{1b}'), "{ran:#?}");
            assert!(ran.stdout.ends_with('\n') && ran.stderr.is_empty(), "{ran:#?}");
            assert!(ran.stdout.lines().all(|line| line.trim_end() == line), "{ran:#?}");
        }
    }
}

/// `kmemlab ... | head -1` is no error of ours.
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = Folder::new("pipe");
    let recording = Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path;
    let path = recording.to_str().unwrap();
    for args in [
        &["info", path][..],
        &["info", "--json", path],
        &["replay", path],
        &["replay", "--json", path],
        &["--help"],
        &["record", "--help"],
        &["doctor", "--root", "/"],
    ] {
        // A reader that is gone before the first byte: every write fails.
        let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = reader.stdin.take().unwrap();
        reader.wait().unwrap();
        let child = Command::new(KMEMLAB).args(args).stdout(pipe).stderr(Stdio::piped()).output();
        let output = child.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{args:?}");
    }
    let script = "\"$0\" info --json \"$1\" | head -1; exit \"${PIPESTATUS[0]}\"";
    let mut command = Command::new("bash");
    let ran = run(command.args(["-c", script, KMEMLAB, path]));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("{\n", ""), "{ran:#?}");
    assert_eq!(ran.code(), Some(0), "{ran:#?}");
}

/// A name that is no UTF-8 is a name.
#[test]
fn any_bytes_may_name_a_recording() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new("bytes");
    let path = folder.join(OsStr::from_bytes(b"caf\xe9 two words.kmt"));
    let recording = Synthetic::write(&path, Ending::Clean).path;
    for command in ["info", "replay"] {
        kmemlab([OsStr::new(command), OsStr::new("--json"), recording.as_os_str()]).done();
    }
    let gone = folder.join(OsStr::from_bytes(b"\xff.kmt"));
    kmemlab([OsStr::new("info"), gone.as_os_str()]).refused(&["is no kmemlab recording"]);
}
