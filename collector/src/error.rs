//! What can go wrong between us and the kernel's files: what was expected, what was found, what to
//! do.

use std::io;
use std::path::PathBuf;

/// A file of the kernel could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there.
    #[error("expected the file {}, found none; {mend}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        mend: &'static str,
    },
    /// The file is there, but not for us.
    #[error("expected to read {}, found that it is not permitted; {mend}", path.display())]
    Denied {
        /// The file.
        path: PathBuf,
        /// What to do.
        mend: &'static str,
    },
    /// The file is there and permitted, but reading it failed.
    #[error("expected to read {}, found an error: {source}; try again, then see the kernel's log", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read but not understood.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ParseError,
    },
    /// No tracefs where one should be.
    #[error(
        "expected tracefs at {}, found no events folder there nor at sys/kernel/debug/tracing; \
         run: mount -t tracefs nodev /sys/kernel/tracing",
        path.display()
    )]
    NoTracefs {
        /// The place looked at first.
        path: PathBuf,
    },
}

/// A text of the kernel is not laid out as any release that is known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// One line is wrong.
    #[error(
        "{file}, line {line}: expected {expected}, found {found:?}; if the kernel is newer than this \
         tool knows, report the line with the kernel's release"
    )]
    Line {
        /// The kernel's file.
        file: &'static str,
        /// Line, from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What does, cut at 80 characters.
        found: String,
    },
    /// Something that every release prints is not there.
    #[error("{file}: expected {expected}, found none; the text was cut short: read it again")]
    Absent {
        /// The kernel's file.
        file: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
}

impl Error {
    /// The error of a failed open or read of a path below the root.
    pub(crate) fn from_io(rel: &str, path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path, mend: mend_missing(rel) },
            io::ErrorKind::PermissionDenied => Self::Denied { path, mend: mend_denied(rel) },
            _ => Self::Read { path, source },
        }
    }

    /// Whether the file is simply not there: this kernel may have none.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// The kernel option behind a file that is missing.
fn mend_missing(rel: &str) -> &'static str {
    match rel {
        "proc/kpageflags" => {
            "this kernel lacks CONFIG_PROC_PAGE_MONITOR: record without the page map, or build it in"
        }
        "proc/slabinfo" => {
            "this kernel lacks CONFIG_SLUB_DEBUG: record without slab caches, or build it in"
        }
        "proc/vmallocinfo" => "this kernel lacks CONFIG_MMU: record without vmalloc areas",
        "proc/kallsyms" => "this kernel lacks CONFIG_KALLSYMS: record without symbols",
        _ if rel.starts_with("proc/") => "check that /proc is mounted: mount -t proc proc /proc",
        _ if rel.starts_with("sys/") => "check that /sys is mounted: mount -t sysfs sysfs /sys",
        _ => "check the path",
    }
}

/// The right behind a file that is not for us.
fn mend_denied(rel: &str) -> &'static str {
    if rel.starts_with("sys/kernel/") && rel.contains("tracing") {
        "tracefs is for root only: run as root, or with CAP_DAC_READ_SEARCH"
    } else {
        "run as root, or with CAP_DAC_READ_SEARCH"
    }
}

/// The start of a text that an error quotes.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_to_do() {
        let missing = Error::from_io(
            "proc/kpageflags",
            PathBuf::from("/proc/kpageflags"),
            io::Error::from_raw_os_error(libc::ENOENT),
        );
        assert!(missing.is_missing());
        assert_eq!(
            missing.to_string(),
            "expected the file /proc/kpageflags, found none; this kernel lacks \
             CONFIG_PROC_PAGE_MONITOR: record without the page map, or build it in"
        );
        for number in [libc::EPERM, libc::EACCES] {
            let denied = Error::from_io(
                "proc/slabinfo",
                PathBuf::from("/proc/slabinfo"),
                io::Error::from_raw_os_error(number),
            );
            assert!(denied.to_string().ends_with("run as root, or with CAP_DAC_READ_SEARCH"));
        }
    }
}
