//! `index.crc`: the checksums of the index, so that nothing of it is decoded on trust.
//!
//! One row of 20 bytes for each part of the index (its schema, then each of its batches), written
//! right after the part: offset and length (64 bits each) and CRC-32 (32 bits), little-endian.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::format::INDEX_CRC;
use crate::stream::IndexRow;

const ROW_BYTES: usize = 20;

/// Writes the file, row by row.
#[derive(Debug)]
pub(crate) struct Checksums {
    path: PathBuf,
    file: File,
    whole_bytes: u64,
    has_failed: bool,
}

impl Checksums {
    pub(crate) fn create(root: &Path) -> Result<Self, Error> {
        let path = root.join(INDEX_CRC);
        let file = crate::writer::create_private(&path)?;
        Ok(Self { path, file, whole_bytes: 0, has_failed: false })
    }

    /// Adds the row of a part; on an error the file is cut back and stays as it was.
    pub(crate) fn append(&mut self, part: &IndexRow) -> Result<(), Error> {
        if self.has_failed {
            return Err(Error::io("write", &self.path, crate::stream::failed_before()));
        }
        let mut row = [0; ROW_BYTES];
        row[..8].copy_from_slice(&part.offset.to_le_bytes());
        row[8..16].copy_from_slice(&part.length.to_le_bytes());
        row[16..].copy_from_slice(&part.crc32.to_le_bytes());
        if let Err(error) = self.file.write_all(&row) {
            self.has_failed = true;
            let _ = self.file.set_len(self.whole_bytes);
            return Err(Error::io("write", &self.path, error));
        }
        self.whole_bytes += ROW_BYTES as u64;
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|error| Error::io("write", &self.path, error))
    }

    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }
}

/// How many bytes of the index its checksums vouch for, from its beginning: up to the first part
/// that is not as it was written.
pub(crate) fn vouched_bytes(checksums: &[u8], index: &[u8]) -> usize {
    let mut vouched = 0;
    let (rows, _) = checksums.as_chunks::<ROW_BYTES>();
    for row in rows {
        let (offset, rest) = row.split_at(8);
        let (length, crc) = rest.split_at(8);
        let number = |bytes: &[u8]| {
            bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let end = number(offset).checked_add(number(length));
        let end = end.and_then(|end| usize::try_from(end).ok());
        let part = end.and_then(|end| index.get(vouched..end));
        let is_next = number(offset) == vouched as u64 && number(length) > 0;
        match part {
            Some(part) if is_next && u64::from(crc32fast::hash(part)) == number(crc) => {
                vouched += part.len();
            }
            _ => break,
        }
    }
    vouched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(offset: u64, part: &[u8]) -> Vec<u8> {
        let crc = crc32fast::hash(part).to_le_bytes();
        [&offset.to_le_bytes()[..], &(part.len() as u64).to_le_bytes(), &crc].concat()
    }

    #[test]
    fn nothing_after_the_first_mismatch_is_vouched_for() {
        let index = b"schemabatch1batch2end";
        let rows = [row(0, b"schema"), row(6, b"batch1"), row(12, b"batch2")];
        let vouched = |checksums: &[u8]| vouched_bytes(checksums, index);
        assert_eq!(vouched(&rows.concat()), 18);
        assert_eq!(vouched(&rows.concat()[..59]), 12);
        assert_eq!(vouched(&[]), 0);
        // Zeros are no part: after a power loss a file may have its length and not its bytes.
        assert_eq!(vouched(&[0; 40]), 0);
        assert_eq!(vouched(&[rows[0].clone(), vec![0; 20], rows[1].clone()].concat()), 6);
        // A gap, a part past the end, and a number that is too large.
        assert_eq!(vouched(&[rows[0].clone(), rows[2].clone()].concat()), 6);
        assert_eq!(vouched_bytes(&rows.concat(), &index[..17]), 12);
        assert_eq!(vouched(&[0xff; 20]), 0);
        let mut flipped = *index;
        flipped[7] ^= 1;
        assert_eq!(vouched_bytes(&rows.concat(), &flipped), 6);
    }
}
