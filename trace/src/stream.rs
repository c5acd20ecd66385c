//! One Arrow IPC stream on disk, written batch by batch with a checksum, read batch by batch
//! through the index.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use crate::error::Error;

/// One row of the index: a batch that is whole on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IndexRow {
    /// File of the stream, relative to the recording.
    pub stream: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// CRC-32 of those bytes.
    pub crc32: u32,
    /// Rows; 0 for the schema.
    pub rows: u64,
    /// Time of the first row, nanoseconds.
    pub first_time_ns: u64,
    /// Time of the last row, nanoseconds.
    pub last_time_ns: u64,
    /// Dictionaries precede the batch.
    pub has_dictionary: bool,
}

/// A file that counts and checksums what is written to it.
#[derive(Debug)]
struct Tally {
    file: File,
    offset: u64,
    crc: crc32fast::Hasher,
}

impl Write for Tally {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.offset += written as u64;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes one stream.
pub(crate) struct Stream {
    name: &'static str,
    path: PathBuf,
    writer: StreamWriter<io::BufWriter<Tally>>,
    whole_bytes: u64,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Stream {
    /// Creates the file and writes the schema; the first index row comes back with it.
    pub(crate) fn create(
        root: &Path,
        name: &'static str,
        schema: &SchemaRef,
    ) -> Result<(Self, IndexRow), Error> {
        let path = root.join(name);
        let file = crate::writer::create_private(&path)?;
        let tally = Tally { file, offset: 0, crc: crc32fast::Hasher::new() };
        let encode = |error: ArrowError| arrow_error(name, &path, error);
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::ZSTD))
            .map_err(encode)?;
        let buffered = io::BufWriter::with_capacity(256 << 10, tally);
        let writer =
            StreamWriter::try_new_with_options(buffered, schema, options).map_err(encode)?;
        let mut stream = Self { name, path, writer, whole_bytes: 0 };
        let row = stream.close_unit(0, 0, 0, false)?;
        Ok((stream, row))
    }

    /// Appends a batch; on any error the file is cut back to its last whole batch.
    pub(crate) fn append(
        &mut self,
        batch: &RecordBatch,
        first_time_ns: u64,
        last_time_ns: u64,
        has_dictionary: bool,
    ) -> Result<IndexRow, Error> {
        let rows = batch.num_rows() as u64;
        let written = self
            .writer
            .write(batch)
            .map_err(|error| arrow_error(self.name, &self.path, error))
            .and_then(|()| self.close_unit(rows, first_time_ns, last_time_ns, has_dictionary));
        if written.is_err() {
            let _ = self.writer.get_ref().get_ref().file.set_len(self.whole_bytes);
        }
        written
    }

    fn close_unit(
        &mut self,
        rows: u64,
        first_time_ns: u64,
        last_time_ns: u64,
        has_dictionary: bool,
    ) -> Result<IndexRow, Error> {
        let buffered = self.writer.get_mut();
        buffered.flush().map_err(|error| Error::io("write", &self.path, error))?;
        let tally = buffered.get_mut();
        let row = IndexRow {
            stream: self.name.to_owned(),
            offset: self.whole_bytes,
            length: tally.offset - self.whole_bytes,
            crc32: std::mem::take(&mut tally.crc).finalize(),
            rows,
            first_time_ns,
            last_time_ns,
            has_dictionary,
        };
        self.whole_bytes = tally.offset;
        Ok(row)
    }

    /// Writes the end-of-stream mark, which is outside every batch.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.writer.finish().map_err(|error| arrow_error(self.name, &self.path, error))?;
        let buffered = self.writer.get_mut();
        buffered.flush().map_err(|error| Error::io("write", &self.path, error))?;
        let file = &buffered.get_ref().file;
        file.sync_all().map_err(|error| Error::io("write", &self.path, error))
    }

    /// Bytes that are whole on disk.
    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }
}

fn arrow_error(name: &str, path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => Error::io("write", path, source),
        other => Error::Encode { table: name.to_owned(), why: other.to_string() },
    }
}

/// Reads the batches of one stream that the index vouches for.
#[derive(Debug)]
pub(crate) struct Batches {
    path: PathBuf,
    file: Option<File>,
    rows: std::vec::IntoIter<IndexRow>,
    decoder: StreamDecoder,
    salvage: bool,
    damaged: u64,
}

impl Batches {
    pub(crate) fn open(root: &Path, rows: Vec<IndexRow>, salvage: bool) -> Result<Self, Error> {
        let name = rows.first().map(|row| row.stream.clone()).unwrap_or_default();
        let path = root.join(&name);
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(_) if rows.is_empty() => None,
            Err(_) if salvage => None,
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let rows = rows.into_iter();
        Ok(Self { path, file, rows, decoder: StreamDecoder::new(), salvage, damaged: 0 })
    }

    /// Batches passed over because they are damaged.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    fn read_unit(&mut self, row: &IndexRow) -> Result<Option<RecordBatch>, Error> {
        let damage =
            |why: String| Error::Damaged { path: self.path.clone(), offset: row.offset, why };
        let Some(file) = self.file.as_mut() else {
            return Err(damage("the file is missing".to_owned()));
        };
        let have = file.metadata().map_err(|error| Error::io("read", &self.path, error))?.len();
        if row.offset.checked_add(row.length).is_none_or(|end| end > have) {
            return Err(damage(format!(
                "the index tells of {} bytes there, the file ends at {have}",
                row.length
            )));
        }
        let length = usize::try_from(row.length).map_err(|error| damage(error.to_string()))?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(row.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| Error::io("read", &self.path, error))?;
        let crc = crc32fast::hash(&bytes);
        if crc != row.crc32 {
            return Err(damage(format!("checksum {crc:08x}, expected {:08x}", row.crc32)));
        }
        let mut buffer = Buffer::from_vec(bytes);
        let mut found = None;
        while !buffer.is_empty() {
            match self.decoder.decode(&mut buffer) {
                Ok(Some(batch)) => found = Some(batch),
                Ok(None) => {}
                Err(error) => return Err(damage(error.to_string())),
            }
        }
        Ok(found)
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = self.rows.next()?;
            match self.read_unit(&row) {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(_) if self.salvage => {
                    self.damaged += 1;
                    // A lost schema or dictionary takes all that follows with it.
                    if row.rows == 0 || row.has_dictionary {
                        self.damaged += self.rows.by_ref().count() as u64;
                        return None;
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
