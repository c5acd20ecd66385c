//! What is no recording, or none any more: exit 2 and one sentence that says what to do.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Folder, Ran, kmemlab, skipped};
use crate::synthetic::{Ending, Synthetic, copy, cut, files, flip};

/// The command lines that read a recording; an export goes beside the recording.
fn readers(recording: &Path) -> Vec<(&'static str, Vec<OsString>)> {
    let path = recording.as_os_str().to_owned();
    let plain = |command: &'static str| (command, vec![command.into(), path.clone()]);
    let mut readers = vec![plain("info"), plain("replay")];
    if cfg!(feature = "export") {
        let out = recording.with_extension("parquet").into_os_string();
        let args = vec!["export".into(), "--parquet".into(), out, "--force".into(), path.clone()];
        readers.push(("export", args));
    } else {
        skipped("kmemlab export, which this build lacks");
    }
    readers
}

/// Every command that reads refuses the recording, with these words.
#[track_caller]
fn all_refuse(recording: &Path, words: &[&str]) {
    for (command, args) in readers(recording) {
        kmemlab(&args).refused(words);
        if command != "export" {
            kmemlab(args.iter().map(OsString::as_os_str).chain([OsStr::new("--json")]))
                .refused(words);
        }
        assert!(!has_parquet(recording), "an export that failed left files behind");
    }
}

fn has_parquet(recording: &Path) -> bool {
    let out = recording.with_extension("parquet");
    fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some())
}

fn whole(folder: &Folder) -> PathBuf {
    Synthetic::write(&folder.join("whole.kmt"), Ending::Clean).path
}

