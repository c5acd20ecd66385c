//! The screen's numbers out of a recording: an index of times, and one snapshot at a time.

use std::collections::{BTreeSet, VecDeque};
use std::iter::Peekable;

use kmemlab_trace::format::{LOSS, SLABINFO, ZONEINFO};
use kmemlab_trace::reader::{BuddySample, BuddySamples, TableBatches, ZoneSample, ZoneSamples};
use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::table::TableBatch;
use kmemlab_trace::unit::{Nanos, NodeId};
use kmemlab_trace::{Error, Recording};
use kmemlab_tui::source::{SourceError, sum_blocks};
use kmemlab_tui::{About, Loss, Outline, SlabSample, Snapshot, Source, ZoneState};

/// Snapshots kept behind the reader, for steps back: a recording is read forward only.
const KEPT: usize = 64;

/// A recording for the screen.
#[derive(Debug)]
pub(crate) struct RecordingSource {
    recording: Recording,
    outline: Outline,
    reader: Reader,
    kept: VecDeque<(usize, Snapshot)>,
}

impl RecordingSource {
    /// Reads the times, the fragmentation over them and the loss; no snapshot is kept.
    pub(crate) fn new(recording: Recording) -> anyhow::Result<Self> {
        let mut outline = Outline { about: about(&recording), ..Outline::default() };
        for sample in recording.buddyinfo()? {
            let sample = sample?;
            let blocks = sum_blocks(sample.zones.iter().map(|zone| zone.free_blocks.as_slice()));
            outline.times.push(sample.stamp.before);
            outline.history.push(sample.stamp.before, &blocks);
        }
        if outline.times.is_empty() {
            outline.times = times_without_buddyinfo(&recording)?;
        }
        anyhow::ensure!(
            !outline.times.is_empty(),
            "{} holds no snapshot of /proc, and the screen shows nothing else yet; \
             see what it holds with `kmemlab info`",
            recording.path().display()
        );
        outline.loss = loss(&recording, &outline.times)?;
        let reader = Reader::new(&recording)?;
        Ok(Self { recording, outline, reader, kept: VecDeque::new() })
    }
}

impl RecordingSource {
    fn read_to(&mut self, index: usize) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot::default();
        while self.reader.next <= index {
            let read = self.reader.next;
            let Some(&at) = self.outline.times.get(read) else { break };
            self.reader.advance(at)?;
            // Only what may be stepped back to is put together.
            if read + KEPT > index {
                snapshot = self.reader.snapshot(at);
                if self.kept.len() == KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back((read, snapshot.clone()));
            }
        }
        Ok(snapshot)
    }
}

impl Source for RecordingSource {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn load(&mut self, index: usize) -> Result<Snapshot, SourceError> {
        if let Some((_, snapshot)) = self.kept.iter().find(|(known, _)| *known == index) {
            return Ok(snapshot.clone());
        }
        if index < self.reader.next {
            self.reader = Reader::new(&self.recording)?;
            self.kept.clear();
        }
        let read = self.read_to(index);
        if read.is_err() {
            // What is damaged is so at every look: nothing beyond it is shown as if it were whole.
            self.reader = Reader::new(&self.recording)?;
            self.kept.clear();
        }
        Ok(read?)
    }
}

fn about(recording: &Recording) -> About {
    let manifest = recording.manifest();
    let host = &manifest.host;
    let path = recording.path();
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name,
        host: format!("{}, Linux {}", host.name, host.kernel_release),
        page_size_bytes: host.page_size_bytes,
        start: Nanos(manifest.started_monotonic_ns),
        start_realtime_ns: manifest.started_realtime_ns,
        notes: recording.notes().iter().chain(&manifest.notes).cloned().collect(),
    }
}

/// The times of the next best table, where buddyinfo could not be recorded.
fn times_without_buddyinfo(recording: &Recording) -> Result<Vec<Nanos>, Error> {
    let table = if recording.has(&ZONEINFO) { &ZONEINFO } else { &SLABINFO };
    let times = recording.table(table)?.map(|batch| Ok(read_at(&batch?)));
    times.collect()
}

fn read_at(batch: &TableBatch) -> Nanos {
    if batch.rows() == 0 { Nanos(0) } else { Nanos(batch.number(0, 0)) }
}

fn loss(recording: &Recording, times: &[Nanos]) -> Result<Loss, Error> {
    let mut loss = Loss { by_snapshot: vec![0; times.len()], ..Loss::default() };
    let mut cpus = BTreeSet::new();
    for batch in recording.table(&LOSS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let (to, events) = (Nanos(batch.number(row, 2)), batch.number(row, 3));
            let index = times.partition_point(|at| *at < to).min(times.len() - 1);
            loss.by_snapshot[index] += events;
            loss.events += events;
            loss.gaps += 1;
            cpus.insert(batch.number(row, 0));
        }
    }
    loss.cpus = cpus.len() as u64;
    // The manifest may know of more: what was lost at the very end has no place in time.
    let told = recording.manifest().end.as_ref().map_or(0, |end| end.lost_events);
    loss.events = loss.events.max(told);
    Ok(loss)
}

