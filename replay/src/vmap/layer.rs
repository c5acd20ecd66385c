//! Where areas go and when they come back: the policy of the vmalloc layer.

use std::collections::{BTreeMap, VecDeque};

use super::rules::{Decay, VmapRules};
use super::space::{Fit, FreeSpace, Request};

mod gaps;

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
    pub fn seed_pool(&mut self, node: usize, start: u64, size: u64) {
        let class = self.class_of(size);
        if let Some(pool) = self.pools.get_mut(node).and_then(|classes| classes.get_mut(class)) {
            self.free.remove(start, start.saturating_add(size));
            pool.push_back(start);
        }
    }

    /// A range that is not free although no file names it.
    pub fn seed_taken(&mut self, start: u64, end: u64) {
        self.free.remove(start, end);
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
                self.purge(None, true);
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

    /// As [`Self::alloc`], but the area ends up where the kernel put it, so that one surprise is
    /// not counted at every later request. Answers where it would have gone.
    pub fn alloc_at(&mut self, request: &Request, cpu: usize, kernel: u64) -> Option<u64> {
        let hits = self.pool_hits;
        let found = self.alloc(request, cpu);
        if found == Some(kernel) {
            return found;
        }
        let class = self.class_of(request.size);
        let node = cpu % self.nodes;
        let mut stamp = 0;
        if let Some(area) = found.and_then(|start| self.busy.remove(&start)) {
            self.busy_bytes -= area.size;
            stamp = area.node;
            let pool = self.pools[node].get_mut(class);
            match pool.filter(|_| self.pool_hits > hits) {
                Some(pool) => pool.push_front(area.start),
                None => self.free.insert(area.start, area.start + area.size),
            }
        }
        let end = kernel.saturating_add(request.size);
        self.free.remove(kernel, end);
        for classes in &mut self.pools {
            for (class, pool) in classes.iter_mut().enumerate() {
                let size = (class as u64 + 1) * self.page_bytes;
                pool.retain(|start| *start >= end || start + size <= kernel);
            }
        }
        let area = Area { start: kernel, size: request.size, node: stamp };
        if let Some(old) = self.busy.insert(kernel, area) {
            self.busy_bytes -= old.size;
        }
        self.busy_bytes += request.size;
        found
    }

    /// Whether it decides as the recorded kernel does.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.tuning == Tuning::default()
    }

    fn take_free(&mut self, request: &Request) -> Option<u64> {
        let fit = self.tuning.fit;
        let start = self.free.find(request, fit, self.rules.length, self.page_bytes)?;
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
            self.purge(None, false);
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

    /// The worker runs (`__purge_vmap_area_lazy`) over the first `count` of the freed areas, all
    /// without one. Those freed while it runs still see its count, and may ask for it again.
    pub fn purge(&mut self, count: Option<usize>, is_full: bool) {
        self.purges += 1;
        self.may_be_repeated = std::mem::take(&mut self.is_asked_twice);
        let all = self.lazy.len();
        let count = count.unwrap_or(all).min(all);
        self.decay(is_full);
        let later = self.lazy.split_off(count);
        let mut taken = std::mem::replace(&mut self.lazy, later);
        self.purged_areas += count as u64;
        // Frees since then were made while the old ones still counted.
        self.is_pending = !self.lazy.is_empty() && self.lazy_pages > self.lazy_max;
        taken.sort_unstable_by_key(|area| (self.owner(area), area.start));
        for area in taken {
            self.lazy_pages -= area.size / self.page_bytes;
            let class = self.class_of(area.size);
            let owner = self.owner(&area);
            let pool = self.pools.get_mut(owner).and_then(|classes| classes.get_mut(class));
            match pool {
                Some(pool) if area.node > 0 && !is_full => pool.push_front(area.start),
                _ => self.free.insert(area.start, area.start.saturating_add(area.size)),
            }
        }
    }

    /// The node on whose list a freed area waits.
    fn owner(&self, area: &Area) -> usize {
        match area.node {
            0 => ((area.start / NODE_BYTES) % self.nodes as u64) as usize,
            node => node as usize - 1,
        }
    }

    /// `decay_va_pool_node`.
    fn decay(&mut self, is_full: bool) {
        for classes in &mut self.pools {
            for (class, pool) in classes.iter_mut().enumerate() {
                let fourth = pool.len() / 4;
                let count = match self.rules.decay {
                    _ if is_full => pool.len(),
                    Decay::FourthOrAll if fourth == 0 => pool.len(),
                    _ => fourth,
                };
                for start in pool.drain(..count) {
                    let size = (class as u64 + 1) * self.page_bytes;
                    self.free.insert(start, start + size);
                }
            }
        }
    }

    /// Pages that wait to be purged.
    #[must_use]
    pub fn lazy_pages(&self) -> u64 {
        self.lazy_pages
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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const START: u64 = 1 << 32;
    const END: u64 = 1 << 36;

    fn layer(lazy_max: u64, tuning: Tuning) -> Vmap {
        let mut layer = Vmap::new(VmapRules::of("6.18"), tuning, 2, lazy_max, PAGE);
        layer.set_window(START, END);
        layer
    }

    fn ask(layer: &mut Vmap, pages: u64, cpu: usize) -> u64 {
        let request = Request { size: pages * PAGE, align: 1, start: START, end: END };
        (layer.alloc(&request, cpu).unwrap() - START) / PAGE
    }

    fn free(layer: &mut Vmap, page: u64) -> bool {
        layer.free(START + page * PAGE)
    }

    #[test]
    fn an_area_comes_back_from_the_pool_of_the_processor_that_took_it() {
        let mut layer = layer(1000, Tuning::default());
        assert_eq!(
            [ask(&mut layer, 5, 0), ask(&mut layer, 5, 1), ask(&mut layer, 5, 0)],
            [0, 5, 10]
        );
        for page in [10, 5, 0] {
            assert!(!free(&mut layer, page));
        }
        assert_eq!((layer.lazy_areas(), layer.areas(), layer.bytes()), (3, 0, 0));
        assert_eq!(ask(&mut layer, 5, 0), 15, "what waits is not free");
        layer.purge(None, false);
        // Rising addresses go to the front one after the other: the highest comes first.
        assert_eq!([ask(&mut layer, 5, 0), ask(&mut layer, 5, 0)], [10, 0]);
        assert_eq!([ask(&mut layer, 5, 1), ask(&mut layer, 5, 1)], [5, 20]);
        assert_eq!(layer.pool_hits, 3);
        assert_eq!(ask(&mut layer, 4, 1), 25, "another size has another pool");
    }

    #[test]
    fn a_purge_first_gives_a_fourth_of_each_pool_back() {
        let mut layer = layer(1000, Tuning::default());
        let pages: Vec<u64> = (0..9).map(|_| ask(&mut layer, 1, 0)).collect();
        for page in &pages[..8] {
            free(&mut layer, *page);
        }
        layer.purge(None, false);
        assert_eq!(layer.pooled_areas(), 8);
        layer.purge(None, false);
        assert_eq!(layer.pooled_areas(), 6, "8 - 8/4");
        // From the front: pages 7 and 6 are free again, and the lowest hole is taken.
        assert_eq!(ask(&mut layer, 2, 0), 6);
        layer.purge(None, true);
        assert_eq!(layer.pooled_areas(), 0, "a full purge empties them");
    }

    #[test]
    fn one_surprise_is_one_surprise() {
        let mut layer = layer(1000, Tuning::default());
        let at = |page: u64| START + page * PAGE;
        let request = Request { size: 5 * PAGE, align: 1, start: START, end: END };
        // The kernel passes over the first hole: something nobody told of is there.
        assert_eq!(layer.alloc_at(&request, 0, at(8)), Some(at(0)));
        assert_eq!(layer.alloc_at(&request, 0, at(0)), Some(at(0)), "free again");
        assert_eq!(layer.alloc_at(&request, 0, at(13)), Some(at(13)), "three pages are too few");
        assert_eq!((layer.areas(), layer.bytes()), (3, 15 * PAGE));
        layer.free(at(8));
        layer.free(at(13));
        layer.purge(None, false);
        assert_eq!(layer.alloc_at(&request, 0, at(8)), Some(at(13)), "the other of the pool");
        assert_eq!((layer.pooled_areas(), layer.areas()), (1, 2));
    }

    #[test]
    fn short_pools_were_emptied_up_to_6_13() {
        let mut layer = Vmap::new(VmapRules::of("6.12"), Tuning::default(), 2, 1000, PAGE);
        layer.set_window(START, END);
        let pages: Vec<u64> = (0..3).map(|_| ask(&mut layer, 1, 0)).collect();
        for page in pages {
            free(&mut layer, page);
        }
        layer.purge(None, false);
        assert_eq!(layer.pooled_areas(), 3);
        layer.purge(None, false);
        assert_eq!(layer.pooled_areas(), 0);
    }

    #[test]
    fn the_worker_is_asked_for_beyond_the_threshold_only() {
        let mut layer = layer(10, Tuning::default());
        let pages: Vec<u64> = (0..3).map(|_| ask(&mut layer, 5, 0)).collect();
        assert!(!free(&mut layer, pages[0]) && !free(&mut layer, pages[1]));
        assert!(!layer.is_pending(), "ten pages are not more than ten");
        assert!(free(&mut layer, pages[2]) && layer.is_pending());
        // Only the first two were on the list when the worker took it.
        layer.purge(Some(2), false);
        assert!(layer.is_pending(), "the third was freed while the worker still counted all");
        assert_eq!((layer.lazy_areas(), layer.lazy_pages()), (1, 5));
    }

    #[test]
    fn a_lower_threshold_purges_at_once_and_no_pools_means_none() {
        let tuning = Tuning { lazy_max_pages: Some(4), no_pools: true, ..Tuning::default() };
        let mut layer = layer(1000, tuning);
        let page = ask(&mut layer, 5, 0);
        assert!(free(&mut layer, page));
        assert_eq!((layer.purges, layer.lazy_areas(), layer.pooled_areas()), (1, 0, 0));
        assert_eq!(ask(&mut layer, 5, 1), 0);
    }

    #[test]
    fn without_a_hole_everything_that_waits_is_purged() {
        let mut layer = layer(1000, Tuning::default());
        let request = Request { size: 4 * PAGE, align: 1, start: START, end: START + 4 * PAGE };
        let first = layer.alloc(&request, 0).unwrap();
        assert_eq!(layer.alloc(&request, 0), None);
        layer.free(first);
        assert_eq!(layer.alloc(&request, 0), Some(first));
        assert_eq!(layer.failures, 1);
    }
}
