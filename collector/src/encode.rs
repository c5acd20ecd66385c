//! The second thread: sorts, decodes, encodes and writes what the first one drained.
//!
//! The first thread must come back to the rings in time; compressing a batch or waiting for a disk
//! would keep it. Between the two is a queue of bounded length: when it is full the first thread
//! waits, the rings fill, and what does not fit is lost and counted.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use kmemlab_trace::batch::EventBatchBuilder;
use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::format::{LOSS, STACKS};
use kmemlab_trace::snapshot::Stamp;
use kmemlab_trace::table::Cell;
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::writer::RecordingWriter;

use crate::capture::{Loss, RawRecord, Role};
use crate::chunk::Chunk;
use crate::clock;
use crate::fault;
use crate::feed::Backlog;
use crate::layout::{Layout, Numbers};
use crate::merge::{ChainMatcher, Merger};
use crate::record_error::RecordError;
use crate::snapshots::Shot;
use crate::stacks::{Mix, StackTable};

/// Events of a full batch.
const BATCH_EVENTS: usize = 131_072;
/// Time after which a batch is written however few events it has.
const BATCH_NS: u64 = 1_000_000_000;

/// Work for the second thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// The events are on.
    Started(Started),
    /// Records of the present round.
    Chunk(Chunk),
    /// The rest of a round: all records before that time are complete now.
    Round(Chunk, Vec<Loss>, Nanos),
    /// A snapshot.
    Shot(Shot),
}

/// What is known once the events are on.
#[derive(Debug)]
pub(crate) struct Started {
    /// All are on since then.
    pub(crate) valid_from: Nanos,
    /// The recorder's threads.
    pub(crate) threads: Vec<u32>,
    /// How the first thread runs.
    pub(crate) priority: String,
}

/// What the second thread did.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) writer: RecordingWriter,
    /// Events on disk, by kind.
    pub(crate) recorded: Vec<u64>,
    /// Losses told of.
    pub(crate) lost: u64,
    /// Every address in a chain.
    pub(crate) addresses: Vec<u64>,
    /// Sampled chains that found their event, and that did not.
    pub(crate) chains: (u64, u64),
    /// Records that could not be decoded.
    pub(crate) undecoded: u64,
    /// Events whose chain had no room in the table.
    pub(crate) stacks_refused: u64,
    /// Why it stopped, if not because it was done.
    pub(crate) error: Option<RecordError>,
}

/// Numbers of names and call sites, without an allocation for one that is known.
#[derive(Debug, Default)]
struct Known {
    names: HashMap<Box<[u8]>, Option<u16>, BuildHasherDefault<Mix>>,
    stacks: StackTable,
}

struct Numbering<'a> {
    known: &'a mut Known,
    builder: &'a mut EventBatchBuilder,
}

impl Numbers for Numbering<'_> {
    #[inline]
    fn name(&mut self, name: &[u8]) -> Option<u16> {
        if let Some(number) = self.known.names.get(name) {
            return *number;
        }
        let number = self.builder.name(&String::from_utf8_lossy(name));
        self.known.names.insert(name.into(), number);
        number
    }

    #[inline]
    fn call_site(&mut self, address: u64) -> Option<u32> {
        self.known.stacks.call_site(address)
    }
}

/// The second thread's state.
#[derive(Debug)]
pub(crate) struct Encoder {
    writer: RecordingWriter,
    layout: Layout,
    builder: EventBatchBuilder,
    known: Known,
    merger: Merger,
    matcher: ChainMatcher,
    losses: Vec<Loss>,
    batch_since: Nanos,
    /// Events of the batch under way, by kind.
    batch_counts: Vec<u64>,
    recorded: Vec<u64>,
    lost: u64,
    undecoded: u64,
    bytes: Arc<AtomicU64>,
    backlog: Backlog,
    /// Chunks of the round under way.
    round_chunks: usize,
}

impl Encoder {
    /// `bytes` is kept at what is on disk; what is done is taken off `backlog`.
    pub(crate) fn new(
        writer: RecordingWriter,
        layout: Layout,
        bytes: Arc<AtomicU64>,
        backlog: Backlog,
    ) -> Self {
        Self {
            writer,
            layout,
            builder: EventBatchBuilder::new(),
            known: Known::default(),
            merger: Merger::default(),
            matcher: ChainMatcher::default(),
            losses: Vec::new(),
            batch_since: clock::now(),
            batch_counts: vec![0; Kind::ALL.len()],
            recorded: vec![0; Kind::ALL.len()],
            lost: 0,
            undecoded: 0,
            bytes,
            backlog,
            round_chunks: 0,
        }
    }

