//! Runs the vmalloc layer over a recording, and compares it with `/proc/vmallocinfo`.

use std::collections::BTreeMap;

use kmemlab_trace::event::{Event, Kind};

use super::layer::{Area, Purge, Vmap};
use super::reading::{Held, LATE_NS, Reading};
use super::samples::VmapSample;
use super::space::Request;
use super::start::{Objects, VmapStart};

/// What a run came to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct VmapOutcome {
    /// Requests.
    pub allocs: u64,
    /// Areas freed.
    pub frees: u64,
    /// Requests that the model put where the kernel did.
    pub address_exact: u64,
    /// Requests with no alignment beyond a page.
    pub unaligned: u64,
    /// Of those, where the kernel put them.
    pub unaligned_exact: u64,
    /// Requests that a pool of the model served.
    pub pool_hits: u64,
    /// Purges that the kernel told of.
    pub purges_kernel: u64,
    /// Purges that the model asked its worker for.
    pub purges_model: u64,
    /// Areas that the kernel purged.
    pub purged_areas_kernel: u64,
    /// Areas that the model purged.
    pub purged_areas_model: u64,
    /// Purges of the kernel that the model's threshold had not asked for.
    pub purges_for_others: u64,
    /// Frees after which the model held as many lazily freed pages as the kernel said.
    pub lazy_exact: u64,
    /// Samples of the file compared.
    pub samples: u64,
    /// Of those, with the kernel's areas, each with its bytes.
    pub exact_samples: u64,
    /// Areas at the last sample.
    pub areas_kernel: u64,
    /// Areas at the last sample.
    pub areas_model: u64,
    /// Bytes at the last sample.
    pub bytes_kernel: u64,
    /// Bytes at the last sample.
    pub bytes_model: u64,
    /// Areas waiting to be purged, at the last sample.
    pub lazy_kernel: u64,
    /// Areas waiting to be purged, at the last sample.
    pub lazy_model: u64,
    /// Areas in the model's pools at the end.
    pub pooled: u64,
    /// Areas that only one of model and file had, summed over the samples.
    pub wrong_areas: u64,
    /// Largest gap between two areas, used or waiting, at the last sample, in bytes: what waits in
    /// pools counts as a gap, since no file tells of it.
    pub largest_hole_kernel_bytes: u64,
    /// The same of the model, at the same moment.
    pub largest_hole_model_bytes: u64,
    /// Largest hole of the model's free space below the highest area, at the end, pools left out.
    pub largest_free_bytes: u64,
    /// Holes of the model at the end.
    pub holes: u64,
    /// Frees of areas that nothing told of.
    pub unknown_frees: u64,
    /// Areas given out while in use: their free was not seen.
    pub hidden_frees: u64,
    /// Requests that failed in the kernel.
    pub failed_kernel: u64,
    /// Requests that failed in the model.
    pub failed_model: u64,
    /// Areas that the first sample names.
    pub areas_at_start: u64,
    /// Bytes of state held.
    pub state_bytes: u64,
}

impl VmapOutcome {
    /// Share of the requests that the model put where the kernel did, in percent.
    #[must_use]
    pub fn address_exact_percent(&self) -> f64 {
        self.address_exact as f64 * 100.0 / self.allocs.max(1) as f64
    }
}

/// The listener of the second pass.
#[derive(Debug)]
pub struct VmapDrive<'a> {
    layer: Vmap,
    samples: &'a [VmapSample],
    next: usize,
    /// What is there since the file began to be read, if it is being read.
    reading: Option<Reading>,
    /// By the kernel's address of each area.
    bound: BTreeMap<u64, Bound>,
    from: u64,
    was_pending: bool,
    objects: Objects,
    /// Objects for areas are recorded.
    has_objects: bool,
    /// The kernel's purges.
    purges: &'a [Purge],
    outcome: VmapOutcome,
}

/// An area in use.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// Where the model has it.
    model: u64,
    size: u64,
    since_ns: u64,
}

/// Requests aligned to no more than this have one lowest place.
const PAGE: i64 = 4096;

