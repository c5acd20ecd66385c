//! Steps of mirror minus kernel between samples of `/proc/buddyinfo`, each with its cause.
//!
//! A hidden refill has a signature: the difference jumps by exactly as many pages as the kernel
//! moves at once to a per-CPU list (`rmqueue_bulk`), `batch >> order` blocks of one order.

use crate::machine::Machine;

use super::Cause;

/// What happened in a zone since its last sample, as far as it can explain a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Between {
    /// Pages that compaction's fast search took from unknown places.
    pub(crate) fast_search_pages: i64,
    /// Ranges that could not be read exactly.
    pub(crate) isolations: u64,
    /// Pages corrected because an event named them, mirror minus kernel before.
    pub(crate) settled_pages: i64,
    /// Pages freed in an interrupt to a per-CPU list.
    pub(crate) interrupt_pages: i64,
    /// Pages that the zone grew by.
    pub(crate) grown_pages: i64,
    /// Events are missing.
    pub(crate) is_lossy: bool,
}

/// A difference by order.
pub(crate) type ByOrder = [i64; 16];

/// A step with its cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) zone: usize,
    pub(crate) at_ns: u64,
    pub(crate) cause: Cause,
    pub(crate) blocks: ByOrder,
    /// How many refills or drains it is.
    pub(crate) times: u64,
}

#[derive(Clone, Debug, Default)]
struct Zone {
    last: ByOrder,
    between: Between,
    /// The latest step: told when the next sample shows whether it stays.
    waiting: Option<Step>,
    batch: i64,
}

/// Follows the difference of every zone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    zones: Vec<Zone>,
    orders: Vec<u8>,
    block_order: u8,
}

/// The kernel refills an order-0 list by at most `batch << 5` pages (`CONFIG_PCP_BATCH_SCALE_MAX`).
const LARGEST_REFILL: i64 = 32;

impl Steps {
    /// For a machine whose zones have these batches.
    pub(crate) fn new(machine: &Machine, batches: &[i64]) -> Self {
        let orders = (0..machine.orders).filter(|order| machine.pcp_list(*order, 1).is_some());
        let zones = machine.zones.iter().enumerate().map(|(zone, _)| Zone {
            batch: batches.get(zone).copied().unwrap_or(1),
            ..Zone::default()
        });
        Self { zones: zones.collect(), orders: orders.collect(), block_order: machine.block_order }
    }

    /// What happened in a zone, to be added to.
    pub(crate) fn between(&mut self, zone: usize) -> &mut Between {
        &mut self.zones[zone].between
    }

    /// Events are missing in all zones.
    pub(crate) fn lossy(&mut self) {
        for zone in &mut self.zones {
            zone.between.is_lossy = true;
        }
    }

    /// A zone was compared: the step before, if there was one, can be told now.
    pub(crate) fn sample(&mut self, zone: usize, at_ns: u64, now: ByOrder) -> Option<Step> {
        let orders = &self.orders;
        let of = &mut self.zones[zone];
        let mut blocks = now;
        for (step, last) in blocks.iter_mut().zip(of.last) {
            *step -= last;
        }
        of.last = now;
        let between = std::mem::take(&mut of.between);
        let mut told = of.waiting.take();
        if blocks == [0; 16] {
            return told;
        }
        let (mut cause, times) = classify(&blocks, &between, of.batch, orders);
        let whole = usize::from(self.block_order);
        let is_whole = blocks.iter().take(whole).all(|n| *n == 0);
        let is_refill = pages_of(&blocks) == blocks[whole] << whole && blocks[whole].abs() == 2;
        let is_open = !matches!(cause, Cause::LostEvents | Cause::Settled | Cause::NewMemory);
        if is_whole && is_open && !is_refill && between.isolations == 0 {
            // Isolated pageblocks are split, and as many pages stay free.
            let is_split = pages_of(&blocks) == 0;
            cause = if is_split { Cause::Isolation } else { Cause::PageReporting };
        }
        let mut step = Step { zone, at_ns, cause, blocks, times };
        if let Some(before) = &mut told
            && before.blocks.iter().zip(blocks).all(|(before, now)| *before == -now)
            && before.cause != Cause::LostEvents
            && cause != Cause::Settled
        {
            before.cause = Cause::InFlight;
            step.cause = Cause::InFlight;
        }
        of.waiting = Some(step);
        told
    }

    /// The last steps.
    pub(crate) fn finish(&mut self) -> Vec<Step> {
        self.zones.iter_mut().filter_map(|zone| zone.waiting.take()).collect()
    }

    /// The mirror's counts were made the kernel's.
    pub(crate) fn reset(&mut self) {
        for zone in &mut self.zones {
            zone.last = [0; 16];
            zone.between = Between::default();
        }
    }
}

fn pages_of(blocks: &ByOrder) -> i64 {
    blocks.iter().enumerate().map(|(order, blocks)| blocks << order).sum()
}

