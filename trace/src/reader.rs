//! Reads a recording: opens, checks, and streams its tables.

use std::path::{Path, PathBuf};

use crate::batch::EventBatch;
use crate::batches::{self, Batches, OnDamage};
use crate::error::Error;
use crate::format::{self, TableSpec};
use crate::manifest::Manifest;
use crate::snapshot::{BuddyRow, PageRun, PageUse, Stamp, ZoneRow};
use crate::stream::IndexRow;
use crate::table::{Cell, TableBatch};
use crate::unit::{Cpu, Nanos, NodeId, Pfn};

mod open;

/// A recording, opened for reading.
#[derive(Debug)]
pub struct Recording {
    root: PathBuf,
    manifest: Manifest,
    index: Vec<IndexRow>,
    on_damage: OnDamage,
    notes: Vec<String>,
}

impl Recording {
    /// Opens a recording and checks its manifest and index; the batches are checked when they are
    /// read. With `salvage`, damaged batches are passed over and counted instead of refused. Of a
    /// recording that was cut off, each stream is read up to its first damaged batch.
    pub fn open(root: &Path, salvage: bool) -> Result<Self, Error> {
        let manifest = open::read_manifest(root)?;
        let mut notes = Vec::new();
        let index = open::read_index(root, &manifest, salvage, &mut notes)?;
        if manifest.end.is_none() {
            notes.push(
                "the recorder was cut off before it finished: this is all up to its last whole batch"
                    .to_owned(),
            );
        }
        let on_damage = match (salvage, &manifest.end) {
            (true, _) => OnDamage::PassOver,
            (false, None) => OnDamage::Stop,
            (false, Some(_)) => OnDamage::Refuse,
        };
        Ok(Self { root: root.to_owned(), manifest, index, on_damage, notes })
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

    fn index_of(&self, file: &str) -> Vec<IndexRow> {
        self.index.iter().filter(|row| row.stream == file).cloned().collect()
    }

    fn batches(&self, file: &str) -> Result<Batches, Error> {
        Batches::open(&self.root, self.index_of(file), self.on_damage)
    }

    /// Checks every byte of every stream that the index vouches for, without decoding it. Returns
    /// how many batches readers leave out because they are damaged, or the first damage where that
    /// is refused.
    pub fn verify(&self) -> Result<u64, Error> {
        let mut files: Vec<&str> = Vec::new();
        for row in &self.index {
            if !files.contains(&row.stream.as_str()) {
                files.push(&row.stream);
            }
        }
        files.into_iter().try_fold(0, |damaged, file| Ok(damaged + self.damaged_in(file)?))
    }

    /// As [`Self::verify`], of one stream.
    pub fn damaged_in(&self, file: &str) -> Result<u64, Error> {
        batches::verify(&self.root, self.index_of(file), self.on_damage)
    }

    /// The events, batch by batch in time order.
    pub fn events(&self) -> Result<EventBatches, Error> {
        let path = self.root.join(format::EVENTS);
        Ok(EventBatches { batches: self.batches(format::EVENTS)?, path })
    }

    /// The events from their batch of that number on: the batches before are not decoded, but for
    /// the dictionaries that later ones need.
    pub fn events_from(&self, batch: u64) -> Result<EventBatches, Error> {
        let rows = self.index_from(format::EVENTS, |number, _| number >= batch);
        let path = self.root.join(format::EVENTS);
        let batches = Batches::open_wanted(&self.root, rows, self.on_damage)?;
        Ok(EventBatches { batches, path })
    }

    /// A table's batches that have something of that span of time, and those alone.
    pub fn table_within(
        &self,
        spec: &'static TableSpec,
        from: Nanos,
        to: Nanos,
    ) -> Result<TableBatches, Error> {
        let rows = self.index_from(spec.file, |_, row| {
            row.last_time_ns >= from.0 && row.first_time_ns <= to.0
        });
        let path = self.root.join(spec.file);
        let batches = Batches::open_wanted(&self.root, rows, self.on_damage)?;
        Ok(TableBatches { batches, path, spec })
    }

    /// First and last time and rows of each batch of a stream, as the index tells them.
    pub fn batch_times(&self, file: &str) -> impl Iterator<Item = (Nanos, Nanos, u64)> {
        let rows = self.index.iter().filter(move |row| row.stream == file && row.rows > 0);
        rows.map(|row| (Nanos(row.first_time_ns), Nanos(row.last_time_ns), row.rows))
    }

    /// The index rows of a stream, each with whether its batch is wanted; of those that are not,
    /// the ones that others need to be decoded.
    fn index_from(
        &self,
        file: &str,
        is_wanted: impl Fn(u64, &IndexRow) -> bool,
    ) -> Vec<(IndexRow, bool)> {
        let mut number = 0;
        let rows = self.index.iter().filter(|row| row.stream == file);
        let rows = rows.map(|row| {
            let wanted = row.rows > 0 && is_wanted(number, row);
            number += u64::from(row.rows > 0);
            (row.clone(), wanted)
        });
        rows.filter(|(row, wanted)| *wanted || row.rows == 0 || row.has_dictionary).collect()
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

    /// As [`Self::buddyinfo`], only the samples of that span of time.
    pub fn buddyinfo_within(&self, from: Nanos, to: Nanos) -> Result<BuddySamples, Error> {
        Ok(BuddySamples { table: self.table_within(&format::BUDDYINFO, from, to)? })
    }

    /// As [`Self::zoneinfo`], only the samples of that span of time.
    pub fn zoneinfo_within(&self, from: Nanos, to: Nanos) -> Result<ZoneSamples, Error> {
        Ok(ZoneSamples { table: self.table_within(&format::ZONEINFO, from, to)? })
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
    /// Batches left out so far because they are damaged.
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

impl TableBatches {
    /// Batches left out so far because they are damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.batches.damaged()
    }
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

impl BuddySamples {
    /// Batches left out so far because they are damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.table.damaged()
    }
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

impl ZoneSamples {
    /// Batches left out so far because they are damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.table.damaged()
    }
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

impl PageRuns {
    /// Batches left out so far because they are damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.table.damaged()
    }
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
