//! Writes a recording: append only, and whole up to the last batch at every moment.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::batch::{self, EventBatchBuilder};
use crate::checksums::Checksums;
use crate::error::Error;
use crate::format::{self, INDEX_TABLE, TableSpec};
use crate::manifest::{End, Manifest};
use crate::snapshot::{
    BuddyRow, PageRun, PageTypeRow, SlabDetailRow, SlabRow, Stamp, VmallocRow, VmstatRow, ZoneRow,
};
use crate::stream::{IndexRow, Stream};
use crate::table::{Cell, TableBuilder, schema};
use crate::unit::Nanos;

/// Room kept for the last manifest: the events' format texts are its bulk.
const RESERVE_BYTES: usize = 1 << 20;

/// Creates a file that only its owner may read: a recording holds kernel addresses.
pub(crate) fn create_private(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::io("create", path, error))
}

/// A table being written.
#[derive(Debug)]
struct Table {
    builder: TableBuilder,
    stream: Stream,
}

/// A recording being written.
#[derive(Debug)]
pub struct RecordingWriter {
    root: PathBuf,
    manifest: Manifest,
    events: Stream,
    tables: Vec<Table>,
    pending: Vec<IndexRow>,
    index: Table,
    checksums: Checksums,
    events_written: u64,
}

