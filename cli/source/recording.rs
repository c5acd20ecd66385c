//! A recording for the screen, finished or still being written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kmemlab_replay::policy::PolicySet;
use kmemlab_trace::format::{BUDDYINFO, EVENTS, LOSS, SLABINFO, ZONEINFO};
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::{Error, Recording};
use kmemlab_tui::parts::{BlockMap, Comparison, Latency, Site, Vmalloc};
use kmemlab_tui::source::{SourceError, sum_blocks};
use kmemlab_tui::{
    About, Loss, MarkKind, Marks, MirrorError, Outline, SlabSample, Snapshot, Source, Told, View,
};

use super::cursor::{Cursor, state_at};
use super::index::{Extent, Index, Plan};
use super::models::Models;
use super::sites::{Sites, mark_bounds};
use super::tables::Tables;
use super::walk::Walker;
use super::{pair, proc_rows};

/// How often a growing recording, and the work on one, are looked at.
const LOOK: Duration = Duration::from_millis(200);
const LIVE: &str = "The model is compared with recordings that are finished.";
const PRESSURE: &str = "/proc/pressure/memory";

/// A recording for the screen.
#[derive(Debug)]
pub(crate) struct RecordingSource {
    recording: Recording,
    plan: Plan,
    pub(super) outline: Outline,
    pub(super) tables: Tables,
    pub(super) index: Arc<Index>,
    pages: Option<Cursor<Walker>>,
    sites: Option<Cursor<Sites>>,
    models: Models,
    other: Option<Box<RecordingSource>>,
    latency: Option<(usize, Arc<Latency>)>,
    looked: Instant,
    extent: Extent,
    revision: u64,
}

/// What is to be shown.
#[derive(Debug, Default)]
pub(crate) struct Show {
    /// The recording.
    pub(crate) path: PathBuf,
    /// Pass over damaged batches.
    pub(crate) salvage: bool,
    /// It is being recorded here and now.
    pub(crate) is_here: bool,
    /// A release whose rules a second model follows.
    pub(crate) rules: Option<String>,
    /// One set of policies to compare with the baseline, or two with each other.
    pub(crate) policies: Vec<PolicySet>,
}

impl RecordingSource {
    /// Reads what the first screen needs, and starts the background's work on the rest.
    pub(crate) fn open(show: Show) -> anyhow::Result<Self> {
        let plan = Plan { path: show.path, salvage: show.salvage, is_here: show.is_here };
        // Before it is opened: what comes meanwhile is seen later.
        let extent = Extent::of(&plan);
        let recording = Recording::open(&plan.path, plan.salvage)?;
        let index = Index::start(plan.clone())?;
        let mut source = Self {
            outline: Outline { about: about(&recording), ..Outline::default() },
            tables: Tables::default(),
            models: Models::new(plan.clone(), show.rules, show.policies),
            recording,
            plan,
            index,
            pages: None,
            sites: None,
            other: None,
            latency: None,
            looked: Instant::now(),
            extent,
            revision: u64::MAX,
        };
        source.outline.is_live = show.is_here;
        source.take_in()?;
        anyhow::ensure!(
            source.outline.is_live || source.outline.end > Nanos(0),
            "{} holds neither a snapshot of /proc nor an event; see what it holds with \
             `kmemlab info`",
            source.recording.path().display()
        );
        Ok(source)
    }

    /// Another recording to compare this one with.
    pub(crate) fn with_other(mut self, other: Self) -> Self {
        self.other = Some(Box::new(other));
        self
    }

