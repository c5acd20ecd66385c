//! Raw records on their way from the rings to the merger: copied once, kept as bytes.

use kmemlab_trace::unit::{Cpu, Nanos};

use crate::capture::{RawRecord, Role};

/// Where a copied record stands, and what it is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) time: Nanos,
    pub(crate) at: u32,
    pub(crate) length: u16,
    pub(crate) chain_words: u16,
    pub(crate) cpu: Cpu,
    /// Which of the merger's chunks; the merger sets it.
    pub(crate) chunk: u16,
    pub(crate) role: Role,
}

/// Copied records with their keys, in the order of the rings.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) keys: Vec<Key>,
}

impl Chunk {
    /// Copies a record.
    pub(crate) fn push(&mut self, record: RawRecord<'_>) {
        let (Ok(at), Ok(length), Ok(chain_words)) = (
            u32::try_from(self.bytes.len()),
            u16::try_from(record.bytes.len()),
            u16::try_from(record.chain.len() / 8),
        ) else {
            return;
        };
        self.bytes.extend_from_slice(record.bytes);
        self.bytes.extend_from_slice(&record.chain[..usize::from(chain_words) * 8]);
        self.keys.push(Key {
            time: record.time,
            at,
            length,
            chain_words,
            cpu: record.cpu,
            chunk: 0,
            role: record.role,
        });
    }

    /// The record of a key.
    #[inline]
    pub(crate) fn record(&self, key: &Key) -> Option<RawRecord<'_>> {
        let start = key.at as usize;
        let middle = start + usize::from(key.length);
        let end = middle + usize::from(key.chain_words) * 8;
        Some(RawRecord {
            cpu: key.cpu,
            time: key.time,
            bytes: self.bytes.get(start..middle)?,
            chain: self.bytes.get(middle..end)?,
            role: key.role,
        })
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }
}
