//! The snapshots of `/proc` in a recording: the one nearest to any moment, read when it is asked
//! for.

use std::collections::BTreeMap;
use std::sync::Arc;

use kmemlab_trace::format::{BUDDYINFO, SLABINFO, TableSpec, VMALLOCINFO, VMSTAT, ZONEINFO};
use kmemlab_trace::snapshot::{BuddyRow, SlabRow, VmallocRow, VmstatRow, ZoneRow};
use kmemlab_trace::table::{Cell, TableBatch};
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::{Error, Recording};

use super::proc_rows::{self, Counted};

/// A sample and when it was read.
pub(super) type Sampled<T> = Option<(Nanos, T)>;

/// When each table was read, and what was read last of it.
#[derive(Debug, Default)]
pub(super) struct Tables {
    times: BTreeMap<&'static str, Vec<(Nanos, Nanos)>>,
    buddy: Sampled<Arc<Vec<BuddyRow>>>,
    zones: Sampled<Arc<Vec<ZoneRow>>>,
    slabs: Vec<(Nanos, Arc<Vec<SlabRow>>)>,
    counters: Vec<(Nanos, Counted)>,
    vmalloc: Sampled<Arc<Vec<VmallocRow>>>,
}

impl Tables {
    /// Takes the times from the index: nothing is decoded.
    pub(super) fn look_again(&mut self, recording: &Recording) {
        for spec in [&BUDDYINFO, &ZONEINFO, &SLABINFO, &VMSTAT, &VMALLOCINFO] {
            let times = recording.batch_times(spec.file).map(|(first, last, _)| (first, last));
            self.times.insert(spec.name, times.collect());
        }
    }

    /// When a table was read.
    pub(super) fn times(&self, spec: &TableSpec) -> impl Iterator<Item = Nanos> {
        self.times.get(spec.name).into_iter().flatten().map(|(first, _)| *first)
    }

    /// The reading nearest to a moment, by its place.
    fn nearest(&self, spec: &TableSpec, at: Nanos) -> Option<usize> {
        let times = self.times.get(spec.name)?;
        let after = times.partition_point(|(first, _)| *first <= at);
        let near = [after.checked_sub(1), Some(after)].into_iter().flatten();
        near.filter(|place| *place < times.len())
            .min_by_key(|place| times[*place].0.0.abs_diff(at.0))
    }

    fn span(&self, spec: &TableSpec, place: usize) -> Option<(Nanos, Nanos)> {
        self.times.get(spec.name)?.get(place).copied()
    }

    pub(super) fn buddy(
        &mut self,
        recording: &Recording,
        at: Nanos,
    ) -> Result<Sampled<Arc<Vec<BuddyRow>>>, Error> {
        let place = self.nearest(&BUDDYINFO, at);
        let Some((from, to)) = place.and_then(|place| self.span(&BUDDYINFO, place)) else {
            return Ok(None);
        };
        if self.buddy.as_ref().is_none_or(|(known, _)| *known != from) {
            let samples = recording.buddyinfo_within(from, to)?;
            for sample in samples {
                let sample = sample?;
                if sample.stamp.before == from {
                    self.buddy = Some((from, Arc::new(sample.zones)));
                }
            }
        }
        Ok(self.buddy.clone().filter(|(known, _)| *known == from))
    }

    pub(super) fn zones(
        &mut self,
        recording: &Recording,
        at: Nanos,
    ) -> Result<Arc<Vec<ZoneRow>>, Error> {
        let place = self.nearest(&ZONEINFO, at);
        let Some((from, to)) = place.and_then(|place| self.span(&ZONEINFO, place)) else {
            return Ok(Arc::default());
        };
        if self.zones.as_ref().is_none_or(|(known, _)| *known != from) {
            let samples = recording.zoneinfo_within(from, to)?;
            for sample in samples {
                self.zones = Some((from, Arc::new(sample?.rows)));
            }
        }
        Ok(self.zones.as_ref().map_or_else(Arc::default, |(_, rows)| Arc::clone(rows)))
    }

