//! The model: a page allocator that decides by itself, under the rules of the recorded release.
//!
//! It sees requests (order, flags, type, processor) and frees, never where the kernel put them.
//! Each function names the kernel function it stands for (`mm/page_alloc.c`, 6.18 unless said).

use std::sync::Arc;

use kmemlab_trace::unit::NodeId;

use crate::machine::Machine;
use crate::memory::Memory;
use crate::pages::State;
use crate::seeding::Seed;

mod fallback;
mod pcp;

pub use fallback::FallbackCounts;
use fallback::Mode;
pub(crate) use pcp::PerCpu;

/// A request for pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Processor that asks.
    pub cpu: usize,
    /// Order wanted.
    pub order: u8,
    /// Flags.
    pub gfp: u32,
    /// Migrate type wanted.
    pub migrate: u8,
}

/// Flags whose bits are the same from 5.4 to 6.18 (`include/linux/gfp_types.h`).
mod gfp {
    pub(super) const DMA: u32 = 0x1;
    pub(super) const HIGHMEM: u32 = 0x2;
    pub(super) const DMA32: u32 = 0x4;
    pub(super) const MOVABLE: u32 = 0x8;
    pub(super) const HIGH: u32 = 0x20;
    pub(super) const DIRECT_RECLAIM: u32 = 0x400;
    pub(super) const KSWAPD_RECLAIM: u32 = 0x800;
    pub(super) const MEMALLOC: u32 = 0x2_0000;
    pub(super) const NOMEMALLOC: u32 = 0x8_0000;
}

/// Watermarks of a zone, in pages, boost excluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    /// Below it only reserves are left.
    pub min: u64,
    /// Below it kswapd is woken.
    pub low: u64,
    /// Above it kswapd sleeps.
    pub high: u64,
    /// Added to all three while a fallback is recent.
    pub boost: u64,
}

/// How a request may take pages (`ALLOC_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags {
    pub(crate) no_fragment: bool,
    pub(crate) wakes_kswapd: bool,
    pub(crate) min_reserve: bool,
    pub(crate) non_block: bool,
    pub(crate) no_watermarks: bool,
}

/// Counts of what the model did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ModelCounts {
    /// Blocks allocated.
    pub allocs: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Requests that found no memory although the kernel did.
    pub failures: u64,
    /// Requests that met no watermark and were served because the kernel served them.
    pub below_watermark: u64,
    /// Frees of blocks that the model holds free.
    pub double_frees: u64,
}

/// The page allocator, deciding by itself.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) memory: Memory,
    marks: Vec<Watermarks>,
    below_high: Vec<bool>,
    reclaiming: bool,
    pcps: Vec<PerCpu>,
    boost_factor: u64,
    movable_in_block: Vec<u16>,
    /// The request under way is one of many at once.
    is_bulk: bool,
    /// Zones in the order a request looks at them.
    zonelist: Arc<[usize]>,
    /// What was done.
    pub counts: ModelCounts,
    /// Fallbacks taken, by kind.
    pub fallbacks: FallbackCounts,
}

impl Model {
    /// A model that starts from a state of the mirror, with the numbers of `/proc/zoneinfo` at that
    /// moment.
    #[must_use]
    pub fn new(memory: Memory, seed: &Seed, start: &Start) -> Self {
        let machine = memory.machine().clone();
        let blocks = (machine.end as usize).div_ceil(1 << machine.block_order);
        let mut pcps = Vec::new();
        for zone in 0..machine.zones.len() {
            for cpu in 0..machine.cpus {
                pcps.push(start.pcp(zone, cpu));
            }
        }
        let zonelist = zonelist(&machine);
        Self {
            memory,
            marks: start.marks.clone(),
            below_high: vec![false; machine.zones.len()],
            reclaiming: false,
            pcps,
            boost_factor: start.boost_factor,
            movable_in_block: (0..blocks).map(|block| seed.user_pages(block)).collect(),
            is_bulk: false,
            zonelist,
            counts: ModelCounts::default(),
            fallbacks: FallbackCounts::default(),
        }
    }