impl RecordingWriter {
    /// Creates the directory with its first manifest. `replace` deletes a recording that is there;
    /// nothing else is ever deleted.
    pub fn create(root: &Path, manifest: Manifest, replace: bool) -> Result<Self, Error> {
        make_room(root, replace)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(root)
            .map_err(|error| Error::io("create", root, error))?;
        let snapshots = root.join("snapshots");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&snapshots)
            .map_err(|error| Error::io("create", &snapshots, error))?;
        write_manifest(root, &manifest)?;
        let reserve = root.join(format::RESERVE);
        create_private(&reserve)?
            .write_all(&vec![0; RESERVE_BYTES])
            .map_err(|error| Error::io("write", reserve, error))?;
        let (index_stream, part) = Stream::create(root, format::INDEX, &schema(&INDEX_TABLE))?;
        let mut checksums = Checksums::create(root)?;
        checksums.append(&part)?;
        let index = Table { builder: TableBuilder::new(INDEX_TABLE), stream: index_stream };
        let (events, row) = Stream::create(root, format::EVENTS, &batch::schema())?;
        let mut writer = Self {
            root: root.to_owned(),
            manifest,
            events,
            tables: Vec::new(),
            pending: vec![row],
            index,
            checksums,
            events_written: 0,
        };
        writer.commit()?;
        Ok(writer)
    }

    /// The manifest, to be completed before [`Self::finish`].
    pub fn manifest_mut(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// Writes the manifest as it stands now (the recording still counts as unfinished).
    pub fn write_manifest(&self) -> Result<(), Error> {
        write_manifest(&self.root, &self.manifest)
    }

    /// Events on disk.
    #[must_use]
    pub fn events_written(&self) -> u64 {
        self.events_written
    }

    /// Bytes on disk, of whole batches.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.tables.iter().map(|table| table.stream.whole_bytes()).sum::<u64>()
            + self.events.whole_bytes()
            + self.index.stream.whole_bytes()
            + self.checksums.whole_bytes()
    }

    /// Writes the events collected, if any.
    pub fn append_events(&mut self, builder: &mut EventBatchBuilder) -> Result<(), Error> {
        if builder.is_empty() {
            return Ok(());
        }
        let done = builder.finish().map_err(|why| encode(format::EVENTS, why))?;
        let row = self.events.append(
            &done.batch,
            done.first_time_ns,
            done.last_time_ns,
            done.has_dictionary,
        )?;
        self.events_written += row.rows;
        self.pending.push(row);
        Ok(())
    }

    /// Adds a row to a table; it is on disk after the next [`Self::flush_table`].
    ///
    /// # Panics
    /// When the cells do not fit the table: a bug of the caller.
    pub fn row(&mut self, spec: &'static TableSpec, cells: &[Cell<'_>]) -> Result<(), Error> {
        let table = self.table(spec)?;
        self.tables[table].builder.row(cells);
        Ok(())
    }

    fn table(&mut self, spec: &'static TableSpec) -> Result<usize, Error> {
        let known = self.tables.iter().position(|table| table.builder.spec().file == spec.file);
        if let Some(known) = known {
            return Ok(known);
        }
        let (stream, row) = Stream::create(&self.root, spec.file, &schema(spec))?;
        self.pending.push(row);
        self.tables.push(Table { builder: TableBuilder::new(*spec), stream });
        Ok(self.tables.len() - 1)
    }

    /// Writes the rows of a table collected so far as one batch of that time.
    pub fn flush_table(&mut self, spec: &'static TableSpec, stamp: Stamp) -> Result<(), Error> {
        let index = self.table(spec)?;
        let row = flush(&mut self.tables[index], stamp)?;
        self.pending.extend(row);
        Ok(())
    }

    /// Vouches for every batch written so far: they are whole from here on.
    pub fn commit(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let times = self.pending.iter().map(|row| row.last_time_ns);
        let last = Nanos(times.max().unwrap_or(0));
        for row in self.pending.drain(..) {
            self.index.builder.row(&[
                Cell::Str(&row.stream),
                Cell::U64(row.offset),
                Cell::U64(row.length),
                Cell::U64(u64::from(row.crc32)),
                Cell::U64(row.rows),
                Cell::U64(row.first_time_ns),
                Cell::U64(row.last_time_ns),
                Cell::Bool(row.has_dictionary),
            ]);
        }
        let part = flush(&mut self.index, Stamp { before: last, after: last })?;
        let Some(part) = part else { return Ok(()) };
        let vouched = self.checksums.append(&part);
        if vouched.is_err() {
            self.index.stream.give_up(part.offset);
        }
        vouched
    }

    /// Completes the recording: remaining rows, end marks, index, manifest. When that fails, what
    /// is whole is kept as by [`Self::abandon`], and the error is returned.
    pub fn finish(mut self, end: End) -> Result<Manifest, Error> {
        let _ = fs::remove_file(self.root.join(format::RESERVE));
        match self.complete(Nanos(end.monotonic_ns)) {
            Ok(()) => self.seal(end),
            Err(error) => {
                let reason = if error.is_disk_full() { "disk full" } else { "error" };
                let _ = self.abandon(End { reason: reason.to_owned(), ..end });
                Err(error)
            }
        }
    }

    fn complete(&mut self, at: Nanos) -> Result<(), Error> {
        for table in &mut self.tables {
            let row = flush(table, Stamp { before: at, after: at })?;
            self.pending.extend(row);
        }
        self.commit()?;
        self.events.finish()?;
        for table in &mut self.tables {
            table.stream.finish()?;
        }
        self.checksums.sync()?;
        self.index.stream.finish()
    }

    /// Gives up after a write failed: keeps what is whole, frees the reserve and says so in the
    /// manifest as far as the disk allows.
    pub fn abandon(mut self, end: End) -> Result<Manifest, Error> {
        let _ = fs::remove_file(self.root.join(format::RESERVE));
        let _ = self.commit();
        // Nothing may grow any more: neither by what a buffer still holds, nor by an end mark.
        let streams = self.tables.iter_mut().map(|table| &mut table.stream);
        for stream in streams.chain([&mut self.events, &mut self.index.stream]) {
            stream.give_up(stream.whole_bytes());
        }
        self.seal(end)
    }

    /// Vouches for the index in the last manifest.
    fn seal(self, mut end: End) -> Result<Manifest, Error> {
        let Self { root, mut manifest, events, tables, index, checksums, .. } = self;
        drop((events, tables, index, checksums));
        let path = root.join(format::INDEX);
        let bytes = fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        end.index_bytes = bytes.len() as u64;
        end.index_crc32 = crc32fast::hash(&bytes);
        manifest.end = Some(end);
        write_manifest(&root, &manifest)?;
        Ok(manifest)
    }
}

