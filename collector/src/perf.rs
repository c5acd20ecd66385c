//! Events through `perf_event_open`: on every processor one group of events and one ring.
//!
//! All events of a processor are in one perf group, so that turning the group on or off turns all
//! of them on or off at once, with interrupts off on that processor.
//!
//! Each event counts a hit before it looks for room in the ring, whatever becomes of it there, and
//! so for every tracepoint and processor *recorded + lost = counted*, exactly. (A second event that
//! only counts is less exact: the interrupt that turns a group off may land between the two.) Where
//! the sum does not hold, the kernel dropped events in silence, and the recording says so.
//!
//! A tracepoint that fires while perf already handles another of the same context (task, softirq,
//! interrupt) is dropped by the kernel before any of this and counted nowhere.

pub(crate) mod counting;
mod gaps;
mod group;
pub(crate) mod hopper;
pub(crate) mod priority;
mod record;
pub(crate) mod sys;

use std::os::fd::RawFd;
use std::time::Duration;

use kmemlab_trace::unit::{Cpu, Nanos};

use crate::capture::{Backend, Count, Sink};
use crate::record_error::RecordError;
use group::CpuGroup;

/// Smallest ring worth having.
const RING_BYTES_MIN: u64 = 64 << 10;
/// Largest ring that the kernel can map.
const RING_BYTES_MAX: u64 = 1 << 30;

/// Which events come with a kernel call chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stacks {
    /// None; the slab events still name their call site.
    #[default]
    None,
    /// One in so many of the allocations.
    Sampled(u32),
    /// Every allocation.
    All,
}

impl Stacks {
    /// One in this many where no number is given. Measured on a busy thread, beside 43 us of
    /// tracing for each of its rounds of 85 events: 5.5 us more, against 66 us more for every
    /// allocation's chain. That is why none is the default, and why every chain is seldom worth it.
    pub const SAMPLED_PERIOD: u32 = 100;
}

impl std::str::FromStr for Stacks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let period = match text {
            "none" => return Ok(Self::None),
            "all" => return Ok(Self::All),
            "sampled" => return Ok(Self::Sampled(Self::SAMPLED_PERIOD)),
            _ => text.strip_prefix("sampled:").and_then(|period| period.parse().ok()),
        };
        period.filter(|period| *period > 0).map(Self::Sampled).ok_or_else(|| {
            format!("expected none, sampled, sampled:N with N from 1, or all; found {text:?}")
        })
    }
}

impl std::fmt::Display for Stacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Sampled(period) => write!(f, "sampled:{period}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// A tracepoint to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// `system:event`, for messages.
    pub name: String,
    /// The kernel's number of it.
    pub id: u16,
    /// It allocates: call chains are for these.
    pub is_allocation: bool,
}

/// The perf backend: a group and a ring for each processor.
#[derive(Debug)]
pub struct PerfBackend {
    groups: Vec<CpuGroup>,
    fds: Vec<RawFd>,
    ring_bytes: u64,
}

impl PerfBackend {
    /// Opens every tracepoint on every processor; nothing is on yet. `ring_bytes` is rounded up to
    /// a power of two, and halved as long as the kernel refuses so much locked memory.
    ///
    /// # Errors
    /// The kernel refused an event, or even the smallest ring.
    pub fn open(
        cpus: &[Cpu],
        wanted: &[Wanted],
        stacks: Stacks,
        ring_bytes: u64,
        page_bytes: u64,
    ) -> Result<Self, RecordError> {
        let open_files = sys::OpenFiles::raise();
        let mut size = ring_bytes.clamp(RING_BYTES_MIN, RING_BYTES_MAX).next_power_of_two();
        loop {
            match Self::open_sized(cpus, wanted, stacks, size, page_bytes, open_files.limit()) {
                Err(RecordError::Open { source, .. })
                    if group::is_locked_memory(&source) && size > RING_BYTES_MIN =>
                {
                    size /= 2;
                }
                done => return done,
            }
        }
    }

    fn open_sized(
        cpus: &[Cpu],
        wanted: &[Wanted],
        stacks: Stacks,
        ring_bytes: u64,
        page_bytes: u64,
        open_files: u64,
    ) -> Result<Self, RecordError> {
        let setup = group::Setup { wanted, stacks, ring_bytes, page_bytes, open_files };
        let groups =
            cpus.iter().map(|cpu| CpuGroup::open(*cpu, &setup)).collect::<Result<Vec<_>, _>>()?;
        let fds = groups.iter().map(CpuGroup::fd).collect();
        Ok(Self { groups, fds, ring_bytes })
    }
}

impl Backend for PerfBackend {
    fn name(&self) -> &'static str {
        "perf"
    }

    fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    fn start(&mut self) -> Result<(), RecordError> {
        for group in &self.groups {
            group
                .enable()
                .map_err(|source| RecordError::Ring { action: "turn events on", source })?;
        }
        Ok(())
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), RecordError> {
        sys::wait_readable(&self.fds, at_most)
            .map_err(|source| RecordError::Ring { action: "wait for events", source })
    }

    fn drain(&mut self, until: Nanos, sink: &mut dyn Sink) -> u8 {
        let bytes = self.groups.iter_mut().map(|group| group.drain(until, sink)).max().unwrap_or(0);
        u8::try_from((bytes * 100 / self.ring_bytes).min(100)).unwrap_or(100)
    }

    fn stop(&mut self) -> Result<(), RecordError> {
        for group in &mut self.groups {
            group
                .disable()
                .map_err(|source| RecordError::Ring { action: "turn events off", source })?;
        }
        Ok(())
    }

    fn counts(&mut self, sink: &mut dyn Sink) -> Result<Vec<Count>, RecordError> {
        let mut counts = Vec::new();
        for group in &mut self.groups {
            group
                .counts(&mut counts, sink)
                .map_err(|source| RecordError::Ring { action: "read the counters", source })?;
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_read_as_they_are_written() {
        for text in ["none", "all", "sampled:7"] {
            assert_eq!(text.parse::<Stacks>().unwrap().to_string(), text);
        }
        assert_eq!("sampled".parse(), Ok(Stacks::Sampled(100)));
        for text in ["", "some", "sampled:", "sampled:0", "sampled:-1"] {
            assert!(text.parse::<Stacks>().is_err(), "{text}");
        }
    }
}
