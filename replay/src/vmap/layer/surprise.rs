//! What one surprise tells: the kernel put an area elsewhere than the recorded policy would have.
//!
//! The area goes where the kernel put it, and what stood in its way is put right, so that a fault
//! of the start is met once and not at every request after it. Nothing here helps the request that
//! was a surprise: it is judged before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Area, Purge, Vmap};
use crate::vmap::space::Request;
use crate::vmap::start::Taken;

/// What surprises told of.
#[derive(Clone, Debug, Default)]
pub(super) struct Surprises {
    /// Neither free nor in a pool that is known, by first address: bytes, and the number of purges
    /// when the kernel last passed over it.
    limbo: BTreeMap<u64, (u64, u64)>,
    /// What the last purge took from the front of each pool (node, class), in that order.
    decayed: BTreeMap<(usize, usize), Vec<u64>>,
    /// The worker was found to be at work: its event is still to come.
    pub(super) is_purging: bool,
    /// The worker was found to have shrunk the pools: its purge is still to come.
    pub(super) is_decayed: bool,
    /// Areas of the start, and the purges that they are known to stay through.
    stays: BTreeMap<u64, u64>,
    /// What is in limbo since the start, likewise: the next purge gives it back.
    leaves: BTreeMap<u64, u64>,
    /// What the last purge put into pools.
    fresh: BTreeSet<u64>,
    /// Pools (node, class) whose kernel's had another in front at the last request.
    differs: BTreeSet<(usize, usize)>,
}

impl Surprises {
    pub(super) fn stays(&mut self, start: u64, purges: u64) {
        if purges > 0 {
            self.stays.insert(start, purges);
        }
    }

    /// How many of the first `count` of a pool come before one that stays through that purge.
    pub(super) fn before_stays(&self, pool: &VecDeque<u64>, count: usize, purge: u64) -> usize {
        let stays = |start: &u64| self.stays.get(start).is_some_and(|purges| *purges >= purge);
        pool.iter().take(count).take_while(|start| !stays(start)).count()
    }

    pub(super) fn purged(&mut self) {
        self.decayed.clear();
        self.fresh.clear();
    }

    /// The purge put an area into its pool.
    pub(super) fn pooled(&mut self, start: u64) {
        self.fresh.insert(start);
    }

    /// The entries of limbo that a range touches; they do not overlap each other.
    fn limbo_over(&self, start: u64, end: u64) -> Vec<u64> {
        let below = self.limbo.range(..end).rev();
        below.take_while(|(at, (size, _))| *at + size > start).map(|(at, _)| *at).collect()
    }

    pub(super) fn decays(&mut self, node: usize, class: usize, starts: Vec<u64>) {
        self.decayed.insert((node, class), starts);
    }
}

/// Where the model had what the kernel gave out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Had {
    /// So far from the front of the pool of a node.
    Pool { node: usize, place: usize },
    /// The last purge took it from the processor's pool, as the n-th.
    Decayed(usize),
    /// Elsewhere.
    Elsewhere,
}

impl Vmap {
    /// As [`Self::alloc`], but the area ends up where the kernel put it. Answers where it would
    /// have gone. `from_pool` tells whether a pool of the kernel served the request, if that is
    /// known.
    pub fn alloc_at(
        &mut self,
        request: &Request,
        cpu: usize,
        kernel: u64,
        from_pool: Option<bool>,
    ) -> Option<u64> {
        let hits = self.pool_hits;
        let found = self.alloc(request, cpu);
        let class = self.class_of(request.size);
        let node = cpu % self.nodes;
        if found == Some(kernel) {
            self.surprises.differs.remove(&(node, class));
            return found;
        }
        let was_hit = self.pool_hits > hits;
        let is_pooled = (request.start, request.end) == self.window;
        let has_pool = is_pooled && class < self.pools[node].len();
        if let Some(area) = found.and_then(|start| self.busy.remove(&start)) {
            self.busy_bytes -= area.size;
            match self.pools[node].get_mut(class).filter(|_| was_hit) {
                Some(pool) => pool.push_front(area.start),
                None => self.free.insert(area.start, area.start + area.size),
            }
        }
        let had = self.had(node, class, kernel);
        let is_own = matches!(had, Had::Pool { node: other, .. } if other == node);
        if has_pool && from_pool.unwrap_or(is_own) {
            self.learn_of_pool(node, class, had);
        } else {
            if has_pool && was_hit && !self.decays_early() {
                self.empty_pool(node, class, had);
            }
            self.learn_of_free(request, class, kernel, had);
        }
        self.occupy(request, kernel, if has_pool { node as u32 + 1 } else { 0 });
        found
    }

