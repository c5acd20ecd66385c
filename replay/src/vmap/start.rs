//! What the events tell of the vmalloc space at the start: which areas waited in which pool, and on
//! whose node areas were that the first `/proc/vmallocinfo` names.
//!
//! An area that a pool serves needs no object of the cache `vmap_area`; one from the free space
//! does. So an allocation tells where its address was before. One from the free space also tells
//! that no lower hole would do: what looks like one is in another node's pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kmemlab_trace::event::{Event, Kind};

use super::layer::Purge;
use super::rules::{Length, VmapRules};
use super::samples::VmapSample;
use super::space::{FreeSpace, Request};

/// An area that was in a pool at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pooled {
    /// Node.
    pub node: usize,
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Purges that it is known to have stayed through.
    pub purges: u64,
}

/// What is known of the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VmapStart {
    /// Pools, in the order in which they were taken from.
    pub pools: Vec<Pooled>,
    /// Node, plus one, of areas that the first sample names.
    pub nodes: BTreeMap<u64, u32>,
    /// Ranges that are not free and in no pool that a request of theirs asks: start and size.
    pub taken: Vec<(u64, u64)>,
    /// Objects for areas are recorded.
    pub has_objects: bool,
    /// The purges after the first sample.
    pub purges: Vec<Purge>,
    /// The window that most requests name.
    pub window: Option<(u64, u64)>,
}

/// The listener of the first pass.
#[derive(Debug)]
pub struct VmapLearning<'a> {
    sample: Option<&'a VmapSample>,
    nodes: usize,
    has_objects: bool,
    /// Threads that took an object for an area and have not asked for it yet.
    has_object: HashMap<u32, bool>,
    seen: HashMap<u64, ()>,
    windows: Vec<((u64, u64), u64)>,
    start: VmapStart,
    /// Until the first purge: what is free as far as the sample tells.
    space: FreeSpace,
    length: Length,
    page_bytes: u64,
    purges: u32,
    /// By node: its pool ran dry after the first purge, so nothing of that purge was left in it.
    is_drained: Vec<bool>,
    /// Pools taken from before the first purge.
    pools_before: Vec<Pooled>,
    skipped: Vec<Pooled>,
    /// Nodes and sizes whose pool was found empty before the first purge.
    dry: BTreeSet<(usize, u64)>,
    /// Addresses taken from the free space between the first purge and the second.
    freed_by_first: BTreeMap<u64, ()>,
}

impl<'a> VmapLearning<'a> {
    /// Learns what the first sample does not tell.
    #[must_use]
    pub fn new(
        sample: Option<&'a VmapSample>,
        nodes: usize,
        has_objects: bool,
        rules: VmapRules,
        page_bytes: u64,
    ) -> Self {
        let mut space = FreeSpace::new(page_bytes, u64::MAX);
        for row in sample.map_or(&[][..], |sample| &sample.rows) {
            space.remove(row.start, row.start.saturating_add(row.size));
        }
        Self {
            space,
            length: rules.length,
            page_bytes,
            purges: 0,
            is_drained: vec![false; nodes.clamp(1, 128)],
            pools_before: Vec::new(),
            skipped: Vec::new(),
            dry: BTreeSet::new(),
            freed_by_first: BTreeMap::new(),
            sample,
            nodes: nodes.clamp(1, 128),
            has_objects,
            has_object: HashMap::new(),
            seen: HashMap::new(),
            windows: Vec::new(),
            start: VmapStart { has_objects, ..VmapStart::default() },
        }
    }

    /// An object of the cache `vmap_area` was allocated.
    pub fn object(&mut self, event: &Event) {
        self.has_object.insert(event.pid.0, true);
    }

    /// An event of the vmalloc space.
    pub fn event(&mut self, event: &Event) {
        let is_after = self.sample.is_some_and(|sample| event.time > sample.stamp.after);
        if is_after && event.kind == Kind::VmapPurge {
            self.purges += 1;
            self.start.purges.push(Purge {
                areas: event.args[0].max(0) as u64,
                start: event.pfn_or_address,
                end: event.end,
            });
        }
        if event.kind != Kind::VmapAlloc || event.flag != 0 {
            return;
        }
        let window = (event.args[1] as u64, event.args[2] as u64);
        let place = self.windows.iter().position(|(known, _)| *known == window);
        match place {
            Some(place) => self.windows[place].1 += 1,
            None if self.windows.len() < 64 => self.windows.push((window, 1)),
            None => {}
        }
        let is_hit = !self.has_object.remove(&event.pid.0).unwrap_or(false);
        let start = event.pfn_or_address;
        let node = usize::from(event.cpu.0) % self.nodes;
        if !is_after {
            self.start.nodes.insert(start, node as u32 + 1);
            return;
        }
        if !self.has_objects {
            return;
        }
        if self.purges == 0 {
            if !is_hit {
                self.dry.insert((node, event.bytes_requested));
                self.skip_below(event, node);
            }
            self.space.remove(start, start.saturating_add(event.bytes_requested));
        }
        if self.purges == 1 && !is_hit {
            self.is_drained[node] = true;
            self.freed_by_first.insert(start, ());
        }
        if self.seen.insert(start, ()).is_some() || !is_hit {
            return;
        }
        let purges = u64::from(self.purges);
        let pooled = Pooled { node, start, size: event.bytes_requested, purges };
        if self.is_named(start) {
            self.start.nodes.entry(start).or_insert(node as u32 + 1);
        } else if self.purges > 0 {
            self.start.pools.push(pooled);
        } else {
            self.pools_before.push(pooled);
        }
    }

