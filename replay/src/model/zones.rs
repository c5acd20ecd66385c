//! The walk over the zones: watermarks, reserves, the slow path and kswapd.

use super::{Flags, HIGHATOMIC, Model, Request, Watermarks, gfp, highest_zone};
use crate::limits;

/// Which watermark is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    Low,
    Min,
    None,
}

/// Asks for nothing but pages.
const PLAIN: Flags = Flags {
    no_fragment: false,
    wakes_kswapd: false,
    min_reserve: false,
    non_block: false,
    no_watermarks: false,
    highatomic: false,
};

impl Model {
    /// `alloc_flags` of a request (`gfp_to_alloc_flags`, `alloc_flags_nofragment`).
    pub(super) fn flags(&self, request: &Request, highest: u8) -> Flags {
        let zones = &self.memory.machine().zones;
        let preferred = self.zonelist.iter().find(|&&zone| zones[zone].index <= highest);
        let no_fragment = preferred.is_some_and(|&zone| {
            zones[zone].index == 2
                && zones.iter().any(|other| other.node == zones[zone].node && other.index == 1)
        });
        let has = |bit: u32| request.gfp & bit != 0;
        let min_reserve = has(gfp::HIGH);
        let non_block = !has(gfp::DIRECT_RECLAIM) && !has(gfp::NOMEMALLOC);
        Flags {
            no_fragment,
            wakes_kswapd: has(gfp::KSWAPD_RECLAIM),
            min_reserve,
            non_block,
            no_watermarks: has(gfp::MEMALLOC) && !has(gfp::NOMEMALLOC),
            highatomic: request.order > 0 && min_reserve && non_block,
        }
    }

    /// One pass over the zonelist, and a second that may fragment (`get_page_from_freelist`).
    pub(super) fn take_from_zonelist(
        &mut self,
        request: &Request,
        highest: u8,
        flags: &mut Flags,
        mark: Mark,
    ) -> Option<u32> {
        if self.ranks_zones {
            let mut ranked = std::mem::take(&mut self.zonelist);
            self.policies.placement.rank(&self.view(), &mut ranked);
            self.zonelist = ranked;
        }
        loop {
            for place in 0..self.zonelist.len() {
                let zone = self.zonelist[place];
                if self.memory.machine().zones[zone].index > highest {
                    continue;
                }
                self.memory.work.zones_tried += 1;
                if !self.passes(zone, request, highest, *flags, mark) {
                    continue;
                }
                if let Some(pfn) = self.take(zone, request, *flags) {
                    if flags.wakes_kswapd && self.boosted[zone] {
                        self.boosted[zone] = false;
                        let zone_index = self.memory.machine().zones[zone].index;
                        self.wake_kswapd(0, zone_index);
                    }
                    return Some(pfn);
                }
            }
            if !flags.no_fragment {
                return None;
            }
            flags.no_fragment = false;
        }
    }

    /// The slow path without its waits: kswapd is woken, then the lower mark, then, because the
    /// kernel did serve the request, no mark at all (`__alloc_pages_slowpath`).
    pub(super) fn slow_path(
        &mut self,
        request: &Request,
        highest: u8,
        mut flags: Flags,
    ) -> Option<u32> {
        let marked = self.slow_path_to_mark(request, highest, &mut flags);
        if marked.is_some() {
            return marked;
        }
        self.unreserve_highatomic(request.migrate);
        let taken = self.take_from_zonelist(request, highest, &mut flags, Mark::None);
        self.counts.below_watermark += u64::from(taken.is_some());
        taken
    }

    /// The slow path up to the point where the caller would have to reclaim.
    pub(super) fn slow_path_to_mark(
        &mut self,
        request: &Request,
        highest: u8,
        flags: &mut Flags,
    ) -> Option<u32> {
        if flags.wakes_kswapd {
            self.wake_kswapd(request.order, highest);
        }
        flags.no_fragment = false;
        self.take_from_zonelist(request, highest, flags, Mark::Min)
    }

    /// A request that the kernel failed: whether the model would fail it too. It is asked and not
    /// served, for nobody will free it.
    pub fn refuse(&mut self, request: &Request) {
        let highest = highest_zone(request.gfp);
        let flags = self.flags(request, highest);
        let usable = |zone: usize| {
            let may = self.memory.machine().zones[zone].index <= highest;
            let mark = self.marks[zone].min + self.marks[zone].boost;
            may && self.watermark_ok(zone, request.order, mark, highest, flags)
        };
        let is_served = (0..self.marks.len()).any(usable);
        self.counts.shared_failures += u64::from(!is_served);
    }

