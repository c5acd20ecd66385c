//! What was freed lazily goes back: to the pools of its nodes, or to the free space.

use super::{Area, Decay, NODE_BYTES, Vmap};

/// What the kernel told of a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Purge {
    /// Areas.
    pub areas: u64,
    /// Lowest address.
    pub start: u64,
    /// Highest end.
    pub end: u64,
}

impl Purge {
    /// Whether an area may have been in it.
    fn may_hold(&self, area: &Area) -> bool {
        self.start <= area.start && area.start.saturating_add(area.size) <= self.end
    }

    /// Whether an area is its lowest or its highest.
    fn ends_at(&self, area: &Area) -> bool {
        self.start == area.start || area.start.saturating_add(area.size) == self.end
    }
}

impl Vmap {
    /// The worker runs (`__purge_vmap_area_lazy`) over all freed areas.
    pub fn purge_all(&mut self, is_full: bool) {
        self.begin_purge(is_full);
        let taken = std::mem::take(&mut self.lazy);
        self.give_all(taken, is_full);
    }

    /// The worker runs over as many of the freed areas as the kernel's did. Those freed while it
    /// runs still see its count, and may ask for it again.
    pub fn purge(&mut self, told: &Purge, next: Option<&Purge>) {
        self.begin_purge(false);
        let taken = self.take_lazy(told, next);
        self.give_all(taken, false);
    }

    fn begin_purge(&mut self, is_full: bool) {
        self.purges += 1;
        self.may_be_repeated = std::mem::take(&mut self.is_asked_twice);
        if !std::mem::take(&mut self.surprises.is_decayed) || is_full {
            self.surprises.purged();
            self.decay(is_full);
        }
        self.leave_with(self.purges);
    }

    fn give_all(&mut self, mut taken: Vec<Area>, is_full: bool) {
        self.purged_areas += taken.len() as u64;
        // Frees since then were made while the old ones still counted.
        self.is_pending = !self.lazy.is_empty() && self.lazy_pages > self.lazy_max;
        taken.sort_unstable_by_key(|area| (self.owner(area), area.start));
        for area in taken {
            self.lazy_pages -= area.size / self.page_bytes;
            self.give_purged(area, is_full);
        }
    }

    /// What one purge took of what waits. The worker takes the lists of the nodes in turn, with
    /// the decay of the next node's pools in between. So of each node what was freed last is left,
    /// and of the first nodes more than of the last. The addresses that the kernel tells of this
    /// purge and of the next say more.
    fn take_lazy(&mut self, told: &Purge, next: Option<&Purge>) -> Vec<Area> {
        let all = std::mem::take(&mut self.lazy);
        let count = usize::try_from(told.areas).unwrap_or(usize::MAX).min(all.len());
        let left = all.len() - count;
        if left == 0 {
            return all;
        }
        let is_left = self.left_behind(&all, left, told, next);
        let (mut taken, mut later) = (Vec::with_capacity(count), Vec::with_capacity(left));
        for (area, is_left) in all.into_iter().zip(is_left) {
            if is_left { later.push(area) } else { taken.push(area) }
        }
        self.lazy = later;
        taken
    }

    /// Which `left` areas a purge left behind.
    fn left_behind(
        &self,
        all: &[Area],
        left: usize,
        told: &Purge,
        next: Option<&Purge>,
    ) -> Vec<bool> {
        let mut is_left = vec![false; all.len()];
        // By node: from which area on the next purge has them, and up to which this one.
        let mut from = vec![usize::MAX; self.nodes];
        let mut until = vec![0; self.nodes];
        for (index, area) in all.iter().enumerate() {
            let node = self.owner(area);
            if told.ends_at(area) || next.is_some_and(|next| !next.may_hold(area)) {
                until[node] = index + 1;
            }
            if !told.may_hold(area) || next.is_some_and(|next| next.ends_at(area)) {
                from[node] = from[node].min(index);
            }
        }
        let mut count = 0;
        for (index, area) in all.iter().enumerate() {
            if index >= from[self.owner(area)] {
                is_left[index] = true;
                count += 1;
            }
        }
        let is_told = count > 0;
        let last = self.nodes - 1;
        // How much earlier than the last node's list its node's was taken, a node at a time.
        let step_of = |index: usize| match last - self.owner(&all[index]) {
            _ if is_told => all.len() - index,
            0 => usize::MAX,
            nodes => (all.len() - index).div_ceil(nodes),
        };
        let mut others: Vec<usize> = (0..all.len()).filter(|index| !is_left[*index]).collect();
        others.sort_by_key(|index| {
            let is_taken = *index < until[self.owner(&all[*index])];
            (is_taken, step_of(*index), usize::MAX - *index)
        });
        for index in others.into_iter().take(left.saturating_sub(count)) {
            is_left[index] = true;
        }
        // The addresses contradict the number: as many as told, the first of them.
        for is_left in is_left.iter_mut().filter(|it| **it).take(count.saturating_sub(left)) {
            *is_left = false;
        }
        is_left
    }

    /// An area that was purged.
    fn give_purged(&mut self, area: Area, is_full: bool) {
        let class = self.class_of(area.size);
        let owner = self.owner(&area);
        let pool = self.pools.get_mut(owner).and_then(|classes| classes.get_mut(class));
        match pool {
            Some(pool) if area.node > 0 && !is_full => {
                pool.push_front(area.start);
                self.surprises.pooled(area.start);
            }
            _ => self.free.insert(area.start, area.start.saturating_add(area.size)),
        }
    }

    /// The node on whose list a freed area waits.
    fn owner(&self, area: &Area) -> usize {
        match area.node {
            0 => ((area.start / NODE_BYTES) % self.nodes as u64) as usize,
            node => node as usize - 1,
        }
    }

    /// `decay_va_pool_node`. Where the events tell that an area of the start stayed, the kernel had
    /// others before it that no event names.
    pub(super) fn decay(&mut self, is_full: bool) {
        for (node, classes) in self.pools.iter_mut().enumerate() {
            for (class, pool) in classes.iter_mut().enumerate() {
                let fourth = pool.len() / 4;
                let count = match self.rules.decay {
                    _ if is_full => pool.len(),
                    Decay::FourthOrAll if fourth == 0 => pool.len(),
                    _ => self.surprises.before_stays(pool, fourth, self.purges),
                };
                let starts: Vec<u64> = pool.drain(..count).collect();
                let size = (class as u64 + 1) * self.page_bytes;
                for start in &starts {
                    self.free.insert(*start, *start + size);
                }
                if !starts.is_empty() {
                    self.surprises.decays(node, class, starts);
                }
            }
        }
    }
}
