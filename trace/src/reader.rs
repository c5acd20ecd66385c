//! Reads a recording: opens, checks, and streams its tables.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;

use crate::batch::EventBatch;
use crate::error::Error;
use crate::format::{self, INDEX_TABLE, TableSpec};
use crate::manifest::Manifest;
use crate::snapshot::{BuddyRow, PageRun, PageUse, Stamp, ZoneRow};
use crate::stream::{Batches, IndexRow};
use crate::table::{Cell, TableBatch};
use crate::unit::{Cpu, Nanos, NodeId, Pfn};

/// A recording, opened for reading.
#[derive(Debug)]
pub struct Recording {
    root: PathBuf,
    manifest: Manifest,
    index: Vec<IndexRow>,
    salvage: bool,
    notes: Vec<String>,
}

impl Recording {
    /// Opens a recording and checks its manifest and index; the batches are checked when they are
    /// read. With `salvage`, damaged batches are passed over and counted instead of refused.
    pub fn open(root: &Path, salvage: bool) -> Result<Self, Error> {
        let manifest = read_manifest(root)?;
        let mut notes = Vec::new();
        let index = read_index(root, &manifest, salvage, &mut notes)?;
        if manifest.end.is_none() {
            notes.push(
                "the recorder was cut off before it finished: this is all up to its last whole batch"
                    .to_owned(),
            );
        }
        Ok(Self { root: root.to_owned(), manifest, index, salvage, notes })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What a reader should know about the recording's state, in whole sentences.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether the table has rows.
    #[must_use]
    pub fn has(&self, spec: &TableSpec) -> bool {
        self.rows_of(spec.file) > 0
    }

    /// Rows of a stream.
    #[must_use]
    pub fn rows_of(&self, file: &str) -> u64 {
        self.index.iter().filter(|row| row.stream == file).map(|row| row.rows).sum()
    }

    /// Batches of a stream.
    #[must_use]
    pub fn batches_of(&self, file: &str) -> u64 {
        self.index.iter().filter(|row| row.stream == file && row.rows > 0).count() as u64
    }

    /// Bytes of a stream, of whole batches.
    #[must_use]
    pub fn bytes_of(&self, file: &str) -> u64 {
        self.index.iter().filter(|row| row.stream == file).map(|row| row.length).sum()
    }

    /// Bytes on disk of everything, as the file system counts file lengths.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        let mut bytes = 0;
        for folder in [self.root.clone(), self.root.join("snapshots")] {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            for entry in entries.flatten() {
                if let Ok(meta) = entry.metadata() {
                    bytes += if meta.is_file() { meta.len() } else { 0 };
                }
            }
        }
        bytes
    }

    /// First and last time of the events.
    #[must_use]
    pub fn span(&self) -> Option<(Nanos, Nanos)> {
        let rows = || self.index.iter().filter(|row| row.stream == format::EVENTS && row.rows > 0);
        let first = rows().map(|row| row.first_time_ns).min()?;
        let last = rows().map(|row| row.last_time_ns).max()?;
        Some((Nanos(first), Nanos(last)))
    }

    fn batches(&self, file: &str) -> Result<Batches, Error> {
        let rows = self.index.iter().filter(|row| row.stream == file).cloned().collect();
        Batches::open(&self.root, rows, self.salvage)
    }

    /// The events, batch by batch in time order.
    pub fn events(&self) -> Result<EventBatches, Error> {
        let path = self.root.join(format::EVENTS);
        Ok(EventBatches { batches: self.batches(format::EVENTS)?, path })
    }

    /// A table, batch by batch.
    pub fn table(&self, spec: &'static TableSpec) -> Result<TableBatches, Error> {
        let path = self.root.join(spec.file);
        Ok(TableBatches { batches: self.batches(spec.file)?, path, spec })
    }

    /// The samples of `/proc/buddyinfo` in time order.
    pub fn buddyinfo(&self) -> Result<BuddySamples, Error> {
        Ok(BuddySamples { table: self.table(&format::BUDDYINFO)? })
    }

    /// The samples of `/proc/zoneinfo` in time order.
    pub fn zoneinfo(&self) -> Result<ZoneSamples, Error> {
        Ok(ZoneSamples { table: self.table(&format::ZONEINFO)? })
    }

