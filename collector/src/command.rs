//! The command that a recording is made of.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::perf::sys;
use crate::record_error::RecordError;

/// Time that a command gets to end after it was asked to.
const END_TIME: Duration = Duration::from_secs(2);
const POLL_TIME: Duration = Duration::from_millis(10);

/// Finds the program of a command, so that a wrong name is told before anything is recorded.
pub(crate) fn find(command: &[OsString]) -> Result<Option<PathBuf>, RecordError> {
    let Some(program) = command.first() else { return Ok(None) };
    let path = env::var_os("PATH").unwrap_or_default();
    let found = if program.as_encoded_bytes().contains(&b'/') {
        Some(PathBuf::from(program)).filter(|path| is_program(path))
    } else {
        in_path(program, &path)
    };
    let command = || program.to_string_lossy().into_owned();
    found.map(Some).ok_or_else(|| RecordError::NoCommand { command: command() })
}

fn in_path(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    status: Option<i32>,
}

impl Running {
    /// Starts the command with the recorder's own input and output.
    pub(crate) fn start(program: &Path, command: &[OsString]) -> Result<Self, RecordError> {
        let child =
            Command::new(program).args(command.iter().skip(1)).spawn().map_err(|source| {
                RecordError::Spawn { command: program.display().to_string(), source }
            })?;
        Ok(Self { child, status: None })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status as a shell gives it, once it has ended.
    pub(crate) fn status(&mut self) -> Option<i32> {
        if self.status.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.status = Some(shell_status(status));
        }
        self.status
    }

    /// Asks the command to end if it has not, and waits a little for it.
    pub(crate) fn end(mut self) -> Option<i32> {
        if self.status().is_none() {
            sys::terminate(self.child.id());
            let until = Instant::now() + END_TIME;
            while self.status().is_none() && Instant::now() < until {
                std::thread::sleep(POLL_TIME);
            }
        }
        self.status
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn status_of(script: &str) -> Option<i32> {
        let command = words(&["sh", "-c", script]);
        let program = find(&command).unwrap().unwrap();
        let mut running = Running::start(&program, &command).unwrap();
        while running.status().is_none() {
            std::thread::sleep(POLL_TIME);
        }
        running.end()
    }

    #[test]
    fn the_status_is_the_shells() {
        assert_eq!(status_of("exit 7"), Some(7));
        assert_eq!(status_of("kill -9 $$"), Some(137));
    }

    #[test]
    fn a_command_that_goes_on_is_asked_to_end() {
        let command = words(&["sleep", "1000"]);
        let program = find(&command).unwrap().unwrap();
        assert_eq!(Running::start(&program, &command).unwrap().end(), Some(143));
    }

    #[test]
    fn a_wrong_name_is_told_before() {
        assert!(find(&[]).unwrap().is_none());
        for name in ["kmemlab-no-such-command", "/proc/self/maps", "/"] {
            let error = find(&words(&[name])).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
