//! Per-CPU page lists: the mechanism. How many blocks move is the policy's to say.
//!
//! `rmqueue_pcplist`, `rmqueue_bulk`, `free_frozen_page_commit`, `free_pcppages_bulk`,
//! `decay_pcp_high` (`mm/page_alloc.c`, 6.18).

use kmemlab_trace::unit::Migrate;

use super::{Flags, Mode, Model, Request};
use crate::pages::State;
use crate::policy::percpu::Pressure;
use crate::rules::BulkDrain;

impl Model {
    fn pcp_index(&self, zone: usize, cpu: usize) -> usize {
        let cpus = self.memory.machine().cpus;
        zone * cpus + cpu.min(cpus - 1)
    }

    fn pressure(&self, zone: usize) -> Pressure {
        Pressure { reclaiming: self.reclaiming, below_high: self.below_high[zone] }
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
            self.policies.percpu.allocated(&mut self.pcps[set]);
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
        let pressure = self.pressure(zone);
        let pcp = &mut self.pcps[set];
        let blocks = self.policies.percpu.refill_blocks(pcp, request.order, pressure);
        self.memory.work.refills += 1;
        let mut mode = Mode::Normal;
        let mut taken_blocks = 0;
        for _ in 0..blocks.max(1) {
            let taken = self.remove_block(zone, request.order, request.migrate, flags, &mut mode);
            let Some(pfn) = taken else { break };
            self.memory.push_back(list, pfn, State::Pcp, request.order);
            taken_blocks += 1;
        }
        self.pcps[set].count += taken_blocks << request.order;
        self.moved.refill(request.order, taken_blocks as u64);
    }

    /// A freed block goes to the head; above the limit a part is drained
    /// (`free_frozen_page_commit`).
    pub(super) fn pcp_free(&mut self, zone: usize, cpu: usize, index: usize, pfn: u32, order: u8) {
        let set = self.pcp_index(zone, cpu);
        let list = self.memory.pcp(zone, cpu, index);
        self.memory.push_front(list, pfn, State::Pcp, order);
        let pressure = self.pressure(zone);
        let pcp = &mut self.pcps[set];
        pcp.count += 1 << order;
        if let Some(pages) = self.policies.percpu.freed(pcp, order, pressure) {
            let drained = self.drain(zone, cpu, pages, index);
            self.moved.drain(drained);
            self.recheck_high(zone);
        }
    }

    /// A block goes back to the head of the list from which it was just taken in bulk, as if it had
    /// stayed there.
    pub fn unserve(&mut self, cpu: usize, pfn: u32, order: u8) {
        let Some((zone, migrate)) = self.prepare_free(pfn, order) else { return };
        self.counts.frees -= 1;
        self.counts.allocs = self.counts.allocs.saturating_sub(1);
        let Some(index) = self.pcp_list(order, migrate) else {
            self.memory.free(pfn, order, migrate, false);
            return;
        };
        let (set, list) = (self.pcp_index(zone, cpu), self.memory.pcp(zone, cpu, index));
        self.memory.push_front(list, pfn, State::Pcp, order);
        self.pcps[set].count += 1 << order;
    }

    /// Returns so many pages to the buddy lists, the oldest first, starting with one list
    /// (`free_pcppages_bulk`). Answers the pages returned.
    fn drain(&mut self, zone: usize, cpu: usize, pages: i64, first: usize) -> u64 {
        let set = self.pcp_index(zone, cpu);
        let lists = self.memory.machine().pcp_lists();
        let rule = self.memory.machine().rules.bulk_drain;
        self.memory.work.drains += 1;
        let wanted = pages.min(self.pcps[set].count);
        let mut left = wanted;
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
            left -= 1 << order;
            if rule == BulkDrain::RoundRobin {
                index = (index + 1) % lists;
            }
        }
        self.pcps[set].count -= wanted - left;
        (wanted - left).max(0) as u64
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
            let mut above = self.policies.percpu.decay(&mut self.pcps[set]);
            let batch = self.pcps[set].batch.max(1);
            let mut drained = 0;
            while above > 0 {
                drained += self.drain(zone, cpu, above.min(batch), 0);
                above -= batch;
            }
            self.moved.drain(drained);
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
