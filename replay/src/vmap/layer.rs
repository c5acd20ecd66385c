//! Where areas go and when they come back: the policy of the vmalloc layer.

use std::collections::{BTreeMap, VecDeque};

use super::rules::{Decay, VmapRules};
use super::space::{Fit, FreeSpace, Request};
use super::start::Pooled;

mod purge;
mod surprise;

pub use purge::Purge;
use surprise::Surprises;

/// What may differ from the recorded kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tuning {
    /// Which hole.
    pub fit: Fit,
    /// No pools.
    pub no_pools: bool,
    /// Pages that may wait to be purged.
    pub lazy_max_pages: Option<u64>,
    /// The rules are those of another release.
    pub is_forced: bool,
}

/// Largest size of the pools, in pages (`MAX_VA_SIZE_PAGES`).
const POOL_CLASSES: usize = 256;
/// Bytes of addresses that belong to one node (`vmap_zone_size`).
const NODE_BYTES: u64 = 16 * 4096;

/// An area in use or waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// First address.
    pub start: u64,
    /// Bytes, guard page included.
    pub size: u64,
    /// Node of its pool, plus one; 0 for none.
    pub node: u32,
}

/// The layer.
#[derive(Clone, Debug)]
pub struct Vmap {
    rules: VmapRules,
    tuning: Tuning,
    page_bytes: u64,
    nodes: usize,
    /// The window that pools serve.
    window: (u64, u64),
    free: FreeSpace,
    busy: BTreeMap<u64, Area>,
    busy_bytes: u64,
    /// Freed and not yet purged, in the order of their freeing.
    lazy: Vec<Area>,
    lazy_pages: u64,
    lazy_max: u64,
    /// By node and class: the next to take is in front.
    pools: Vec<Vec<VecDeque<u64>>>,
    /// What surprises told of.
    surprises: Surprises,
    /// The worker is asked for.
    is_pending: bool,
    /// A free asked for the worker that was asked for already: if that had just begun, it runs
    /// once more.
    is_asked_twice: bool,
    may_be_repeated: bool,
    /// Purges done.
    pub purges: u64,
    /// Areas purged.
    pub purged_areas: u64,
    /// Requests that found no hole.
    pub failures: u64,
    /// Requests that a pool served.
    pub pool_hits: u64,
}

impl Vmap {
    /// A layer with everything free.
    #[must_use]
    pub fn new(
        rules: VmapRules,
        tuning: Tuning,
        cpus: usize,
        lazy_max: u64,
        page_bytes: u64,
    ) -> Self {
        let nodes = cpus.clamp(1, 128);
        let has_pools = rules.decay != Decay::NoPools && nodes > 1 && !tuning.no_pools;
        let classes = if has_pools { POOL_CLASSES } else { 0 };
        Self {
            rules,
            tuning,
            page_bytes,
            nodes,
            window: (0, 0),
            free: FreeSpace::new(page_bytes, u64::MAX),
            busy: BTreeMap::new(),
            busy_bytes: 0,
            lazy: Vec::new(),
            lazy_pages: 0,
            lazy_max: tuning.lazy_max_pages.unwrap_or(lazy_max),
            pools: vec![vec![VecDeque::new(); classes]; nodes],
            surprises: Surprises::default(),
            is_pending: false,
            is_asked_twice: false,
            may_be_repeated: false,
            purges: 0,
            purged_areas: 0,
            failures: 0,
            pool_hits: 0,
        }
    }

    /// The window of vmalloc itself; requests for another are not pooled.
    pub fn set_window(&mut self, start: u64, end: u64) {
        self.window = (start, end);
    }

    /// An area that is there at the start.
    pub fn seed_busy(&mut self, area: Area) {
        self.free.remove(area.start, area.start.saturating_add(area.size));
        if let Some(old) = self.busy.insert(area.start, area) {
            self.busy_bytes -= old.size;
        }
        self.busy_bytes += area.size;
    }

    /// An area that waits to be purged at the start.
    pub fn seed_lazy(&mut self, area: Area) {
        self.free.remove(area.start, area.start.saturating_add(area.size));
        self.lazy_pages += area.size / self.page_bytes;
        self.lazy.push(area);
    }

    /// An area at the back of a pool at the start.
    pub fn seed_pool(&mut self, pooled: &Pooled) {
        let Pooled { node, start, size, purges } = *pooled;
        let class = self.class_of(size);
        let pool = self.pools.get_mut(node).and_then(|classes| classes.get_mut(class));
        if let Some(pool) = pool
            && self.free.remove(start, start.saturating_add(size))
        {
            pool.push_back(start);
            self.surprises.stays(start, purges);
        }
    }

    fn class_of(&self, size: u64) -> usize {
        (size.saturating_sub(1) / self.page_bytes) as usize
    }

