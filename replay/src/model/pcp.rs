//! Per-CPU page lists: refill, drain, and the limits that tune themselves.
//!
//! Functions of `mm/page_alloc.c`, 6.18: `rmqueue_pcplist`, `nr_pcp_alloc`,
//! `free_frozen_page_commit`, `nr_pcp_high`, `nr_pcp_free`, `free_pcppages_bulk`, `decay_pcp_high`.

use kmemlab_trace::unit::Migrate;

use super::{Flags, Mode, Model, Request};
use crate::pages::State;
use crate::rules::{BulkDrain, FreeHigh, PcpDrain, PcpHigh, Rules};

/// `CONFIG_PCP_BATCH_SCALE_MAX`: how far a batch may be scaled up, as a power of two.
const SCALE_MAX: u32 = 5;
/// Largest order that is not "costly".
const COSTLY_ORDER: u8 = 3;

/// Limits and counters of the lists of one zone and processor, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PerCpu {
    pub(crate) count: i64,
    pub(crate) high: i64,
    pub(crate) high_min: i64,
    pub(crate) high_max: i64,
    pub(crate) batch: i64,
    pub(crate) alloc_factor: u32,
    pub(crate) free_factor: u32,
    pub(crate) free_count: i64,
    pub(crate) freed_high_order: bool,
}

impl PerCpu {
    /// Blocks of one refill (`nr_pcp_alloc`).
    fn refill_blocks(&mut self, order: u8, rule: PcpHigh, below_high: bool) -> i64 {
        let batch = self.batch;
        if rule != PcpHigh::Auto {
            return if order > 0 && batch > 1 { (batch >> order).max(2) } else { batch };
        }
        if self.high < batch {
            return 1;
        }
        let mut blocks = if order == 0 { batch << self.alloc_factor } else { batch };
        if self.high_min != self.high_max && !below_high {
            self.high = (self.high + blocks).min(self.high_max);
        }
        if order == 0 {
            let limit = (self.high - self.count - batch).max(batch);
            if blocks <= limit && self.alloc_factor < SCALE_MAX {
                self.alloc_factor += 1;
            }
            blocks = blocks.min(limit);
        }
        if blocks > 1 {
            blocks = (blocks >> order).max(2);
        }
        blocks
    }

    /// The limit a free is held against (`nr_pcp_high`).
    fn limit(&mut self, free_high: bool, reclaiming: bool, below_high: bool) -> i64 {
        let (high, batch) = (self.high, self.batch);
        if high == 0 {
            return 0;
        }
        if free_high {
            self.high = (high - (batch << SCALE_MAX)).max(self.high_min);
            return 0;
        }
        let freed = self.free_count.max(batch);
        if reclaiming {
            self.high = (high - freed).max(self.high_min);
            return (batch << 2).min(self.high);
        }
        if self.high_min == self.high_max {
            return high;
        }
        if below_high {
            self.high = (high - freed).max(self.high_min);
            return self.count.max(self.high_min);
        }
        if self.count >= high {
            let wanted = self.free_count + batch;
            if self.high < wanted {
                self.high = wanted.clamp(self.high_min, self.high_max.max(self.high_min));
            }
        }
        high
    }

    /// The same up to 6.6: nothing tunes itself.
    fn fixed_limit(&self, free_high: bool, reclaiming: bool) -> i64 {
        match (free_high, reclaiming) {
            (true, _) => 0,
            (_, true) => (self.batch << 2).min(self.high),
            _ => self.high,
        }
    }

    /// Whether a free of order 1 to 3 empties the lists.
    fn frees_high(&self, rule: FreeHigh) -> bool {
        let after_a_batch =
            |more: i64| self.free_count >= self.batch + more && self.freed_high_order;
        match rule {
            FreeHigh::Never => false,
            FreeHigh::AfterDrain => self.free_factor > 0,
            FreeHigh::Batch => after_a_batch(0),
            FreeHigh::BatchAndHalfMin => after_a_batch(self.high_min / 2),
        }
    }

    /// Pages to drain (`nr_pcp_free`).
    fn drain_pages(&mut self, high: i64, free_high: bool, rule: PcpDrain) -> i64 {
        match rule {
            PcpDrain::Batch => return self.batch,
            PcpDrain::FreeFactor if free_high => return self.count,
            PcpDrain::FreeCount if free_high => return self.count.min(self.batch << SCALE_MAX),
            _ => {}
        }
        if high < self.batch {
            return 1;
        }
        let most = (high - self.batch).max(self.batch);
        if rule == PcpDrain::FreeCount {
            return self.free_count.clamp(self.batch, most);
        }
        let pages = self.batch << self.free_factor;
        if pages < high - self.batch && self.free_factor < SCALE_MAX {
            self.free_factor += 1;
        }
        pages.clamp(self.batch, most)
    }

    /// What a free leaves in the counters.
    pub(crate) fn note_free(&mut self, order: u8) {
        self.alloc_factor >>= 1;
        self.freed_high_order = is_high_order(order);
        if self.free_count < self.batch << SCALE_MAX {
            self.free_count += 1 << order;
        }
    }