    /// The nearest slabs, and the reading before them.
    pub(super) fn slabs(
        &mut self,
        recording: &Recording,
        at: Nanos,
    ) -> Result<[Sampled<Arc<Vec<SlabRow>>>; 2], Error> {
        let Some(place) = self.nearest(&SLABINFO, at) else { return Ok([None, None]) };
        let mut found = [None, None];
        for (found, place) in found.iter_mut().zip([Some(place), place.checked_sub(1)]) {
            let Some((from, to)) = place.and_then(|place| self.span(&SLABINFO, place)) else {
                continue;
            };
            *found = self.slabs.iter().find(|(known, _)| *known == from).cloned();
            if found.is_none() {
                let rows = read(recording, &SLABINFO, (from, to), SlabRow::of)?;
                let rows = Arc::new(rows);
                self.slabs.push((from, Arc::clone(&rows)));
                *found = Some((from, rows));
            }
        }
        // Steps go back and forth among few of them.
        let surplus = self.slabs.len().saturating_sub(8);
        self.slabs.drain(..surplus);
        Ok(found)
    }

    /// What was counted a second between the reading before and the nearest one.
    pub(super) fn rates(
        &mut self,
        recording: &Recording,
        at: Nanos,
    ) -> Result<Vec<(&'static str, u64)>, Error> {
        let Some(place) = self.nearest(&VMSTAT, at) else { return Ok(Vec::new()) };
        let Some(before) = place.checked_sub(1) else { return Ok(Vec::new()) };
        let (then, before) = self.counted(recording, before)?;
        let (now, counted) = self.counted(recording, place)?;
        Ok(proc_rows::rates(&before, &counted, now.0.saturating_sub(then.0)))
    }

    fn counted(&mut self, recording: &Recording, place: usize) -> Result<(Nanos, Counted), Error> {
        let (from, to) = self.span(&VMSTAT, place).unwrap_or_default();
        if let Some(known) = self.counters.iter().find(|(known, _)| *known == from) {
            return Ok(*known);
        }
        let row = |batch: &TableBatch, row| VmstatRow {
            key: batch.text(row, 2).to_owned(),
            value: batch.number(row, 3),
        };
        let counted = proc_rows::counted(&read(recording, &VMSTAT, (from, to), row)?);
        let surplus = self.counters.len().saturating_sub(8);
        self.counters.drain(..surplus);
        self.counters.push((from, counted));
        Ok((from, counted))
    }

    pub(super) fn vmalloc(
        &mut self,
        recording: &Recording,
        at: Nanos,
    ) -> Result<Sampled<Arc<Vec<VmallocRow>>>, Error> {
        let place = self.nearest(&VMALLOCINFO, at);
        let Some((from, to)) = place.and_then(|place| self.span(&VMALLOCINFO, place)) else {
            return Ok(None);
        };
        if self.vmalloc.as_ref().is_none_or(|(known, _)| *known != from) {
            let rows = read(recording, &VMALLOCINFO, (from, to), vmalloc_row)?;
            self.vmalloc = Some((from, Arc::new(rows)));
        }
        Ok(self.vmalloc.clone())
    }
}

/// The rows of one reading.
fn read<T>(
    recording: &Recording,
    spec: &'static TableSpec,
    (from, to): (Nanos, Nanos),
    row: impl Fn(&TableBatch, usize) -> T,
) -> Result<Vec<T>, Error> {
    let mut rows = Vec::new();
    for batch in recording.table_within(spec, from, to)? {
        let batch = batch?;
        rows.extend((0..batch.rows()).map(|number| row(&batch, number)));
    }
    Ok(rows)
}

fn vmalloc_row(batch: &TableBatch, row: usize) -> VmallocRow {
    let caller = batch.text(row, 5);
    VmallocRow {
        start_address: batch.number(row, 2),
        end_address: batch.number(row, 3),
        bytes: batch.number(row, 4),
        caller: (!caller.is_empty()).then(|| caller.to_owned()),
        pages: match batch.cell(row, 6) {
            Cell::U64(pages) => Some(pages),
            _ => None,
        },
        flags: batch.text(row, 7).to_owned(),
    }
}
