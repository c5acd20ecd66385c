//! The per-CPU lists against `/proc/zoneinfo`.
//!
//! Which pages waited on the lists at the start no file tells, but how many: what the mirror lacks
//! at the first sample are pages that never leave their list. Every later count is compared.

use std::iter::Peekable;

use kmemlab_trace::reader::{ZoneSample, ZoneSamples};
use kmemlab_trace::unit::Cpu;

use super::Replay;
use crate::memory::Memory;
use crate::outcome::PcpCounts;

/// One count of the file: a zone's and a processor's.
#[derive(Clone, Copy, Debug)]
struct Count {
    zone: usize,
    cpu: usize,
    kernel: i64,
    /// The nearest that the mirror came while the file was read.
    off: i64,
}

#[derive(Debug)]
pub(super) struct OpenCounts {
    after_ns: u64,
    counts: Vec<Count>,
    grown: Vec<(usize, i64)>,
}

/// The samples, and what the lists held of unknown pages at the start.
#[derive(Debug)]
pub(super) struct Lists {
    samples: Peekable<ZoneSamples>,
    open: Option<OpenCounts>,
    /// By zone and processor; empty until the first sample.
    unknown: Vec<i64>,
    managed: Vec<i64>,
}

impl Lists {
    pub(super) fn new(samples: ZoneSamples) -> Self {
        Self { samples: samples.peekable(), open: None, unknown: Vec::new(), managed: Vec::new() }
    }

    /// When the next sample begins, or the one under way ends.
    pub(super) fn next_ns(&mut self) -> u64 {
        match &self.open {
            Some(open) => open.after_ns,
            None => self.begins(),
        }
    }

    fn begins(&mut self) -> u64 {
        let next = self.samples.peek().and_then(|sample| sample.as_ref().ok());
        next.map_or(u64::MAX, |sample| sample.stamp.before.0)
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Looks at the mirror while a sample is read.
    pub(super) fn look(&mut self, memory: &Memory) {
        let cpus = memory.machine().cpus;
        let Some(open) = &mut self.open else { return };
        for count in &mut open.counts {
            let unknown = self.unknown.get(count.zone * cpus + count.cpu).copied().unwrap_or(0);
            let off = memory.pcp_pages(count.zone, count.cpu) as i64 + unknown - count.kernel;
            if off.abs() < count.off.abs() {
                count.off = off;
            }
        }
    }

    fn open(&mut self, sample: &ZoneSample, memory: &Memory) {
        let machine = memory.machine();
        let (mut counts, mut grown) = (Vec::new(), Vec::new());
        for (zone, span) in machine.zones.iter().enumerate() {
            let of = |cpu, key| sample.value(span.node, &span.name, cpu, key);
            for cpu in 0..machine.cpus {
                if let Some(kernel) = of(Some(Cpu(cpu as u16)), "pcp_count") {
                    counts.push(Count { zone, cpu, kernel, off: i64::MAX });
                }
            }
            if let Some(managed) = of(None, "managed") {
                let before = self.managed.get(zone).copied().unwrap_or(managed);
                grown.push((zone, managed - before));
                self.managed.resize(machine.zones.len(), managed);
                self.managed[zone] = managed;
            }
        }
        self.open = Some(OpenCounts { after_ns: sample.stamp.after.0, counts, grown });
        self.look(memory);
    }

    fn close(&mut self, memory: &Memory, result: &mut PcpCounts) -> Vec<(usize, i64)> {
        let Some(open) = self.open.take() else { return Vec::new() };
        let machine = memory.machine();
        if self.unknown.is_empty() {
            self.unknown = vec![0; machine.zones.len() * machine.cpus];
            for count in &open.counts {
                self.unknown[count.zone * machine.cpus + count.cpu] = -count.off;
                result.unknown_pages += (-count.off).max(0) as u64;
            }
            return open.grown;
        }
        for count in &open.counts {
            let off = count.off.unsigned_abs();
            result.compared += 1;
            result.equal += u64::from(off == 0);
            result.wrong_pages += off;
            result.worst_pages = result.worst_pages.max(off);
        }
        open.grown
    }
}

impl Replay<'_> {
    /// Closes the count that time has passed, and opens those that it has reached.
    pub(super) fn lists_reached(&mut self, time: u64) {
        loop {
            if self.lists.open.as_ref().is_some_and(|open| time > open.after_ns) {
                let memory = self.mirror.memory();
                let grown = self.lists.close(memory, &mut self.outcome.mirror.pcp_counts);
                for (zone, pages) in grown {
                    self.steps.between(zone).grown_pages += pages;
                    self.outcome.mirror.new_pages += pages.max(0) as u64;
                }
            }
            if self.lists.is_open() || self.lists.begins() >= time {
                return;
            }
            let Some(Ok(sample)) = self.lists.samples.next() else { return };
            // Before the page map was whole the mirror knows no list.
            if sample.stamp.before.0 >= self.model_from {
                self.lists.open(&sample, self.mirror.memory());
            }
        }
    }
}