    /// What an allocation leaves in the counters.
    pub(crate) fn note_alloc(&mut self) {
        self.free_count >>= 1;
        self.free_factor >>= 1;
    }

    /// What a refill of order 0 leaves in the counters.
    pub(crate) fn note_refill(&mut self) {
        self.alloc_factor = (self.alloc_factor + 1).min(SCALE_MAX);
    }

    /// What a drain leaves in the counters.
    pub(crate) fn note_drain(&mut self) {
        self.free_factor = (self.free_factor + 1).min(SCALE_MAX);
    }

    /// A block was freed: counts it; answers the pages that must go back to the buddy lists
    /// (`free_frozen_page_commit`).
    fn freed(&mut self, order: u8, rules: &Rules, reclaiming: bool, below_high: bool) -> i64 {
        self.count += 1 << order;
        let free_high = is_high_order(order) && self.frees_high(rules.free_high);
        self.note_free(order);
        let high = if rules.pcp_high == PcpHigh::Auto {
            self.limit(free_high, reclaiming, below_high)
        } else {
            self.fixed_limit(free_high, reclaiming)
        };
        if self.count < high { 0 } else { self.drain_pages(high, free_high, rules.pcp_drain) }
    }
}

fn is_high_order(order: u8) -> bool {
    order > 0 && order <= COSTLY_ORDER
}

impl Model {
    fn pcp_index(&self, zone: usize, cpu: usize) -> usize {
        zone * self.memory.machine().cpus + cpu
    }

    /// The head of the list; an empty list is refilled first (`__rmqueue_pcplist`).
    pub(super) fn pcp_alloc(
        &mut self,
        zone: usize,
        index: usize,
        request: &Request,
        flags: Flags,
    ) -> Option<u32> {
        let set = self.pcp_index(zone, request.cpu);
        if !self.is_bulk {
            self.pcps[set].note_alloc();
        }
        let list = self.memory.pcp(zone, request.cpu, index);
        if self.memory.front(list).is_none() {
            self.refill(zone, set, list, request, flags);
        }
        let pfn = self.memory.front(list)?;
        self.memory.pages.unlink(pfn);
        self.pcps[set].count -= 1 << request.order;
        Some(pfn)
    }

    /// `rmqueue_bulk`: blocks go to the tail, in the order the buddy lists give them.
    fn refill(&mut self, zone: usize, set: usize, list: usize, request: &Request, flags: Flags) {
        let rule = self.memory.machine().rules.pcp_high;
        let blocks = self.pcps[set].refill_blocks(request.order, rule, self.below_high[zone]);
        self.memory.work.refills += 1;
        let mut mode = Mode::Normal;
        for _ in 0..blocks.max(1) {
            let taken = self.remove_block(zone, request.order, request.migrate, flags, &mut mode);
            let Some(pfn) = taken else { break };
            self.memory.pages.push_back(list, pfn, State::Pcp, request.order);
            self.pcps[set].count += 1 << request.order;
        }
    }

    /// A freed block goes to the head; above the limit a part is drained
    /// (`free_frozen_page_commit`).
    pub(super) fn pcp_free(&mut self, zone: usize, cpu: usize, index: usize, pfn: u32, order: u8) {
        let set = self.pcp_index(zone, cpu);
        let list = self.memory.pcp(zone, cpu, index);
        self.memory.pages.push_front(list, pfn, State::Pcp, order);
        let rules = self.memory.machine().rules;
        let (reclaiming, below_high) = (self.reclaiming, self.below_high[zone]);
        let pages = self.pcps[set].freed(order, &rules, reclaiming, below_high);
        if pages == 0 {
            return;
        }
        self.drain(zone, cpu, pages, index);
        self.recheck_high(zone);
    }

    /// Returns so many pages to the buddy lists, the oldest first, starting with one list
    /// (`free_pcppages_bulk`).
    fn drain(&mut self, zone: usize, cpu: usize, pages: i64, first: usize) {
        let set = self.pcp_index(zone, cpu);
        let lists = self.memory.machine().pcp_lists();
        let rule = self.memory.machine().rules.bulk_drain;
        self.memory.work.drains += 1;
        let mut left = pages.min(self.pcps[set].count);
        let mut index = if rule == BulkDrain::Exhaust { first } else { 1 % lists };
        let mut empty = 0;
        while left > 0 && empty < lists {
            let list = self.memory.pcp(zone, cpu, index);
            let Some(pfn) = self.memory.back(list) else {
                index = (index + 1) % lists;
                empty += 1;
                continue;
            };
            empty = 0;
            let order = self.memory.pages.unlink(pfn).order();
            let migrate = self.drained_type(pfn, order, index);
            self.memory.free(pfn, order, migrate, false);
            self.pcps[set].count -= 1 << order;
            left -= 1 << order;
            if rule == BulkDrain::RoundRobin {
                index = (index + 1) % lists;
            }
        }
    }

