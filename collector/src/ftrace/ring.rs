//! The ring of one processor.
//!
//! A full ring drops new events and counts them; it writes nothing about it. It is full up to the
//! end of a sub-buffer, and stays so until something is read: if events were dropped when a drain
//! begins, the gap stands right behind the events that are in the ring then. Dropped during a drain
//! (the reader is slower than the writers), they are in a gap of that drain's time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;

use kmemlab_trace::unit::{Cpu, Nanos};

use super::instance::Instance;
use super::window::CpuTally;
use crate::capture::{Loss, RawRecord, Role, Sink};
use crate::clock;
use crate::record_error::RecordError;
use crate::ring_page::{Missed, PageLayout};

/// No processor fills more of a ring than one byte in so many nanoseconds: an event of 40 bytes
/// takes it 100 ns and more.
const NS_PER_BYTE: u64 = 2;

/// What the kernel counted of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stats {
    /// Events waiting in it.
    entries: u64,
    /// Events that came out of it.
    read: u64,
    /// Events that had no room.
    dropped: u64,
    /// Events that were written over: none, by our options.
    overrun: u64,
    /// Events that interrupted others all around the ring.
    commit_overrun: u64,
}

impl Stats {
    fn parse(text: &str) -> Self {
        let number = |key: &str| -> u64 {
            let found = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
            found.unwrap_or(0)
        };
        Self {
            entries: number("entries:"),
            read: number("read events:"),
            dropped: number("dropped events:"),
            overrun: number("overrun:"),
            commit_overrun: number("commit overrun:"),
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.dropped + self.overrun + self.commit_overrun
    }
}

/// What a drain works with.
#[derive(Debug)]
pub(super) struct Drain<'a> {
    pub(super) layout: &'a PageLayout,
    pub(super) instance: &'a Instance,
    pub(super) ring_bytes: u64,
    pub(super) until: Nanos,
}

/// Events are missing, and the one behind them has not been read yet.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// It stands behind so many events.
    behind: u64,
    events: u64,
}

/// The ring of one processor.
#[derive(Debug)]
pub(super) struct CpuRing {
    cpu: Cpu,
    pipe: File,
    stats_file: String,
    events: u64,
    torn_pages: u64,
    last_event: Nanos,
    drained: Nanos,
    /// Lost events that are in a gap already.
    known_lost: u64,
    gaps: VecDeque<Gap>,
}

impl CpuRing {
    pub(super) fn open(instance: &Instance, cpu: Cpu) -> Result<Self, RecordError> {
        let folder = format!("per_cpu/cpu{}", cpu.0);
        Ok(Self {
            cpu,
            pipe: instance.open(&format!("{folder}/trace_pipe_raw"))?,
            stats_file: format!("{folder}/stats"),
            events: 0,
            torn_pages: 0,
            last_event: Nanos(0),
            drained: clock::now(),
            known_lost: 0,
            gaps: VecDeque::new(),
        })
    }

    pub(super) fn cpu(&self) -> Cpu {
        self.cpu
    }

    pub(super) fn file(&self) -> &File {
        &self.pipe
    }

    pub(super) fn stats(&self, instance: &Instance) -> Result<Stats, RecordError> {
        instance.read(&self.stats_file).map(|text| Stats::parse(&text))
    }

    /// Hands over events up to one of that time; returns the bytes read.
    pub(super) fn drain(
        &mut self,
        with: &Drain<'_>,
        page: &mut [u8],
        tally: &mut CpuTally<'_>,
        sink: &mut dyn Sink,
    ) -> u64 {
        let mut looked = self.drained;
        // Asking allocates memory in the kernel, which makes events: not where nothing can be lost.
        let start = clock::now();
        if start.0.saturating_sub(looked.0) / NS_PER_BYTE >= with.ring_bytes {
            if let Some((events, waiting)) = self.lost_since(with.instance) {
                self.gaps.push_back(Gap { behind: self.events + waiting, events });
            }
            looked = start;
        }
        let mut bytes = 0;
        // An error is the end too: there is nothing to be read now.
        while let Ok(length @ 1..) = self.pipe.read(page) {
            bytes += length as u64;
            self.take(with.layout, &page[..length], tally, sink);
            if self.last_event >= with.until {
                break;
            }
        }
        if bytes >= with.ring_bytes / 2
            && let Some((events, _)) = self.lost_since(with.instance)
        {
            sink.loss(self.loss(looked, clock::now(), events));
        }
        self.drained = clock::now();
        bytes
    }

