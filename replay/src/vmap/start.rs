//! What the events tell of the vmalloc space at the start: which areas waited in which pool, and on
//! whose node areas were that the first `/proc/vmallocinfo` names.
//!
//! An area that a pool serves needs no object of the cache `vmap_area`; one from the free space
//! does. So an allocation tells where its address was before. One from the free space also tells
//! that no lower hole would do: what looks like one is in another node's pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kmemlab_trace::event::{Event, Kind};

use super::layer::Purge;
use super::rules::VmapRules;
use super::samples::VmapSample;
use super::space::{FreeSpace, Request};

mod objects;
mod passed;

pub use objects::Objects;
use passed::{Hole, Passed};

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

/// A range that is not free at the start and in no pool that a request asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
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
    /// What is not free and in no pool that a request asks.
    pub taken: Vec<Taken>,
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
    objects: Objects,
    seen: HashMap<u64, ()>,
    windows: Vec<((u64, u64), u64)>,
    start: VmapStart,
    passed: Passed,
    purges: u32,
    /// By node: its pool ran dry after the first purge, so nothing of that purge was left in it.
    is_drained: Vec<bool>,
    /// Pools taken from before the first purge.
    pools_before: Vec<Pooled>,
    /// Nodes and sizes whose pool was found empty: what nobody came to was not in it.
    dry: BTreeSet<(usize, u64)>,
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
            passed: Passed::new(space, rules.length, page_bytes),
            purges: 0,
            is_drained: vec![false; nodes.clamp(1, 128)],
            pools_before: Vec::new(),
            dry: BTreeSet::new(),
            sample,
            nodes: nodes.clamp(1, 128),
            has_objects,
            objects: Objects::default(),
            seen: HashMap::new(),
            windows: Vec::new(),
            start: VmapStart { has_objects, ..VmapStart::default() },
        }
    }

    /// An object of the cache `vmap_area` was allocated.
    pub fn object(&mut self, event: &Event) {
        self.objects.took(event);
    }

    /// An event of the vmalloc space.
    pub fn event(&mut self, event: &Event) {
        let is_after = self.sample.is_some_and(|sample| event.time > sample.stamp.after);
        if is_after && event.kind == Kind::VmapPurge {
            self.purges += 1;
            self.passed.purged();
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
        let object = self.objects.of(event);
        let is_hit = object.is_none();
        let start = event.pfn_or_address;
        let node = object.unwrap_or(usize::from(event.cpu.0)) % self.nodes;
        if !is_after {
            self.start.nodes.insert(start, node as u32 + 1);
            return;
        }
        if !self.has_objects {
            return;
        }
        let request = Request {
            size: event.bytes_requested,
            align: (event.args[0].max(1) as u64).next_power_of_two(),
            start: window.0,
            end: window.1,
        };
        self.passed.given_out(&request, start, node, is_hit);
        if !is_hit {
            self.dry.insert((node, event.bytes_requested));
            self.is_drained[node] |= self.purges == 1;
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

    /// What was passed over is in a pool that was not found empty; if all were, nobody knows where.
    fn place(&mut self, hole: &Hole) -> Option<usize> {
        let nodes = (1..=self.nodes).map(|step| (hole.node + step) % self.nodes);
        let may_have = |node: &usize| !hole.is_rest && !self.dry.contains(&(*node, hole.size));
        let node = nodes.into_iter().find(may_have);
        if node.is_none() {
            let Hole { start, size, purges, .. } = *hole;
            self.start.taken.push(Taken { start, size, purges });
        }
        node
    }

    /// What was passed over, in the order of its pool. The first purge gives a fourth of the pool
    /// back, from its front: what was taken from the free space after it stood there, and the
    /// highest addresses do, which nobody came to. A purge puts its highest address in front.
    fn in_order(node: usize, mut mine: Vec<Hole>, behind: usize) -> Vec<Pooled> {
        mine.sort_unstable_by_key(|hole| std::cmp::Reverse(hole.start));
        let is_told = |hole: &Hole| hole.is_freed && hole.purges == 0;
        let told = mine.iter().filter(|hole| is_told(hole)).count();
        let mut untold = ((mine.len() + behind) / 4).saturating_sub(told);
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for hole in mine {
            let may_be_first = hole.purges == 0 && !hole.is_freed && untold > 0;
            untold -= usize::from(may_be_first);
            if is_told(&hole) || may_be_first { first.push(hole) } else { rest.push(hole) }
        }
        // What a later purge gave back stood before what none did.
        rest.sort_by_key(|hole| if hole.is_freed { hole.purges } else { u64::MAX });
        let all = first.into_iter().chain(rest);
        all.map(|Hole { start, size, purges, .. }| Pooled { node, start, size, purges }).collect()
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
        let holes = self.passed.take_holes();
        let mut by_node = vec![Vec::new(); self.nodes];
        for hole in holes {
            if let Some(node) = self.place(&hole) {
                by_node[node].push(hole);
            }
        }
        self.start.pools = std::mem::take(&mut self.pools_before);
        for (node, mine) in by_node.into_iter().enumerate() {
            let behind = later.iter().filter(|pooled| pooled.node == node).count();
            self.start.pools.append(&mut Self::in_order(node, mine, behind));
        }
        self.start.pools.extend(later);
        self.guess_nodes();
        self.start
    }
}

#[cfg(test)]
mod tests;
