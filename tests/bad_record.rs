//! Recordings that cannot be made: exit 2, one sentence that says what to do, nothing left behind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Folder, KMEMLAB, Ran, is_root, kmemlab, may_record, one_at_a_time, run, skipped,
};
use crate::synthetic::{Ending, Synthetic, files};

fn record(output: &Path, more: &[&str]) -> Ran {
    let args = [OsStr::new("record"), OsStr::new("-o"), output.as_os_str()];
    kmemlab(args.into_iter().chain(more.iter().map(OsStr::new)))
}

#[test]
fn an_unknown_group_of_events_is_refused_with_those_that_are_known() {
    let folder = Folder::new("group");
    let output = folder.join("new.kmt");
    let words = ["pages", "page, slab, vmalloc"];
    record(&output, &["-d", "1ms", "--events", "slab,pages"]).refused(&words);
    assert!(!output.exists());
}

#[test]
fn a_command_that_is_not_there_leaves_nothing_behind() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("command");
    let output = folder.join("new.kmt");
    for name in ["kmemlab-no-such-command", "./none", "/proc/self/maps", "/"] {
        record(&output, &["--", name, "x"]).refused(&[name, "nothing was recorded", "check"]);
        assert!(!output.exists(), "{name}");
    }
}

#[test]
fn an_output_that_is_there_is_replaced_only_when_asked_and_only_a_recording() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("exists");
    let output = Synthetic::write(&folder.join("old.kmt"), Ending::Clean).path;
    let before = fs::read(output.join("manifest.json")).unwrap();
    record(&output, &["-d", "10ms"]).refused(&["old.kmt", "exists already", "--force"]);
    assert_eq!(fs::read(output.join("manifest.json")).unwrap(), before);
    record(&output, &["-d", "10ms", "--force"]).done();
    assert_ne!(fs::read(output.join("manifest.json")).unwrap(), before);

    let (home, file) = (folder.join("home"), folder.join("file"));
    fs::create_dir(&home).unwrap();
    fs::write(home.join("letter"), "dear").unwrap();
    fs::write(&file, "mine").unwrap();
    let link = folder.join("link.kmt");
    std::os::unix::fs::symlink(&output, &link).unwrap();
    for mine in [&home, &file, &link] {
        record(mine, &["-d", "10ms"]).refused(&["exists already"]);
        let words = ["is no kmemlab recording", "--force does not replace it"];
        record(mine, &["-d", "10ms", "--force"]).refused(&words);
    }
    assert_eq!(fs::read_to_string(home.join("letter")).unwrap(), "dear");
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    assert!(output.join("manifest.json").exists(), "a link's target was deleted");
}

#[test]
fn an_output_below_nothing_or_below_a_file_is_refused() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("below");
    fs::write(folder.join("file"), "mine").unwrap();
    for name in ["none/new.kmt", "file/new.kmt"] {
        record(&folder.join(name), &["-d", "10ms"]).refused(&["new.kmt", "check the path"]);
    }
}

/// A foreign `manifest.json` does not make a folder a recording.
#[test]
fn a_folder_with_a_foreign_manifest_is_not_deleted() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("foreign-force");
    let site = folder.join("site");
    fs::create_dir(&site).unwrap();
    fs::write(site.join("index.html"), "mine").unwrap();
    for manifest in [
        r#"{ "name": "app" }"#,
        r#"{ "format_version": 1, "tool": "another" }"#,
        r#"{ "format_version": "1", "tool": "kmemlab 0.1.0" }"#,
        "[]",
        "",
    ] {
        fs::write(site.join("manifest.json"), manifest).unwrap();
        let ran = record(&site, &["-d", "10ms", "--force"]);
        assert!(site.join("index.html").exists(), "--force deleted what is no recording: {ran:#?}");
        ran.refused(&["is no kmemlab recording"]);
    }
}

#[test]
fn without_rights_it_says_which() {
    let _one = one_at_a_time();
    if !is_root() {
        return skipped("it takes root to become nobody");
    }
    let folder = Folder::new("nobody");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(folder.path(), 0o777);
    let program = folder.join("kmemlab");
    fs::copy(KMEMLAB, &program).unwrap();
    mode(&program, 0o755);
    let output = folder.join("new.kmt");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["record", "-d", "10ms", "-o"]).arg(&output);
    run(&mut command).refused(&["root"]);
    assert!(!output.exists());
}

#[test]
fn without_tracefs_it_says_how_to_mount_it() {
    let _one = one_at_a_time();
    if !is_root() {
        return skipped("it takes root to hide tracefs");
    }
    let folder = Folder::new("tracefs");
    let output = folder.join("new.kmt");
    let script = "umount -l /sys/kernel/tracing 2>/dev/null; \
                  umount -l /sys/kernel/debug/tracing 2>/dev/null; \
                  umount -l /sys/kernel/debug 2>/dev/null; \
                  exec \"$0\" record -d 10ms -o \"$1\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, KMEMLAB]).arg(&output);
    run(&mut command).refused(&["tracefs", "mount -t tracefs nodev /sys/kernel/tracing"]);
    assert!(!output.exists());
}

