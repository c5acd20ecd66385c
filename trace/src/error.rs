//! What can go wrong with a recording, each in one sentence that says what to do.

use std::io;
use std::path::PathBuf;

/// Trouble with a recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No directory, or no manifest in it.
    #[error(
        "{path} is no kmemlab recording ({found}); give the NAME.kmt directory that `kmemlab record -o` made"
    )]
    NotARecording {
        /// What was asked for.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// Written by a later kmemlab.
    #[error(
        "{path} has format version {found}, this kmemlab reads up to {known}; use the version of kmemlab that recorded it ({tool}) or newer"
    )]
    TooNew {
        /// The recording.
        path: PathBuf,
        /// Its format version.
        found: u64,
        /// The newest this reader knows.
        known: u64,
        /// The tool that wrote it.
        tool: String,
    },
    /// The manifest cannot be understood.
    #[error("{path} is damaged: {why}; copy the recording again from where it was made")]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A stream is not what the index says it is.
    #[error(
        "{path} is damaged at byte {offset}: {why}; copy the recording again, or read the batches that are whole with --salvage"
    )]
    Damaged {
        /// The stream's file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// The recording lacks a table that was asked for.
    #[error("{path} has no {table}; {hint}")]
    MissingTable {
        /// The recording.
        path: PathBuf,
        /// The table.
        table: String,
        /// What to do.
        hint: String,
    },
    /// The output is there already.
    #[error("{path} exists already; give another name, or --force to replace it")]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// `--force` on something that is not ours to delete.
    #[error(
        "{path} exists and is no kmemlab recording, so --force does not replace it; give another name"
    )]
    NotOursToReplace {
        /// The output.
        path: PathBuf,
    },
    /// The recording cannot be made fit to be handed on.
    #[error("{path} cannot be scrubbed: {why}")]
    Scrub {
        /// The recording.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// No room left while writing.
    #[error(
        "no room left on the disk while writing {path}; free some, or record to another disk with -o"
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// Any other trouble of the file system.
    #[error("cannot {action} {path}: {source}; check the path and its permissions")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Arrow refused something that this crate built itself.
    #[error("cannot encode {table}: {why}; this is a bug of kmemlab, please report it")]
    Encode {
        /// The table.
        table: String,
        /// What Arrow said.
        why: String,
    },
}

impl Error {
    /// Wraps an error of the file system, telling a full disk apart from the rest.
    #[must_use]
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { action, path, source },
        }
    }

    /// The disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}
