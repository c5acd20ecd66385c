//! The batches of one stream, read and checked through the index.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;

use crate::error::Error;
use crate::stream::IndexRow;

/// What is done about damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnDamage {
    /// The recording is refused.
    Refuse,
    /// The stream ends there: the recorder was cut off, and so may its last writes be.
    Stop,
    /// The batch is passed over.
    PassOver,
}

/// The units of one stream, with what becomes of the damaged ones.
#[derive(Debug)]
struct Units {
    path: PathBuf,
    file: Option<File>,
    rows: std::vec::IntoIter<IndexRow>,
    on_damage: OnDamage,
    damaged: u64,
}

impl Units {
    fn open(root: &Path, rows: Vec<IndexRow>, on_damage: OnDamage) -> Result<Self, Error> {
        let name = rows.first().map(|row| row.stream.clone()).unwrap_or_default();
        let path = root.join(&name);
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(_) if rows.is_empty() || on_damage == OnDamage::PassOver => None,
            Err(error) => return Err(Error::io("open", path, error)),
        };
        Ok(Self { path, file, rows: rows.into_iter(), on_damage, damaged: 0 })
    }

    fn damage(&self, row: &IndexRow, why: String) -> Error {
        Error::Damaged { path: self.path.clone(), offset: row.offset, why }
    }

    /// The file at the unit's first byte, if it reaches to its last one.
    fn seek(&self, row: &IndexRow) -> Result<&File, Error> {
        let unreadable = |error| Error::io("read", &self.path, error);
        let Some(mut file) = self.file.as_ref() else {
            return Err(self.damage(row, "the file is missing".to_owned()));
        };
        let have = file.metadata().map_err(unreadable)?.len();
        if row.offset.checked_add(row.length).is_none_or(|end| end > have) {
            let length = row.length;
            let why = format!("the index tells of {length} bytes there, the file ends at {have}");
            return Err(self.damage(row, why));
        }
        file.seek(SeekFrom::Start(row.offset)).map_err(unreadable)?;
        Ok(file)
    }

    fn read(&self, row: &IndexRow) -> Result<Vec<u8>, Error> {
        let mut file = self.seek(row)?;
        let length =
            usize::try_from(row.length).map_err(|error| self.damage(row, error.to_string()))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).map_err(|error| Error::io("read", &self.path, error))?;
        self.check(row, crc32fast::hash(&bytes))?;
        Ok(bytes)
    }

    fn check(&self, row: &IndexRow, crc: u32) -> Result<(), Error> {
        if crc == row.crc32 {
            return Ok(());
        }
        Err(self.damage(row, format!("checksum {crc:08x}, expected {:08x}", row.crc32)))
    }

    /// Whether the unit's bytes are those that were written; a piece of them at a time.
    fn verify(&self, row: &IndexRow) -> Result<(), Error> {
        let mut rest = self.seek(row)?.take(row.length);
        let mut crc = crc32fast::Hasher::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            match rest.read(&mut piece) {
                Ok(0) => return self.check(row, crc.finalize()),
                Ok(read) => crc.update(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path, error)),
            }
        }
    }

    /// Goes on after a unit that could not be read, or tells why that is not possible.
    fn pass_over(&mut self, row: &IndexRow, error: Error) -> Result<(), Error> {
        let is_over = match (self.on_damage, &error) {
            (OnDamage::PassOver, _) => {
                // A lost schema or dictionary takes all that follows with it.
                row.rows == 0 || row.has_dictionary
            }
            (OnDamage::Stop, Error::Damaged { .. }) => true,
            _ => return Err(error),
        };
        self.damaged += 1;
        if is_over {
            self.damaged += self.rows.by_ref().count() as u64;
        }
        Ok(())
    }
}

/// Checks every unit of a stream against the index. Returns how many are damaged, where that is no
/// error.
pub(crate) fn verify(root: &Path, rows: Vec<IndexRow>, on_damage: OnDamage) -> Result<u64, Error> {
    let mut units = Units::open(root, rows, on_damage)?;
    while let Some(row) = units.rows.next() {
        if let Err(error) = units.verify(&row) {
            units.pass_over(&row, error)?;
        }
    }
    Ok(units.damaged)
}

/// Reads the batches of one stream that the index vouches for.
#[derive(Debug)]
pub(crate) struct Batches {
    units: Units,
    decoder: StreamDecoder,
    /// First bytes of batches that are decoded for their dictionaries only, rising.
    unwanted: VecDeque<u64>,
}

impl Batches {
    pub(crate) fn open(
        root: &Path,
        rows: Vec<IndexRow>,
        on_damage: OnDamage,
    ) -> Result<Self, Error> {
        let units = Units::open(root, rows, on_damage)?;
        Ok(Self { units, decoder: StreamDecoder::new(), unwanted: VecDeque::new() })
    }

    /// As [`Self::open`], giving only the batches that are wanted.
    pub(crate) fn open_wanted(
        root: &Path,
        rows: Vec<(IndexRow, bool)>,
        on_damage: OnDamage,
    ) -> Result<Self, Error> {
        let unwanted = rows.iter().filter(|(_, is_wanted)| !is_wanted);
        let unwanted = unwanted.map(|(row, _)| row.offset).collect();
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        Ok(Self { unwanted, ..Self::open(root, rows, on_damage)? })
    }

    /// Batches that are left out because they are damaged.
    pub(crate) fn damaged(&self) -> u64 {
        self.units.damaged
    }

    fn read_unit(&mut self, row: &IndexRow) -> Result<Option<RecordBatch>, Error> {
        let mut buffer = Buffer::from_vec(self.units.read(row)?);
        let mut found = None;
        while !buffer.is_empty() {
            match self.decoder.decode(&mut buffer) {
                Ok(Some(batch)) => found = Some(batch),
                Ok(None) => {}
                Err(error) => return Err(self.units.damage(row, error.to_string())),
            }
        }
        Ok(found)
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = self.units.rows.next()?;
            let is_unwanted = self.unwanted.front() == Some(&row.offset);
            if is_unwanted {
                self.unwanted.pop_front();
            }
            match self.read_unit(&row) {
                Ok(Some(_)) if is_unwanted => {}
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(error) => {
                    if let Err(error) = self.units.pass_over(&row, error) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}