    /// Waits until the background is done, for a screen that is painted once.
    pub(crate) fn finish(&mut self, view: View) {
        // What is recorded here has its end by now; what was cut off never gets one.
        let is_here = self.plan.is_here;
        let is_over = |index: &Index| {
            let known = index.known();
            known.is_done || (known.is_caught_up && !is_here)
        };
        while !is_over(&self.index) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if view == View::Compare && self.other.is_none() {
            let _ = self.models.at(self.outline.end);
            while self.models.is_running() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some(other) = &mut self.other {
            other.finish(View::Overview);
        }
        self.looked = Instant::now().checked_sub(LOOK).unwrap_or_else(Instant::now);
    }

    /// How many checkpoints there are, and how much memory they and the frees take.
    pub(crate) fn memory(&self) -> (usize, u64) {
        let known = self.index.known();
        let pages: u64 = known.pages.iter().map(|known| known.state.bytes()).sum();
        let sites: u64 = known.sites.iter().map(|known| known.state.bytes()).sum();
        let freed = (known.freed.len() * size_of::<super::sites::Freed>()) as u64;
        (known.pages.len() + known.sites.len(), pages + sites + freed)
    }

    /// Brings the outline to what the recording holds now.
    fn take_in(&mut self) -> Result<(), Error> {
        let seen = self.outline.times.len();
        self.tables.look_again(&self.recording);
        let spec = [&BUDDYINFO, &ZONEINFO, &SLABINFO]
            .into_iter()
            .find(|spec| self.recording.has(spec))
            .unwrap_or(&BUDDYINFO);
        self.outline.times = self.tables.times(spec).collect();
        let times = &self.outline.times;
        let (from, to) = (times.get(seen), times.last());
        if let (Some(from), Some(to)) = (from.copied(), to.copied()) {
            for sample in self.recording.buddyinfo_within(from, to)? {
                let sample = sample?;
                let zones = sample.zones.iter().map(|zone| zone.free_blocks.as_slice());
                if sample.stamp.before >= from {
                    self.outline.history.push(sample.stamp.before, &sum_blocks(zones));
                }
            }
        }
        let span = self.recording.span();
        let firsts = [times.first().copied(), span.map(|(first, _)| first)];
        let lasts = [times.last().copied(), span.map(|(_, last)| last)];
        let until = self.index.known().until.filter(|_| self.outline.is_live);
        self.outline.begin = firsts.into_iter().flatten().min().unwrap_or_default();
        let end = until.or_else(|| lasts.into_iter().flatten().max());
        self.outline.end = end.unwrap_or_default().max(self.outline.end);
        let (loss, gaps) = loss(&self.recording)?;
        self.outline.loss = loss;
        let known = self.index.known();
        let mut marks: Marks = known.found.marks.clone();
        gaps.into_iter().for_each(|at| marks.push(MarkKind::Loss, at));
        self.outline.marks = Arc::new(marks);
        self.outline.work = known.work.clone();
        let mut about = about(&self.recording);
        if self.outline.is_live {
            // Of a recorder that is at work "cut off" is not the word.
            about.notes.clone_from(&self.recording.manifest().notes);
        }
        if self.plan.is_here {
            about.name = format!("live, {}", about.name);
        }
        let mut notes = std::mem::take(&mut about.notes);
        notes.extend(known.no_mirror.iter().cloned());
        notes.extend(known.trouble.iter().cloned());
        self.outline.about = About { notes, ..about };
        Ok(())
    }

    /// A growing recording is opened anew; tells whether it grew.
    fn look(&mut self) -> Result<bool, Error> {
        if self.recording.manifest().end.is_some() {
            return Ok(std::mem::replace(&mut self.outline.is_live, false));
        }
        let extent = Extent::of(&self.plan);
        if std::mem::replace(&mut self.extent, extent) == extent {
            return Ok(false);
        }
        let before = (self.recording.batches_of(EVENTS), self.recording.batches_of(BUDDYINFO.file));
        let now = Recording::open(&self.plan.path, self.plan.salvage)?;
        let after = (now.batches_of(EVENTS), now.batches_of(BUDDYINFO.file));
        let has_changed = before != after || now.manifest().end.is_some();
        self.outline.is_live |= before != after;
        self.recording = now;
        Ok(has_changed)
    }

    /// The zones at a moment, rebuilt from the events where these tell, with how far the mirror was
    /// from the kernel's own word at the last reading before.
    fn overview(&mut self, at: Nanos) -> Result<Snapshot, Error> {
        let recording = &self.recording;
        let buddy = self.tables.buddy(recording, at)?;
        let rows = self.tables.zones(recording, at)?;
        let (read, buddy) = buddy.map_or((at, Arc::default()), |(read, rows)| (read, rows));
        let mut zones = proc_rows::zones(&buddy, &rows);
        let walker = self::pages(&mut self.pages, recording, &self.index, at)?;
        let is_exact = walker.is_some_and(|walker| walker.fill_zones(&mut zones));
        let known = self.index.known();
        let check = known.check_before(at);
        let mirror_error = check.map(|check| MirrorError {
            at: check.at,
            wrong_pages: check.wrong_pages,
            free_pages: check.free_pages,
        });
        drop(known);
        let pressure = self.plan.is_here.then(|| std::fs::read_to_string(PRESSURE).ok()).flatten();
        Ok(Snapshot {
            at,
            zones_at: (!is_exact).then_some(read),
            zones,
            mirror_error,
            pressure: pressure.as_deref().and_then(proc_rows::pressure),
            counters: self.tables.rates(recording, at)?,
            ..Snapshot::default()
        })
    }

    /// Zones and slabs: what two recordings are compared by.
    pub(super) fn both(&mut self, at: Nanos) -> Result<Snapshot, Error> {
        let slabs = self.slabs(at, View::Compare)?;
        Ok(Snapshot { slabs, ..self.overview(at)? })
    }

    fn slabs(&mut self, at: Nanos, view: View) -> Result<Told<SlabSample>, Error> {
        let [now, before] = self.tables.slabs(&self.recording, at)?;
        let Some((read, rows)) = now else {
            let why = "No slab caches here: /proc/slabinfo was not recorded (reading it needs \
                       root): record again with `sudo kmemlab record`.";
            return Ok(Told::No(why.to_owned()));
        };
        let active = |rows: &[kmemlab_trace::snapshot::SlabRow]| -> BTreeMap<String, u64> {
            rows.iter().map(|row| (row.cache.clone(), row.active_objects)).collect()
        };
        let before = before.map(|(at, rows)| (at, Arc::new(active(&rows))));
        let names = Arc::clone(&self.index.known().names);
        let tops = match view {
            View::Slabs => self::sites(&mut self.sites, &self.recording, &self.index, at)?
                .map(|sites| sites.tops(&names))
                .unwrap_or_default(),
            _ => BTreeMap::new(),
        };
        let rows = rows.to_vec();
        Ok(Told::Yes(SlabSample { at: read, rows, before, top_sites: Arc::new(tops) }))
    }

    /// Why the state is not known at a moment.
    fn unknown(&self, what: &str) -> String {
        let known = self.index.known();
        if let Some(trouble) = &known.trouble {
            return format!("{what} cannot be told: {trouble}.");
        }
        if let Some(work) = &known.work {
            return format!("{what} come when the recording is gone through: {} %.", work.percent);
        }
        if self.recording.batches_of(EVENTS) == 0 {
            return format!("{what} come from events, and this recording has none.");
        }
        format!("{what} are known only from the moment on when the page map was whole.")
    }

    pub(super) fn sites(&mut self, at: Nanos) -> Result<Told<Vec<Site>>, Error> {
        let names = Arc::clone(&self.index.known().names);
        let sites = self::sites(&mut self.sites, &self.recording, &self.index, at)?;
        let Some(sites) = sites else { return Ok(Told::No(self.unknown("Call sites"))) };
        let mut sites = sites.shown(&names, at);
        if let [Some((_, rows)), _] = self.tables.slabs(&self.recording, at)? {
            mark_bounds(&mut sites, &rows);
        }
        if sites.is_empty() {
            let why = "No allocation with a call site up to this moment: record the group slab, \
                       and call chains with --stacks for pages.";
            return Ok(Told::No(why.to_owned()));
        }
        Ok(Told::Yes(sites))
    }

    fn blocks(&mut self, at: Nanos) -> Result<Told<Arc<BlockMap>>, Error> {
        let types = self.recording.manifest().host.migrate_types.clone();
        let walker = self::pages(&mut self.pages, &self.recording, &self.index, at)?;
        let map = walker.and_then(|walker| walker.blocks(&types));
        let known = self.index.known();
        match (map, &known.no_mirror) {
            (Some(map), _) => {
                let (uses, uses_at) = (Arc::clone(&known.uses), known.uses_at);
                Ok(Told::Yes(Arc::new(BlockMap { uses, uses_at, ..map })))
            }
            (None, Some(why)) => Ok(Told::No(why.clone())),
            (None, None) => {
                drop(known);
                Ok(Told::No(self.unknown("Page blocks")))
            }
        }
    }

    fn vmalloc(&mut self, at: Nanos) -> Result<Told<Vmalloc>, Error> {
        let Some((read, rows)) = self.tables.vmalloc(&self.recording, at)? else {
            let why = "No vmalloc areas here: /proc/vmallocinfo was not recorded (reading it \
                       needs root): record again with `sudo kmemlab record`.";
            return Ok(Told::No(why.to_owned()));
        };
        let walker = self::pages(&mut self.pages, &self.recording, &self.index, at)?;
        let vmap = walker.map(|walker| walker.vmap).unwrap_or_default();
        Ok(Told::Yes(Vmalloc {
            at: read,
            areas: rows.to_vec(),
            lazy_pages: vmap.lazy.map(|(pages, _)| pages),
            lazy_limit_pages: vmap.lazy.map(|(_, limit)| limit),
            made: vmap.made,
            freed: vmap.freed,
        }))
    }

    /// Kernel, mirror and model; without the model while that is not known, or never will be.
    fn compared(&self, at: Nanos) -> Result<Comparison, String> {
        let is_live = self.outline.is_live;
        let modelled = if is_live { Err(LIVE.to_owned()) } else { self.models.at(at) };
        modelled.or_else(|why| {
            let known = self.index.known();
            let Some(check) = known.check_before(at) else { return Err(why) };
            let mut comparison = check.comparison();
            comparison.verdicts.push(why);
            Ok(comparison)
        })
    }

    pub(super) fn latency(&mut self, at: Nanos) -> Arc<Latency> {
        let known = self.index.known();
        let count = known.found.until(at);
        if let Some((_, latency)) = self.latency.as_ref().filter(|(known, _)| *known == count) {
            return Arc::clone(latency);
        }
        let latency = Arc::new(known.found.latency(count, &known.names));
        drop(known);
        self.latency = Some((count, Arc::clone(&latency)));
        latency
    }
}

impl Drop for RecordingSource {
    fn drop(&mut self) {
        self.index.stop();
    }
}

impl Source for RecordingSource {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn refresh(&mut self) -> Result<bool, SourceError> {
        if self.looked.elapsed() < LOOK {
            return Ok(false);
        }
        self.looked = Instant::now();
        let other = self.other.as_mut().map_or(Ok(false), |other| other.refresh())?;
        let mut has_changed = self.models.take_done() || other;
        has_changed |= self.look()?;
        let revision = self.index.revision();
        has_changed |= std::mem::replace(&mut self.revision, revision) != revision;
        if has_changed {
            self.take_in()?;
        }
        Ok(has_changed)
    }

