//! One Arrow IPC stream on disk, written batch by batch with a checksum.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
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
    /// A write has failed: nothing is written any more, not even what a dropped buffer still holds.
    is_sink: bool,
}

impl Write for Tally {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_sink {
            return Ok(bytes.len());
        }
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
        let tally = Tally { file, offset: 0, crc: crc32fast::Hasher::new(), is_sink: false };
        let encode = |error: ArrowError| arrow_error(name, &path, error);
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::ZSTD))
            .map_err(encode)?;
        let buffered = io::BufWriter::with_capacity(256 << 10, tally);
        let writer =
            StreamWriter::try_new_with_options(buffered, schema, options).map_err(encode)?;
        let mut stream = Self { name, path, writer, whole_bytes: 0 };
        match stream.close_unit(0, 0, 0, false) {
            Ok(row) => Ok((stream, row)),
            Err(error) => {
                stream.give_up(0);
                let _ = std::fs::remove_file(&stream.path);
                Err(error)
            }
        }
    }

    /// Appends a batch; on any error the file is cut back to its last whole batch, and nothing is
    /// ever written to it again.
    pub(crate) fn append(
        &mut self,
        batch: &RecordBatch,
        first_time_ns: u64,
        last_time_ns: u64,
        has_dictionary: bool,
    ) -> Result<IndexRow, Error> {
        if self.has_failed() {
            return Err(Error::io("write", &self.path, failed_before()));
        }
        let rows = batch.num_rows() as u64;
        let written = self
            .writer
            .write(batch)
            .map_err(|error| arrow_error(self.name, &self.path, error))
            .and_then(|()| self.close_unit(rows, first_time_ns, last_time_ns, has_dictionary));
        if written.is_err() {
            self.give_up(self.whole_bytes);
        }
        written
    }

    fn has_failed(&self) -> bool {
        self.writer.get_ref().get_ref().is_sink
    }

    /// Cuts the file to its first `whole_bytes` and writes no more of it.
    pub(crate) fn give_up(&mut self, whole_bytes: u64) {
        self.whole_bytes = whole_bytes;
        let tally = self.writer.get_mut().get_mut();
        tally.is_sink = true;
        let _ = tally.file.set_len(whole_bytes);
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
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if self.has_failed() {
            return Err(Error::io("write", &self.path, failed_before()));
        }
        let written = self
            .writer
            .finish()
            .map_err(|error| arrow_error(self.name, &self.path, error))
            .and_then(|()| self.sync().map_err(|error| Error::io("write", &self.path, error)));
        if written.is_err() {
            self.give_up(self.whole_bytes);
        }
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        let buffered = self.writer.get_mut();
        buffered.flush()?;
        buffered.get_ref().file.sync_all()
    }

    /// Bytes that are whole on disk.
    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }
}

/// What a file is told of after one of its writes failed: there is no room any more.
pub(crate) fn failed_before() -> io::Error {
    io::Error::other("an earlier write to it failed")
}

fn arrow_error(name: &str, path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => Error::io("write", path, source),
        other => Error::Encode { table: name.to_owned(), why: other.to_string() },
    }
}