fn flush(table: &mut Table, stamp: Stamp) -> Result<Option<IndexRow>, Error> {
    if table.builder.rows() == 0 {
        return Ok(None);
    }
    let name = table.builder.spec().name;
    let (batch, grew) = table.builder.finish().map_err(|why| encode(name, why))?;
    table.stream.append(&batch, stamp.before.0, stamp.after.0, grew).map(Some)
}

fn encode(table: &str, why: String) -> Error {
    Error::Encode { table: table.to_owned(), why }
}

fn make_room(root: &Path, replace: bool) -> Result<(), Error> {
    match fs::symlink_metadata(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", root, error)),
        Ok(_) if !replace => Err(Error::Exists { path: root.to_owned() }),
        Ok(meta) if meta.is_dir() && is_recording(root) => {
            fs::remove_dir_all(root).map_err(|error| Error::io("replace", root, error))
        }
        Ok(_) => Err(Error::NotOursToReplace { path: root.to_owned() }),
    }
}

/// Whether the folder has a manifest that only kmemlab writes.
fn is_recording(root: &Path) -> bool {
    let path = root.join(format::MANIFEST);
    let is_file = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
    let text = if is_file { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    manifest["format_version"].is_u64()
        && manifest["tool"].as_str().is_some_and(|tool| tool.starts_with("kmemlab"))
}

/// Replaces the manifest of a recording that is complete, at once or not at all.
pub fn amend(root: &Path, manifest: &Manifest) -> Result<(), Error> {
    write_manifest(root, manifest)
}

/// Writes the manifest beside the old one and renames it into place.
fn write_manifest(root: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = root.join(format::MANIFEST);
    let beside = root.join("manifest.json.new");
    let text = seal_text(manifest).map_err(|why| encode(format::MANIFEST, why))?;
    let _ = fs::remove_file(&beside);
    let mut file = create_private(&beside)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io("write", &beside, error))?;
    fs::rename(&beside, &path).map_err(|error| Error::io("write", path, error))
}

/// The manifest as JSON, with the checksum of all the rest as its last key.
fn seal_text(manifest: &Manifest) -> Result<String, String> {
    let mut value = serde_json::to_value(manifest).map_err(|error| error.to_string())?;
    let crc = crc32fast::hash(value.to_string().as_bytes());
    if let Some(object) = value.as_object_mut() {
        object.insert("checksum".to_owned(), format!("crc32:{crc:08x}").into());
    }
    serde_json::to_string_pretty(&value).map_err(|error| error.to_string())
}

