//! One of the two that are compared: what its tables and events tell.

use kmemlab_trace::event::Kind;
use kmemlab_trace::manifest::{ModelError, RunCounts, StackRun};
use kmemlab_trace::measure::{self, FallbackKind, fallback_kind};
use kmemlab_trace::reader::BuddySample;
use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::{Error, Recording, format};

use super::{OrderRow, UNUSABLE_ORDERS};

/// Stalls that a kernel told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stalls {
    /// Direct reclaims.
    pub direct_reclaims: u64,
    /// Time in them.
    pub reclaim_ns: u64,
    /// Compactions that began.
    pub compactions: u64,
}

/// A recording or a model run in numbers.
#[derive(Clone, Debug)]
pub struct Side {
    /// Where it lies.
    pub path: String,
    /// `kernel RELEASE`, or `model` with its policies.
    pub what: String,
    /// CRC-32 of the index of the recording whose events it tells of.
    pub events_crc32: u32,
    /// What was done.
    pub counts: RunCounts,
    /// What the kernel did, for a model run.
    pub kernel_counts: Option<RunCounts>,
    /// The model's own error, for a model run.
    pub error: Option<ModelError>,
    /// Stalls, for a kernel's recording.
    pub stalls: Option<Stalls>,
    /// The layers above pages, for a model run that has them.
    pub stack: Option<StackRun>,
    /// Pages of slabs, mean over the samples.
    pub slab_pages_mean: Option<f64>,
    /// Unusable free space index by order, mean over the samples, points.
    pub unusable_mean: [f64; 3],
    /// The same at the last sample.
    pub unusable_last: [f64; 3],
    /// Samples.
    pub samples: u64,
    free_blocks: Vec<(u64, Vec<u64>)>,
    zones: Vec<Vec<Zone>>,
    from_ns: u64,
}

/// Node, name and free blocks by order.
type Zone = (u16, String, Vec<u64>);

impl Side {
    /// Reads it, from a moment on: before that a model does not run.
    pub(super) fn read(recording: &Recording, from_ns: u64) -> Result<Self, Error> {
        let manifest = recording.manifest();
        let mut side = Self {
            path: recording.path().display().to_string(),
            what: format!("kernel {}", manifest.host.kernel_release),
            events_crc32: events_crc32(recording),
            counts: RunCounts::default(),
            kernel_counts: None,
            error: None,
            stalls: None,
            stack: None,
            slab_pages_mean: None,
            unusable_mean: [0.0; 3],
            unusable_last: [0.0; 3],
            samples: 0,
            free_blocks: Vec::new(),
            zones: Vec::new(),
            from_ns,
        };
        match &manifest.model {
            Some(run) => {
                let names: Vec<&str> = run.policies.iter().map(|chosen| &*chosen.name).collect();
                let policies =
                    if names.is_empty() { "baseline".to_owned() } else { names.join("+") };
                side.what = format!("model of {}, {policies}", run.recording);
                side.counts = run.counts;
                side.kernel_counts = Some(run.kernel_counts);
                side.error = Some(run.error.clone());
                side.stack.clone_from(&run.stack);
            }
            None => side.events(recording)?,
        }
        for sample in recording.buddyinfo()? {
            side.sample(&sample?);
        }
        let count = side.samples.max(1) as f64;
        side.unusable_mean = side.unusable_mean.map(|sum| sum / count);
        side.slabs(recording)?;
        Ok(side)
    }

    /// A model runs from the moment the page map is whole: earlier samples have no counterpart.
    fn sample(&mut self, sample: &BuddySample) {
        if sample.stamp.before.0 < self.from_ns {
            return;
        }
        let orders = sample.zones.iter().map(|zone| zone.free_blocks.len()).max().unwrap_or(0);
        let mut free = vec![0; orders];
        let zones: Vec<Zone> = sample
            .zones
            .iter()
            .map(|z| (z.node.0, z.zone.clone(), z.free_blocks.clone()))
            .collect();
        for zone in &sample.zones {
            free.iter_mut().zip(&zone.free_blocks).for_each(|(sum, blocks)| *sum += blocks);
        }
        for (index, order) in UNUSABLE_ORDERS.into_iter().enumerate() {
            let points = measure::unusable_free_index(&free, usize::from(order)) as f64 / 10.0;
            self.unusable_mean[index] += points;
            self.unusable_last[index] = points;
        }
        self.samples += 1;
        self.free_blocks.push((sample.stamp.before.0, free));
        self.zones.push(zones);
    }