impl<'a> VmapDrive<'a> {
    /// Starts the layer as the first sample says.
    #[must_use]
    pub fn new(mut layer: Vmap, samples: &'a [VmapSample], start: &'a VmapStart) -> Self {
        let mut bound = BTreeMap::new();
        let mut outcome = VmapOutcome::default();
        if let Some(window) = start.window {
            layer.set_window(window.0, window.1);
        }
        let first = samples.first();
        for row in first.map_or(&[][..], |sample| &sample.rows) {
            let node = start.nodes.get(&row.start).copied().unwrap_or(0);
            let area = Area { start: row.start, size: row.size, node };
            if row.is_lazy {
                layer.seed_lazy(area);
            } else {
                layer.seed_busy(area);
                bound.insert(row.start, Bound { model: row.start, size: row.size, since_ns: 0 });
                outcome.areas_at_start += 1;
            }
        }
        for pooled in &start.pools {
            layer.seed_pool(pooled);
        }
        for taken in &start.taken {
            layer.seed_taken(taken);
        }
        let from = first.map_or(0, |sample| sample.stamp.after.0);
        let next = usize::from(first.is_some());
        Self {
            layer,
            samples,
            next,
            reading: None,
            bound,
            from,
            was_pending: false,
            objects: Objects::default(),
            has_objects: start.has_objects,
            purges: &start.purges,
            outcome,
        }
    }

    /// An object of the cache `vmap_area` was allocated: the area comes from the free space.
    pub fn object(&mut self, event: &Event) {
        self.objects.took(event);
    }

    /// An event of the vmalloc space.
    pub fn event(&mut self, event: &Event) {
        if event.time.0 <= self.from {
            if event.kind == Kind::VmapAlloc {
                self.objects.of(event);
            }
            return;
        }
        self.pass_samples(event.time.0);
        match event.kind {
            Kind::VmapAlloc => self.alloc(event),
            Kind::VmapFree => self.free(event),
            Kind::VmapPurge => self.purge(event),
            _ => {}
        }
    }

    fn alloc(&mut self, event: &Event) {
        let object = self.objects.of(event);
        let from_pool = self.has_objects.then_some(object.is_none());
        if event.flag != 0 {
            self.outcome.failed_kernel += 1;
            return;
        }
        let kernel = event.pfn_or_address;
        if let Some(old) = self.bound.remove(&kernel) {
            self.outcome.hidden_frees += 1;
            self.layer.free(old.model);
            self.went(kernel, event.time.0);
        }
        let request = Request {
            size: event.bytes_requested,
            align: (event.args[0].max(1) as u64).next_power_of_two(),
            start: event.args[1] as u64,
            end: event.args[2] as u64,
        };
        self.outcome.allocs += 1;
        let cpu = object.unwrap_or(usize::from(event.cpu.0));
        // The kernel's own policy follows the kernel; another goes its own way.
        let found = if self.layer.is_recorded() {
            let is_purging = self.layer.is_lazy(kernel);
            if is_purging {
                self.purge_early();
            }
            self.layer.alloc_at(&request, cpu, kernel, from_pool).filter(|_| !is_purging)
        } else {
            self.layer.alloc(&request, cpu)
        };
        let is_exact = u64::from(found == Some(kernel));
        self.outcome.address_exact += is_exact;
        if event.args[0] <= PAGE {
            self.outcome.unaligned += 1;
            self.outcome.unaligned_exact += is_exact;
        }
        match if self.layer.is_recorded() { Some(kernel) } else { found } {
            Some(model) => {
                let (size, since_ns) = (request.size, event.time.0);
                self.bound.insert(kernel, Bound { model, size, since_ns });
                if let Some(reading) = &mut self.reading {
                    reading.came(Held { start: kernel, size, since_ns, until_ns: u64::MAX });
                }
            }
            None => self.outcome.failed_model += 1,
        }
    }

    fn free(&mut self, event: &Event) {
        let Some(Bound { model, .. }) = self.bound.remove(&event.pfn_or_address) else {
            self.outcome.unknown_frees += 1;
            return;
        };
        self.went(event.pfn_or_address, event.time.0);
        self.outcome.frees += 1;
        // The kernel counts less than the threshold again: its worker is done, and will tell of it.
        if event.args[0] as u64 <= self.layer.lazy_max() && self.layer.would_exceed(model) {
            self.purge_early();
        }
        self.layer.free(model);
        self.outcome.lazy_exact += u64::from(self.layer.lazy_pages() == event.args[0] as u64);
        self.note_pending();
    }

    /// An area that waited was given out: the worker is at work and will tell of it.
    fn purge_early(&mut self) {
        let Some((told, next)) = self.told(self.outcome.purges_kernel) else { return };
        let is_ours = self.layer.counts_areas() && !self.layer.purges_at_once();
        if is_ours && !self.layer.is_purging() && told.areas <= self.layer.lazy_areas() {
            self.note_purge();
            self.layer.purge_early(&told, next);
            self.was_pending = false;
            self.note_pending();
        }
    }

    /// What the kernel told of a purge and of the next. Another policy has other addresses.
    fn told(&self, number: u64) -> Option<(Purge, Option<&'a Purge>)> {
        let number = number as usize;
        let told = *self.purges.get(number)?;
        if self.layer.is_recorded() {
            return Some((told, self.purges.get(number + 1)));
        }
        Some((Purge { start: 0, end: u64::MAX, ..told }, None))
    }

