//! The mirror and the model against the samples of `/proc/buddyinfo` and the last page map.

use kmemlab_trace::measure;
use kmemlab_trace::reader::BuddySample;
use kmemlab_trace::snapshot::{PageRun, PageUse};

use crate::memory::Memory;
use crate::mirror::Mirror;
use crate::outcome::{
    Comparison, DriftPoint, MirrorResult, ModelResult, UnusableError, UnusableIndex, ZoneComparison,
};
use crate::residue::Cause;

/// Orders at which the unusable free space index is compared.
const UNUSABLE_ORDERS: [u8; 3] = [3, 9, 10];

/// Gathers comparisons over the samples of a replay.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    first_ns: Option<u64>,
    order_errors: f64,
    order_error_count: u64,
    order_error_worst: f64,
    unusable_sum: [f64; 3],
    unusable_worst: [f64; 3],
    unusable_index: [UnusableIndex; 3],
    samples: u64,
    order_differences: f64,
    drift: Vec<DriftPoint>,
    drift_every: u64,
    samples_seen: u64,
    worst_so_far: f64,
    pub(crate) worst: Option<Comparison>,
    pub(crate) last: Option<Comparison>,
}

/// Points of the drift curve kept: older ones are thinned out, so that it does not grow with the
/// recording.
const DRIFT_POINTS: usize = 64;

impl Tally {
    /// Compares the model at a sample; `active` are the zones that have seen events.
    pub(crate) fn model(
        &mut self,
        sample: &BuddySample,
        start_ns: u64,
        mirror: &Memory,
        model: &Memory,
        active: &[bool],
    ) {
        let machine = model.machine();
        let at_ns = sample.stamp.before.0;
        let first_ns = *self.first_ns.get_or_insert(at_ns);
        let mut comparison =
            Comparison { at_ns, since_ns: at_ns.saturating_sub(start_ns), zones: Vec::new() };
        let (mut wrong, mut pages) = (0, 0);
        let mut everywhere = (0, 0);
        let mut sums = [vec![0; 16], vec![0; 16]];
        for row in &sample.zones {
            let Some(zone) = machine.zone(row.node, &row.zone) else { continue };
            let modelled = model.free_blocks(zone);
            comparison.zones.push(ZoneComparison {
                node: row.node.0,
                zone: row.zone.clone(),
                kernel: row.free_blocks.clone(),
                mirror: mirror.free_blocks(zone).to_vec(),
                model: modelled.to_vec(),
            });
            for (sum, free) in sums.iter_mut().zip([row.free_blocks.as_slice(), modelled]) {
                sum.iter_mut().zip(free).for_each(|(sum, free)| *sum += free);
            }
            everywhere.0 += measure::wrong_pages(&row.free_blocks, modelled);
            everywhere.1 += measure::free_pages(&row.free_blocks);
            // A zone without events would only water the mean down, unless the model erred in it.
            if !active[zone] && row.free_blocks == modelled {
                continue;
            }
            wrong += measure::wrong_pages(&row.free_blocks, modelled);
            pages += measure::free_pages(&row.free_blocks);
            self.zone(&row.free_blocks, modelled);
        }
        self.machine(&sums);
        self.order_differences += crate::outcome::percent(everywhere.0, everywhere.1.max(1));
        let error = crate::outcome::percent(wrong, pages.max(1));
        self.drift_point(DriftPoint {
            since_ns: at_ns - first_ns.min(at_ns),
            order_error_percent: error,
        });
        if self.worst.is_none() || error > self.worst_so_far {
            self.worst_so_far = error;
            self.worst = Some(comparison.clone());
        }
        self.last = Some(comparison);
    }

    /// All zones together.
    fn machine(&mut self, [kernel, model]: &[Vec<u64>; 2]) {
        self.samples += 1;
        for (index, order) in self.unusable_index.iter_mut().zip(UNUSABLE_ORDERS) {
            let of =
                |free: &[u64]| measure::unusable_free_index(free, usize::from(order)) as f64 / 10.0;
            (index.kernel_last_points, index.model_last_points) = (of(kernel), of(model));
            index.kernel_mean_points += index.kernel_last_points;
            index.model_mean_points += index.model_last_points;
            let error = (index.kernel_last_points - index.model_last_points).abs();
            index.error_mean_points += error;
            index.error_worst_points = index.error_worst_points.max(error);
        }
    }