    fn load(&mut self, at: Nanos, view: View) -> Result<Snapshot, SourceError> {
        let mut snapshot = Snapshot { at, ..Snapshot::default() };
        match view {
            View::Overview => snapshot = self.overview(at)?,
            View::Slabs => snapshot.slabs = self.slabs(at, view)?,
            View::Sites => snapshot.sites = self.sites(at)?,
            View::Blocks => snapshot.blocks = self.blocks(at)?,
            View::Vmalloc => snapshot.vmalloc = self.vmalloc(at)?,
            View::Latency => snapshot.latency = Told::Yes(self.latency(at)),
            View::Compare => {
                let compared = match self.other.take() {
                    None => self.compared(at),
                    Some(mut other) => {
                        let snapshot = self.both(at)?;
                        let compared = pair::compare(self, &mut other, &snapshot);
                        self.other = Some(other);
                        Ok(compared?)
                    }
                };
                snapshot.comparison = compared.map_or_else(Told::No, Told::Yes);
            }
        }
        Ok(snapshot)
    }
}

/// The pages at a moment.
fn pages<'a>(
    slot: &'a mut Option<Cursor<Walker>>,
    recording: &Recording,
    index: &Index,
    at: Nanos,
) -> Result<Option<&'a Walker>, Error> {
    state_at(slot, |known| &known.pages, recording, index, at)
}

