//! One total order out of many rings.
//!
//! Each ring is nearly in order of time: an interrupt between a record's time and its place in the
//! ring can put a later one before it. Events of a round are sorted by (time, processor, place in
//! the ring); those that nothing still unread can come before are handed on, the rest waits.

use kmemlab_trace::unit::{Cpu, Nanos};

use crate::capture::{RawRecord, Role};
use crate::chunk::{Chunk, Key};

/// How much earlier than its place in the ring a record may be stamped: nested interrupts, and the
/// little by which processors' clocks differ.
pub(crate) const SLACK: Nanos = Nanos(2_000_000);
/// A chain and its event are some hundred nanoseconds apart; more, and an interrupt came between.
const CHAIN_GAP_NS: u64 = 200_000;
/// Chains of one processor waiting for their events: one for each level of interrupt.
const CHAINS_WAITING: usize = 4;

/// Sorts rounds of chunks.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    chunks: Vec<Chunk>,
    keys: Vec<Key>,
    /// The first chunk holds what the round before left over.
    has_rest: bool,
    /// Empty room for the rest of the next round: it and the one in use change places.
    room: Chunk,
}

impl Merger {
    /// Takes a chunk of the present round.
    pub(crate) fn take(&mut self, mut chunk: Chunk) {
        let index = u16::try_from(self.chunks.len()).unwrap_or(u16::MAX);
        self.keys.extend(chunk.keys.drain(..).map(|key| Key { chunk: index, ..key }));
        self.chunks.push(chunk);
    }