    fn zone(&mut self, kernel: &[u64], model: &[u64]) {
        let error = measure::order_error_percent(kernel, model);
        self.order_errors += error;
        self.order_error_count += 1;
        self.order_error_worst = self.order_error_worst.max(error);
        for (index, order) in UNUSABLE_ORDERS.iter().enumerate() {
            let of = |free: &[u64]| measure::unusable_free_index(free, usize::from(*order)) as f64;
            let points = (of(kernel) - of(model)).abs() / 10.0;
            self.unusable_sum[index] += points;
            self.unusable_worst[index] = self.unusable_worst[index].max(points);
        }
    }

    fn drift_point(&mut self, point: DriftPoint) {
        self.drift_every = self.drift_every.max(1);
        if self.samples_seen.is_multiple_of(self.drift_every) {
            if self.drift.len() == DRIFT_POINTS {
                let mut keep = false;
                self.drift.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.drift_every *= 2;
            }
            self.drift.push(point);
        }
        self.samples_seen += 1;
    }

    pub(crate) fn finish(&mut self, result: &mut ModelResult) {
        let count = self.order_error_count.max(1) as f64;
        result.order_error_mean_percent = self.order_errors / count;
        result.order_error_worst_percent = self.order_error_worst;
        result.unusable = UNUSABLE_ORDERS
            .iter()
            .enumerate()
            .map(|(index, order)| UnusableError {
                order: *order,
                mean_points: self.unusable_sum[index] / count,
                worst_points: self.unusable_worst[index],
            })
            .collect();
        let samples = self.samples.max(1) as f64;
        result.order_difference_percent = self.order_differences / samples;
        result.unusable_index = self
            .unusable_index
            .iter()
            .zip(UNUSABLE_ORDERS)
            .map(|(sum, order)| UnusableIndex {
                order,
                kernel_mean_points: sum.kernel_mean_points / samples,
                model_mean_points: sum.model_mean_points / samples,
                error_mean_points: sum.error_mean_points / samples,
                ..*sum
            })
            .collect();
        result.drift = std::mem::take(&mut self.drift);
    }
}

/// One sample against the mirror. Each zone's line is printed at its own moment, so a zone is right
/// when it was equal at any moment of the read.
#[derive(Debug)]
pub(crate) struct OpenSample {
    pub(crate) sample: BuddySample,
    wrong: Vec<u64>,
    /// Mirror minus kernel by zone and order, at the best moment.
    pub(crate) differences: Vec<[i64; 16]>,
    is_quiet: bool,
}

impl OpenSample {
    pub(crate) fn new(sample: BuddySample) -> Self {
        let zones = sample.zones.len();
        let differences = vec![[0; 16]; zones];
        Self { sample, wrong: vec![u64::MAX; zones], differences, is_quiet: true }
    }

    /// An event came while the file was read.
    pub(crate) fn event(&mut self, mirror: &Memory) {
        self.is_quiet = false;
        self.look(mirror);
    }

    /// Looks at the mirror now.
    pub(crate) fn look(&mut self, mirror: &Memory) {
        for (index, row) in self.sample.zones.iter().enumerate() {
            if self.wrong[index] == 0 {
                continue;
            }
            let Some(zone) = mirror.machine().zone(row.node, &row.zone) else {
                self.wrong[index] = 0;
                continue;
            };
            let followed = mirror.free_blocks(zone);
            let wrong = measure::wrong_pages(&row.free_blocks, followed);
            if wrong < self.wrong[index] {
                self.wrong[index] = wrong;
                let of = |free: &[u64], order| free.get(order).copied().unwrap_or(0) as i64;
                for (order, difference) in self.differences[index].iter_mut().enumerate() {
                    *difference = of(followed, order) - of(&row.free_blocks, order);
                }
            }
        }
    }

