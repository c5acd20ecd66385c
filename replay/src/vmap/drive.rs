//! Runs the vmalloc layer over a recording, and compares it with `/proc/vmallocinfo`.

use std::collections::BTreeMap;

use kmemlab_trace::event::{Event, Kind};

use super::layer::{Area, Vmap};
use super::samples::VmapSample;
use super::space::Request;
use super::start::VmapStart;

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
    /// Of those, with the kernel's number of areas and of bytes.
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
    /// Largest gap below the highest area, in bytes, at the last sample: what waits in pools is
    /// part of one.
    pub largest_hole_kernel_bytes: u64,
    /// The same of the model.
    pub largest_hole_model_bytes: u64,
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
    is_open: Option<Moment>,
    /// The kernel's address of each area, with the model's.
    bound: BTreeMap<u64, u64>,
    from: u64,
    was_pending: bool,
    outcome: VmapOutcome,
}

/// What the layer has at a moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    areas: u64,
    bytes: u64,
    lazy: u64,
    largest_gap: u64,
}

/// A free is told after the area has left its place: by so much at most, if its thread is preempted
/// in between. Counts until then may be the file's.
const LATE_NS: u64 = 10_000_000;

/// Requests aligned to no more than this have one lowest place.
const PAGE: i64 = 4096;

impl<'a> VmapDrive<'a> {
    /// Starts the layer as the first sample says.
    #[must_use]
    pub fn new(mut layer: Vmap, samples: &'a [VmapSample], start: &VmapStart) -> Self {
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
                bound.insert(row.start, row.start);
                outcome.areas_at_start += 1;
            }
        }
        for pooled in &start.pools {
            layer.seed_pool(pooled.node, pooled.start, pooled.size);
        }
        let from = first.map_or(0, |sample| sample.stamp.after.0);
        let next = usize::from(first.is_some());
        Self { layer, samples, next, is_open: None, bound, from, was_pending: false, outcome }
    }

    /// An event of the vmalloc space.
    pub fn event(&mut self, event: &Event) {
        if event.time.0 <= self.from {
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
        if event.flag != 0 {
            self.outcome.failed_kernel += 1;
            return;
        }
        let kernel = event.pfn_or_address;
        if let Some(old) = self.bound.remove(&kernel) {
            self.outcome.hidden_frees += 1;
            self.layer.free(old);
        }
        let request = Request {
            size: event.bytes_requested,
            align: (event.args[0].max(1) as u64).next_power_of_two(),
            start: event.args[1] as u64,
            end: event.args[2] as u64,
        };
        self.outcome.allocs += 1;
        let cpu = usize::from(event.cpu.0);
        // The kernel's own policy follows the kernel; another goes its own way.
        let found = if self.layer.is_recorded() {
            self.layer.alloc_at(&request, cpu, kernel)
        } else {
            self.layer.alloc(&request, cpu)
        };
        let is_exact = u64::from(found == Some(kernel));
        self.outcome.address_exact += is_exact;
        if event.args[0] <= PAGE {
            self.outcome.unaligned += 1;
            self.outcome.unaligned_exact += is_exact;
        }
        match found.map(|found| if self.layer.is_recorded() { kernel } else { found }) {
            Some(model) => {
                self.bound.insert(kernel, model);
            }
            None => self.outcome.failed_model += 1,
        }
    }

    fn free(&mut self, event: &Event) {
        let Some(model) = self.bound.remove(&event.pfn_or_address) else {
            self.outcome.unknown_frees += 1;
            return;
        };
        self.outcome.frees += 1;
        self.layer.free(model);
        self.outcome.lazy_exact += u64::from(self.layer.lazy_pages() == event.args[0] as u64);
        self.note_pending();
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
        if !self.layer.is_pending() {
            // Asked for while the worker was about to start the purge before.
            let is_repeated = self.layer.may_be_repeated();
            self.outcome.purges_model += u64::from(is_repeated);
            self.outcome.purges_for_others += u64::from(!is_repeated);
        }
        if self.layer.purges_at_once() {
            return;
        }
        let count = self.layer.counts_areas().then_some(areas as usize);
        self.layer.purge(count, false);
        self.was_pending = false;
        self.note_pending();
    }

    fn pass_samples(&mut self, now: u64) {
        while let Some(sample) = self.samples.get(self.next) {
            if self.is_open.is_none() && now > sample.stamp.before.0 {
                self.is_open = Some(self.moment());
            }
            if now <= sample.stamp.after.0.saturating_add(LATE_NS) {
                return;
            }
            self.compare(sample);
            self.is_open = None;
            self.next += 1;
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            areas: self.layer.areas(),
            bytes: self.layer.bytes(),
            lazy: self.layer.lazy_areas(),
            largest_gap: self.layer.largest_gap(),
        }
    }

    fn compare(&mut self, sample: &VmapSample) {
        let busy = || sample.rows.iter().filter(|row| !row.is_lazy);
        let (areas, bytes) =
            (busy().count() as u64, busy().fold(0, |sum: u64, row| sum.saturating_add(row.size)));
        let closed = self.moment();
        let open = self.is_open.unwrap_or(closed);
        let nearest = |a: u64, b: u64, wanted: u64| wanted.clamp(a.min(b), a.max(b));
        let outcome = &mut self.outcome;
        outcome.areas_kernel = areas;
        outcome.bytes_kernel = bytes;
        outcome.areas_model = nearest(open.areas, closed.areas, areas);
        outcome.bytes_model = nearest(open.bytes, closed.bytes, bytes);
        outcome.lazy_kernel = sample.rows.len() as u64 - areas;
        outcome.lazy_model = nearest(open.lazy, closed.lazy, outcome.lazy_kernel);
        outcome.samples += 1;
        let is_exact = outcome.areas_model == areas && outcome.bytes_model == bytes;
        outcome.exact_samples += u64::from(is_exact);
        let gap = largest_gap(sample, self.layer.window());
        outcome.largest_hole_kernel_bytes = gap;
        outcome.largest_hole_model_bytes = nearest(open.largest_gap, closed.largest_gap, gap);
    }

    /// The result.
    #[must_use]
    pub fn finish(mut self) -> VmapOutcome {
        self.pass_samples(u64::MAX);
        let mut outcome = self.outcome;
        if outcome.samples == 0 {
            outcome.largest_hole_model_bytes = self.layer.largest_gap();
        }
        outcome.holes = self.layer.holes();
        outcome.pooled = self.layer.pooled_areas();
        outcome.pool_hits = self.layer.pool_hits;
        outcome.purged_areas_model = self.layer.purged_areas;
        outcome.state_bytes = self.layer.state_bytes() + (self.bound.len() * 16) as u64;
        outcome
    }
}

/// The largest gap between two areas of the window, per-CPU chunks at its end left out.
fn largest_gap(sample: &VmapSample, window: (u64, u64)) -> u64 {
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
