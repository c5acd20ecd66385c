//! Call chains, each once, with the numbers that events know them by.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Chains kept: a kernel has some ten thousand, and a recorder's memory must have an end.
const CHAINS_MAX: usize = 1 << 18;
/// Entries of a call chain from here up are marks of the kernel, not addresses
/// (`PERF_CONTEXT_MAX`).
const MARKS: u64 = (-4095i64).cast_unsigned();

/// A hasher for numbers that nobody chooses to collide: kernel addresses and cache names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

/// The numbers of call chains.
#[derive(Debug, Default)]
pub(crate) struct StackTable {
    call_sites: HashMap<u64, u32, BuildHasherDefault<Mix>>,
    chains: HashMap<Box<[u64]>, u32, BuildHasherDefault<Mix>>,
    fresh: Vec<(u32, Box<[u64]>)>,
    scratch: Vec<u64>,
    next: u32,
    refused: u64,
}

impl StackTable {
    /// The number of the chain that is one call site.
    #[inline]
    pub(crate) fn call_site(&mut self, address: u64) -> Option<u32> {
        if let Some(number) = self.call_sites.get(&address) {
            return Some(*number);
        }
        let number = self.add(&[address])?;
        self.call_sites.insert(address, number);
        Some(number)
    }

    /// The number of a call chain as the kernel wrote it; `None` when no address is in it.
    pub(crate) fn chain(&mut self, words: &[u8]) -> Option<u32> {
        let mut frames = std::mem::take(&mut self.scratch);
        frames.clear();
        frames.extend(
            words
                .chunks_exact(8)
                .map(|word| word.try_into().map_or(0, u64::from_ne_bytes))
                .filter(|address| *address < MARKS && *address != 0),
        );
        let number = match self.chains.get(frames.as_slice()) {
            Some(number) => Some(*number),
            None if frames.is_empty() => None,
            None => self.add(&frames).inspect(|number| {
                self.chains.insert(frames.as_slice().into(), *number);
            }),
        };
        self.scratch = frames;
        number
    }

    fn add(&mut self, frames: &[u64]) -> Option<u32> {
        if self.next as usize >= CHAINS_MAX {
            self.refused += 1;
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.fresh.push((number, frames.into()));
        Some(number)
    }

    /// The chains that are new since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<(u32, Box<[u64]>)> {
        std::mem::take(&mut self.fresh)
    }

    /// Events whose chain had no room.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Every address in any chain, ascending.
    pub(crate) fn addresses(&self) -> Vec<u64> {
        let chains = self.chains.keys().flat_map(|frames| frames.iter().copied());
        let all: BTreeSet<u64> = self.call_sites.keys().copied().chain(chains).collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(frames: &[u64]) -> Vec<u8> {
        frames.iter().flat_map(|frame| frame.to_ne_bytes()).collect()
    }

    #[test]
    fn each_chain_once_and_marks_are_no_frames() {
        let mut table = StackTable::default();
        let kernel_mark = (-128i64).cast_unsigned();
        let first = table.chain(&words(&[kernel_mark, 0xffff_1000, 0xffff_2000]));
        assert_eq!(first, Some(0));
        assert_eq!(table.chain(&words(&[0xffff_1000, 0xffff_2000])), Some(0));
        assert_eq!(table.chain(&words(&[kernel_mark])), None);
        assert_eq!(table.call_site(0xffff_1000), Some(1));
        assert_eq!(table.call_site(0xffff_1000), Some(1));
        let fresh = table.take_fresh();
        assert_eq!(fresh.len(), 2);
        assert_eq!(*fresh[0].1, [0xffff_1000, 0xffff_2000]);
        assert!(table.take_fresh().is_empty());
        assert_eq!(table.addresses(), [0xffff_1000, 0xffff_2000]);
    }
}