    fn take(
        &mut self,
        layout: &PageLayout,
        bytes: &[u8],
        tally: &mut CpuTally<'_>,
        sink: &mut dyn Sink,
    ) {
        let Some(mut page) = layout.page(bytes) else {
            self.torn_pages += 1;
            return;
        };
        if self.gaps.front().is_some_and(|gap| gap.behind <= self.events) {
            let first = page.entries.clone().next().map_or(page.time, |entry| entry.time);
            self.close_gaps(self.events, first, sink);
        }
        if let Missed::Events(events) = page.missed {
            self.known_lost += events;
            sink.loss(self.loss(self.last_event, page.time, events));
        }
        for entry in page.entries.by_ref() {
            tally.count(entry.time, entry.bytes);
            sink.record(RawRecord {
                cpu: self.cpu,
                time: entry.time,
                bytes: entry.bytes,
                chain: &[],
                role: Role::Event,
            });
            self.events += 1;
            self.last_event = entry.time;
        }
        self.torn_pages += u64::from(page.entries.is_torn());
    }

    /// Events that were dropped since the last look, if any, and events that wait in the ring.
    fn lost_since(&mut self, instance: &Instance) -> Option<(u64, u64)> {
        let stats = self.stats(instance).ok()?;
        let events = stats.lost().saturating_sub(self.known_lost);
        self.known_lost += events;
        (events > 0).then_some((events, stats.entries))
    }

    /// Tells of the gaps that stand behind no more than so many events.
    fn close_gaps(&mut self, behind: u64, until: Nanos, sink: &mut dyn Sink) {
        while let Some(gap) = self.gaps.front().copied().filter(|gap| gap.behind <= behind) {
            self.gaps.pop_front();
            sink.loss(self.loss(self.last_event, until, gap.events));
        }
    }

    fn loss(&self, from: Nanos, to: Nanos, events: u64) -> Loss {
        // Nested interrupts may put a later time before an earlier one.
        Loss { cpu: self.cpu, from: from.min(to), to, events }
    }

    /// Tells of the last gap, after which no event came.
    pub(super) fn finish(&mut self, stats: &Stats, stopped: Nanos, sink: &mut dyn Sink) {
        self.close_gaps(u64::MAX, stopped, sink);
        let events = stats.lost().saturating_sub(self.known_lost);
        if events > 0 {
            self.known_lost += events;
            sink.loss(self.loss(self.drained.min(self.last_event), stopped, events));
        }
    }

    /// What is wrong with the ring, if anything is.
    pub(super) fn note(&self, stats: &Stats) -> Option<String> {
        let cpu = self.cpu.0;
        let Stats { read, entries, .. } = stats;
        if self.torn_pages > 0 {
            Some(format!("{} pages of processor {cpu}'s ring could not be read", self.torn_pages))
        } else if *read != self.events || *entries != 0 {
            let events = self.events;
            Some(format!(
                "processor {cpu}'s ring gave {events} events, and the kernel counts {read} read and \
                 {entries} left"
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "entries: 12\noverrun: 1\ncommit overrun: 2\nbytes: 480\n\
                         oldest event ts:  3862.304266\nnow ts:  3862.304266\n\
                         dropped events: 40\nread events: 99\n";

    #[test]
    fn stats_by_their_names() {
        let stats = Stats::parse(STATS);
        assert_eq!((stats.entries, stats.read, stats.lost()), (12, 99, 43));
        assert_eq!(Stats::parse(""), Stats::default());
    }
}