    /// A pool had nothing although it should: while the worker is asked for, it may be just
    /// shrinking that pool, which it takes off its node meanwhile (`decay_va_pool_node`). What it
    /// purges comes to the pools later.
    fn decays_early(&mut self) -> bool {
        let is_early = self.is_pending && !self.purges_at_once() && !self.surprises.is_purging;
        if is_early && !self.surprises.is_decayed {
            self.surprises.purged();
            self.purges += 1;
            self.decay(false);
            self.purges -= 1;
            self.surprises.is_decayed = true;
        }
        is_early
    }

    /// The worker was found to be at work before its event came.
    pub fn purge_early(&mut self, told: &Purge, next: Option<&Purge>) {
        self.purge(told, next);
        self.surprises.is_purging = true;
    }

    /// Whether the worker was found to be at work.
    #[must_use]
    pub fn is_purging(&self) -> bool {
        self.surprises.is_purging
    }

    /// The worker's event came. Answers whether it was found to be at work before.
    pub fn purge_ends(&mut self) -> bool {
        std::mem::take(&mut self.surprises.is_purging)
    }

    /// Whether an area waits to be purged.
    #[must_use]
    pub fn is_lazy(&self, start: u64) -> bool {
        self.lazy.iter().any(|area| area.start == start)
    }

    fn had(&self, own: usize, class: usize, kernel: u64) -> Had {
        for node in (0..self.nodes).map(|step| (own + step) % self.nodes) {
            let pool = self.pools[node].get(class);
            let place = pool.and_then(|pool| pool.iter().position(|start| *start == kernel));
            if let Some(place) = place {
                return Had::Pool { node, place };
            }
        }
        let decayed = self.surprises.decayed.get(&(own, class));
        match decayed.and_then(|list| list.iter().position(|start| *start == kernel)) {
            Some(place) => Had::Decayed(place),
            None => Had::Elsewhere,
        }
    }

