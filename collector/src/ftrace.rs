//! Events through a tracing instance of our own: on every processor one ring of the kernel's
//! tracer.
//!
//! This ring costs a third of perf's for each event, and every event is in it: perf was seen to
//! drop the softirq events of some threads in silence. What it has no room for, it counts.
//!
//! **The check.** Beside the ring, perf counts the same tracepoints and writes nothing. The two
//! cannot be turned on together: a processor's counters go on a little after the ring and off a
//! little before it. The moments before and after each switch are known, and so each recorded event
//! is *outside* the time of counting, certainly *inside* it, or at its *edge*, where it may be
//! either (a few microseconds at both ends, mostly without any event). For each tracepoint and
//! processor, with all events recorded, the counter must say at least *inside* and at most *inside*
//! and *edge* together. Told as `counted` is what was recorded, plus what the counter saw above
//! those bounds or minus what it lacks below them: *recorded + lost = counted* holds exactly when
//! the counter agrees.

mod instance;
mod ring;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use kmemlab_trace::unit::{Cpu, Nanos};

use crate::capture::{Backend, Count, Sink};
use crate::clock;
use crate::error::Error;
use crate::perf::counting::CountingGroup;
use crate::perf::hopper::Hopper;
use crate::perf::{Wanted, sys};
use crate::record_error::RecordError;
use crate::ring_page::PageLayout;
use crate::room;
use crate::root::Root;
use crate::tracefs::Tracefs;
use instance::Instance;
use ring::{CpuRing, Stats};
use window::{Span, Tally, Window};

/// Smallest ring worth having.
const RING_BYTES_MIN: u64 = 64 << 10;
/// Largest ring of one processor.
const RING_BYTES_MAX: u64 = 1 << 30;
/// Rings together take no more than one in so many parts of the memory that is left.
const MEMORY_PART: u64 = 4;
/// A ring that is this full wakes us up.
const WAKE_PERCENT: &str = "25";
/// Longest sleep: kernels before 6.2 may not wake us up at that mark.
const WAIT_TIME: Duration = Duration::from_millis(10);
/// Shortest round: older kernels wake us up for every event.
const ROUND_TIME: Duration = Duration::from_millis(1);
/// Writers that were under way when a ring was turned off are done after this, if not before.
const SETTLE_TIME: Duration = Duration::from_millis(2);

/// Options of an instance: what could lose or change events is off. (`record-cmd` stays on: it
/// costs a little at task switches, and to switch it off reaches into everyone else's instances.)
const OPTIONS: [(&str, &str); 7] = [
    // New events are dropped and counted, and no sub-buffer vanishes while it is read.
    ("options/overwrite", "0"),
    ("options/irq-info", "1"),
    ("options/markers", "0"),
    ("options/stacktrace", "0"),
    ("options/userstacktrace", "0"),
    ("options/pause-on-trace", "0"),
    ("options/event-fork", "0"),
];

/// How the ring and the counters of one tracepoint fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Agreement {
    /// Recorded before the counter went on or after it went off.
    pub outside: u64,
    /// Recorded while the counter went on or off.
    pub edge: u64,
    /// Recorded while the counter was on.
    pub inside: u64,
    /// What the counter says.
    pub counted: Option<u64>,
}

impl Agreement {
    /// By how much the counter is above what it can have seen of the recorded events, or below.
    #[must_use]
    pub fn excess(&self) -> Option<i64> {
        let counted = self.counted?;
        let bounded = counted.clamp(self.inside, self.inside + self.edge);
        Some(counted.cast_signed().wrapping_sub(bounded.cast_signed()))
    }

    fn recorded(&self) -> u64 {
        self.outside + self.edge + self.inside
    }
}

/// The tracefs backend: an instance with a ring for each processor.
#[derive(Debug)]
pub struct TracefsBackend {
    // Before the instance, which is not removed while its files are open.
    rings: Vec<CpuRing>,
    fds: Vec<RawFd>,
    counting: Vec<CountingGroup>,
    instance: Instance,
    layout: PageLayout,
    page: Vec<u8>,
    tally: Tally,
    windows: Vec<Window>,
    agreements: Vec<(Cpu, u16, Agreement)>,
    /// The tracepoints' names by their numbers.
    names: BTreeMap<u16, String>,
    /// Lost events that no counter names, and the tracepoint that they are told of.
    unnamed: Vec<(u16, u64)>,
    /// Recorded events that the counters did not see.
    unseen: u64,
    ring_bytes: u64,
    last_round: Instant,
    stopped: Nanos,
    notes: Vec<String>,
}