    /// A page map, run by run in the order of its reading.
    pub fn page_map(&self, spec: &'static TableSpec) -> Result<PageRuns, Error> {
        Ok(PageRuns { table: self.table(spec)?, batch: None, row: 0 })
    }
}

/// Batches of events.
#[derive(Debug)]
pub struct EventBatches {
    batches: Batches,
    path: PathBuf,
}

impl EventBatches {
    /// Batches passed over because they are damaged (with salvage).
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.batches.damaged()
    }
}

impl Iterator for EventBatches {
    type Item = Result<EventBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.batches.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        Some(EventBatch::new(&batch).map_err(|why| foreign(&self.path, why)))
    }
}

fn foreign(path: &Path, why: String) -> Error {
    Error::Damaged { path: path.to_owned(), offset: 0, why }
}

/// Batches of a table.
#[derive(Debug)]
pub struct TableBatches {
    batches: Batches,
    path: PathBuf,
    spec: &'static TableSpec,
}

impl Iterator for TableBatches {
    type Item = Result<TableBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.batches.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        Some(TableBatch::new(self.spec, &batch).map_err(|why| foreign(&self.path, why)))
    }
}

/// One sample of `/proc/buddyinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuddySample {
    /// When it was read.
    pub stamp: Stamp,
    /// Its zones, in the file's order.
    pub zones: Vec<BuddyRow>,
}

/// Samples of `/proc/buddyinfo`; each was written as one batch.
#[derive(Debug)]
pub struct BuddySamples {
    table: TableBatches,
}

impl Iterator for BuddySamples {
    type Item = Result<BuddySample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.table.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let mut sample = BuddySample { stamp: stamp(&batch, 0), zones: Vec::new() };
        for row in 0..batch.rows() {
            let node = NodeId(batch.number(row, 2) as u16);
            let zone = batch.text(row, 3);
            let order = batch.number(row, 4) as usize;
            let known = sample.zones.iter().position(|z| z.node == node && z.zone == zone);
            let index = known.unwrap_or_else(|| {
                let free_blocks = Vec::new();
                sample.zones.push(BuddyRow { node, zone: zone.to_owned(), free_blocks });
                sample.zones.len() - 1
            });
            let free = &mut sample.zones[index].free_blocks;
            if order >= 64 {
                continue;
            }
            if free.len() <= order {
                free.resize(order + 1, 0);
            }
            free[order] = batch.number(row, 5);
        }
        Some(Ok(sample))
    }
}

fn stamp(batch: &TableBatch, row: usize) -> Stamp {
    if row >= batch.rows() {
        return Stamp::default();
    }
    Stamp { before: Nanos(batch.number(row, 0)), after: Nanos(batch.number(row, 1)) }
}

/// One sample of `/proc/zoneinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneSample {
    /// When it was read.
    pub stamp: Stamp,
    /// Its numbers.
    pub rows: Vec<ZoneRow>,
}

impl ZoneSample {
    /// A number of a zone, or of one of its per-CPU page lists.
    #[must_use]
    pub fn value(&self, node: NodeId, zone: &str, cpu: Option<Cpu>, key: &str) -> Option<i64> {
        self.rows
            .iter()
            .find(|row| row.node == node && row.zone == zone && row.cpu == cpu && row.key == key)
            .map(|row| row.value)
    }
}

/// Samples of `/proc/zoneinfo`; each was written as one batch.
#[derive(Debug)]
pub struct ZoneSamples {
    table: TableBatches,
}

impl Iterator for ZoneSamples {
    type Item = Result<ZoneSample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.table.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let rows = (0..batch.rows())
            .map(|row| ZoneRow {
                node: NodeId(batch.number(row, 2) as u16),
                zone: batch.text(row, 3).to_owned(),
                cpu: match batch.cell(row, 4) {
                    Cell::U64(cpu) => Some(Cpu(cpu as u16)),
                    _ => None,
                },
                key: batch.text(row, 5).to_owned(),
                value: match batch.cell(row, 6) {
                    Cell::I64(value) => value,
                    _ => 0,
                },
            })
            .collect();
        Some(Ok(ZoneSample { stamp: stamp(&batch, 0), rows }))
    }
}

