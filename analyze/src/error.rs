//! What can go wrong with an export, each in one sentence that says what to do.

use std::io;
use std::path::PathBuf;

/// Trouble with an export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] kmemlab_trace::Error),
    /// A file of an export is there already.
    #[error(
        "{path} exists already, and an export mixes with no other; give another directory, or --force to replace the export there"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file stands where the directory should be.
    #[error("{path} is a file, a directory for the Parquet files was expected; give another name")]
    NotADirectory {
        /// What was asked for.
        path: PathBuf,
    },
    /// No room left while writing.
    #[error(
        "no room left on the disk while writing {path}; free some, or export to a directory on another disk"
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
    /// The Parquet writer refused something that this crate built itself.
    #[error("cannot encode {path}: {why}; this is a bug of kmemlab, please report it")]
    Encode {
        /// The file being written.
        path: PathBuf,
        /// What the Parquet writer said.
        why: String,
    },
}

impl Error {
    /// Wraps an error of the file system, telling a full disk apart from the rest.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { action, path, source },
        }
    }
}
