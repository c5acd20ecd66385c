//! What the kernel says of itself in `/proc`, taken while the events are on.
//!
//! Snapshots have a thread of their own: reading the page map takes half a second for each 24 GiB,
//! and the rings must be drained meanwhile.

use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use kmemlab_trace::format::{self, TableSpec};
use kmemlab_trace::snapshot::{
    BuddyRow, PageRun, PageTypeRow, SlabDetailRow, SlabRow, Stamp, VmallocRow, VmstatRow, ZoneRow,
};
use kmemlab_trace::unit::Pfn;
use kmemlab_trace::writer::RecordingWriter;

use crate::addresses::ShownAddresses;
use crate::clock;
use crate::encode::Job;
use crate::error::{Error, ParseError};
use crate::fault;
use crate::proc::{buddyinfo, kpageflags, pagetypeinfo, slabinfo, vmallocinfo, vmstat, zoneinfo};
use crate::root::Root;
use crate::slab_detail;
use crate::tasks::{self, Task};

/// Steady snapshots between two of `/proc/vmallocinfo`, which is the dearest to read.
const VMALLOC_EVERY: u64 = 5;

/// One read of one source.
#[derive(Debug)]
pub(crate) enum Shot {
    Buddyinfo(Stamp, Vec<BuddyRow>),
    Zoneinfo(Stamp, Vec<ZoneRow>),
    Pagetypeinfo(Stamp, Vec<PageTypeRow>),
    Vmstat(Stamp, Vec<VmstatRow>),
    Slabinfo(Stamp, Vec<SlabRow>),
    SlabDetail(Stamp, Vec<SlabDetailRow>),
    Vmallocinfo(Stamp, Vec<VmallocRow>),
    /// Some runs of a page map.
    PageRuns(&'static TableSpec, Vec<PageRun>),
    /// The page map is whole.
    PageMapEnd(&'static TableSpec, Stamp),
    /// Threads that are new since the last time.
    Tasks(Vec<Task>),
}

impl Shot {
    /// Writes it into the recording.
    pub(crate) fn write(self, writer: &mut RecordingWriter) -> Result<(), kmemlab_trace::Error> {
        match self {
            Self::Buddyinfo(stamp, rows) => writer.buddyinfo(stamp, &rows),
            Self::Zoneinfo(stamp, rows) => writer.zoneinfo(stamp, &rows),
            Self::Pagetypeinfo(stamp, rows) => writer.pagetypeinfo(stamp, &rows),
            Self::Vmstat(stamp, rows) => writer.vmstat(stamp, &rows),
            Self::Slabinfo(stamp, rows) => writer.slabinfo(stamp, &rows),
            Self::SlabDetail(stamp, rows) => writer.slab_detail(stamp, &rows),
            Self::Vmallocinfo(stamp, rows) => writer.vmallocinfo(stamp, &rows),
            Self::PageRuns(spec, runs) => writer.page_runs(spec, &runs),
            Self::PageMapEnd(spec, stamp) => writer.flush_table(spec, stamp),
            Self::Tasks(tasks) => tasks::write(&tasks, writer),
        }
    }
}

/// What the first thread asks of the snapshot thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// The first set; steady ones follow by themselves.
    First,
    /// The last set; then the thread ends.
    Last,
}

/// The queue is closed: writing failed.
#[derive(Debug)]
struct Closed;

impl From<Error> for Closed {
    fn from(_: Error) -> Self {
        Self
    }
}

/// Takes snapshots and puts them into the queue.
#[derive(Debug)]
pub(crate) struct Snapshots {
    root: Root,
    ranges: Vec<Range<Pfn>>,
    jobs: SyncSender<Job>,
    tasks: tasks::Seen,
    /// Shrink the slab caches and read `/sys/kernel/slab` with the first and the last set.
    with_slab_detail: bool,
    notes: Vec<String>,
}

impl Snapshots {
    pub(crate) fn new(
        root: Root,
        ranges: Vec<Range<Pfn>>,
        jobs: SyncSender<Job>,
        tasks: tasks::Seen,
    ) -> Self {
        Self { root, ranges, jobs, tasks, with_slab_detail: false, notes: Vec::new() }
    }