fn edit_manifest(recording: &Path, from: &str, to: &str) {
    let path = recording.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_whole_recording_is_read_by_all() {
    let folder = Folder::new("whole");
    let recording = whole(&folder);
    for (_, args) in readers(&recording) {
        let ran = kmemlab(&args).done();
        assert_eq!(ran.stderr, "", "{ran:#?}");
        assert_ne!(ran.stdout, "", "{ran:#?}");
    }
}

#[test]
fn nothing_of_that_name() {
    let folder = Folder::new("nothing");
    all_refuse(&folder.join("none.kmt"), &["none.kmt", "there is nothing of that name", "give"]);
    let below_a_file = folder.join("file");
    fs::write(&below_a_file, "x").unwrap();
    all_refuse(&below_a_file.join("none.kmt"), &["none.kmt", "; "]);
}

#[test]
fn a_file_instead_of_a_directory() {
    let folder = Folder::new("file");
    let file = folder.join("perf.data");
    fs::write(&file, "PERFILE2").unwrap();
    all_refuse(&file, &["perf.data", "it is a file", "kmemlab record -o"]);
}

#[test]
fn a_directory_without_a_manifest() {
    let folder = Folder::new("no-manifest");
    let empty = folder.join("empty.kmt");
    fs::create_dir(&empty).unwrap();
    all_refuse(&empty, &["empty.kmt", "no manifest.json", "give"]);
    let recording = whole(&folder);
    fs::remove_file(recording.join("manifest.json")).unwrap();
    all_refuse(&recording, &["no manifest.json", "give"]);
}

#[test]
fn a_foreign_manifest() {
    let folder = Folder::new("foreign");
    for (name, text) in [
        ("web", r#"{ "name": "app", "icons": [] }"#),
        ("list", "[1, 2]"),
        ("text", r#"{ "format_version": "one" }"#),
    ] {
        let other = folder.join(name);
        fs::create_dir(&other).unwrap();
        fs::write(other.join("manifest.json"), text).unwrap();
        all_refuse(&other, &[name, "its manifest.json is not kmemlab's", "give"]);
    }
    for text in ["", "{", "\u{0}\u{0}", "no json"] {
        let other = folder.join("broken");
        let _ = fs::create_dir(&other);
        fs::write(other.join("manifest.json"), text).unwrap();
        all_refuse(&other, &["broken", "is damaged", "copy the recording again"]);
    }
}

#[test]
fn a_newer_format_names_both_versions_and_the_tool() {
    let folder = Folder::new("newer");
    let recording = whole(&folder);
    edit_manifest(&recording, "\"format_version\": 1", "\"format_version\": 23");
    edit_manifest(&recording, "kmemlab 0.0.0", "kmemlab 9.8.7");
    let words = ["format version 23", "reads up to 1", "kmemlab 9.8.7", "or newer"];
    all_refuse(&recording, &words);
    // Salvage is for damage, not for what was never understood.
    kmemlab([OsStr::new("info"), OsStr::new("--salvage"), recording.as_os_str()]).refused(&words);
}

#[test]
fn a_manifest_that_was_changed() {
    let folder = Folder::new("checksum");
    let recording = whole(&folder);
    edit_manifest(&recording, "\"kernel_release\": \"6.18.0\"", "\"kernel_release\": \"6.18.1\"");
    all_refuse(&recording, &["manifest.json", "checksum", "copy the recording again"]);
}

#[test]
fn a_cut_events_stream_of_a_whole_recording() {
    let folder = Folder::new("cut");
    let synthetic = Synthetic::write(&folder.join("cut.kmt"), Ending::Clean);
    let events = synthetic.path.join("events.arrows");
    for bytes in [synthetic.borders[5] + 10, synthetic.borders[5], 3, 0] {
        cut(&events, bytes);
        let ends = format!("the file ends at {bytes}");
        all_refuse(&synthetic.path, &["events.arrows", &ends, "--salvage"]);
    }
}

/// `info` vouches for the whole recording; the others need not look at what they do not use.
fn must_notice(command: &str, file: &Path) -> bool {
    let unused = ["stacks.arrows", "symbols.arrows", "tasks.arrows"];
    command != "replay" || !unused.iter().any(|name| file == Path::new(name))
}

#[test]
fn one_flipped_bit_in_any_file() {
    let folder = Folder::new("flip");
    let recording = whole(&folder);
    for file in files(&recording) {
        let harmed = folder.join("harmed.kmt");
        let _ = fs::remove_dir_all(&harmed);
        copy(&recording, &harmed);
        let size = fs::metadata(harmed.join(&file)).unwrap().len();
        // Within the last batch: the end mark behind it is outside of every batch.
        flip(&harmed.join(&file), size * 3 / 4);
        for (command, args) in readers(&harmed) {
            if !must_notice(command, &file) {
                kmemlab(args).done_or_refused();
                continue;
            }
            let name = file.file_name().unwrap().to_str().unwrap();
            let ran = kmemlab(args);
            assert_eq!(ran.code(), Some(2), "{command} does not notice {}", file.display());
            ran.refused(&[name, "damaged", "copy the recording again"]);
        }
    }
}

#[test]
fn a_missing_stream() {
    let folder = Folder::new("missing");
    let recording = whole(&folder);
    for file in files(&recording).into_iter().filter(|file| !file.ends_with("manifest.json")) {
        let harmed = folder.join("harmed.kmt");
        let _ = fs::remove_dir_all(&harmed);
        copy(&recording, &harmed);
        fs::remove_file(harmed.join(&file)).unwrap();
        for (command, args) in readers(&harmed) {
            let ran = kmemlab(args);
            if must_notice(command, &file) {
                assert_eq!(ran.code(), Some(2), "{command} does not miss {}", file.display());
                ran.refused(&[file.to_str().unwrap(), "; "]);
            } else {
                ran.done_or_refused();
            }
        }
    }
}

#[test]
fn rules_of_no_release() {
    let folder = Folder::new("rules");
    let recording = whole(&folder);
    let recording = recording.as_os_str();
    for release in ["newest", "", "6"] {
        let rules = format!("--rules={release}");
        let args = [OsStr::new("replay"), OsStr::new(&rules), recording];
        kmemlab(args).refused(&["no release", "6.18"]);
    }
}

fn export(recording: &Path, out: &Path, more: &[&str]) -> Ran {
    let args = [OsStr::new("export"), OsStr::new("--parquet"), out.as_os_str()];
    kmemlab(args.into_iter().chain([recording.as_os_str()]).chain(more.iter().map(OsStr::new)))
}

#[test]
fn an_export_replaces_nothing_unasked() {
    if !cfg!(feature = "export") {
        return skipped("kmemlab export, which this build lacks");
    }
    let folder = Folder::new("export");
    let recording = whole(&folder);
    let out = folder.join("out");
    export(&recording, &out, &[]).done();
    let before = fs::read(out.join("events.parquet")).unwrap();
    export(&recording, &out, &[]).refused(&["out/", "exists already", "--force"]);
    assert_eq!(fs::read(out.join("events.parquet")).unwrap(), before);
    export(&recording, &out, &["--force"]).done();
    let file = folder.join("a-file");
    fs::write(&file, "mine").unwrap();
    for more in [&[][..], &["--force"]] {
        export(&recording, &file, more).refused(&["a-file is a file", "give another name"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}

#[test]
fn an_export_without_the_feature_says_how_to_get_it() {
    if cfg!(feature = "export") {
        return skipped("this build has kmemlab export");
    }
    let folder = Folder::new("no-export");
    export(&whole(&folder), &folder.join("out"), &[]).refused(&["--no-default-features"]);
}

#[test]
fn a_command_line_that_is_wrong() {
    let cases: [&[&str]; 8] = [
        &[],
        &["rekord"],
        &["info"],
        &["info", "a.kmt", "b.kmt"],
        &["info", "--jason", "a.kmt"],
        &["replay", "--rules"],
        &["record", "-d", "5 parsecs"],
        &["record", "--stacks", "sampled:0"],
    ];
    for case in cases {
        kmemlab(case).refused(&[]);
    }
}