    fn events(&mut self, recording: &Recording) -> Result<(), Error> {
        const KINDS: u64 = Kind::ExtFrag.bit()
            | Kind::PageAlloc.bit()
            | Kind::KswapdWakeup.bit()
            | Kind::DirectReclaimBegin.bit()
            | Kind::DirectReclaimEnd.bit()
            | Kind::CompactionBegin.bit();
        let pageblock_order = recording.manifest().host.pageblock_order;
        let mut stalls = Stalls::default();
        let mut begun: Vec<(u32, u64)> = Vec::new();
        for batch in recording.events()? {
            for event in batch?.iter_only(KINDS) {
                let time = event.time.0;
                if time < self.from_ns {
                    continue;
                }
                match event.kind {
                    Kind::ExtFrag => {
                        let changed = event.flag != 0;
                        match fallback_kind(event.other_order, pageblock_order, changed) {
                            FallbackKind::WholeClaim => self.counts.whole_claims += 1,
                            FallbackKind::SmallClaim => self.counts.small_claims += 1,
                            FallbackKind::Steal => self.counts.steals += 1,
                        }
                    }
                    Kind::PageAlloc => self.counts.failures += u64::from(event.pfn().is_none()),
                    Kind::KswapdWakeup => self.counts.kswapd_wakes += 1,
                    Kind::CompactionBegin => stalls.compactions += 1,
                    Kind::DirectReclaimBegin => {
                        stalls.direct_reclaims += 1;
                        begun.push((event.pid.0, time));
                    }
                    _ => {
                        if let Some(at) = begun.iter().position(|(pid, _)| *pid == event.pid.0) {
                            stalls.reclaim_ns += time - begun.swap_remove(at).1.min(time);
                        }
                    }
                }
            }
        }
        self.stalls = Some(stalls);
        Ok(())
    }

    fn slabs(&mut self, recording: &Recording) -> Result<(), Error> {
        if !recording.has(&format::SLABINFO) {
            return Ok(());
        }
        let page_size_bytes = recording.manifest().host.page_size_bytes;
        let (mut pages, mut samples) = (0, 0u64);
        for batch in recording.table(&format::SLABINFO)? {
            let batch = batch?;
            samples += 1;
            for row in 0..batch.rows() {
                pages += SlabRow::of(&batch, row).pages(page_size_bytes);
            }
        }
        self.slab_pages_mean = (samples > 0).then(|| pages as f64 / samples as f64);
        Ok(())
    }

    /// Free blocks by order, mean over the samples of each.
    pub(super) fn orders(&self, other: &Self) -> Vec<OrderRow> {
        let of = |side: &Self, order: usize| {
            let blocks = side.free_blocks.iter().filter_map(|(_, free)| free.get(order));
            blocks.sum::<u64>() as f64 / side.samples.max(1) as f64
        };
        let longest = |side: &Self| side.free_blocks.iter().map(|(_, free)| free.len()).max();
        let orders = longest(self).max(longest(other)).unwrap_or(0);
        (0..orders)
            .map(|order| OrderRow { order, a: of(self, order), b: of(other, order) })
            .collect()
    }

    /// Pages at another order, in percent, mean over the samples that both have.
    pub(super) fn order_difference_percent(&self, other: &Self) -> Option<f64> {
        let (mut sum, mut pairs) = (0.0, 0u64);
        for ((time, _), zones) in self.free_blocks.iter().zip(&self.zones) {
            let at = other.free_blocks.binary_search_by_key(time, |(time, _)| *time);
            let Some(theirs) = at.ok().and_then(|at| other.zones.get(at)) else { continue };
            let (mut wrong, mut pages) = (0, 0);
            for (node, name, free) in zones {
                let found = theirs.iter().find(|(n, z, _)| n == node && z == name);
                wrong += found.map_or(0, |(_, _, theirs)| measure::wrong_pages(free, theirs));
                pages += measure::free_pages(free);
            }
            sum += wrong as f64 * 100.0 / pages.max(1) as f64;
            pairs += 1;
        }
        (pairs > 0).then(|| sum / pairs as f64)
    }
}

/// The recording whose events it tells of, by the CRC-32 of its index.
pub(super) fn events_crc32(recording: &Recording) -> u32 {
    let manifest = recording.manifest();
    let own = manifest.end.as_ref().map_or(0, |end| end.index_crc32);
    manifest.model.as_ref().map_or(own, |run| run.recording_crc32)
}

/// When it begins to tell: a model runs from the moment the first page map was whole.
pub(super) fn begins_ns(recording: &Recording) -> Result<u64, Error> {
    if let Some(run) = &recording.manifest().model {
        return Ok(run.began_ns);
    }
    let mut end = 0;
    if recording.has(&format::PAGEMAP_FIRST) {
        for run in recording.page_map(&format::PAGEMAP_FIRST)? {
            end = run?.stamp.after.0.max(end);
        }
    }
    Ok(end)
}