/// A folder as a kernel's root: the tracepoints of a real 6.18 and a `/proc` that lacks nothing.
fn fixture(folder: &Folder) -> PathBuf {
    let root = folder.join("root");
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("collector/tests/kernels/6.18");
    copy_tree(&kernel.join("events"), &root.join("sys/kernel/tracing/events"));
    copy_tree(&kernel.join("proc"), &root.join("proc"));
    let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                  Max open files  1048576  1048576  files\n\
                  Max locked memory  unlimited  unlimited  bytes\n";
    for (file, text) in [
        ("proc/self/status", "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n"),
        ("proc/self/limits", limits),
        ("proc/kpageflags", "12345678"),
        ("proc/kallsyms", "ffffffff81000000 T _text\n"),
        ("proc/sys/kernel/perf_event_paranoid", "2\n"),
        ("proc/sys/kernel/perf_event_mlock_kb", "516\n"),
        ("proc/sys/kernel/kptr_restrict", "1\n"),
        ("sys/devices/system/cpu/online", "0-1\n"),
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn doctor(root: &Path) -> Ran {
    kmemlab([OsStr::new("doctor"), OsStr::new("--json"), OsStr::new("--root"), root.as_os_str()])
}

/// State and finding of one check.
#[track_caller]
fn finding(ran: &Ran, name: &str) -> (String, String) {
    let json = ran.json();
    let checks = json["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name} in {json:#}"));
    (check["state"].as_str().unwrap().into(), check["found"].as_str().unwrap().into())
}

#[test]
fn the_doctor_answers_no_on_an_empty_root_and_says_what_to_mount() {
    let folder = Folder::new("empty-root");
    let ran = doctor(folder.path());
    assert_eq!((ran.code(), ran.stderr.as_str()), (Some(1), ""), "{ran:#?}");
    assert_eq!(ran.json()["can_record"], false);
    assert_eq!(finding(&ran, "tracefs").0, "FAIL");
    assert!(ran.stdout.contains("mount -t tracefs nodev /sys/kernel/tracing"), "{ran:#?}");
    let text = kmemlab([OsStr::new("doctor"), OsStr::new("--root"), folder.path().as_os_str()]);
    assert_eq!(text.code(), Some(1));
    assert!(text.stdout.contains("mend: mount -t tracefs"), "{text:#?}");
}

#[test]
fn the_doctor_names_the_field_or_tracepoint_that_a_kernel_lacks() {
    let folder = Folder::new("doctor");
    let root = fixture(&folder);
    let ran = doctor(&root);
    assert_eq!((ran.code(), ran.stderr.as_str()), (Some(0), ""), "{ran:#?}");
    assert_eq!(finding(&ran, "kmem:mm_page_alloc").0, "ok");

    let events = root.join("sys/kernel/tracing/events");
    let lose_field = |event: &str, field: &str| {
        let path = events.join(event).join("format");
        let text = fs::read_to_string(&path).unwrap();
        let is_kept = |line: &&str| !line.contains(&format!(" {field};"));
        let kept: Vec<&str> = text.lines().filter(is_kept).collect();
        assert_eq!(kept.len() + 1, text.lines().count(), "{event} has one field {field}");
        fs::write(path, kept.join("\n") + "\n").unwrap();
    };
    lose_field("kmem/kmalloc", "bytes_req");
    fs::remove_dir_all(events.join("vmscan")).unwrap();
    let ran = doctor(&root);
    assert_eq!(ran.code(), Some(0), "what is optional is only a warning: {ran:#?}");
    let no_field = |name: &str| format!("this kernel's event has no field {name}");
    assert_eq!(finding(&ran, "kmem:kmalloc"), ("warn".to_owned(), no_field("bytes_req")));
    let none = ("warn".to_owned(), "this kernel has none".to_owned());
    assert_eq!(finding(&ran, "vmscan:mm_vmscan_direct_reclaim_begin"), none);

    lose_field("kmem/mm_page_alloc", "pfn");
    let ran = doctor(&root);
    assert_eq!((ran.code(), ran.stderr.as_str()), (Some(1), ""), "{ran:#?}");
    assert_eq!(finding(&ran, "kmem:mm_page_alloc"), ("FAIL".to_owned(), no_field("pfn")));
    fs::remove_dir_all(events.join("kmem/mm_page_free")).unwrap();
    let ran = doctor(&root);
    assert_eq!(ran.code(), Some(1), "{ran:#?}");
    let none = ("FAIL".to_owned(), "this kernel has none".to_owned());
    assert_eq!(finding(&ran, "kmem:mm_page_free"), none);
}

/// With less than everything recorded, what is there can still be read and replayed.
#[test]
fn a_recording_of_one_group_is_whole() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("one-group");
    for group in ["slab", "page"] {
        let output = folder.join(format!("{group}.kmt"));
        record(&output, &["-d", "50ms", "--events", group]).done();
        assert!(files(&output).iter().any(|file| file.ends_with("events.arrows")));
        for command in ["info", "replay"] {
            kmemlab([OsStr::new(command), output.as_os_str()]).done();
        }
    }
}