    /// Every zone has been equal once.
    pub(crate) fn is_exact(&self) -> bool {
        self.wrong.iter().all(|wrong| *wrong == 0)
    }

    pub(crate) fn close(&self, result: &mut MirrorResult) {
        let is_exact = u64::from(self.is_exact());
        result.samples += 1;
        result.exact_samples += is_exact;
        result.sample_wrong_pages += self.wrong.iter().sum::<u64>();
        if self.is_quiet {
            result.quiet_samples += 1;
            result.exact_quiet_samples += is_exact;
        }
    }
}

/// A block of the last page map that is free in one of mirror and kernel only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WrongBlock {
    pub(crate) pfn: u32,
    pub(crate) order: u8,
    /// Free in the kernel.
    pub(crate) is_free: bool,
    pub(crate) cause: Cause,
}

/// A chunk of the last page map: its runs share one read.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) runs: Vec<PageRun>,
    differing: Vec<(u32, bool)>,
    free: u64,
}

impl Chunk {
    pub(crate) fn new(runs: Vec<PageRun>) -> Self {
        Self { runs, ..Self::default() }
    }

    /// Looks at the mirror when the read began: notes the pages that differ.
    pub(crate) fn open(&mut self, mirror: &Memory) {
        for run in &self.runs {
            let is_free = run.page_use == PageUse::Free;
            if is_free {
                self.free += run.pages;
            }
            let Ok(start) = u32::try_from(run.pfn.0) else { continue };
            let end = (run.pfn.0 + run.pages).min(u64::from(u32::MAX)) as u32;
            let mut at = start;
            while let Some((free, stop)) = mirror.next_free(at, end) {
                if is_free {
                    self.differing.extend((at..free).map(|pfn| (pfn, true)));
                } else {
                    self.differing.extend((free..stop).map(|pfn| (pfn, false)));
                }
                at = stop;
            }
            if is_free {
                self.differing.extend((at..end).map(|pfn| (pfn, true)));
            }
        }
    }

    /// Looks again when the read ended: a page that fits now changed during the read.
    pub(crate) fn close(&mut self, mirror: &Memory, result: &mut MirrorResult) {
        self.differing.retain(|(pfn, is_free)| mirror.block_at(*pfn).is_some() != *is_free);
        let wrong = self.differing.len() as u64;
        let kernel_only = self.differing.iter().filter(|(_, is_free)| *is_free).count() as u64;
        result.free_pages += self.free;
        result.kernel_only_pages += kernel_only;
        result.mirror_only_pages += wrong - kernel_only;
        result.wrong_pages = Some(result.wrong_pages.unwrap_or(0) + wrong);
    }
    /// The pages that differ, as the largest aligned blocks of one cause.
    pub(crate) fn wrong_blocks(&self, mirror: &Mirror) -> Vec<WrongBlock> {
        let top = mirror.memory().machine().orders - 1;
        let told: Vec<_> = self
            .differing
            .iter()
            .map(|(pfn, is_free)| (*pfn, *is_free, mirror.cause_of(*pfn, *is_free)))
            .collect();
        let mut blocks = Vec::new();
        let mut at = 0;
        while let Some((pfn, is_free, cause)) = told.get(at).copied() {
            let fits = |order: u8| {
                let last = at + (1usize << order) - 1;
                pfn & ((1 << order) - 1) == 0
                    && told.get(last) == Some(&(pfn + (1 << order) - 1, is_free, cause))
            };
            let order = (0..=top).rev().find(|order| fits(*order)).unwrap_or(0);
            let is_whole = order >= mirror.memory().machine().block_order;
            let is_unseen = matches!(cause, Cause::UnseenFree | Cause::UnseenAllocation);
            let is_reported = is_whole && is_unseen;
            let cause = if is_reported { Cause::PageReporting } else { cause };
            blocks.push(WrongBlock { pfn, order, is_free, cause });
            at += 1 << order;
        }
        blocks
    }
}