    /// Holes that the kernel passed over are no holes.
    fn skip_below(&mut self, event: &Event, node: usize) {
        let size = event.bytes_requested;
        let request = Request {
            size,
            align: (event.args[0].max(1) as u64).next_power_of_two(),
            start: event.args[1] as u64,
            end: event.args[2] as u64,
        };
        let unseen =
            self.space.pass_over(&request, self.length, self.page_bytes, event.pfn_or_address);
        let node = (node + 1) % self.nodes;
        let unseen =
            unseen.into_iter().map(|(start, size)| Pooled { node, start, size, purges: 0 });
        self.skipped.extend(unseen);
    }

    /// What was passed over is in a pool that was not found empty; if all were, nobody knows where.
    fn place_skipped(&mut self) {
        for pooled in std::mem::take(&mut self.skipped) {
            let nodes = (0..self.nodes).map(|step| (pooled.node + step) % self.nodes);
            match nodes.clone().find(|node| !self.dry.contains(&(*node, pooled.size))) {
                Some(node) => self.skipped.push(Pooled { node, ..pooled }),
                None => self.start.taken.push((pooled.start, pooled.size)),
            }
        }
    }

    /// What was passed over, in the order of its pool. The first purge gives a fourth of the pool
    /// back, from its front: what was taken from the free space after it stood there, and the
    /// highest addresses do, which nobody came to. A purge puts its highest address in front.
    fn in_order(&self, node: usize, behind: usize) -> Vec<Pooled> {
        let mine = self.skipped.iter().filter(|pooled| pooled.node == node).copied();
        let mut mine: Vec<Pooled> = mine.collect();
        mine.sort_unstable_by_key(|pooled| std::cmp::Reverse(pooled.start));
        let front = (mine.len() + behind) / 4;
        let is_told = |pooled: &Pooled| self.freed_by_first.contains_key(&pooled.start);
        let told = mine.iter().filter(|pooled| is_told(pooled)).count();
        let mut untold = front.saturating_sub(told);
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for pooled in mine {
            if is_told(&pooled) {
                first.push(pooled);
            } else if untold > 0 {
                untold -= 1;
                first.push(pooled);
            } else {
                rest.push(pooled);
            }
        }
        first.append(&mut rest);
        first
    }

    /// Areas that wait at the start and were not told of later: on a node whose pool never ran dry,
    /// that of their nearest neighbour by address, since a processor takes its addresses in rows.
    fn guess_nodes(&mut self) {
        let Some(sample) = self.sample else { return };
        let told = self.start.nodes.clone();
        for row in sample.rows.iter().filter(|row| row.is_lazy && self.nodes > 1) {
            if told.contains_key(&row.start) {
                continue;
            }
            let may_be = |entry: &(&u64, &u32)| !self.is_drained[*entry.1 as usize - 1];
            let below = told.range(..row.start).rev().find(may_be);
            let above = told.range(row.start..).find(may_be);
            let nearest = [below, above]
                .into_iter()
                .flatten()
                .min_by_key(|(start, _)| start.abs_diff(row.start));
            if let Some((_, node)) = nearest {
                self.start.nodes.insert(row.start, *node);
            }
        }
    }

    fn is_named(&self, start: u64) -> bool {
        let Some(sample) = self.sample else { return false };
        sample.rows.binary_search_by_key(&start, |row| row.start).is_ok()
    }

    /// What was learned.
    #[must_use]
    pub fn into_start(mut self) -> VmapStart {
        let most = self.windows.iter().max_by_key(|(window, count)| (*count, *window));
        self.start.window = most.map(|(window, _)| *window);
        let later = std::mem::take(&mut self.start.pools);
        let mut untold = FreeSpace::new(0, u64::MAX);
        for pooled in self.pools_before.iter().chain(&later) {
            untold.remove(pooled.start, pooled.start.saturating_add(pooled.size));
        }
        self.skipped.retain(|it| untold.holds(it.start, it.start.saturating_add(it.size)));
        self.place_skipped();
        self.start.pools = std::mem::take(&mut self.pools_before);
        for node in 0..self.nodes {
            let behind = later.iter().filter(|pooled| pooled.node == node).count();
            let mut mine = self.in_order(node, behind);
            self.start.pools.append(&mut mine);
        }
        self.start.pools.extend(later);
        self.guess_nodes();
        self.start
    }
}