    /// The state.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Bytes of state held.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.memory.state_bytes() + (self.movable_in_block.len() * 2) as u64
    }

    /// Serves a request (`__alloc_frozen_pages_noprof`). `None` when no zone has a block.
    pub fn alloc(&mut self, request: &Request) -> Option<u32> {
        let highest = highest_zone(request.gfp);
        let list = Arc::clone(&self.zonelist);
        let mut flags = self.flags(request, &list, highest);
        let taken = self
            .take_from_zonelist(request, &list, highest, &mut flags, Mark::Low)
            .or_else(|| self.slow_path(request, &list, highest, flags));
        match taken {
            Some(pfn) => {
                self.counts.allocs += 1;
                self.note_live(pfn, request.order, request.migrate);
            }
            None => self.counts.failures += 1,
        }
        taken
    }

    /// Serves a page of `alloc_pages_bulk`, which does not tell the per-CPU lists that somebody
    /// allocates.
    pub fn alloc_bulk(&mut self, request: &Request) -> Option<u32> {
        self.is_bulk = true;
        let taken = self.alloc(request);
        self.is_bulk = false;
        taken
    }

    fn note_live(&mut self, pfn: u32, order: u8, migrate: u8) {
        self.memory.pages.note(pfn, State::Live, order);
        if migrate == 1 {
            self.count_movable(pfn, order, true);
        }
    }

    fn count_movable(&mut self, pfn: u32, order: u8, more: bool) {
        let block_order = self.memory.machine().block_order;
        let pages = 1u32 << order.min(block_order);
        let (first, last) =
            (pfn >> block_order, (u64::from(pfn) + (1 << order) - 1) >> block_order);
        for block in first as usize..=last as usize {
            if let Some(count) = self.movable_in_block.get_mut(block) {
                let pages = pages as u16;
                *count =
                    if more { count.saturating_add(pages) } else { count.saturating_sub(pages) };
            }
        }
    }

    /// `alloc_flags` of a request (`gfp_to_alloc_flags`, `alloc_flags_nofragment`).
    fn flags(&self, request: &Request, list: &[usize], highest: u8) -> Flags {
        let zones = &self.memory.machine().zones;
        let preferred = list.iter().find(|&&zone| zones[zone].index <= highest);
        let no_fragment = preferred.is_some_and(|&zone| {
            zones[zone].index == 2
                && zones.iter().any(|other| other.node == zones[zone].node && other.index == 1)
        });
        let has = |bit: u32| request.gfp & bit != 0;
        Flags {
            no_fragment,
            wakes_kswapd: has(gfp::KSWAPD_RECLAIM),
            min_reserve: has(gfp::HIGH),
            non_block: !has(gfp::DIRECT_RECLAIM) && !has(gfp::NOMEMALLOC),
            no_watermarks: has(gfp::MEMALLOC) && !has(gfp::NOMEMALLOC),
        }
    }

    /// One pass over the zonelist, and a second that may fragment (`get_page_from_freelist`).
    fn take_from_zonelist(
        &mut self,
        request: &Request,
        list: &[usize],
        highest: u8,
        flags: &mut Flags,
        mark: Mark,
    ) -> Option<u32> {
        loop {
            for &zone in list {
                if self.memory.machine().zones[zone].index > highest {
                    continue;
                }
                self.memory.work.zones_tried += 1;
                if !self.passes(zone, request, highest, *flags, mark) {
                    continue;
                }
                if let Some(pfn) = self.take(zone, request, *flags) {
                    return Some(pfn);
                }
            }
            if !flags.no_fragment {
                return None;
            }
            flags.no_fragment = false;
        }
    }

    /// The slow path without its waits: the lower mark, then, because the kernel did serve the
    /// request, no mark at all (`__alloc_pages_slowpath`).
    fn slow_path(
        &mut self,
        request: &Request,
        list: &[usize],
        highest: u8,
        mut flags: Flags,
    ) -> Option<u32> {
        flags.no_fragment = false;
        let marked = self.take_from_zonelist(request, list, highest, &mut flags, Mark::Min);
        if marked.is_some() {
            return marked;
        }
        let taken = self.take_from_zonelist(request, list, highest, &mut flags, Mark::None);
        self.counts.below_watermark += u64::from(taken.is_some());
        taken
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
        if mark == Mark::None || flags.no_watermarks {
            return true;
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
        let span = &self.memory.machine().zones[zone];
        let mut mark = mark;
        if flags.min_reserve {
            mark -= mark / 2;
            if flags.non_block {
                mark -= mark / 4;
            }
        }
        let reserve = span.protection.get(usize::from(highest)).copied().unwrap_or(0);
        let free = self.memory.free_pages(zone).saturating_sub((1 << order) - 1);
        if free <= mark + reserve {
            return false;
        }
        order == 0
            || (order..self.memory.machine().orders).any(|order| {
                (0..3).any(|migrate| self.memory.free_of_type(zone, order, migrate) > 0)
            })
    }

    /// From the per-CPU lists where the order is kept there, else from the buddy lists (`rmqueue`).
    fn take(&mut self, zone: usize, request: &Request, flags: Flags) -> Option<u32> {
        match self.memory.machine().pcp_list(request.order, request.migrate) {
            Some(index) => self.pcp_alloc(zone, index, request, flags),
            None => {
                let mut mode = Mode::Normal;
                self.remove_block(zone, request.order, request.migrate, flags, &mut mode)
            }
        }
    }

    /// Takes a block of a type from the smallest order that has one, from the head of its list
    /// (`__rmqueue_smallest`).
    fn remove_smallest(&mut self, zone: usize, order: u8, migrate: u8) -> Option<u32> {
        for have in order..self.memory.machine().orders {
            let list = self.memory.list(zone, have, migrate);
            if let Some(pfn) = self.memory.front(list) {
                self.memory.remove(pfn);
                self.memory.expand(pfn, order, have, migrate);
                return Some(pfn);
            }
            self.memory.work.lists_scanned += 1;
        }
        None
    }

    /// Frees a block (`__free_frozen_pages`): to the per-CPU lists where the order is kept there.
    pub fn free(&mut self, cpu: usize, pfn: u32, order: u8) {
        let Some((zone, migrate)) = self.prepare_free(pfn, order) else { return };
        match self.memory.machine().pcp_list(order, migrate) {
            Some(index) => self.pcp_free(zone, cpu, index, pfn, order),
            None => self.memory.free(pfn, order, migrate, false),
        }
    }

    /// Frees a block straight to the buddy lists, because its per-CPU lists were locked
    /// (`free_one_page`). When that happens is a matter of interrupts, not of policy.
    pub fn free_direct(&mut self, pfn: u32, order: u8) {
        if let Some((_, migrate)) = self.prepare_free(pfn, order) {
            self.memory.free(pfn, order, migrate, false);
        }
    }

    /// Frees a block allocated before the model began, as a whole if it still is one.
    pub fn free_from_before(&mut self, cpu: usize, pfn: u32, order: u8) {
        let end = pfn.saturating_add(1 << order).min(self.memory.machine().end);
        let is_free = |memory: &Memory, page: u32| {
            let state = memory.pages.get(page).state();
            matches!(state, State::Free | State::Pcp) || memory.block_at(page).is_some()
        };
        if (pfn..end).any(|page| is_free(&self.memory, page)) {
            for page in pfn..end {
                if !is_free(&self.memory, page) {
                    self.free(cpu, page, 0);
                }
            }
        } else {
            self.free(cpu, pfn, order);
        }
    }

    /// The zone and type of a block about to be freed; `None` when it is free already.
    fn prepare_free(&mut self, pfn: u32, order: u8) -> Option<(usize, u8)> {
        let zone = self.memory.zone_of(pfn)?;
        let state = self.memory.pages.get(pfn).state();
        if matches!(state, State::Free | State::Pcp) || self.memory.block_at(pfn).is_some() {
            self.counts.double_frees += 1;
            return None;
        }
        self.counts.frees += 1;
        self.memory.pages.note(pfn, State::Unknown, 0);
        let migrate = self.memory.block_type(pfn);
        if migrate == 1 {
            self.count_movable(pfn, order, false);
        }
        Some((zone, migrate))
    }

    /// Takes a given block for compaction, if it is free; else one of the same order anywhere in
    /// its zone. `None` when the zone has none.
    pub fn isolate(&mut self, pfn: u32, order: u8) -> Option<u32> {
        let zone = self.memory.zone_of(pfn)?;
        let taken = match self.memory.block_at(pfn) {
            Some((head, have)) if have >= order => {
                self.memory.carve(head, pfn, order);
                Some(pfn)
            }
            _ => self
                .remove_smallest(zone, order, 1)
                .or_else(|| (0..3).find_map(|migrate| self.remove_smallest(zone, order, migrate))),
        }?;
        self.memory.pages.note(taken, State::Isolated, order);
        Some(taken)
    }

    /// Memory that the kernel frees for the first time (deferred initialisation, hotplug).
    pub fn add(&mut self, pfn: u32, order: u8) {
        if self.memory.block_at(pfn).is_none() {
            let migrate = self.memory.block_type(pfn);
            self.memory.free(pfn, order, migrate, true);
        }
    }

    /// New watermarks of a zone, as the kernel just set them.
    pub fn set_watermarks(&mut self, node: NodeId, name: &str, min: u64, low: u64, high: u64) {
        if let Some(zone) = self.memory.machine().zone(node, name) {
            self.marks[zone] = Watermarks { min, low, high, boost: 0 };
        }
    }

    /// kswapd went to sleep: its boost is paid back and the zones are no longer under reclaim.
    pub fn kswapd_slept(&mut self) {
        self.reclaiming = false;
        for marks in &mut self.marks {
            marks.boost = 0;
        }
    }

    /// kswapd woke: the per-CPU lists are kept short while it works.
    pub fn kswapd_woke(&mut self) {
        self.reclaiming = true;
    }

    /// A zone whose free pages are above the high mark again forgets that they were not.
    fn recheck_high(&mut self, zone: usize) {
        if self.below_high[zone] {
            let marks = self.marks[zone];
            let flags = Flags {
                no_fragment: false,
                wakes_kswapd: false,
                min_reserve: false,
                non_block: false,
                no_watermarks: false,
            };
            let mark = marks.high + marks.boost;
            self.below_high[zone] = !self.watermark_ok(zone, 0, mark, 3, flags);
        }
    }
}