/// The call sites at a moment.
fn sites<'a>(
    slot: &'a mut Option<Cursor<Sites>>,
    recording: &Recording,
    index: &Index,
    at: Nanos,
) -> Result<Option<&'a Sites>, Error> {
    state_at(slot, |known| &known.sites, recording, index, at)
}

fn about(recording: &Recording) -> About {
    let manifest = recording.manifest();
    let host = &manifest.host;
    let path = recording.path();
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name,
        host: format!("{} Linux {}", host.name, host.kernel_release).trim().to_owned(),
        page_size_bytes: host.page_size_bytes,
        start: Nanos(manifest.started_monotonic_ns),
        start_realtime_ns: manifest.started_realtime_ns,
        notes: recording.notes().iter().chain(&manifest.notes).cloned().collect(),
    }
}

/// What was lost, and when the rings told of it.
fn loss(recording: &Recording) -> Result<(Loss, Vec<Nanos>), Error> {
    let mut loss = Loss::default();
    let (mut cpus, mut gaps) = (BTreeSet::new(), Vec::new());
    for batch in recording.table(&LOSS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            gaps.push(Nanos(batch.number(row, 2)));
            loss.events += batch.number(row, 3);
            loss.gaps += 1;
            cpus.insert(batch.number(row, 0));
        }
    }
    loss.cpus = cpus.len() as u64;
    // The manifest may know of more: what was lost at the very end has no place in time.
    let told = recording.manifest().end.as_ref().map_or(0, |end| end.lost_events);
    loss.events = loss.events.max(told);
    Ok((loss, gaps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str) -> RecordingSource {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sample-traces").join(name);
        let mut source = RecordingSource::open(Show { path, ..Show::default() }).unwrap();
        source.finish(View::Overview);
        source.refresh().unwrap();
        source
    }

    /// Moments all over the recording, in no order.
    fn moments(source: &RecordingSource) -> Vec<Nanos> {
        let (begin, end) = (source.outline.begin.0, source.outline.end.0);
        let parts = [97, 3, 50, 51, 20, 99, 75, 74, 33, 100, 1, 60];
        parts.iter().map(|part| Nanos(begin + (end - begin) * part / 100)).collect()
    }

    #[test]
    fn a_moment_is_the_same_however_one_gets_there() {
        for name in ["slab-churn.kmt", "fork-open.kmt", "pressure.kmt"] {
            let (mut jumping, mut walking) = (open(name), open(name));
            let moments = moments(&jumping);
            let mut sorted = moments.clone();
            sorted.sort();
            for view in [View::Overview, View::Sites, View::Blocks, View::Vmalloc, View::Latency] {
                let jumped: BTreeMap<Nanos, Snapshot> =
                    moments.iter().map(|at| (*at, jumping.load(*at, view).unwrap())).collect();
                for at in &sorted {
                    let walked = walking.load(*at, view).unwrap();
                    assert!(jumped[at] == walked, "{name} {view:?} at {at:?}");
                }
            }
        }
    }

    #[test]
    fn the_state_at_a_reading_is_what_the_kernel_said() {
        for name in ["slab-churn.kmt", "fork-open.kmt"] {
            let source = open(name);
            let known = source.index.known();
            assert!(known.checks.len() >= 4, "{name}: {:?}", known.checks);
            let exact = known.checks.iter().filter(|check| check.wrong_pages == 0).count();
            // A reading takes a while; at most one met an event meanwhile.
            assert!(exact + 1 >= known.checks.len(), "{name}: {:?}", known.checks);
        }
    }

    #[test]
    fn a_sum_over_the_map_is_the_zone() {
        let mut source = open("fork-open.kmt");
        let at = source.outline.end;
        let snapshot = source.load(at, View::Overview).unwrap();
        assert_eq!(snapshot.zones_at, None);
        let map = source.load(at, View::Blocks).unwrap().blocks;
        let map = map.yes().unwrap();
        for ((name, first, end), zone) in map.zones.iter().zip(&snapshot.zones) {
            assert_eq!(*name, zone.label());
            let free: u64 = map.blocks[*first..*end].iter().map(|b| u64::from(b.free)).sum();
            assert_eq!(Some(free), zone.free_pages(), "{name}");
        }
    }
}
