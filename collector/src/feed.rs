//! The first thread's end of the queue: collects what a drain round yields and hands it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use kmemlab_trace::unit::Nanos;

use crate::capture::{Loss, RawRecord, Role, Sink};
use crate::chunk::Chunk;
use crate::encode::Job;

/// Bytes of records after which a chunk is handed on.
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks that were handed on and whose events are not encoded yet.
pub(crate) type Backlog = Arc<AtomicUsize>;

/// Takes records out of the rings and puts them into the queue, chunk by chunk.
#[derive(Debug)]
pub(crate) struct Feeder {
    jobs: SyncSender<Job>,
    spare: Receiver<Chunk>,
    backlog: Backlog,
    chunk: Chunk,
    losses: Vec<Loss>,
    events: u64,
    lost: u64,
    stalled: Duration,
    is_closed: bool,
}

impl Feeder {
    /// `spare` brings back chunks that were emptied; the other end takes off `backlog` what it has
    /// done.
    pub(crate) fn new(jobs: SyncSender<Job>, spare: Receiver<Chunk>, backlog: Backlog) -> Self {
        Self {
            jobs,
            spare,
            backlog,
            chunk: Chunk::default(),
            losses: Vec::new(),
            events: 0,
            lost: 0,
            stalled: Duration::ZERO,
            is_closed: false,
        }
    }

    /// Events drained so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Events lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Chunks that wait for the second thread or are under way there.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Time for which the rings were not drained because the queue was full.
    pub(crate) fn stalled(&self) -> Duration {
        self.stalled
    }

    /// Whether nobody takes work any more: writing failed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Puts any other work into the queue.
    pub(crate) fn send(&mut self, job: Job) {
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => {
                let start = Instant::now();
                self.is_closed |= self.jobs.send(job).is_err();
                self.stalled += start.elapsed();
            }
            Err(TrySendError::Disconnected(_)) => self.is_closed = true,
        }
    }

    /// Ends a round: every record before that time has been handed over. While the queue is full a
    /// small rest stays here and goes with the next round: many small jobs must not fill the queue.
    pub(crate) fn finish_round(&mut self, before: Nanos) {
        let rest = std::mem::take(&mut self.chunk);
        let losses = std::mem::take(&mut self.losses);
        self.backlog.fetch_add(1, Ordering::Relaxed);
        match self.jobs.try_send(Job::Round(rest, losses, before)) {
            Ok(()) => self.chunk = self.spare.try_recv().unwrap_or_default(),
            Err(TrySendError::Full(Job::Round(rest, losses, _))) => {
                self.backlog.fetch_sub(1, Ordering::Relaxed);
                self.chunk = rest;
                self.losses = losses;
            }
            Err(_) => self.is_closed = true,
        }
    }

    /// Ends the last round, however long the queue takes.
    pub(crate) fn finish(mut self) {
        let losses = std::mem::take(&mut self.losses);
        let rest = std::mem::take(&mut self.chunk);
        self.backlog.fetch_add(1, Ordering::Relaxed);
        self.send(Job::Round(rest, losses, Nanos(u64::MAX)));
    }

    fn exchange(&mut self) -> Chunk {
        let empty = self.spare.try_recv().unwrap_or_default();
        std::mem::replace(&mut self.chunk, empty)
    }
}

impl Sink for Feeder {
    fn record(&mut self, record: RawRecord<'_>) {
        self.events += u64::from(record.role == Role::Event);
        self.chunk.push(record);
        if self.chunk.bytes.len() >= CHUNK_BYTES {
            let full = self.exchange();
            self.backlog.fetch_add(1, Ordering::Relaxed);
            self.send(Job::Chunk(full));
        }
    }

    fn loss(&mut self, loss: Loss) {
        self.lost += loss.events;
        self.losses.push(loss);
    }
}