impl TracefsBackend {
    /// Makes an instance with every tracepoint in it; nothing is written yet. `ring_bytes` is
    /// halved as long as the kernel has no memory for it. Those in `counted` perf counts beside it;
    /// where it may not, a note says why.
    ///
    /// # Errors The kernel refused the instance, an event, or even the smallest ring.
    pub fn open(
        root: &Root,
        tracefs: &Tracefs,
        cpus: &[Cpu],
        wanted: &[Wanted],
        ring_bytes: u64,
        counted: &[Wanted],
    ) -> Result<Self, RecordError> {
        let instance = Instance::make(root, tracefs)?;
        instance.set("tracing_on", "0")?;
        instance.set("trace_clock", "mono")?;
        for (option, value) in OPTIONS {
            instance.set_if_there(option, value)?;
        }
        instance.set_if_there("buffer_percent", WAKE_PERCENT)?;
        let available = room::available_bytes(root).unwrap_or(u64::MAX) / MEMORY_PART;
        let most = available / (cpus.len() as u64).max(1);
        let ring_bytes = size_rings(&instance, ring_bytes, most)?;
        // As the instance tells them: from 6.8 on each has sub-buffers of its own size.
        let page_text = instance.read("events/header_page")?;
        let event_text = instance.read("events/header_event")?;
        let path = tracefs.path().join("events");
        let layout = PageLayout::parse(&page_text, &event_text)
            .map_err(|source| Error::Parse { path, source })?;
        let rings =
            cpus.iter().map(|cpu| CpuRing::open(&instance, *cpu)).collect::<Result<Vec<_>, _>>()?;
        let fds = rings.iter().map(|ring| ring.file().as_raw_fd()).collect();
        let mut notes = Vec::new();
        let is_any = !counted.is_empty();
        let counting = match is_any.then(|| CountingGroup::open_all(cpus, counted)) {
            Some(Ok(groups)) => groups,
            Some(Err(error)) => {
                notes.push(format!("nothing counts the events independently: {error}"));
                Vec::new()
            }
            None => Vec::new(),
        };
        for tracepoint in wanted {
            instance.set(&enable_file(&tracepoint.name), "1")?;
        }
        Ok(Self {
            rings,
            fds,
            counting,
            instance,
            layout,
            page: vec![0; layout.page_bytes()],
            tally: Tally::new(cpus.len(), wanted),
            windows: vec![Window::default(); cpus.len()],
            agreements: Vec::new(),
            names: wanted.iter().map(|wanted| (wanted.id, wanted.name.clone())).collect(),
            unnamed: Vec::new(),
            unseen: 0,
            ring_bytes,
            last_round: Instant::now(),
            stopped: Nanos(u64::MAX),
            notes,
        })
    }

    /// How the ring and the counters fit together, by processor and tracepoint; filled by
    /// [`Backend::counts`].
    #[must_use]
    pub fn agreements(&self) -> &[(Cpu, u16, Agreement)] {
        &self.agreements
    }

    /// Switches the counters of every processor from that processor itself, which takes least time,
    /// and notes when.
    fn switch_counters(
        &mut self,
        switch: fn(&CountingGroup) -> std::io::Result<()>,
        note: fn(&mut Window, Span),
    ) -> Result<(), RecordError> {
        let hopper = Hopper::new();
        for ((ring, group), window) in self.rings.iter().zip(&self.counting).zip(&mut self.windows)
        {
            let is_there = hopper.go(ring.cpu().0);
            let before = clock::now();
            switch(group)
                .map_err(|source| RecordError::Ring { action: "switch the counters", source })?;
            note(window, Span::around(before, clock::now(), is_there));
        }
        Ok(())
    }

    /// Waits until no processor is in the midst of writing an event. Where this thread runs, no
    /// event is being written: writers cannot be interrupted by threads.
    fn settle(&self) {
        let hopper = Hopper::new();
        if !self.rings.iter().all(|ring| hopper.go(ring.cpu().0)) {
            thread::sleep(SETTLE_TIME);
        }
    }

    /// Compares one processor's counters with its ring.
    fn agree(&mut self, index: usize, stats: &Stats) -> Result<Vec<Count>, RecordError> {
        let cpu = self.rings[index].cpu();
        let counted = match self.counting.get(index) {
            Some(group) => group
                .counts()
                .map_err(|source| RecordError::Ring { action: "read the counters", source })?,
            None => Vec::new(),
        };
        let mut lost_left = stats.lost();
        let mut counts = Vec::new();
        for (slot, id) in self.tally.ids().iter().copied().enumerate() {
            let of_this = |(other, _): &&(u16, u64)| *other == id;
            let mut agreement = self.tally.of(index, slot);
            agreement.counted = counted.iter().find(of_this).map(|(_, counted)| *counted);
            let excess = agreement.excess();
            // The ring counts what it drops, but not of which tracepoint: the counters tell that.
            let lost = excess.map(|excess| excess.max(0).cast_unsigned().min(lost_left));
            lost_left -= lost.unwrap_or(0);
            let counted = excess.map(|excess| agreement.recorded().saturating_add_signed(excess));
            counts.push(Count { cpu, id, counted, lost });
            self.agreements.push((cpu, id, agreement));
        }
        let of_cpu = &self.agreements[self.agreements.len() - counts.len()..];
        let unseen = of_cpu.iter().filter_map(|(_, _, agreement)| agreement.excess());
        self.unseen += unseen.map(|excess| excess.min(0).unsigned_abs()).sum::<u64>();
        // Where some are not counted, the rest is mostly theirs, and told by no tracepoint.
        if lost_left > 0 && counts.iter().all(|count| count.counted.is_some()) {
            let most = counts.iter_mut().max_by_key(|count| count.lost);
            if let Some(Count { counted: Some(counted), lost: Some(lost), id, .. }) = most {
                *lost += lost_left;
                *counted += lost_left;
                self.unnamed.push((*id, lost_left));
            }
        }
        Ok(counts)
    }