    /// Works until the queue is closed or writing fails. Empty chunks go back through `spare`.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>, spare: &SyncSender<Chunk>) -> Encoded {
        let mut error = None;
        while let Ok(job) = jobs.recv() {
            if let Err(failed) = self.work(job, spare) {
                error = Some(failed);
                break;
            }
        }
        if error.is_none() {
            error = self.write_batch().err();
        }
        Encoded {
            lost: self.lost,
            addresses: self.known.stacks.addresses(),
            chains: self.matcher.totals(),
            undecoded: self.undecoded,
            stacks_refused: self.known.stacks.refused(),
            writer: self.writer,
            recorded: self.recorded,
            error,
        }
    }

    fn work(&mut self, job: Job, spare: &SyncSender<Chunk>) -> Result<(), RecordError> {
        match job {
            Job::Started(started) => {
                let manifest = self.writer.manifest_mut();
                manifest.events_valid_from_ns = Some(started.valid_from.0);
                manifest.recorder_pids.clone_from(&started.threads);
                manifest.reader_priority = started.priority;
                self.layout.set_recorder(started.threads);
                self.writer.write_manifest()?;
            }
            Job::Chunk(chunk) => {
                self.round_chunks += 1;
                self.merger.take(chunk);
            }
            Job::Round(chunk, losses, before) => {
                self.merger.take(chunk);
                self.lost += losses.iter().map(|loss| loss.events).sum::<u64>();
                self.losses.extend(losses);
                self.finish_round(before, spare)?;
                let done = std::mem::take(&mut self.round_chunks) + 1;
                self.backlog.fetch_sub(done, Ordering::Relaxed);
            }
            Job::Shot(shot) => {
                shot.write(&mut self.writer)?;
                self.commit()?;
            }
        }
        Ok(())
    }

    fn finish_round(
        &mut self,
        before: Nanos,
        spare: &SyncSender<Chunk>,
    ) -> Result<(), RecordError> {
        let mut merger = std::mem::take(&mut self.merger);
        let done = merger.finish_round(
            before,
            |record| self.event(&record),
            // After a burst there are more than are needed: what finds no room is freed.
            |chunk| drop(spare.try_send(chunk)),
        );
        self.merger = merger;
        done?;
        if clock::now().0.saturating_sub(self.batch_since.0) >= BATCH_NS {
            self.write_batch()?;
        }
        Ok(())
    }

    #[inline]
    fn event(&mut self, record: &RawRecord<'_>) -> Result<(), RecordError> {
        if record.role == Role::ChainOfNext {
            if let Some(stack) = self.known.stacks.chain(record.chain) {
                self.matcher.keep(record.cpu, record.time, record.bytes, stack);
            }
            return Ok(());
        }
        let mut numbering = Numbering { known: &mut self.known, builder: &mut self.builder };
        let decoded = self.layout.decode(record.bytes, record.time, record.cpu, &mut numbering);
        let Some(mut event) = decoded else {
            self.undecoded += 1;
            return Ok(());
        };
        let chain = if record.chain.is_empty() {
            self.matcher.find(record)
        } else {
            self.known.stacks.chain(record.chain)
        };
        if let Some(stack) = chain {
            event.stack = stack;
            event.present |= Column::Stack.bit();
        }
        self.push(&event)
    }

    fn push(&mut self, event: &Event) -> Result<(), RecordError> {
        if self.builder.len() >= BATCH_EVENTS || !self.builder.takes(event.time) {
            self.write_batch()?;
        }
        self.builder.push(event);
        self.batch_counts[event.kind as usize] += 1;
        Ok(())
    }

    /// Writes the batch under way with the stacks and losses that came with it, and vouches for it.
    fn write_batch(&mut self) -> Result<(), RecordError> {
        self.batch_since = clock::now();
        let now = Stamp { before: self.batch_since, after: self.batch_since };
        let fresh = self.known.stacks.take_fresh();
        if !fresh.is_empty() {
            for (number, frames) in &fresh {
                for (depth, address) in frames.iter().enumerate() {
                    let cells = [
                        Cell::U64(u64::from(*number)),
                        Cell::U64(depth as u64),
                        Cell::U64(*address),
                    ];
                    self.writer.row(&STACKS, &cells)?;
                }
            }
            self.writer.flush_table(&STACKS, now)?;
        }
        if !self.losses.is_empty() {
            for loss in self.losses.drain(..) {
                let cells = [
                    Cell::U64(u64::from(loss.cpu.0)),
                    Cell::U64(loss.from.0),
                    Cell::U64(loss.to.0),
                    Cell::U64(loss.events),
                ];
                self.writer.row(&LOSS, &cells)?;
            }
            self.writer.flush_table(&LOSS, now)?;
        }
        self.writer.append_events(&mut self.builder)?;
        self.commit()?;
        fault::point("encoder");
        for (total, batch) in self.recorded.iter_mut().zip(&mut self.batch_counts) {
            *total += std::mem::take(batch);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), RecordError> {
        self.writer.commit()?;
        self.bytes.store(self.writer.bytes_written(), Ordering::Relaxed);
        Ok(())
    }
}
