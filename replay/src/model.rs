//! The model: a page allocator that decides by itself, under the rules of the recorded release.
//!
//! It sees requests (order, flags, type, processor) and frees, never where the kernel put them.
//! Each function names the kernel function it stands for (`mm/page_alloc.c`, 6.18 unless said).

use crate::memory::{Memory, Work};
use crate::moved::Moved;
use crate::pages::State;
use crate::policy::fallback::Mode;
use crate::policy::percpu::PerCpu;
use crate::policy::{PolicySet, View};
use crate::seeding::Seed;

mod fallback;
mod pcp;
mod reserve;
mod zones;

pub use fallback::FallbackCounts;
use reserve::{HIGHATOMIC, Highatomic};
use zones::Mark;

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
    pub(crate) highatomic: bool,
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
    /// Requests that the kernel failed and the model would fail too.
    pub shared_failures: u64,
    /// Requests that met no watermark and were served because the kernel served them.
    pub below_watermark: u64,
    /// Frees of blocks that the model holds free.
    pub double_frees: u64,
    /// Times that kswapd was woken.
    pub kswapd_wakes: u64,
    /// Verdicts of a policy that could not be carried out.
    pub illegal_verdicts: u64,
}

impl ModelCounts {
    /// Requests that the model failed.
    #[must_use]
    pub fn all_failures(&self) -> u64 {
        self.failures + self.shared_failures
    }
}

/// The page allocator, deciding by itself.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) memory: Memory,
    policies: PolicySet,
    /// The block policy always takes the head of a list: it need not be asked.
    takes_head: bool,
    /// The placement policy's order of zones changes from request to request.
    ranks_zones: bool,
    marks: Vec<Watermarks>,
    /// Pages kept back from requests that could use a higher zone: by zone, then by that zone.
    reserves: Vec<Vec<u64>>,
    managed: Vec<u64>,
    below_high: Vec<bool>,
    /// A boost that kswapd has not been told of.
    boosted: Vec<bool>,
    reclaiming: bool,
    kswapd_waits: bool,
    pcps: Vec<PerCpu>,
    boost_factor: u64,
    movable_in_block: Vec<u16>,
    highatomic: Highatomic,
    /// The request under way is one of many at once.
    is_bulk: bool,
    /// Zones in the order a request looks at them.
    zonelist: Vec<usize>,
    /// What was done.
    pub counts: ModelCounts,
    /// Fallbacks taken, by kind.
    pub fallbacks: FallbackCounts,
    /// Refills and drains by size.
    pub moved: Moved,
}

impl Model {
    /// A model under the recorded kernel's own policies.
    #[must_use]
    pub fn new(memory: Memory, seed: &Seed, start: &Start) -> Self {
        let policies = PolicySet::baseline(&memory.machine().rules);
        Self::under(policies, memory, seed, start)
    }

    /// A model that starts from a state of the mirror, with the numbers of `/proc/zoneinfo` at that
    /// moment, under policies of its own.
    #[must_use]
    pub fn under(policies: PolicySet, mut memory: Memory, seed: &Seed, start: &Start) -> Self {
        let machine = memory.machine().clone();
        let blocks = (machine.end as usize).div_ceil(1 << machine.block_order);
        let zones = machine.zones.len();
        let reserve = |zone: usize| {
            policies.watermark.reserve(&machine.zones[zone].protection, zone, &machine)
        };
        memory.obey(policies.block.end(), policies.block.by_address());
        let mut model = Self {
            takes_head: policies.block.takes_head(),
            ranks_zones: policies.placement.is_dynamic(),
            marks: vec![Watermarks::default(); zones],
            reserves: (0..zones).map(reserve).collect(),
            managed: machine.zones.iter().map(|zone| zone.managed).collect(),
            below_high: vec![false; zones],
            boosted: vec![false; zones],
            reclaiming: false,
            kswapd_waits: true,
            pcps: Vec::new(),
            boost_factor: policies.watermark.boost_factor(start.boost_factor),
            movable_in_block: (0..blocks).map(|block| seed.user_pages(block)).collect(),
            highatomic: Highatomic::new(zones),
            is_bulk: false,
            zonelist: policies.placement.zonelist(&machine),
            counts: ModelCounts::default(),
            fallbacks: FallbackCounts::default(),
            moved: Moved::default(),
            policies,
            memory,
        };
        for zone in 0..zones {
            for cpu in 0..machine.cpus {
                model.pcps.push(start.pcp(zone, cpu));
            }
            let told = start.marks.get(zone).copied().unwrap_or_default();
            model.mark(zone, told, true);
        }
        if !model.policies.percpu.is_on() {
            model.drain_all();
        }
        model.memory.work = Work::default();
        model
    }