    /// The kernel's pool had it in front. What the model had before it went back at the last purge
    /// or never was there; what the model's purge took behind it stayed.
    fn learn_of_pool(&mut self, node: usize, class: usize, had: Had) {
        match had {
            Had::Pool { node: other, place }
                if other == node
                    && !self.surprises.is_purging
                    && self.is_not_there(node, class) =>
            {
                self.give_back(node, class, place);
            }
            Had::Decayed(place) => {
                let list = self.surprises.decayed.remove(&(node, class)).unwrap_or_default();
                let size = (class as u64 + 1) * self.page_bytes;
                for start in list[place + 1..].iter().rev() {
                    if self.free.holds(*start, start + size) {
                        self.free.remove(*start, start + size);
                        self.pools[node][class].push_front(*start);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether what the model has in front of a pool is not in the kernel's. What the last purge
    /// put there is, unless it happens twice in a row: the one that the kernel gave out came with
    /// another purge than the model's, or a thread was interrupted between taking and telling.
    fn is_not_there(&mut self, node: usize, class: usize) -> bool {
        let front = self.pools[node][class].front();
        let is_fresh = front.is_some_and(|start| self.surprises.fresh.contains(start));
        !is_fresh || !self.surprises.differs.insert((node, class))
    }

    /// The first `count` of a pool are free.
    fn give_back(&mut self, node: usize, class: usize, count: usize) {
        let size = (class as u64 + 1) * self.page_bytes;
        let len = self.pools[node][class].len();
        for start in self.pools[node][class].drain(..count.min(len)) {
            self.free.insert(start, start + size);
        }
    }

    /// As [`Self::give_back`], but what the last purge put there stays: a purge takes from a pool
    /// before it gives to it.
    fn give_back_older(&mut self, node: usize, class: usize, count: usize) {
        let size = (class as u64 + 1) * self.page_bytes;
        let len = self.pools[node][class].len();
        let before: Vec<u64> = self.pools[node][class].drain(..count.min(len)).collect();
        for start in before.into_iter().rev() {
            if self.surprises.fresh.contains(&start) {
                self.pools[node][class].push_front(start);
            } else {
                self.free.insert(start, start + size);
            }
        }
    }

    /// The kernel's pool had nothing: where what it gave came from a pool, pools were emptied; else
    /// what the model had there stands elsewhere.
    fn empty_pool(&mut self, node: usize, class: usize, had: Had) {
        if had != Had::Elsewhere {
            let count = self.pools[node][class].len();
            self.give_back(node, class, count);
            return;
        }
        let size = (class as u64 + 1) * self.page_bytes;
        for start in std::mem::take(&mut self.pools[node][class]) {
            self.surprises.limbo.insert(start, (size, self.purges));
        }
    }

    /// The free space had it, and nothing below that is large enough.
    fn learn_of_free(&mut self, request: &Request, class: usize, kernel: u64, had: Had) {
        if let Had::Pool { node, place } = had {
            self.give_back_older(node, class, place);
        }
        self.leave_limbo(kernel, kernel.saturating_add(request.size));
        let unseen = self.free.pass_over(request, self.rules.length, self.page_bytes, kernel);
        for (start, size) in unseen {
            self.surprises.limbo.insert(start, (size, self.purges));
        }
    }

    /// Something of what nobody knew about is free. So is the rest of it above, and what a purge
    /// may have given back since it was last passed over.
    fn leave_limbo(&mut self, start: u64, end: u64) {
        let over = self.surprises.limbo_over(start, end);
        let limbo = &mut self.surprises.limbo;
        let mut is_soft = false;
        for other in over {
            let Some((size, passed)) = limbo.remove(&other) else { continue };
            is_soft |= passed < self.purges;
            if other < start {
                limbo.insert(other, (start - other, self.purges));
            }
            self.free.insert(start.max(other), other + size);
        }
        if !is_soft {
            return;
        }
        let above: Vec<u64> = limbo
            .range(end..)
            .filter(|(other, (_, passed))| {
                *passed < self.purges && !self.surprises.leaves.contains_key(*other)
            })
            .map(|(other, _)| *other)
            .collect();
        for other in above {
            if let Some((size, _)) = limbo.remove(&other) {
                self.free.insert(other, other + size);
            }
        }
    }

    /// A range that is not free at the start although no file names it.
    pub fn seed_taken(&mut self, taken: &Taken) {
        let Taken { start, size, purges } = *taken;
        if self.free.remove(start, start.saturating_add(size)) {
            self.surprises.limbo.insert(start, (size, 0));
            self.surprises.leaves.insert(start, purges);
        }
    }

    /// What of the start is known to have stayed through the purges before this one only goes back.
    pub(super) fn leave_with(&mut self, purge: u64) {
        let leaves = &mut self.surprises.leaves;
        let now: Vec<u64> =
            leaves.iter().filter(|(_, purges)| **purges < purge).map(|(start, _)| *start).collect();
        for start in now {
            self.surprises.leaves.remove(&start);
            if let Some((size, _)) = self.surprises.limbo.remove(&start) {
                self.free.insert(start, start + size);
            }
        }
    }

    /// The area is where the kernel put it, and nothing else is there.
    fn occupy(&mut self, request: &Request, kernel: u64, stamp: u32) {
        let end = kernel.saturating_add(request.size);
        self.free.remove(kernel, end);
        for classes in &mut self.pools {
            for (class, pool) in classes.iter_mut().enumerate() {
                let size = (class as u64 + 1) * self.page_bytes;
                pool.retain(|start| *start >= end || start + size <= kernel);
            }
        }
        for other in self.surprises.limbo_over(kernel, end) {
            self.surprises.limbo.remove(&other);
        }
        let area = Area { start: kernel, size: request.size, node: stamp };
        if let Some(old) = self.busy.insert(kernel, area) {
            self.busy_bytes -= old.size;
        }
        self.busy_bytes += request.size;
    }

    pub(super) fn find_free(&self, request: &Request) -> Option<u64> {
        self.free.find(request, self.tuning.fit, self.rules.length, self.page_bytes)
    }
}