    /// The type with which a drained block goes back: its pageblock's now, or up to 6.9 the one it
    /// had when it came to the list (`get_pcppage_migratetype`).
    fn drained_type(&self, pfn: u32, order: u8, index: usize) -> u8 {
        let now = self.memory.block_type(pfn);
        let machine = self.memory.machine();
        let is_told_by_list = order <= machine.rules.pcp_max_order && now < Migrate::HIGHATOMIC.0;
        if machine.rules.lists_follow_blocks() || !is_told_by_list {
            return now;
        }
        (index % usize::from(Migrate::HIGHATOMIC.0)) as u8
    }

    /// The second's work of the vmstat worker on one processor: limits shrink towards their
    /// minimum and what is above them is drained (`decay_pcp_high`).
    pub fn decay(&mut self, cpu: usize) {
        if !self.memory.machine().rules.pcp_decay {
            return;
        }
        for zone in 0..self.memory.machine().zones.len() {
            let set = self.pcp_index(zone, cpu);
            let pcp = &mut self.pcps[set];
            if pcp.high > pcp.high_min {
                pcp.high = (pcp.count - (pcp.batch << SCALE_MAX))
                    .max(pcp.high - (pcp.high >> 3))
                    .max(pcp.high_min);
            }
            let batch = pcp.batch.max(1);
            let mut above = pcp.count - pcp.high;
            while above > 0 {
                self.drain(zone, cpu, above.min(batch), 0);
                above -= batch;
            }
        }
    }

    /// Empties the lists of every zone and processor (`drain_all_pages`).
    pub fn drain_all(&mut self) {
        for zone in 0..self.memory.machine().zones.len() {
            for cpu in 0..self.memory.machine().cpus {
                self.drain_set(zone, cpu);
            }
        }
    }

    /// Empties the lists of one zone and processor (`drain_local_pages`).
    pub fn drain_set(&mut self, zone: usize, cpu: usize) {
        let set = self.pcp_index(zone, cpu);
        self.drain(zone, cpu, self.pcps[set].count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> PerCpu {
        PerCpu { high: 9612, high_min: 9612, high_max: 294_912, batch: 63, ..PerCpu::default() }
    }

    #[test]
    fn refills_without_a_free_double_up_to_the_scale() {
        // nr_pcp_alloc, 6.18: 63, 126, ... 2016, and again 2016.
        let mut pcp = fresh();
        let sizes: Vec<i64> = (0..8).map(|_| pcp.refill_blocks(0, PcpHigh::Auto, false)).collect();
        assert_eq!(sizes, [63, 126, 252, 504, 1008, 2016, 2016, 2016]);
        pcp.alloc_factor >>= 1;
        assert_eq!(pcp.refill_blocks(0, PcpHigh::Auto, false), 252);
        assert_eq!(pcp.refill_blocks(0, PcpHigh::Auto, false), 504);
    }

    #[test]
    fn refills_of_higher_orders_share_one_batch() {
        for (order, blocks) in [(1, 31), (2, 15), (3, 7), (9, 2)] {
            let mut pcp = fresh();
            assert_eq!(pcp.refill_blocks(order, PcpHigh::Auto, false), blocks, "order {order}");
            assert_eq!(pcp.high, 9612 + 63);
            assert_eq!(
                PerCpu { ..fresh() }.refill_blocks(order, PcpHigh::LowWatermark, false),
                blocks
            );
        }
    }

    #[test]
    fn a_free_drains_what_was_freed_lately_within_batch_and_limit() {
        // nr_pcp_free, 6.18.
        let mut pcp = fresh();
        pcp.free_count = 500;
        assert_eq!(pcp.drain_pages(9612, false, PcpDrain::FreeCount), 500);
        pcp.free_count = 1;
        assert_eq!(pcp.drain_pages(9612, false, PcpDrain::FreeCount), 63);
        pcp.count = 5000;
        assert_eq!(pcp.drain_pages(0, true, PcpDrain::FreeCount), 2016);
        assert_eq!(pcp.drain_pages(10, false, PcpDrain::FreeCount), 1);
    }

    #[test]
    fn drains_of_6_1_double_until_an_allocation_and_a_high_order_free_empties_the_lists() {
        // nr_pcp_free, free_unref_page_commit, 6.1.192.
        let rules = Rules::of("6.1.192");
        let mut pcp = PerCpu { count: 800, high: 800, batch: 63, ..PerCpu::default() };
        let mut sizes = Vec::new();
        for _ in 0..6 {
            let pages = pcp.freed(0, &rules, false, false);
            pcp.count -= pages + 1;
            sizes.push(pages);
            pcp.count = 800;
        }
        assert_eq!(sizes, [63, 126, 252, 504, 737, 737]);
        pcp.count = 100;
        assert_eq!(pcp.freed(1, &rules, false, false), 102);
        pcp.free_factor = 0;
        assert_eq!(pcp.freed(1, &rules, false, false), 0);
        // Reclaim keeps the lists short.
        pcp.count = 300;
        assert_eq!(pcp.freed(0, &rules, true, false), 63);
    }
}