    /// The state.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Who decides.
    #[must_use]
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// Bytes of state held.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.memory.state_bytes() + (self.movable_in_block.len() * 2) as u64
    }

    fn view(&self) -> View<'_> {
        View { memory: &self.memory, movable_in_block: &self.movable_in_block, marks: &self.marks }
    }

    /// Serves a request (`__alloc_frozen_pages_noprof`). `None` when no zone has a block.
    pub fn alloc(&mut self, request: &Request) -> Option<u32> {
        let highest = highest_zone(request.gfp);
        let mut flags = self.flags(request, highest);
        let taken = self
            .take_from_zonelist(request, highest, &mut flags, Mark::Low)
            .or_else(|| self.slow_path(request, highest, flags));
        match taken {
            Some(pfn) => {
                self.counts.allocs += 1;
                self.note_live(pfn, request.order, request.migrate);
            }
            None => self.counts.failures += 1,
        }
        taken
    }

    /// Serves a request that the caller can do without: it fails where no zone meets its mark.
    pub fn try_alloc(&mut self, request: &Request) -> Option<u32> {
        let highest = highest_zone(request.gfp);
        let mut flags = self.flags(request, highest);
        let taken = self
            .take_from_zonelist(request, highest, &mut flags, Mark::Low)
            .or_else(|| self.slow_path_to_mark(request, highest, &mut flags));
        if let Some(pfn) = taken {
            self.counts.allocs += 1;
            self.note_live(pfn, request.order, request.migrate);
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
        self.memory.note(pfn, State::Live, order);
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

    /// From the per-CPU lists where the order is kept there, else from the buddy lists (`rmqueue`).
    fn take(&mut self, zone: usize, request: &Request, flags: Flags) -> Option<u32> {
        let pfn = match self.pcp_list(request.order, request.migrate) {
            Some(index) => self.pcp_alloc(zone, index, request, flags),
            None => self.take_from_buddy(zone, request, flags),
        }?;
        if flags.highatomic {
            self.reserve_highatomic(zone, pfn);
        }
        Some(pfn)
    }

    /// The per-CPU list for an order and type, if any is kept.
    #[inline]
    fn pcp_list(&self, order: u8, migrate: u8) -> Option<usize> {
        let list = self.memory.machine().pcp_list(order, migrate)?;
        self.policies.percpu.is_on().then_some(list)
    }

    /// `rmqueue_buddy`: a request that may use the HIGHATOMIC reserve looks there first.
    fn take_from_buddy(&mut self, zone: usize, request: &Request, flags: Flags) -> Option<u32> {
        if flags.highatomic
            && let Some(pfn) = self.remove_smallest(zone, request.order, HIGHATOMIC)
        {
            return Some(pfn);
        }
        let mut mode = Mode::Normal;
        self.remove_block(zone, request.order, request.migrate, flags, &mut mode).or_else(|| {
            let may = flags.non_block && request.gfp & gfp::HIGH != 0;
            may.then(|| self.remove_smallest(zone, request.order, HIGHATOMIC)).flatten()
        })
    }

    /// Frees a block (`__free_frozen_pages`): to the per-CPU lists where the order is kept there.
    pub fn free(&mut self, cpu: usize, pfn: u32, order: u8) {
        let Some((zone, migrate)) = self.prepare_free(pfn, order) else { return };
        match self.pcp_list(order, migrate) {
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

    /// Frees a block allocated before the model began, as a whole if it still is one. After lost
    /// events some of its pages may be free already, or taken anew: those stay as they are.
    pub fn free_from_before(&mut self, cpu: usize, pfn: u32, order: u8, direct: bool) {
        let end = pfn.saturating_add(1 << order).min(self.memory.machine().end);
        if (pfn..end).any(|page| self.memory.is_spoken_for(page)) {
            self.counts.double_frees += 1;
            for page in pfn..end {
                if !self.memory.is_spoken_for(page) {
                    self.free(cpu, page, 0);
                }
            }
        } else if direct {
            self.free_direct(pfn, order);
        } else {
            self.free(cpu, pfn, order);
        }
    }

    /// The zone and type of a block about to be freed; `None` when it is free already.
    fn prepare_free(&mut self, pfn: u32, order: u8) -> Option<(usize, u8)> {
        let zone = self.memory.zone_of(pfn)?;
        let is_free = match self.memory.pages.get(pfn).state() {
            State::Live => false,
            State::Free | State::Pcp => true,
            _ => self.memory.block_at(pfn).is_some(),
        };
        if is_free {
            self.counts.double_frees += 1;
            return None;
        }
        self.counts.frees += 1;
        self.memory.note(pfn, State::Unknown, 0);
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
        self.memory.note(taken, State::Isolated, order);
        Some(taken)
    }

    /// Memory that the kernel frees for the first time (deferred initialisation, hotplug).
    pub fn add(&mut self, pfn: u32, order: u8) {
        if self.memory.block_at(pfn).is_none() {
            let migrate = self.memory.block_type(pfn);
            self.memory.free(pfn, order, migrate, true);
        }
    }
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
    /// Managed pages by zone, at each `/proc/zoneinfo`, in order of time.
    pub(crate) managed: Vec<(u64, Vec<u64>)>,
}

impl Start {
    /// The managed pages of a zone at a moment, as the next `/proc/zoneinfo` told them.
    pub(crate) fn managed(&self, at_ns: u64, zone: usize) -> Option<u64> {
        let next = self.managed.partition_point(|(time, _)| *time < at_ns);
        let (_, zones) = self.managed.get(next).or(self.managed.last())?;
        zones.get(zone).copied().filter(|pages| *pages > 0)
    }

    /// The limits of the lists of a zone and processor.
    pub(crate) fn pcp(&self, zone: usize, cpu: usize) -> PerCpu {
        self.pcps.get(zone * self.cpus + cpu).copied().unwrap_or_default()
    }
}
