//! What can go wrong with a recording, each in one sentence that says what to do.

use std::io;
use std::path::PathBuf;

/// A recording could not be made, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A check of the host failed.
    #[error("{name}: {found}{}", mend.as_ref().map_or_else(String::new, |mend| format!("; run: {mend}")))]
    Host {
        /// What was checked.
        name: String,
        /// What was found.
        found: String,
        /// The command that mends it.
        mend: Option<String>,
    },
    /// A file of the kernel could not be had.
    #[error(transparent)]
    Kernel(#[from] crate::error::Error),
    /// A tracepoint without which its group means nothing is not there.
    #[error(
        "kernel {release} has no tracepoint {tracepoint}, which --events {group} needs; record other \
         groups, or a kernel with CONFIG_TRACEPOINTS and this event"
    )]
    NoTracepoint {
        /// `system:event`.
        tracepoint: String,
        /// The group that needs it.
        group: &'static str,
        /// `uname -r`.
        release: String,
    },
    /// A tracepoint lacks a field without which it means nothing.
    #[error(
        "tracepoint {tracepoint} of kernel {release} has no field {field}{detail}; report its format \
         file, and record without --events {group} meanwhile"
    )]
    NoField {
        /// `system:event`.
        tracepoint: String,
        /// The field.
        field: String,
        /// What is wrong with it when it is there.
        detail: &'static str,
        /// The group that the tracepoint is in.
        group: &'static str,
        /// `uname -r`.
        release: String,
    },
    /// The kernel refused an event.
    #[error("cannot open {event} on processor {cpu}: {source}; {hint}")]
    Open {
        /// The event.
        event: String,
        /// Processor.
        cpu: u16,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: String,
    },
    /// The kernel refused something about open rings.
    #[error("cannot {action}: {source}; try again, then see the kernel's log")]
    Ring {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused something about the tracing instance.
    #[error("cannot {action} {}: {source}; {hint}", path.display())]
    Instance {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Call chains do not come through tracefs.
    #[error(
        "--stacks {stacks} needs perf, and --backend tracefs forbids it; record with --backend perf, \
         or without call chains"
    )]
    NoChains {
        /// Which chains were asked for.
        stacks: String,
    },
    /// The command to be recorded is not there. Nothing was recorded.
    #[error("no command {command} in PATH; nothing was recorded, check its name or give its path")]
    NoCommand {
        /// The command.
        command: String,
    },
    /// The command to be recorded did not start.
    #[error("cannot start {command}: {source}; check that it is a program and may be run")]
    Spawn {
        /// The command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// The recording itself could not be written.
    #[error(transparent)]
    Trace(#[from] kmemlab_trace::Error),
    /// Writing stopped in the midst; what was written before can be read.
    #[error(
        "{source}; the recording was stopped, and {} keeps the {events} events written until then",
        output.display()
    )]
    Cut {
        /// The recording.
        output: PathBuf,
        /// Events that it holds.
        events: u64,
        /// Why.
        source: Box<RecordError>,
    },
    /// A thread of the recorder is gone.
    #[error(
        "the recorder's {thread} thread stopped: {why}; this is a bug of kmemlab, please report it"
    )]
    Thread {
        /// Which.
        thread: &'static str,
        /// Why, as far as known.
        why: String,
    },
}

impl RecordError {
    /// The disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Trace(error) => error.is_disk_full(),
            Self::Cut { source, .. } => source.is_disk_full(),
            _ => false,
        }
    }
}
