//! A tracing instance of our own: its ring, its clock and its events are nobody else's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::record_error::RecordError;
use crate::root::Root;
use crate::tracefs::Tracefs;

const FOLDER: &str = "instances";
const PREFIX: &str = "kmemlab-";
/// Room asked for at once: some of these files tell nothing to a second read.
const READ_BYTES: usize = 16 << 10;
/// Recorders of one process at the same time.
const OF_ONE_PROCESS: u32 = 16;
/// The kernel lets go of a ring a little after its last file is closed.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// An instance, gone when this is.
#[derive(Debug)]
pub(crate) struct Instance {
    folder: PathBuf,
}

impl Instance {
    /// Makes `instances/kmemlab-<pid>`, after those that killed recorders left are removed.
    pub(crate) fn make(root: &Root, tracefs: &Tracefs) -> Result<Self, RecordError> {
        let folder = tracefs.path().join(FOLDER);
        remove_stale(root, &folder);
        let pid = std::process::id();
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..OF_ONE_PROCESS {
            let name = match number {
                0 => format!("{PREFIX}{pid}"),
                _ => format!("{PREFIX}{pid}-{number}"),
            };
            let folder = folder.join(name);
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(Self { folder }),
                // Another recorder of this process, or of a dead one with this number that some
                // program still has open.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        Err(refused("make an instance in", &folder, last))
    }

    /// Sets one of its files.
    pub(crate) fn set(&self, rel: &str, value: &str) -> Result<(), RecordError> {
        let path = self.folder.join(rel);
        let written = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()));
        written.map_err(|source| refused("write", &path, source))
    }

    /// Sets a file that not every kernel has.
    pub(crate) fn set_if_there(&self, rel: &str, value: &str) -> Result<(), RecordError> {
        if self.folder.join(rel).exists() { self.set(rel, value) } else { Ok(()) }
    }

    /// The text of one of its files.
    pub(crate) fn read(&self, rel: &str) -> Result<String, RecordError> {
        let path = self.folder.join(rel);
        let mut text = String::with_capacity(READ_BYTES);
        let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
        read.map_err(|source| refused("read", &path, source))?;
        Ok(text)
    }

    /// Opens one of its files for reads that never wait.
    pub(crate) fn open(&self, rel: &str) -> Result<File, RecordError> {
        let path = self.folder.join(rel);
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        file.map_err(|source| refused("open", &path, source))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.set("tracing_on", "0");
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    thread::sleep(REMOVE_PAUSE);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::warn!("cannot remove {}: {error}", self.folder.display());
                    return;
                }
                _ => return,
            }
        }
        log::warn!("{} is still in use; the next recording removes it", self.folder.display());
    }
}

/// Removes what recorders left that were killed. An instance whose ring somebody reads is safe from
/// this: the kernel does not remove it.
fn remove_stale(root: &Root, folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(owner) else { continue };
        if pid != std::process::id() && !is_recorder(root, pid) {
            match fs::remove_dir(entry.path()) {
                Ok(()) => log::info!("removed {}, left by a recorder", entry.path().display()),
                Err(error) => log::info!("cannot remove {}: {error}", entry.path().display()),
            }
        }
    }
}

/// The process that an instance's name tells of, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let (pid, number) = rest.split_once('-').unwrap_or((rest, "0"));
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Whether that process lives and may be recording: its number may have gone to another program.
fn is_recorder(root: &Root, pid: u32) -> bool {
    let Ok(status) = root.read(&format!("proc/{pid}/status")) else { return false };
    let field = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        value.unwrap_or_default().trim_start()
    };
    // A killed one is a zombie until its parent looks after it.
    field("Name:").starts_with("kmemlab") && !field("State:").starts_with(['Z', 'X'])
}

fn refused(action: &'static str, path: &Path, source: io::Error) -> RecordError {
    let hint = match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "run as root, see lockdown, or record with --backend perf"
        }
        Some(libc::ENOMEM) => "there is not enough free memory for it: ask for a smaller --ring",
        Some(libc::ENOENT | libc::ENODEV) => "this kernel cannot do it: record with --backend perf",
        Some(libc::EBUSY) => "another tool holds it: end that tool, or record with --backend perf",
        _ => "try again, or record with --backend perf",
    };
    RecordError::Instance { action, path: path.to_owned(), source, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    #[test]
    fn a_name_tells_its_process() {
        assert_eq!(owner("kmemlab-12"), Some(12));
        assert_eq!(owner("kmemlab-12-3"), Some(12));
        for name in ["kmemlab", "kmemlab-", "kmemlab-x", "kmemlab-1-", "kmemlab-1-x", "perf-12"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn what_dead_recorders_left_is_removed_and_nothing_else() {
        let scratch = Scratch::new();
        let place = scratch.0.join("sys/kernel/tracing/instances");
        let own = format!("kmemlab-{}", std::process::id());
        // 10 lives and is a recorder, 11 lives and is none, 12 was killed, 13 is not there.
        scratch.write("proc/10/status", "Name:\tkmemlab\nState:\tS (sleeping)\n");
        scratch.write("proc/11/status", "Name:\tcat\nState:\tS (sleeping)\n");
        scratch.write("proc/12/status", "Name:\tkmemlab\nState:\tZ (zombie)\n");
        for pid in ["10", "10-1", "11", "12", "13"] {
            fs::create_dir_all(place.join(format!("kmemlab-{pid}"))).unwrap();
        }
        for name in ["other", &own] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        remove_stale(&scratch.0, &place);
        let left = scratch.0.names("sys/kernel/tracing/instances");
        let mut expected =
            vec!["kmemlab-10".to_owned(), "kmemlab-10-1".to_owned(), own, "other".to_owned()];
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn instances_of_one_process_have_names_of_their_own() {
        let scratch = Scratch::new();
        let place = scratch.0.join("sys/kernel/tracing");
        fs::create_dir_all(place.join(FOLDER)).unwrap();
        let tracefs = Tracefs::at(Root::new(&place));
        let first = Instance::make(&scratch.0, &tracefs).unwrap();
        let second = Instance::make(&scratch.0, &tracefs).unwrap();
        assert_ne!(first.folder, second.folder);
        let error = first.read("buffer_size_kb").unwrap_err().to_string();
        assert!(error.contains("buffer_size_kb") && error.contains("--backend perf"), "{error}");
    }
}