    /// Ends a round: hands over, in order, all records before that time; the rest is kept. Chunks
    /// that are empty now go to `recycle`.
    pub(crate) fn finish_round<E>(
        &mut self,
        before: Nanos,
        mut each: impl FnMut(RawRecord<'_>) -> Result<(), E>,
        mut recycle: impl FnMut(Chunk),
    ) -> Result<(), E> {
        // Stable: equal times of one processor stay in the order of its ring.
        self.keys.sort_by_key(|key| (key.time, key.cpu));
        let ready = self.keys.partition_point(|key| key.time < before);
        for key in &self.keys[..ready] {
            if let Some(record) = self.chunks[usize::from(key.chunk)].record(key) {
                each(record)?;
            }
        }
        let mut kept = std::mem::take(&mut self.room);
        for key in &self.keys[ready..] {
            if let Some(record) = self.chunks[usize::from(key.chunk)].record(key) {
                kept.push(record);
            }
        }
        self.keys.clear();
        for (index, mut chunk) in self.chunks.drain(..).enumerate() {
            chunk.clear();
            if index == 0 && self.has_rest {
                self.room = chunk;
            } else {
                recycle(chunk);
            }
        }
        self.has_rest = !kept.keys.is_empty();
        if self.has_rest {
            self.take(kept);
        } else {
            self.room = kept;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct Waiting {
    time: Nanos,
    raw: Vec<u8>,
    stack: u32,
    is_used: bool,
}

/// Finds the event that a sampled call chain belongs to.
#[derive(Debug, Default)]
pub(crate) struct ChainMatcher {
    waiting: Vec<[Waiting; CHAINS_WAITING]>,
    open: usize,
    matched: u64,
    unmatched: u64,
}

impl ChainMatcher {
    /// Keeps a chain until its event comes.
    pub(crate) fn keep(&mut self, cpu: Cpu, time: Nanos, raw: &[u8], stack: u32) {
        let cpu = usize::from(cpu.0);
        if self.waiting.len() <= cpu {
            self.waiting.resize_with(cpu + 1, Default::default);
        }
        // The free place, or the oldest one: its event was lost.
        let slots = &mut self.waiting[cpu];
        let slot = slots.iter_mut().min_by_key(|slot| (slot.is_used, slot.time));
        let Some(slot) = slot else { return };
        if slot.is_used {
            self.unmatched += 1;
        } else {
            self.open += 1;
        }
        slot.time = time;
        slot.raw.clear();
        slot.raw.extend_from_slice(raw);
        slot.stack = stack;
        slot.is_used = true;
    }

    /// The chain of this event, if one waits for it.
    #[inline]
    pub(crate) fn find(&mut self, record: &RawRecord<'_>) -> Option<u32> {
        if self.open == 0 || record.role != Role::Event {
            return None;
        }
        let slots = self.waiting.get_mut(usize::from(record.cpu.0))?;
        for slot in slots.iter_mut().filter(|slot| slot.is_used) {
            if record.time.0.saturating_sub(slot.time.0) > CHAIN_GAP_NS {
                slot.is_used = false;
                self.open -= 1;
                self.unmatched += 1;
            } else if slot.raw == record.bytes {
                slot.is_used = false;
                self.open -= 1;
                self.matched += 1;
                return Some(slot.stack);
            }
        }
        None
    }

    /// Chains that found their event, and those that did not.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.matched, self.unmatched + self.open as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u64, cpu: u16, byte: &[u8; 1]) -> RawRecord<'_> {
        let (time, cpu) = (Nanos(time), Cpu(cpu));
        RawRecord { cpu, time, bytes: byte, chain: &[], role: Role::Event }
    }

    fn round(merger: &mut Merger, chunks: Vec<Chunk>, before: u64) -> Vec<(u64, u16, u8)> {
        let taken = chunks.len();
        for chunk in chunks {
            merger.take(chunk);
        }
        let mut out = Vec::new();
        let mut recycled = 0;
        let done: Result<(), ()> = merger.finish_round(
            Nanos(before),
            |record| {
                out.push((record.time.0, record.cpu.0, record.bytes[0]));
                Ok(())
            },
            |chunk| {
                assert!(chunk.bytes.is_empty() && chunk.keys.is_empty());
                recycled += 1;
            },
        );
        assert!(done.is_ok());
        assert_eq!(recycled, taken, "as many chunks go back as came");
        out
    }

    fn chunk(records: &[RawRecord<'_>]) -> Chunk {
        let mut chunk = Chunk::default();
        records.iter().for_each(|record| chunk.push(*record));
        chunk
    }

    #[test]
    fn time_then_processor_then_place_in_the_ring() {
        let mut merger = Merger::default();
        let first = chunk(&[
            record(10, 1, b"a"),
            record(30, 1, b"b"),
            record(29, 1, b"c"),
            record(40, 1, b"d"),
            record(40, 1, b"e"),
        ]);
        let second = chunk(&[record(5, 0, b"f"), record(40, 0, b"g"), record(90, 0, b"h")]);
        let out = round(&mut merger, vec![first, second], 60);
        let order: Vec<u8> = out.iter().map(|(_, _, byte)| *byte).collect();
        assert_eq!(order, b"facbgde");
        let late = chunk(&[record(70, 1, b"i"), record(90, 1, b"j"), record(91, 1, b"k")]);
        let order: Vec<u8> =
            round(&mut merger, vec![late], u64::MAX).iter().map(|(_, _, byte)| *byte).collect();
        assert_eq!(order, b"ihjk");
    }

    #[test]
    fn what_waits_over_several_rounds_keeps_its_order() {
        let mut merger = Merger::default();
        assert!(round(&mut merger, vec![chunk(&[record(10, 0, b"a")])], 10).is_empty());
        assert!(round(&mut merger, vec![chunk(&[record(10, 0, b"b")])], 10).is_empty());
        let out = round(&mut merger, vec![chunk(&[record(10, 0, b"c")])], 11);
        assert_eq!(out, [(10, 0, b'a'), (10, 0, b'b'), (10, 0, b'c')]);
    }

    #[test]
    fn a_chain_finds_its_event_and_no_other() {
        let mut matcher = ChainMatcher::default();
        matcher.keep(Cpu(1), Nanos(100), b"x", 7);
        matcher.keep(Cpu(1), Nanos(110), b"y", 8);
        assert_eq!(matcher.find(&record(120, 0, b"x")), None);
        assert_eq!(matcher.find(&record(120, 1, b"z")), None);
        assert_eq!(matcher.find(&record(121, 1, b"y")), Some(8));
        assert_eq!(matcher.find(&record(130, 1, b"x")), Some(7));
        assert_eq!(matcher.find(&record(140, 1, b"x")), None);
        matcher.keep(Cpu(1), Nanos(200), b"x", 9);
        assert_eq!(matcher.find(&record(200 + CHAIN_GAP_NS + 1, 1, b"x")), None);
        assert_eq!(matcher.totals(), (2, 1));
    }
}