/// Which watermark is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    Low,
    Min,
    None,
}

/// The highest zone a request may use (`gfp_zone`): index in the kernel's zone order.
fn highest_zone(flags: u32) -> u8 {
    if flags & gfp::DMA != 0 {
        0
    } else if flags & gfp::DMA32 != 0 {
        1
    } else if flags & (gfp::HIGHMEM | gfp::MOVABLE) == gfp::HIGHMEM | gfp::MOVABLE {
        3
    } else {
        2
    }
}

/// The zones in the order a request looks at them: the first node's from the highest down, then the
/// other nodes' (`build_zonelists`). No event tells on which node a processor is.
fn zonelist(machine: &Machine) -> Arc<[usize]> {
    let zones = &machine.zones;
    let mut list: Vec<usize> = (0..zones.len()).collect();
    list.sort_by_key(|&zone| (zones[zone].node, std::cmp::Reverse(zones[zone].index)));
    list.into()
}

/// The numbers a model starts from, as `/proc/zoneinfo` told them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// When `/proc/zoneinfo` was read.
    pub since_ns: u64,
    /// Watermarks by zone.
    pub marks: Vec<Watermarks>,
    /// Limits of the per-CPU lists: zones in order, processors within.
    pub(crate) pcps: Vec<PerCpu>,
    pub(crate) cpus: usize,
    /// `vm.watermark_boost_factor`.
    pub boost_factor: u64,
}

impl Start {
    /// The limits of the lists of a zone and processor.
    pub(crate) fn pcp(&self, zone: usize, cpu: usize) -> PerCpu {
        self.pcps.get(zone * self.cpus + cpu).copied().unwrap_or_default()
    }
}