    /// Also shrinks the slab caches and reads `/sys/kernel/slab` with the first and the last set.
    pub(crate) fn with_slab_detail(self, is_wanted: bool) -> Self {
        Self { with_slab_detail: is_wanted, ..self }
    }

    /// Answers each question with a message when it is done. Returns what could not be read and
    /// why.
    pub(crate) fn run(
        mut self,
        asks: &Receiver<Ask>,
        done: &Sender<()>,
        every: Duration,
    ) -> Vec<String> {
        // The queue is closed only when writing failed, which its own thread tells of.
        let _ = self.serve(asks, done, every);
        self.notes
    }

    fn serve(
        &mut self,
        asks: &Receiver<Ask>,
        done: &Sender<()>,
        every: Duration,
    ) -> Result<(), Closed> {
        if asks.recv() != Ok(Ask::First) {
            return Ok(());
        }
        self.first()?;
        done.send(()).map_err(|_| Closed)?;
        let mut next = Instant::now() + every;
        let mut ticks = 0;
        loop {
            match asks.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {
                    ticks += 1;
                    self.steady(ticks)?;
                    // A snapshot that took longer than the time between two is not made up for.
                    next = (next + every).max(Instant::now());
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(_) => break,
            }
        }
        self.last()?;
        done.send(()).map_err(|_| Closed)
    }

    fn first(&mut self) -> Result<(), Closed> {
        self.zoneinfo()?;
        self.buddyinfo()?;
        self.page_map(&format::PAGEMAP_FIRST)?;
        // Again: what happened while the page map was read shows as a difference.
        self.buddyinfo()?;
        self.zoneinfo()?;
        self.take(pagetypeinfo::PATH, pagetypeinfo::parse, Shot::Pagetypeinfo)?;
        self.take(vmstat::PATH, vmstat::parse, Shot::Vmstat)?;
        if self.with_slab_detail {
            self.slab_detail()?
        } else {
            self.slab_limits()?
        }
        self.take(slabinfo::PATH, slabinfo::parse, Shot::Slabinfo)?;
        self.vmallocinfo()
    }

    /// What `/sys/kernel/slab` tells without disturbing anything.
    fn slab_limits(&mut self) -> Result<(), Closed> {
        let before = clock::now();
        let rows = slab_detail::look(&self.root, &self.caches());
        let stamp = Stamp { before, after: clock::now() };
        if rows.is_empty() { Ok(()) } else { self.send(Shot::SlabDetail(stamp, rows)) }
    }

    fn slab_detail(&mut self) -> Result<(), Closed> {
        let before = clock::now();
        let rows = slab_detail::take(&self.root, &self.caches());
        let stamp = Stamp { before, after: clock::now() };
        let why = if rows.is_empty() {
            "--slab-detail: there is no /sys/kernel/slab here, or we may not write to it"
        } else {
            slab_detail::NOTE
        };
        self.note(why.to_owned());
        if rows.is_empty() { Ok(()) } else { self.send(Shot::SlabDetail(stamp, rows)) }
    }

    /// The caches that `/proc/slabinfo` names.
    fn caches(&self) -> Vec<String> {
        let rows = self.root.read(slabinfo::PATH).ok().and_then(|text| slabinfo::parse(&text).ok());
        rows.unwrap_or_default().into_iter().map(|row| row.cache).collect()
    }

    fn steady(&mut self, tick: u64) -> Result<(), Closed> {
        fault::point("snapshots");
        self.buddyinfo()?;
        self.zoneinfo()?;
        self.take(vmstat::PATH, vmstat::parse, Shot::Vmstat)?;
        self.take(slabinfo::PATH, slabinfo::parse, Shot::Slabinfo)?;
        if tick.is_multiple_of(VMALLOC_EVERY) {
            self.vmallocinfo()?;
        }
        Ok(())
    }

