//! The seam between where events come from and what is done with them.
//!
//! A [`Backend`] hands over each event as the kernel wrote it: processor, time, and the record's
//! own bytes, the common fields included. Everything behind the seam (layout, order, file) is the
//! same for every backend.

use std::time::Duration;

use kmemlab_trace::unit::{Cpu, Nanos};

use crate::record_error::RecordError;

/// What a raw record is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// An event of the recording.
    Event,
    /// The call chain of the event that follows: same processor, same bytes, a little later.
    ChainOfNext,
}

/// One event as the kernel wrote it.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Processor that wrote it.
    pub cpu: Cpu,
    /// `CLOCK_MONOTONIC` when it was written.
    pub time: Nanos,
    /// The tracepoint's record, common fields first; zeros may follow the last field.
    pub bytes: &'a [u8],
    /// Kernel call chain, innermost first, as native 64-bit words; may hold context markers.
    pub chain: &'a [u8],
    /// Event or only a chain.
    pub role: Role,
}

/// A gap in what one processor told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Whose ring had no room.
    pub cpu: Cpu,
    /// The last event known before the gap.
    pub from: Nanos,
    /// When the ring told of the gap.
    pub to: Nanos,
    /// Events missing.
    pub events: u64,
}

/// What the kernel counted for one tracepoint on one processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// Processor.
    pub cpu: Cpu,
    /// The kernel's number of the tracepoint.
    pub id: u16,
    /// Times that it fired, from a counter that drops nothing.
    pub counted: Option<u64>,
    /// Events that its ring had no room for; `None` where the kernel does not tell (before 6.0).
    pub lost: Option<u64>,
}

/// Takes what a backend drains.
pub trait Sink {
    /// One record. Within a processor they come nearly in order of time.
    fn record(&mut self, record: RawRecord<'_>);
    /// A gap.
    fn loss(&mut self, loss: Loss);
}

/// Somewhere events come from.
pub trait Backend: std::fmt::Debug {
    /// Its name in the manifest.
    fn name(&self) -> &'static str;
    /// Size of each ring.
    fn ring_bytes(&self) -> u64;
    /// Turns the events on. All are on when this returns.
    ///
    /// # Errors
    /// The kernel refused.
    fn start(&mut self) -> Result<(), RecordError>;
    /// Waits until some ring fills up, or for that long.
    ///
    /// # Errors
    /// Waiting is not possible.
    fn wait(&mut self, at_most: Duration) -> Result<(), RecordError>;
    /// Reads every ring up to an event of that time or to its end, and returns how full the fullest
    /// was, in percent.
    fn drain(&mut self, until: Nanos, sink: &mut dyn Sink) -> u8;
    /// Turns the events off. What is in the rings can still be drained.
    ///
    /// # Errors
    /// The kernel refused.
    fn stop(&mut self) -> Result<(), RecordError>;
    /// What the kernel counted; call it after [`Backend::stop`] and a last drain. Gaps that no ring
    /// could tell of any more go to the sink.
    ///
    /// # Errors
    /// A counter cannot be read.
    fn counts(&mut self, sink: &mut dyn Sink) -> Result<Vec<Count>, RecordError>;
    /// What it found out on the way and the recording should tell.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }
}
