//! How much moved at once between per-CPU lists and buddy lists: refills and drains by size.

use std::collections::BTreeMap;

/// Sizes and how often each was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    refills: BTreeMap<(u8, u64), u64>,
    drains: BTreeMap<u64, u64>,
}

impl Moved {
    /// Notes a refill of so many blocks of an order.
    pub(crate) fn refill(&mut self, order: u8, blocks: u64) {
        if blocks > 0 {
            *self.refills.entry((order, blocks)).or_default() += 1;
        }
    }

    /// Notes a drain of so many pages.
    pub(crate) fn drain(&mut self, pages: u64) {
        if pages > 0 {
            *self.drains.entry(pages).or_default() += 1;
        }
    }

    /// Refills noted.
    #[must_use]
    pub fn refills(&self) -> u64 {
        self.refills.values().sum()
    }

    /// Drains noted.
    #[must_use]
    pub fn drains(&self) -> u64 {
        self.drains.values().sum()
    }

    /// How many refills, and how many drains, have one of the same size in `other`.
    #[must_use]
    pub fn shared(&self, other: &Self) -> (u64, u64) {
        (common(&self.refills, &other.refills), common(&self.drains, &other.drains))
    }
}

fn common<K: Ord>(a: &BTreeMap<K, u64>, b: &BTreeMap<K, u64>) -> u64 {
    a.iter().map(|(size, count)| b.get(size).map_or(0, |other| *count.min(other))).sum()
}

/// Counts the kernel's refills and drains from its events: a run of the same kind of event on one
/// processor, with no other of the page allocator's between, is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    cpus: Vec<Run>,
    pub(crate) moved: Moved,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Run {
    #[default]
    None,
    Refill {
        zone: usize,
        order: u8,
        blocks: u64,
    },
    Drain {
        zone: usize,
        pages: u64,
    },
}

impl Runs {
    pub(crate) fn new(cpus: usize) -> Self {
        Self { cpus: vec![Run::None; cpus.max(1)], moved: Moved::default() }
    }

    /// A block went to a per-CPU list.
    pub(crate) fn refilled(&mut self, cpu: usize, zone: usize, order: u8) {
        if let Run::Refill { zone: known, order: same, blocks } = &mut self.cpus[cpu]
            && *known == zone
            && *same == order
        {
            *blocks += 1;
        } else {
            self.ended(cpu);
            self.cpus[cpu] = Run::Refill { zone, order, blocks: 1 };
        }
    }

    /// A block left a per-CPU list for the buddy lists.
    pub(crate) fn drained(&mut self, cpu: usize, zone: usize, order: u8) {
        if let Run::Drain { zone: known, pages } = &mut self.cpus[cpu]
            && *known == zone
        {
            *pages += 1 << order;
        } else {
            self.ended(cpu);
            self.cpus[cpu] = Run::Drain { zone, pages: 1 << order };
        }
    }

    /// Something else happened on the processor.
    #[inline]
    pub(crate) fn ended(&mut self, cpu: usize) {
        match std::mem::take(&mut self.cpus[cpu]) {
            Run::None => {}
            Run::Refill { order, blocks, .. } => self.moved.refill(order, blocks),
            Run::Drain { pages, .. } => self.moved.drain(pages),
        }
    }

    pub(crate) fn finish(&mut self) {
        for cpu in 0..self.cpus.len() {
            self.ended(cpu);
        }
    }

    /// Forgets what was counted, at the moment the model begins.
    pub(crate) fn begin(&mut self) {
        self.finish();
        self.moved = Moved::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_told_apart_and_sizes_compared() {
        let mut runs = Runs::new(2);
        for _ in 0..3 {
            runs.refilled(0, 1, 0);
            runs.drained(1, 1, 2);
        }
        runs.ended(0);
        runs.refilled(0, 1, 0);
        runs.refilled(0, 1, 3);
        runs.finish();
        let mut other = Moved::default();
        other.refill(0, 3);
        other.refill(0, 2);
        other.refill(3, 1);
        other.drain(12);
        assert_eq!((runs.moved.refills(), runs.moved.drains()), (3, 1));
        assert_eq!(runs.moved.shared(&other), (2, 1));
    }
}