    fn note_pending(&mut self) {
        let is_pending = self.layer.is_pending();
        self.outcome.purges_model += u64::from(is_pending && !self.was_pending);
        self.was_pending = is_pending;
    }

    /// The worker ran: when it gets to run is the scheduler's choice, so the model's runs now.
    fn purge(&mut self, event: &Event) {
        self.outcome.purges_kernel += 1;
        let areas = event.args[0].max(0) as u64;
        self.outcome.purged_areas_kernel += areas;
        if self.layer.purge_ends() {
            return;
        }
        self.note_purge();
        if self.layer.purges_at_once() {
            return;
        }
        match self.told(self.outcome.purges_kernel - 1) {
            Some((told, next)) if self.layer.counts_areas() => self.layer.purge(&told, next),
            _ => self.layer.purge_all(false),
        }
        self.was_pending = false;
        self.note_pending();
    }

    /// The worker runs: had the model asked for it?
    fn note_purge(&mut self) {
        if !self.layer.is_pending() {
            // Asked for while the worker was about to start the purge before.
            let is_repeated = self.layer.may_be_repeated();
            self.outcome.purges_model += u64::from(is_repeated);
            self.outcome.purges_for_others += u64::from(!is_repeated);
        }
    }

    fn went(&mut self, start: u64, now_ns: u64) {
        if let Some(reading) = &mut self.reading {
            reading.went(start, now_ns);
        }
    }

    fn pass_samples(&mut self, now: u64) {
        while let Some(sample) = self.samples.get(self.next) {
            if self.reading.is_none() && now > sample.stamp.before.0 {
                self.reading = Some(self.reading());
            }
            if now <= sample.stamp.after.0.saturating_add(LATE_NS) {
                return;
            }
            self.compare(sample);
            self.next += 1;
        }
    }

    /// What is there now.
    fn reading(&self) -> Reading {
        let mut reading = Reading::new(self.bound.iter().map(|(start, bound)| Held {
            start: *start,
            size: bound.size,
            since_ns: bound.since_ns,
            until_ns: u64::MAX,
        }));
        reading.lazy_areas = self.layer.lazy_areas();
        reading.largest_gap_bytes = self.layer.largest_gap();
        reading
    }

    fn compare(&mut self, sample: &VmapSample) {
        let reading = self.reading.take().unwrap_or_else(|| self.reading());
        let nearest = |a: u64, b: u64, wanted: u64| wanted.clamp(a.min(b), a.max(b));
        let busy = || sample.rows.iter().filter(|row| !row.is_lazy);
        let outcome = &mut self.outcome;
        outcome.areas_kernel = busy().count() as u64;
        outcome.bytes_kernel = busy().fold(0, |sum: u64, row| sum.saturating_add(row.size));
        outcome.lazy_kernel = sample.rows.len() as u64 - outcome.areas_kernel;
        outcome.lazy_model =
            nearest(reading.lazy_areas, self.layer.lazy_areas(), outcome.lazy_kernel);
        let hole = largest_hole(sample, self.layer.window());
        outcome.largest_hole_kernel_bytes = hole;
        outcome.largest_hole_model_bytes =
            nearest(reading.largest_gap_bytes, self.layer.largest_gap(), hole);
        let found = reading.compare(sample);
        outcome.areas_model = found.areas;
        outcome.bytes_model = found.bytes;
        outcome.samples += 1;
        outcome.wrong_areas += found.wrong;
        outcome.exact_samples += u64::from(found.wrong == 0);
    }

    /// The result.
    #[must_use]
    pub fn finish(mut self) -> VmapOutcome {
        self.pass_samples(u64::MAX);
        let mut outcome = self.outcome;
        let (free, highest) = self.layer.holes();
        outcome.largest_free_bytes = free.largest(self.layer.window().0, highest);
        outcome.holes = free.holes() as u64;
        outcome.pooled = self.layer.pooled_areas();
        outcome.pool_hits = self.layer.pool_hits;
        outcome.purged_areas_model = self.layer.purged_areas;
        outcome.state_bytes = self.layer.state_bytes() + (self.bound.len() * 32) as u64;
        outcome
    }
}

/// The largest gap between two areas of the window, per-CPU chunks at its end left out.
fn largest_hole(sample: &VmapSample, window: (u64, u64)) -> u64 {
    let mut largest = 0;
    let mut end = window.0;
    for row in sample.rows.iter().filter(|row| !row.is_percpu) {
        if row.start >= window.0 && row.start < window.1 {
            largest = largest.max(row.start.saturating_sub(end));
            end = end.max(row.start.saturating_add(row.size));
        }
    }
    largest
}