    /// The tests before a zone is used: the high mark's flag, then the mark asked for.
    fn passes(
        &mut self,
        zone: usize,
        request: &Request,
        highest: u8,
        flags: Flags,
        mark: Mark,
    ) -> bool {
        if flags.no_watermarks {
            return true;
        }
        if mark == Mark::None {
            return self.reserve(zone, highest) < self.managed[zone];
        }
        let marks = self.marks[zone];
        if !self.below_high[zone] {
            if self.watermark_ok(zone, request.order, marks.high + marks.boost, highest, flags) {
                return true;
            }
            self.below_high[zone] = true;
        }
        let level = if mark == Mark::Low { marks.low } else { marks.min };
        self.watermark_ok(zone, request.order, level + marks.boost, highest, flags)
    }

    /// `__zone_watermark_ok`: enough pages beyond the mark and the reserve for higher zones, and a
    /// block of the order.
    fn watermark_ok(&self, zone: usize, order: u8, mark: u64, highest: u8, flags: Flags) -> bool {
        let mut mark = mark;
        if flags.min_reserve {
            mark -= mark / 2;
            if flags.non_block {
                mark -= mark / 4;
            }
        }
        let mut free = self.memory.free_pages(zone).saturating_sub((1 << order) - 1);
        if !flags.min_reserve && !flags.non_block {
            free = free.saturating_sub(self.highatomic_pages(zone));
        }
        if free <= mark + self.reserve(zone, highest) {
            return false;
        }
        let has_block = |order: u8| {
            (0..HIGHATOMIC).any(|migrate| self.memory.free_of_type(zone, order, migrate) > 0)
                || flags.highatomic && self.memory.free_of_type(zone, order, HIGHATOMIC) > 0
        };
        order == 0 || (order..self.memory.machine().orders).any(has_block)
    }

    /// Pages of a zone that a request which may use higher ones leaves alone (`lowmem_reserve`).
    fn reserve(&self, zone: usize, highest: u8) -> u64 {
        self.reserves[zone].get(usize::from(highest)).copied().unwrap_or(0)
    }

    /// `wakeup_kswapd`: in vain while it works, and not needed while any zone that the request may
    /// use is above its high mark and none is boosted.
    fn wake_kswapd(&mut self, order: u8, highest: u8) {
        if !self.kswapd_waits {
            return;
        }
        let usable = |zone: &usize| self.memory.machine().zones[*zone].index <= highest;
        let mut zones = (0..self.marks.len()).filter(usable);
        let is_boosted = zones.clone().any(|zone| self.marks[zone].boost > 0);
        let is_balanced = zones.any(|zone| {
            let marks = self.marks[zone];
            self.watermark_ok(zone, order, marks.high + marks.boost, highest, PLAIN)
        });
        if is_boosted || !is_balanced {
            self.kswapd_waits = false;
            self.counts.kswapd_wakes += 1;
        }
    }

    /// New watermarks of a zone, as the kernel just set them; the limits of its per-CPU lists
    /// follow (`__setup_per_zone_wmarks`, `zone_set_pageset_high_and_batch`).
    pub fn set_watermarks(&mut self, zone: usize, marks: [u64; 3], managed: Option<u64>) {
        let [min, low, high] = marks;
        self.managed[zone] = managed.unwrap_or(self.managed[zone]);
        self.mark(zone, Watermarks { min, low, high, boost: 0 }, false);
    }

    /// Sets a zone's watermarks and list limits, as its policies see those told.
    pub(super) fn mark(&mut self, zone: usize, told: Watermarks, is_start: bool) {
        let machine = self.memory.machine();
        let span = &machine.zones[zone];
        let (cpus, rules) = (machine.cpus, machine.rules);
        let marks = self.policies.watermark.watermarks(told, zone, machine, &self.managed);
        self.marks[zone] = marks;
        let managed = self.managed[zone];
        for cpu in 0..cpus {
            let pcp = &mut self.pcps[zone * cpus + cpu];
            let mut limit = *pcp;
            if !is_start || marks != told {
                let (least, most) = limits::high(managed, marks.low, cpus as u64, &rules);
                limit.batch = limits::batch(managed) as i64;
                (limit.high_min, limit.high_max) = (least as i64, most as i64);
            }
            *pcp = self.policies.percpu.limits(limit, span, cpus);
        }
    }

    /// kswapd is done: the boost is paid back and the zones are no longer under reclaim
    /// (`balance_pgdat`).
    pub fn kswapd_slept(&mut self) {
        self.reclaiming = false;
        self.kswapd_waits = true;
        for marks in &mut self.marks {
            marks.boost = 0;
        }
    }

    /// kswapd woke: the per-CPU lists are kept short while it works.
    pub fn kswapd_woke(&mut self) {
        self.reclaiming = true;
        self.kswapd_waits = false;
    }

    /// kswapd was woken from a nap: it was done with what it did before.
    pub fn kswapd_naps(&mut self) {
        self.kswapd_slept();
    }

    /// A zone whose free pages are above the high mark again forgets that they were not.
    pub(super) fn recheck_high(&mut self, zone: usize) {
        if self.below_high[zone] {
            let marks = self.marks[zone];
            let mark = marks.high + marks.boost;
            self.below_high[zone] = !self.watermark_ok(zone, 0, mark, 3, PLAIN);
        }
    }
}
