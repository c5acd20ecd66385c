//! One Parquet file, written row group by row group beside its final name.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use arrow::datatypes::{Field, Schema};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use base64::Engine as _;
use polars::io::parquet::write::{BatchedWriter, KeyValueMetadata};
use polars::prelude::{ParquetCompression, ParquetWriter, PolarsError};

use crate::error::Error;
use crate::frame::{ColumnType, Frame};

/// Rows of a row group: what is held in memory. Fewer would make the footer, which Parquet keeps in
/// memory to the end, and the readers' work larger.
const ROW_GROUP_ROWS: usize = 1 << 18;

/// A file that keeps the first error of the file system: polars turns them into text.
#[derive(Debug)]
struct Sink {
    file: BufWriter<File>,
    failure: Option<io::Error>,
}

/// The writer that polars gets; this crate keeps the other handle.
#[derive(Clone, Debug)]
struct SharedSink(Rc<RefCell<Sink>>);

impl SharedSink {
    fn keep<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            self.0.borrow_mut().failure.get_or_insert(error);
            kind.into()
        })
    }
}

impl Write for SharedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.0.borrow_mut().file.write(bytes);
        self.keep(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.0.borrow_mut().file.flush();
        self.keep(result)
    }
}

/// A file that is removed again unless it got its final name.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A Parquet file that is complete on disk and waits for its name.
#[derive(Debug)]
pub(crate) struct Complete {
    path: PathBuf,
    partial: Partial,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Complete {
    /// Gives the file its name.
    pub(crate) fn publish(mut self) -> Result<(), Error> {
        fs::rename(&self.partial.path, &self.path)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.partial.renamed = true;
        Ok(())
    }
}

/// A Parquet file under construction.
pub(crate) struct ParquetFile {
    path: PathBuf,
    partial: Partial,
    sink: SharedSink,
    writer: BatchedWriter<SharedSink>,
    /// The rows of the row group under construction.
    pub(crate) frame: Frame,
    rows: u64,
}

impl ParquetFile {
    /// Starts `NAME.parquet.partial` in that directory. Only its owner may read it: like the
    /// recording it holds kernel addresses and command names.
    pub(crate) fn create(
        directory: &Path,
        name: &str,
        columns: &[(&'static str, ColumnType)],
        metadata: Vec<(String, String)>,
    ) -> Result<Self, Error> {
        let path = directory.join(file_name(name));
        let partial = directory.join(format!("{name}.parquet.partial"));
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("replace", partial, error));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(|error| Error::io("create", &partial, error))?;
        let partial = Partial { path: partial, renamed: false };
        Self::start(file, path, partial, columns, metadata)
    }

    fn start(
        file: File,
        path: PathBuf,
        partial: Partial,
        columns: &[(&'static str, ColumnType)],
        mut metadata: Vec<(String, String)>,
    ) -> Result<Self, Error> {
        let frame = Frame::new(columns);
        metadata.push(("ARROW:schema".to_owned(), arrow_schema(columns)));
        let sink = Sink { file: BufWriter::with_capacity(256 << 10, file), failure: None };
        let sink = SharedSink(Rc::new(RefCell::new(sink)));
        let writer = ParquetWriter::new(sink.clone())
            .with_compression(ParquetCompression::Zstd(None))
            .with_key_value_metadata(Some(KeyValueMetadata::from_static(metadata)))
            .batched(&frame.schema())
            .map_err(|error| Error::Encode { path: path.clone(), why: error.to_string() })?;
        Ok(Self { path, partial, sink, writer, frame, rows: 0 })
    }

    /// Completes the row whose values were put, and the row group when it is large enough.
    #[inline]
    pub(crate) fn end_row(&mut self) -> Result<(), Error> {
        self.frame.end_row();
        if self.frame.rows() >= ROW_GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let rows = self.frame.rows();
        if rows == 0 {
            return Ok(());
        }
        let written = self.frame.finish().and_then(|frame| self.writer.write_batch(&frame));
        written.map_err(|error| self.failed(error))?;
        self.rows += rows as u64;
        Ok(())
    }

    /// The file system's own error where there was one.
    fn failed(&self, error: PolarsError) -> Error {
        match self.sink.0.borrow_mut().failure.take() {
            Some(source) => Error::io("write", &self.path, source),
            None => Error::Encode { path: self.path.clone(), why: error.to_string() },
        }
    }

    /// Completes the file; it is on the disk after, without its name yet.
    pub(crate) fn finish(mut self) -> Result<Complete, Error> {
        self.flush()?;
        let bytes = self.writer.finish().map_err(|error| self.failed(error))?;
        let mut sink = self.sink.0.borrow_mut();
        sink.file
            .flush()
            .and_then(|()| sink.file.get_ref().sync_all())
            .map_err(|error| Error::io("write", &self.path, error))?;
        drop(sink);
        Ok(Complete { path: self.path, partial: self.partial, rows: self.rows, bytes })
    }
}

/// The schema as Arrow readers look for it in Parquet's metadata. Without it polars writes its own,
/// whose texts are of a type (`string_view`) that pandas cannot use.
fn arrow_schema(columns: &[(&'static str, ColumnType)]) -> String {
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.arrow_type(), true));
    let message = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        &Schema::new(fields.collect::<Vec<_>>()),
        &mut DictionaryTracker::new(true),
        &IpcWriteOptions::default(),
    );
    let message = message.ipc_message;
    let mut framed = u32::MAX.to_le_bytes().to_vec();
    framed.extend((message.len() as u32).to_le_bytes());
    framed.extend(message);
    base64::engine::general_purpose::STANDARD.encode(framed)
}

/// `NAME.parquet`.
pub(crate) fn file_name(name: &str) -> String {
    format!("{name}.parquet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_full_disk() -> ParquetFile {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let columns = [("number", ColumnType::U64)];
        let partial = Partial { path: "out/x.parquet.partial".into(), renamed: false };
        ParquetFile::start(full, "out/x.parquet".into(), partial, &columns, vec![]).unwrap()
    }

    #[test]
    fn a_full_disk_is_told_in_one_sentence() {
        let mut file = on_full_disk();
        file.frame.put_u64(0, 7);
        file.end_row().unwrap();
        let error = file.finish().unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "no room left on the disk while writing out/x.parquet; free some, or export to a directory on another disk"
        );
    }

    #[test]
    fn a_disk_that_fills_in_the_middle_is_told_too() {
        let mut file = on_full_disk();
        // Numbers that no encoding shrinks below the write buffer.
        let mut number = 1u64;
        let error = (0..4 * ROW_GROUP_ROWS).find_map(|_| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            file.frame.put_u64(0, number);
            file.end_row().err()
        });
        assert!(matches!(error, Some(Error::DiskFull { .. })), "{error:?}");
    }
}
