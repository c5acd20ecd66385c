//! A disk that fills up ends the recording, and the recording says so.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::{
    Folder, Load, end_of, info, may_record, number, one_at_a_time, replay, skipped, start_recording,
};

/// A small disk, unmounted whatever happens.
struct SmallDisk {
    path: PathBuf,
    _folder: Folder,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = Folder::new("disk");
        let path = folder.join("disk");
        std::fs::create_dir(&path).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        let is_mounted = command.status().is_ok_and(|status| status.success());
        is_mounted.then_some(Self { path, _folder: folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn fills_up(size: &str, more: &[&str]) {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let Some(disk) = SmallDisk::mount(size) else {
        return skipped("no tmpfs can be mounted here");
    };
    let output = disk.path.join("full.kmt");
    let loads = [Load::start(), Load::start()];
    let ran = end_of(start_recording(&output, more), Duration::from_secs(60));
    drop(loads);
    ran.refused(&["no room left on the disk", "free some", "full.kmt", "events"]);
    let told = info(&output, &[]);
    assert_eq!(told["ended_by"], "disk full", "{told:#}");
    assert_eq!(told["ended_cleanly"], false, "{told:#}");
    assert!(number(&told, "events") > 0, "{told:#}");
    assert_eq!(number(&told, "damaged_batches"), 0, "{told:#}");
    assert_eq!(number(&replay(&output, &[]), "events"), number(&told, "events"));
}

#[test]
fn a_full_disk_ends_the_recording_and_is_told() {
    fills_up("6M", &[]);
}

#[test]
fn a_disk_full_of_snapshots_is_told_too() {
    fills_up("3M", &["--snapshot-every", "5ms", "--events", "slab"]);
}

/// Not even room for the files' beginnings.
#[test]
fn a_disk_that_is_full_from_the_start_is_told() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let Some(disk) = SmallDisk::mount("256K") else {
        return skipped("no tmpfs can be mounted here");
    };
    let output = disk.path.join("full.kmt");
    let ran = end_of(start_recording(&output, &["-d", "1s"]), Duration::from_secs(30));
    ran.refused(&["no room left on the disk", "free some"]);
}