/// The cause of a step, and how many refills it is.
fn classify(blocks: &ByOrder, between: &Between, batch: i64, orders: &[u8]) -> (Cause, u64) {
    let pages = pages_of(blocks);
    let is_part = |whole: i64| whole != 0 && pages.signum() == whole.signum();
    let cause = if between.is_lossy {
        Cause::LostEvents
    } else if pages == 0 {
        if between.isolations > 0 { Cause::Isolation } else { Cause::OtherBlocks }
    } else if between.settled_pages == -pages {
        Cause::Settled
    } else if is_part(between.fast_search_pages) && pages <= between.fast_search_pages {
        Cause::FastSearch
    } else if between.isolations > 0 {
        Cause::Isolation
    } else if between.grown_pages > 0 && pages == -between.grown_pages {
        Cause::NewMemory
    } else if let Some((cause, times)) = hidden(pages, between, batch, orders) {
        return (cause, times);
    } else if is_part(-between.settled_pages) {
        Cause::Settled
    } else if pages < 0 && -pages <= between.interrupt_pages {
        Cause::DirectFree
    } else if pages < 0 {
        Cause::UnseenFree
    } else {
        Cause::UnseenAllocation
    };
    (cause, 0)
}

/// A refill or drain of a thread that fires no events, beside what events settled meanwhile.
fn hidden(pages: i64, between: &Between, batch: i64, orders: &[u8]) -> Option<(Cause, u64)> {
    [pages, pages + between.settled_pages].into_iter().find_map(|pages| {
        let cause = if pages > 0 { Cause::HiddenRefill } else { Cause::HiddenDrain };
        refills(pages.abs(), batch, orders).map(|times| (cause, times))
    })
}

/// How many refills come to exactly so many pages, all of one order.
fn refills(pages: i64, batch: i64, orders: &[u8]) -> Option<u64> {
    if batch <= 1 {
        return None;
    }
    orders.iter().find_map(|order| {
        let blocks = (batch >> *order).max(2);
        let unit = blocks << *order;
        let most = if *order == 0 { LARGEST_REFILL } else { 2 };
        let times = pages / unit;
        (pages % unit == 0 && (1..=most).contains(&times)).then_some(times as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: [u8; 5] = [0, 1, 2, 3, 9];

    fn by_order(pairs: &[(usize, i64)]) -> ByOrder {
        let mut blocks = [0; 16];
        for (order, count) in pairs {
            blocks[*order] = *count;
        }
        blocks
    }

    #[test]
    fn a_refill_is_known_by_its_pages_however_they_were_split() {
        let quiet = Between::default();
        for (pairs, cause, times) in [
            (vec![(0, 63)], Cause::HiddenRefill, 1),
            (vec![(0, -1), (6, 1)], Cause::HiddenRefill, 1),
            (vec![(2, 15)], Cause::HiddenRefill, 1),
            (vec![(0, -126)], Cause::HiddenDrain, 2),
            (vec![(9, 2)], Cause::HiddenRefill, 1),
            (vec![(0, 5)], Cause::UnseenAllocation, 0),
            (vec![(0, -5)], Cause::UnseenFree, 0),
            (vec![(0, 2), (1, -1)], Cause::OtherBlocks, 0),
        ] {
            let blocks = by_order(&pairs);
            assert_eq!(classify(&blocks, &quiet, 63, &ORDERS), (cause, times), "{pairs:?}");
        }
    }

    #[test]
    fn what_happened_in_between_explains_a_step() {
        let blocks = by_order(&[(4, 1)]);
        let search = Between { fast_search_pages: 16, ..Between::default() };
        assert_eq!(classify(&blocks, &search, 63, &ORDERS).0, Cause::FastSearch);
        let range = Between { isolations: 1, ..Between::default() };
        assert_eq!(classify(&blocks, &range, 63, &ORDERS).0, Cause::Isolation);
        let settled = Between { settled_pages: -16, ..Between::default() };
        assert_eq!(classify(&blocks, &settled, 63, &ORDERS).0, Cause::Settled);
        let loss = Between { is_lossy: true, ..Between::default() };
        assert_eq!(classify(&by_order(&[(0, 63)]), &loss, 63, &ORDERS).0, Cause::LostEvents);
        let interrupt = Between { interrupt_pages: 40, ..Between::default() };
        let blocks = by_order(&[(0, -27)]);
        assert_eq!(classify(&blocks, &interrupt, 63, &ORDERS).0, Cause::DirectFree);
        let grown = Between { grown_pages: 1024, ..Between::default() };
        let blocks = by_order(&[(10, -1)]);
        assert_eq!(classify(&blocks, &grown, 63, &ORDERS).0, Cause::NewMemory);
    }

    #[test]
    fn a_step_that_is_gone_at_the_next_sample_was_in_flight() {
        let zones = vec![Zone { batch: 63, ..Zone::default() }];
        let mut steps = Steps { zones, orders: vec![0], block_order: 9 };
        assert_eq!(steps.sample(0, 1, by_order(&[(0, 5)])), None);
        let first = steps.sample(0, 2, [0; 16]).unwrap();
        assert_eq!((first.at_ns, first.cause), (1, Cause::InFlight));
        assert_eq!(steps.sample(0, 3, [0; 16]).unwrap().cause, Cause::InFlight);
        assert_eq!(steps.sample(0, 4, by_order(&[(0, 63)])), None);
        let second = steps.sample(0, 5, by_order(&[(0, 63)])).unwrap();
        assert_eq!((second.cause, second.times), (Cause::HiddenRefill, 1));
        // Whole pageblocks come and go while the host is told of them.
        assert_eq!(steps.sample(0, 6, by_order(&[(0, 63), (9, 8), (10, 24)])), None);
        let now = by_order(&[(0, 63), (9, -472), (10, 264)]);
        assert_eq!(steps.sample(0, 7, now).unwrap().cause, Cause::PageReporting);
        // Isolated ones are split.
        assert_eq!(steps.finish()[0].cause, Cause::Isolation);
    }
}