/// Runs of a page map.
#[derive(Debug)]
pub struct PageRuns {
    table: TableBatches,
    batch: Option<TableBatch>,
    row: usize,
}

impl Iterator for PageRuns {
    type Item = Result<PageRun, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = &self.batch
                && self.row < batch.rows()
            {
                let row = self.row;
                self.row += 1;
                let name = batch.text(row, 4);
                let known = PageUse::ALL.iter().find(|(_, known)| *known == name);
                return Some(Ok(PageRun {
                    stamp: stamp(batch, row),
                    pfn: Pfn(batch.number(row, 2)),
                    pages: batch.number(row, 3),
                    page_use: known.map_or(PageUse::Other, |(page_use, _)| *page_use),
                }));
            }
            match self.table.next()? {
                Ok(batch) => {
                    self.batch = Some(batch);
                    self.row = 0;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn read_manifest(root: &Path) -> Result<Manifest, Error> {
    let path = root.join(format::MANIFEST);
    let not_ours =
        |found: &str| Error::NotARecording { path: root.to_owned(), found: found.to_owned() };
    match std::fs::metadata(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_ours("there is nothing of that name"));
        }
        Err(error) => return Err(Error::io("read", root, error)),
        Ok(meta) if !meta.is_dir() => return Err(not_ours("it is a file, not a directory")),
        Ok(_) => {}
    }
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_ours("it has no manifest.json"));
        }
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let bad = |why: String| Error::BadManifest { path: path.clone(), why };
    let mut value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let version = value.get("format_version").and_then(serde_json::Value::as_u64);
    let Some(version) = version else {
        return Err(not_ours("its manifest.json is not kmemlab's"));
    };
    if version > format::VERSION {
        let tool = value.get("tool").and_then(|tool| tool.as_str()).unwrap_or("unknown");
        let tool = tool.to_owned();
        return Err(Error::TooNew {
            path: root.to_owned(),
            found: version,
            known: format::VERSION,
            tool,
        });
    }
    let checksum = value.as_object_mut().and_then(|object| object.shift_remove("checksum"));
    let crc = format!("crc32:{:08x}", crc32fast::hash(value.to_string().as_bytes()));
    if checksum.as_ref().and_then(|checksum| checksum.as_str()) != Some(crc.as_str()) {
        return Err(bad("its checksum does not fit its text".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| bad(error.to_string()))
}

fn read_index(
    root: &Path,
    manifest: &Manifest,
    salvage: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<IndexRow>, Error> {
    let path = root.join(format::INDEX);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| Error::io("read", &path, error))?;
    if let Some(end) = &manifest.end {
        let crc = crc32fast::hash(&bytes);
        if (bytes.len() as u64, crc) != (end.index_bytes, end.index_crc32) {
            let why = format!(
                "{} bytes with checksum {crc:08x}, expected {} with {:08x}",
                bytes.len(),
                end.index_bytes,
                end.index_crc32
            );
            if !salvage {
                return Err(Error::Damaged { path, offset: 0, why });
            }
            notes.push(format!(
                "the index is damaged ({why}): batches after the damage are left out"
            ));
        }
    }
    let mut rows = Vec::new();
    let mut buffer = Buffer::from_vec(bytes);
    let mut decoder = StreamDecoder::new();
    // A cut index ends in the middle of a batch: what was decoded before stands.
    while !buffer.is_empty() {
        let Ok(decoded) = decoder.decode(&mut buffer) else { break };
        let Some(batch) = decoded else { continue };
        let Ok(batch) = TableBatch::new(&INDEX_TABLE, &batch) else { break };
        for row in 0..batch.rows() {
            rows.push(IndexRow {
                stream: batch.text(row, 0).to_owned(),
                offset: batch.number(row, 1),
                length: batch.number(row, 2),
                crc32: batch.number(row, 3) as u32,
                rows: batch.number(row, 4),
                first_time_ns: batch.number(row, 5),
                last_time_ns: batch.number(row, 6),
                has_dictionary: matches!(batch.cell(row, 7), Cell::Bool(true)),
            });
        }
    }
    Ok(rows)
}