/// Walks the tables side by side, each at its sample nearest in time.
#[derive(Debug)]
struct Reader {
    next: usize,
    buddy: Nearest<BuddySamples, BuddySample>,
    zones: Nearest<ZoneSamples, ZoneSample>,
    slabs: Nearest<SlabSamples, SlabSample>,
}

impl Reader {
    fn new(recording: &Recording) -> Result<Self, Error> {
        Ok(Self {
            next: 0,
            buddy: Nearest::new(recording.buddyinfo()?, |sample| sample.stamp.before),
            zones: Nearest::new(recording.zoneinfo()?, |sample| sample.stamp.before),
            slabs: Nearest::new(SlabSamples(recording.table(&SLABINFO)?), |sample| sample.at),
        })
    }

    fn advance(&mut self, at: Nanos) -> Result<(), Error> {
        self.buddy.advance(at)?;
        self.zones.advance(at)?;
        self.slabs.advance(at)?;
        self.next += 1;
        Ok(())
    }

    fn snapshot(&self, at: Nanos) -> Snapshot {
        let mut zones = Vec::new();
        for row in self.buddy.now.iter().flat_map(|sample| &sample.zones) {
            let state = zone_state(row.node, &row.zone, self.zones.now.as_ref());
            zones.push(ZoneState { free_blocks: row.free_blocks.clone(), ..state });
        }
        if let (true, Some(sample)) = (zones.is_empty(), &self.zones.now) {
            let managed = sample.rows.iter().filter(|row| row.key == "managed" && row.value > 0);
            zones.extend(managed.map(|row| zone_state(row.node, &row.zone, Some(sample))));
        }
        Snapshot { at, zones, slabs: self.slabs.now.clone() }
    }
}

fn zone_state(node: NodeId, zone: &str, sample: Option<&ZoneSample>) -> ZoneState {
    let mut state = ZoneState { node, zone: zone.to_owned(), ..ZoneState::default() };
    let rows = sample.iter().flat_map(|sample| &sample.rows);
    for row in rows.filter(|row| row.node == node && row.zone == zone) {
        let Ok(value) = u64::try_from(row.value) else { continue };
        match (row.key.as_str(), row.cpu) {
            ("managed", None) => state.managed = Some(value),
            ("free", None) => state.free = Some(value),
            ("min", None) => state.min = Some(value),
            ("low", None) => state.low = Some(value),
            ("high", None) => state.high = Some(value),
            ("pcp_count", Some(_)) => state.percpu = Some(state.percpu.unwrap_or(0) + value),
            _ => {}
        }
    }
    state
}

/// The sample of a table that is nearest to a time that only grows.
struct Nearest<I: Iterator<Item = Result<T, Error>>, T> {
    samples: Peekable<I>,
    time: fn(&T) -> Nanos,
    now: Option<T>,
}

impl<I: Iterator<Item = Result<T, Error>>, T> std::fmt::Debug for Nearest<I, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nearest").field("now", &self.now.as_ref().map(self.time)).finish()
    }
}

impl<I: Iterator<Item = Result<T, Error>>, T> Nearest<I, T> {
    fn new(samples: I, time: fn(&T) -> Nanos) -> Self {
        Self { samples: samples.peekable(), time, now: None }
    }

    fn advance(&mut self, at: Nanos) -> Result<(), Error> {
        let time = self.time;
        loop {
            let far = |sample: &T| time(sample).0.abs_diff(at.0);
            let is_nearer = match (self.samples.peek(), &self.now) {
                (None, _) => false,
                (Some(Err(_)), _) | (Some(Ok(_)), None) => true,
                (Some(Ok(next)), Some(now)) => far(next) <= far(now),
            };
            if !is_nearer {
                return Ok(());
            }
            self.now = self.samples.next().transpose()?;
        }
    }
}

/// Samples of `/proc/slabinfo`; each was written as one batch.
#[derive(Debug)]
struct SlabSamples(TableBatches);

impl Iterator for SlabSamples {
    type Item = Result<SlabSample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.0.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let rows = (0..batch.rows()).map(|row| SlabRow {
            cache: batch.text(row, 2).to_owned(),
            active_objects: batch.number(row, 3),
            objects: batch.number(row, 4),
            object_size_bytes: batch.number(row, 5),
            objects_per_slab: batch.number(row, 6),
            pages_per_slab: batch.number(row, 7),
            active_slabs: batch.number(row, 8),
            slabs: batch.number(row, 9),
        });
        Some(Ok(SlabSample { at: read_at(&batch), rows: rows.collect() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_sample_is_taken_before_or_after() {
        let samples = [10, 20, 90].map(|at| Ok(Nanos(at)));
        let mut nearest = Nearest::new(samples.into_iter(), |at| *at);
        let mut at = |time: u64| {
            nearest.advance(Nanos(time)).unwrap();
            nearest.now
        };
        // The first one there is, even from the future.
        assert_eq!(at(0), Some(Nanos(10)));
        assert_eq!(at(14), Some(Nanos(10)));
        assert_eq!(at(16), Some(Nanos(20)));
        assert_eq!(at(50), Some(Nanos(20)));
        assert_eq!(at(60), Some(Nanos(90)));
        assert_eq!(at(1000), Some(Nanos(90)));
    }
}
