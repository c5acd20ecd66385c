//! This machine now, from `/proc` alone. What cannot be read is told in its place; the rest runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kmemlab_collector::proc::{buddyinfo, slabinfo, vmallocinfo, vmstat, zoneinfo};
use kmemlab_collector::root::Root;
use kmemlab_collector::{clock, host::Host};
use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::unit::Nanos;
use kmemlab_tui::parts::Vmalloc;
use kmemlab_tui::source::{SourceError, sum_blocks};
use kmemlab_tui::{About, Outline, SlabSample, Snapshot, Source, Told, View};

use super::proc_rows::{self, Counted};

/// Readings kept to step back to.
const KEPT: usize = 900;
const PRESSURE: &str = "proc/pressure/memory";
/// Bytes of a page where the kernel does not tell.
const USUAL_PAGE: u64 = 4096;

/// This machine.
#[derive(Debug)]
pub(crate) struct LiveSource {
    root: Root,
    every: Duration,
    due: Nanos,
    outline: Outline,
    readings: VecDeque<Snapshot>,
    counted: Option<(Nanos, Counted)>,
    active: Option<(Nanos, Arc<BTreeMap<String, u64>>)>,
    vmalloc: Option<Vmalloc>,
}

impl LiveSource {
    /// Reads `/proc` below `root` once, and then each time this span of time is over.
    pub(crate) fn new(root: Root, every: Duration) -> Self {
        let mut source = Self {
            outline: Outline { about: about(&root), is_live: true, ..Outline::default() },
            root,
            every,
            due: Nanos(0),
            readings: VecDeque::new(),
            counted: None,
            active: None,
            vmalloc: None,
        };
        source.outline.begin = source.outline.about.start;
        source.read();
        source.outline.begin = source.outline.end;
        source
    }

    /// Reads everything that is cheap to read.
    fn read(&mut self) {
        let at = clock::now();
        let buddy = self.file(buddyinfo::PATH, buddyinfo::parse);
        let zones = self.file(zoneinfo::PATH, zoneinfo::parse);
        let slabs = self.file(slabinfo::PATH, slabinfo::parse);
        let counters = self.file(vmstat::PATH, vmstat::parse);
        let mut notes = Vec::new();
        let mut told = |error: Option<String>| {
            // The usual reason stands once for all files.
            if let Some(error) = error.filter(|error| !notes.contains(error)) {
                notes.push(error);
            }
        };
        told(buddy.as_ref().err().cloned());
        told(zones.as_ref().err().cloned());
        told(slabs.as_ref().err().cloned());
        told(counters.as_ref().err().cloned());
        self.outline.about.notes = notes;
        let (buddy, zones) = (buddy.unwrap_or_default(), zones.unwrap_or_default());
        let blocks = sum_blocks(buddy.iter().map(|row| row.free_blocks.as_slice()));
        self.outline.history.push(at, &blocks);
        let pressure = self.root.read(PRESSURE).ok();
        let snapshot = Snapshot {
            at,
            zones_at: Some(at),
            zones: proc_rows::zones(&buddy, &zones),
            pressure: pressure.as_deref().and_then(proc_rows::pressure),
            counters: self.rates(at, counters.ok().as_deref().map(proc_rows::counted)),
            slabs: match slabs {
                Ok(rows) => Told::Yes(self.sample(rows)),
                Err(why) => Told::No(why),
            },
            ..Snapshot::default()
        };
        if self.readings.len() == KEPT {
            self.readings.pop_front();
            self.outline.times.remove(0);
            self.outline.begin = self.outline.times.first().copied().unwrap_or(at);
        }
        self.readings.push_back(snapshot);
        self.outline.times.push(at);
        self.outline.end = at;
        let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        self.due = Nanos(at.0.saturating_add(every));
    }

    fn file<T, E: std::fmt::Display>(
        &self,
        path: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, String> {
        let text = self.root.read(path).map_err(|error| error.to_string())?;
        parse(&text).map_err(|error| error.to_string())
    }

    fn rates(&mut self, at: Nanos, now: Option<Counted>) -> Vec<(&'static str, u64)> {
        let before = std::mem::replace(&mut self.counted, now.map(|now| (at, now)));
        match (before, now) {
            (Some((then, before)), Some(now)) => {
                proc_rows::rates(&before, &now, at.0.saturating_sub(then.0))
            }
            _ => Vec::new(),
        }
    }

    fn sample(&mut self, rows: Vec<SlabRow>) -> SlabSample {
        let sample = SlabSample { at: clock::now(), rows, ..SlabSample::default() };
        let now = (sample.at, Arc::new(sample.active()));
        SlabSample { before: self.active.replace(now), ..sample }
    }

    /// Dear to read: only while somebody looks at it.
    fn vmalloc(&mut self) -> Told<Vmalloc> {
        let now = clock::now();
        if let Some(known) =
            self.vmalloc.as_ref().filter(|known| now.0 < known.at.0 + 1_000_000_000)
        {
            return Told::Yes(known.clone());
        }
        match self.file(vmallocinfo::PATH, vmallocinfo::parse) {
            Ok(areas) => {
                let vmalloc = Vmalloc { at: now, areas, ..Vmalloc::default() };
                self.vmalloc = Some(vmalloc.clone());
                Told::Yes(vmalloc)
            }
            Err(why) => Told::No(why),
        }
    }
}

impl Source for LiveSource {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn refresh(&mut self) -> Result<bool, SourceError> {
        if clock::now() < self.due {
            return Ok(false);
        }
        self.read();
        Ok(true)
    }

    fn load(&mut self, at: Nanos, view: View) -> Result<Snapshot, SourceError> {
        let place = self.readings.partition_point(|reading| reading.at <= at);
        let reading = self.readings.get(place.saturating_sub(1)).cloned();
        let mut snapshot = reading.ok_or("nothing was read yet")?;
        let needs_events = |what: &str| {
            format!("{what} come from events, not from /proc: run `kmemlab top --events` as root.")
        };
        match view {
            View::Vmalloc => snapshot.vmalloc = self.vmalloc(),
            View::Sites => snapshot.sites = Told::No(needs_events("Call sites")),
            View::Blocks => snapshot.blocks = Told::No(needs_events("Page blocks")),
            View::Latency => snapshot.latency = Told::No(needs_events("Stalls")),
            View::Compare => {
                let why = "There is nothing to compare /proc with: the mirror and the model follow \
                           events. Run `kmemlab record` and look at the recording with \
                           `kmemlab tui`.";
                snapshot.comparison = Told::No(why.to_owned());
            }
            View::Overview | View::Slabs => {}
        }
        Ok(snapshot)
    }
}

fn about(root: &Root) -> About {
    let host = Host::read(root).ok();
    let name = host.as_ref().map_or_else(String::new, |host| host.name.clone());
    let release = host.as_ref().map_or_else(String::new, |host| host.kernel_release.clone());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: "live".to_owned(),
        host: format!("{name}, Linux {release}"),
        page_size_bytes: host.map_or(USUAL_PAGE, |host| host.page_size_bytes),
        start: clock::now(),
        start_realtime_ns: u64::try_from(since_1970.as_nanos()).unwrap_or(0),
        notes: Vec::new(),
    }
}
