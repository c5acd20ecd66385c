//! Which way events come.

use crate::capture::Backend;
use crate::choice::Choice;
use crate::ftrace::TracefsBackend;
use crate::host::Host;
use crate::perf::{PerfBackend, Stacks};
use crate::record_error::RecordError;
use crate::room;
use crate::root::Root;
use crate::session::RecordOptions;
use crate::tracefs::Tracefs;

/// Which way events come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendChoice {
    /// tracefs where it may be used and no call chains are asked for, else perf.
    #[default]
    Auto,
    /// A tracing instance; perf counts beside it.
    Tracefs,
    /// `perf_event_open`.
    Perf,
}

impl std::str::FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "tracefs" => Ok(Self::Tracefs),
            "perf" => Ok(Self::Perf),
            _ => Err(format!("expected auto, tracefs or perf; found {text:?}")),
        }
    }
}

impl std::fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tracefs => "tracefs",
            Self::Perf => "perf",
        })
    }
}

/// Which tracepoints are counted beside the rings, to check them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Counting {
    /// All: *recorded + lost = counted* is known of each.
    #[default]
    All,
    /// All but those of slab objects, which are most events and most of the counting's cost.
    ButSlab,
    /// None.
    None,
}

impl std::str::FromStr for Counting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "but-slab" => Ok(Self::ButSlab),
            "none" => Ok(Self::None),
            _ => Err(format!("expected all, but-slab or none; found {text:?}")),
        }
    }
}

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::ButSlab => "but-slab",
            Self::None => "none",
        })
    }
}

/// Opens the rings of a recording, and says where they are not what would be best.
pub(crate) fn open(
    root: &Root,
    tracefs: &Tracefs,
    host: &Host,
    choice: &Choice,
    options: &RecordOptions,
) -> Result<(Box<dyn Backend>, Option<String>), RecordError> {
    let has_stacks = options.stacks != Stacks::None;
    let ring_bytes = options
        .ring_bytes
        .unwrap_or_else(|| room::ring_bytes(room::available_bytes(root), host.online_cpus.len()));
    let why = match options.backend {
        BackendChoice::Perf => None,
        BackendChoice::Tracefs if has_stacks => {
            return Err(RecordError::NoChains { stacks: options.stacks.to_string() });
        }
        BackendChoice::Auto if has_stacks => Some("call chains come through it".to_owned()),
        BackendChoice::Auto | BackendChoice::Tracefs => {
            let cpus = &host.online_cpus;
            let wanted = &choice.wanted;
            let counted = choice.counted(options.counting);
            match TracefsBackend::open(root, tracefs, cpus, wanted, ring_bytes, &counted) {
                Ok(backend) => return Ok((Box::new(backend), None)),
                Err(error) if options.backend == BackendChoice::Tracefs => return Err(error),
                Err(error) => Some(error.to_string()),
            }
        }
    };
    let backend = PerfBackend::open(
        &host.online_cpus,
        &choice.wanted,
        options.stacks,
        ring_bytes,
        host.page_size_bytes,
    )?;
    let note = why.map(|why| {
        format!("events came through perf, which some kernels let drop a few in silence: {why}")
    });
    Ok((Box::new(backend), note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_as_it_is_written() {
        for text in ["auto", "tracefs", "perf"] {
            assert_eq!(text.parse::<BackendChoice>().unwrap().to_string(), text);
        }
        assert!("ftrace".parse::<BackendChoice>().is_err());
        for text in ["all", "but-slab", "none"] {
            assert_eq!(text.parse::<Counting>().unwrap().to_string(), text);
        }
        assert!("some".parse::<Counting>().is_err());
    }
}