    /// Serves a request (`alloc_vmap_area`): from the processor's pool, else from the free space,
    /// after a purge where there is no hole.
    pub fn alloc(&mut self, request: &Request, cpu: usize) -> Option<u64> {
        let node = cpu % self.nodes;
        let mut stamp = 0;
        let is_pooled = (request.start, request.end) == self.window;
        let class = self.class_of(request.size);
        let mut found = None;
        if is_pooled && let Some(pool) = self.pools[node].get_mut(class) {
            stamp = node as u32 + 1;
            if let Some(start) = pool.pop_front() {
                if start & (request.align.max(1) - 1) == 0 {
                    self.pool_hits += 1;
                    found = Some(start);
                } else {
                    pool.push_back(start);
                }
            }
        }
        let found = match found {
            Some(start) => Some(start),
            None => self.take_free(request).or_else(|| {
                self.purge_all(true);
                self.take_free(request)
            }),
        };
        let Some(start) = found else {
            self.failures += 1;
            return None;
        };
        self.busy.insert(start, Area { start, size: request.size, node: stamp });
        self.busy_bytes += request.size;
        Some(start)
    }

    /// Whether it decides as the recorded kernel does.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.tuning == Tuning::default()
    }

    fn take_free(&mut self, request: &Request) -> Option<u64> {
        let start = self.find_free(request)?;
        self.free.remove(start, start + request.size);
        Some(start)
    }

    /// Takes an area back, lazily (`free_vmap_area_noflush`). Answers whether too many wait now.
    pub fn free(&mut self, start: u64) -> bool {
        let Some(area) = self.busy.remove(&start) else { return false };
        self.busy_bytes -= area.size;
        self.lazy_pages += area.size / self.page_bytes;
        self.lazy.push(area);
        let is_over = self.lazy_pages > self.lazy_max;
        self.is_asked_twice |= is_over && self.is_pending;
        self.is_pending |= is_over;
        if is_over && self.purges_at_once() {
            self.purge_all(false);
        }
        is_over
    }

    /// Whether the worker is asked for.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Whether the last purge may have been asked for twice.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        self.may_be_repeated
    }

    /// Pages that wait to be purged.
    #[must_use]
    pub fn lazy_pages(&self) -> u64 {
        self.lazy_pages
    }

    /// Pages that may wait.
    #[must_use]
    pub fn lazy_max(&self) -> u64 {
        self.lazy_max
    }

    /// Whether too many would wait if that area were freed.
    #[must_use]
    pub fn would_exceed(&self, start: u64) -> bool {
        let pages = self.busy.get(&start).map_or(0, |area| area.size / self.page_bytes);
        self.lazy_pages + pages > self.lazy_max
    }

    /// Whether it purges by itself, not when the recorded kernel did.
    #[must_use]
    pub fn purges_at_once(&self) -> bool {
        self.tuning.lazy_max_pages.is_some() || !self.rules.purges_in_worker
    }

    /// Whether the kernel's number of purged areas counts each of them.
    #[must_use]
    pub fn counts_areas(&self) -> bool {
        !self.rules.counts_merged && !self.tuning.is_forced
    }

    /// Areas in use.
    #[must_use]
    pub fn areas(&self) -> u64 {
        self.busy.len() as u64
    }

    /// Bytes in use, guard pages included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.busy_bytes
    }

    /// Areas that wait to be purged.
    #[must_use]
    pub fn lazy_areas(&self) -> u64 {
        self.lazy.len() as u64
    }

    /// Areas in pools.
    #[must_use]
    pub fn pooled_areas(&self) -> u64 {
        self.pools.iter().flatten().map(|pool| pool.len() as u64).sum()
    }

    /// The free space, and the highest end of an area in the window.
    #[must_use]
    pub fn holes(&self) -> (&FreeSpace, u64) {
        let (start, end) = (self.window.0, self.window.1.max(self.window.0));
        let in_window = self.busy.range(start..end);
        let ends = in_window.map(|(_, area)| area.start.saturating_add(area.size));
        (&self.free, ends.filter(|it| *it < end.saturating_sub(FAR)).max().unwrap_or(0))
    }

    /// The largest gap between two areas of the window, used or waiting.
    #[must_use]
    pub fn largest_gap(&self) -> u64 {
        let (start, end) = (self.window.0, self.window.1.max(self.window.0).saturating_sub(FAR));
        let mut areas: Vec<(u64, u64)> = self
            .lazy
            .iter()
            .chain(self.busy.values())
            .map(|area| (area.start, area.size))
            .collect();
        areas.retain(|(at, _)| (start..end.max(start)).contains(at));
        areas.sort_unstable();
        let mut last = start;
        let mut largest = 0;
        for (at, size) in areas {
            largest = largest.max(at.saturating_sub(last));
            last = last.max(at.saturating_add(size));
        }
        largest
    }

    /// The window of vmalloc.
    #[must_use]
    pub fn window(&self) -> (u64, u64) {
        self.window
    }

    /// Bytes of state held.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        let areas = self.busy.len() + self.lazy.len() + self.pooled_areas() as usize;
        (areas * size_of::<Area>() + self.free.holes() * 16) as u64
    }
}

/// Per-CPU chunks stand at the window's far end, top down, and say nothing of its use.
const FAR: u64 = 1 << 40;

#[cfg(test)]
mod tests;