    /// The ring counts all that it drops; of which tracepoint only the counters tell, which are on
    /// for a little less long and lack what interrupts perf's own work.
    fn note_on_unnamed(&self) -> Option<String> {
        let total: u64 = self.unnamed.iter().map(|(_, events)| events).sum();
        let ids: BTreeSet<u16> = self.unnamed.iter().map(|(id, _)| *id).collect();
        let names: Vec<&str> =
            ids.iter().filter_map(|id| self.names.get(id).map(String::as_str)).collect();
        (total > 0).then(|| {
            format!(
                "{total} of the lost events were counted by the rings alone, so that their tracepoint is \
                 not known; they are told as {}, which lost most",
                names.join(" and ")
            )
        })
    }
}

impl Backend for TracefsBackend {
    fn name(&self) -> &'static str {
        "tracefs"
    }

    fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    fn start(&mut self) -> Result<(), RecordError> {
        self.instance.set("tracing_on", "1")?;
        self.switch_counters(CountingGroup::enable, |window, span| window.on = span)
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), RecordError> {
        if let Some(rest) = ROUND_TIME.checked_sub(self.last_round.elapsed()) {
            thread::sleep(rest);
        }
        let done = sys::wait_readable(&self.fds, at_most.min(WAIT_TIME))
            .map_err(|source| RecordError::Ring { action: "wait for events", source });
        self.last_round = Instant::now();
        done
    }

    fn drain(&mut self, until: Nanos, sink: &mut dyn Sink) -> u8 {
        let mut most = 0;
        for (index, ring) in self.rings.iter_mut().enumerate() {
            let mut tally = self.tally.on(index, self.windows[index]);
            let drained = ring.drain(
                &ring::Drain {
                    layout: &self.layout,
                    instance: &self.instance,
                    ring_bytes: self.ring_bytes,
                    until,
                },
                &mut self.page,
                &mut tally,
                sink,
            );
            most = most.max(drained);
        }
        u8::try_from((most * 100 / self.ring_bytes.max(1)).min(100)).unwrap_or(100)
    }

    fn stop(&mut self) -> Result<(), RecordError> {
        self.switch_counters(CountingGroup::disable, |window, span| window.off = span)?;
        self.instance.set("tracing_on", "0")?;
        self.settle();
        self.stopped = clock::now();
        // A tracepoint that is on costs time even when nothing is written.
        self.instance.set("events/enable", "0")
    }

    fn counts(&mut self, sink: &mut dyn Sink) -> Result<Vec<Count>, RecordError> {
        let mut counts = Vec::new();
        for index in 0..self.rings.len() {
            let ring = &mut self.rings[index];
            let stats = ring.stats(&self.instance)?;
            ring.finish(&stats, self.stopped, sink);
            self.notes.extend(ring.note(&stats));
            counts.extend(self.agree(index, &stats)?);
        }
        self.notes.extend(self.note_on_unnamed());
        self.notes.extend(note_on_unseen(self.unseen));
        Ok(counts)
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

fn note_on_unseen(events: u64) -> Option<String> {
    (events > 0).then(|| {
        format!(
            "{events} events are recorded that the counters missed (perf drops what interrupts its own \
             work); they are counted as recorded"
        )
    })
}

fn enable_file(name: &str) -> String {
    format!("events/{}/enable", name.replace(':', "/"))
}

/// Gives every processor a ring of that size, or of half of it, and so on; returns the size.
fn size_rings(instance: &Instance, wanted: u64, most: u64) -> Result<u64, RecordError> {
    let mut size = wanted.clamp(RING_BYTES_MIN, RING_BYTES_MAX);
    while size > most && size > RING_BYTES_MIN {
        size /= 2;
    }
    loop {
        match instance.set("buffer_size_kb", &(size >> 10).to_string()) {
            Err(RecordError::Instance { source, .. })
                if source.raw_os_error() == Some(libc::ENOMEM) && size > RING_BYTES_MIN =>
            {
                size /= 2;
            }
            done => return done.map(|()| size),
        }
    }
}