fn stamped<const N: usize>(stamp: Stamp, rest: [Cell<'_>; N]) -> Vec<Cell<'_>> {
    let mut cells = vec![Cell::U64(stamp.before.0), Cell::U64(stamp.after.0)];
    cells.extend(rest);
    cells
}

/// The snapshot sources, each written as one batch.
impl RecordingWriter {
    /// Writes one `/proc/buddyinfo`.
    pub fn buddyinfo(&mut self, stamp: Stamp, rows: &[BuddyRow]) -> Result<(), Error> {
        for row in rows {
            for (order, blocks) in row.free_blocks.iter().enumerate() {
                let cells = stamped(
                    stamp,
                    [
                        Cell::U64(u64::from(row.node.0)),
                        Cell::Str(&row.zone),
                        Cell::U64(order as u64),
                        Cell::U64(*blocks),
                    ],
                );
                self.row(&format::BUDDYINFO, &cells)?;
            }
        }
        self.flush_table(&format::BUDDYINFO, stamp)
    }

    /// Writes one `/proc/pagetypeinfo`.
    pub fn pagetypeinfo(&mut self, stamp: Stamp, rows: &[PageTypeRow]) -> Result<(), Error> {
        for row in rows {
            let cells = stamped(
                stamp,
                [
                    Cell::U64(u64::from(row.node.0)),
                    Cell::Str(&row.zone),
                    Cell::Str(&row.migrate_type),
                    row.order.map_or(Cell::Null, |order| Cell::U64(u64::from(order.0))),
                    Cell::U64(row.blocks),
                    Cell::Bool(row.is_lower_bound),
                ],
            );
            self.row(&format::PAGETYPEINFO, &cells)?;
        }
        self.flush_table(&format::PAGETYPEINFO, stamp)
    }

    /// Writes one `/proc/zoneinfo`.
    pub fn zoneinfo(&mut self, stamp: Stamp, rows: &[ZoneRow]) -> Result<(), Error> {
        for row in rows {
            let cells = stamped(
                stamp,
                [
                    Cell::U64(u64::from(row.node.0)),
                    Cell::Str(&row.zone),
                    row.cpu.map_or(Cell::Null, |cpu| Cell::U64(u64::from(cpu.0))),
                    Cell::Str(&row.key),
                    Cell::I64(row.value),
                ],
            );
            self.row(&format::ZONEINFO, &cells)?;
        }
        self.flush_table(&format::ZONEINFO, stamp)
    }

    /// Writes one `/proc/slabinfo`.
    pub fn slabinfo(&mut self, stamp: Stamp, rows: &[SlabRow]) -> Result<(), Error> {
        for row in rows {
            let cells = stamped(
                stamp,
                [
                    Cell::Str(&row.cache),
                    Cell::U64(row.active_objects),
                    Cell::U64(row.objects),
                    Cell::U64(row.object_size_bytes),
                    Cell::U64(row.objects_per_slab),
                    Cell::U64(row.pages_per_slab),
                    Cell::U64(row.active_slabs),
                    Cell::U64(row.slabs),
                ],
            );
            self.row(&format::SLABINFO, &cells)?;
        }
        self.flush_table(&format::SLABINFO, stamp)
    }

    /// Writes what `/sys/kernel/slab` told, each file with its own moment.
    pub fn slab_detail(&mut self, stamp: Stamp, rows: &[SlabDetailRow]) -> Result<(), Error> {
        for row in rows {
            let cells = [
                Cell::U64(row.stamp.before.0),
                Cell::U64(row.stamp.after.0),
                Cell::Str(&row.cache),
                Cell::Str(&row.key),
                Cell::I64(row.value),
            ];
            self.row(&format::SLAB_DETAIL, &cells)?;
        }
        self.flush_table(&format::SLAB_DETAIL, stamp)
    }

    /// Writes one `/proc/vmstat`.
    pub fn vmstat(&mut self, stamp: Stamp, rows: &[VmstatRow]) -> Result<(), Error> {
        for row in rows {
            let cells = stamped(stamp, [Cell::Str(&row.key), Cell::U64(row.value)]);
            self.row(&format::VMSTAT, &cells)?;
        }
        self.flush_table(&format::VMSTAT, stamp)
    }

    /// Writes one `/proc/vmallocinfo`.
    pub fn vmallocinfo(&mut self, stamp: Stamp, rows: &[VmallocRow]) -> Result<(), Error> {
        for row in rows {
            let cells = stamped(
                stamp,
                [
                    Cell::U64(row.start_address),
                    Cell::U64(row.end_address),
                    Cell::U64(row.bytes),
                    row.caller.as_deref().map_or(Cell::Null, Cell::Str),
                    row.pages.map_or(Cell::Null, Cell::U64),
                    Cell::Str(&row.flags),
                ],
            );
            self.row(&format::VMALLOCINFO, &cells)?;
        }
        self.flush_table(&format::VMALLOCINFO, stamp)
    }

    /// Writes the runs of one read of `/proc/kpageflags`; `spec` says whether they are the first or
    /// the last page map. Runs gather into batches of some size.
    pub fn page_runs(&mut self, spec: &'static TableSpec, runs: &[PageRun]) -> Result<(), Error> {
        let Some(last) = runs.last() else { return Ok(()) };
        for run in runs {
            let cells = stamped(
                run.stamp,
                [Cell::U64(run.pfn.0), Cell::U64(run.pages), Cell::Str(run.page_use.name())],
            );
            self.row(spec, &cells)?;
        }
        let index = self.table(spec)?;
        if self.tables[index].builder.rows() >= 65_536 {
            self.flush_table(spec, last.stamp)?;
        }
        Ok(())
    }
}