    fn last(&mut self) -> Result<(), Closed> {
        let tasks = self.tasks.scan(&self.root);
        self.send(Shot::Tasks(tasks))?;
        self.vmallocinfo()?;
        if self.with_slab_detail {
            self.slab_detail()?;
        }
        self.take(slabinfo::PATH, slabinfo::parse, Shot::Slabinfo)?;
        self.take(vmstat::PATH, vmstat::parse, Shot::Vmstat)?;
        self.take(pagetypeinfo::PATH, pagetypeinfo::parse, Shot::Pagetypeinfo)?;
        self.zoneinfo()?;
        self.buddyinfo()?;
        self.page_map(&format::PAGEMAP_LAST)
    }

    fn buddyinfo(&mut self) -> Result<(), Closed> {
        self.take(buddyinfo::PATH, buddyinfo::parse, Shot::Buddyinfo)
    }

    fn zoneinfo(&mut self) -> Result<(), Closed> {
        self.take(zoneinfo::PATH, zoneinfo::parse, Shot::Zoneinfo)
    }

    fn take<T>(
        &mut self,
        path: &str,
        parse: fn(&str) -> Result<Vec<T>, ParseError>,
        shot: fn(Stamp, Vec<T>) -> Shot,
    ) -> Result<(), Closed> {
        let read = self.root.read_stamped(path).and_then(|(stamp, text)| {
            let rows = parse(&text)
                .map_err(|source| Error::Parse { path: self.root.join(path), source })?;
            Ok((stamp, rows))
        });
        match read {
            Ok((stamp, rows)) => self.send(shot(stamp, rows)),
            Err(error) => {
                self.note(error.to_string());
                Ok(())
            }
        }
    }

    fn vmallocinfo(&mut self) -> Result<(), Closed> {
        let read = {
            let _shown = ShownAddresses::ask(&self.root);
            self.root.read_stamped(vmallocinfo::PATH)
        };
        let rows = read.map_err(|error| error.to_string()).and_then(|(stamp, text)| {
            let rows = vmallocinfo::parse(&text).map_err(|source| source.to_string())?;
            Ok((stamp, rows))
        });
        match rows {
            Ok((stamp, rows)) if vmallocinfo::addresses(&rows) == vmallocinfo::Addresses::Real => {
                self.send(Shot::Vmallocinfo(stamp, rows))
            }
            Ok(_) => {
                let why = "/proc/vmallocinfo shows no addresses (kernel.kptr_restrict is not 1 and \
                           could not be set, or CAP_SYSLOG is missing): left out";
                self.note(why.to_owned());
                Ok(())
            }
            Err(why) => {
                self.note(why);
                Ok(())
            }
        }
    }

    fn page_map(&mut self, spec: &'static TableSpec) -> Result<(), Closed> {
        let mut last = Stamp::default();
        let mut failed = None;
        let jobs = &self.jobs;
        let scanned = kpageflags::scan(&self.root, &self.ranges, |runs| {
            last = runs.last().map_or(last, |run| run.stamp);
            let sent = jobs.send(Job::Shot(Shot::PageRuns(spec, runs.to_vec())));
            sent.map_err(|_| Scan::Closed)
        });
        match scanned {
            Ok(_) => {}
            Err(Scan::Closed) => return Err(Closed),
            Err(Scan::Kernel(error)) => failed = Some(error.to_string()),
        }
        if let Some(why) = failed {
            self.note(why);
        }
        self.send(Shot::PageMapEnd(spec, last))
    }

    fn send(&mut self, shot: Shot) -> Result<(), Closed> {
        self.jobs.send(Job::Shot(shot)).map_err(|_| Closed)
    }

    /// Keeps a note, once.
    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            log::warn!("{note}");
            self.notes.push(note);
        }
    }
}

/// Why a scan of the page map ended early.
enum Scan {
    Closed,
    Kernel(Error),
}

impl From<Error> for Scan {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}
