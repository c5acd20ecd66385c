//! The pages at any moment: the mirror and what else only events tell of pages, carried through
//! the events. A copy of it is a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use kmemlab_replay::machine::Machine;
use kmemlab_replay::mirror::{self, Mirror};
use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::format::PAGEMAP_FIRST;
use kmemlab_trace::snapshot::BuddyRow;
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::{Error, EventBatch, Recording};
use kmemlab_tui::ZoneState;
use kmemlab_tui::parts::{Block, BlockMap};

use super::sites::Frees;

/// The events that change something here.
const KINDS: u64 = mirror::KINDS | Kind::VmapAlloc.bit() | Kind::VmapFree.bit();

/// A state that events change: what a cursor moves.
pub(super) trait State: Clone {
    /// The events that change it.
    fn kinds(&self) -> u64;
    /// The next batch comes.
    fn begin(&mut self, _: &EventBatch) {}
    /// Follows an event.
    fn step(&mut self, event: &Event, frees: &mut Frees<'_>);
}

/// Types that page blocks exchange: UNMOVABLE, MOVABLE, RECLAIMABLE.
const EXCHANGED: u8 = 3;

/// What events tell of the vmalloc space.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vmap {
    pub(super) made: u64,
    pub(super) freed: u64,
    pub(super) lazy: Option<(u64, u64)>,
}

/// Free blocks of a zone by order, by the kernel and by the mirror.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Beside {
    pub(super) label: String,
    pub(super) kernel: Vec<u64>,
    pub(super) mirror: Vec<u64>,
}

/// The state at one moment.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    /// Absent where the recording does not tell enough to follow the page allocator.
    pub(super) mirror: Option<Mirror>,
    pub(super) vmap: Vmap,
    /// Live blocks allocated for another type than their page block's: order and type by page.
    foreign: BTreeMap<u32, (u8, u8)>,
}

impl State for Walker {
    fn kinds(&self) -> u64 {
        KINDS
    }

    #[inline]
    fn step(&mut self, event: &Event, _: &mut Frees<'_>) {
        if let Some(mirror) = &mut self.mirror {
            mirror.step(event);
        }
        match event.kind {
            Kind::PageAlloc => self.note_foreign(event),
            Kind::PageFree | Kind::PageFreeBatched if !self.foreign.is_empty() => {
                self.foreign.remove(&(event.pfn_or_address as u32));
            }
            Kind::VmapAlloc => self.vmap.made += u64::from(event.flag == 0),
            Kind::VmapFree => {
                self.vmap.freed += 1;
                let lazy = event.arg(0).zip(event.arg(1));
                self.vmap.lazy =
                    lazy.map(|(lazy, limit)| (lazy.max(0) as u64, limit.max(0) as u64));
            }
            _ => {}
        }
    }
}

impl Walker {
    pub(super) fn new(mirror: Option<Mirror>) -> Self {
        Self { mirror, vmap: Vmap::default(), foreign: BTreeMap::new() }
    }

    fn note_foreign(&mut self, event: &Event) {
        let Some(mirror) = &self.mirror else { return };
        if event.migrate >= EXCHANGED || !event.has(Column::PfnOrAddress) {
            return;
        }
        let Ok(pfn) = u32::try_from(event.pfn_or_address) else { return };
        let own = mirror.memory().block_type(pfn);
        if own != event.migrate && own < EXCHANGED {
            self.foreign.insert(pfn, (event.order, event.migrate));
        }
    }

    /// About how much memory a copy takes.
    pub(super) fn bytes(&self) -> u64 {
        let mirror = self.mirror.as_ref().map_or(0, |mirror| mirror.memory().state_bytes());
        mirror + self.foreign.len() as u64 * 24
    }

    /// Free blocks and per-CPU pages of this very moment, put into zones of `/proc`.
    pub(super) fn fill_zones(&self, zones: &mut [ZoneState]) -> bool {
        let Some(mirror) = &self.mirror else { return false };
        let memory = mirror.memory();
        let machine = memory.machine();
        for state in zones {
            let Some(zone) = machine.zone(state.node, &state.zone) else { continue };
            state.free_blocks = memory.free_blocks(zone).to_vec();
            state.free = Some(memory.free_pages(zone));
            let percpu = (0..machine.cpus).map(|cpu| memory.pcp_pages(zone, cpu));
            state.percpu = Some(percpu.sum());
        }
        true
    }

    /// Free blocks by zone and order beside those of a reading of `/proc/buddyinfo`.
    pub(super) fn beside(&self, zones: &[BuddyRow]) -> Option<Vec<Beside>> {
        let memory = self.mirror.as_ref()?.memory();
        let beside = zones.iter().filter_map(|row| {
            let zone = memory.machine().zone(row.node, &row.zone)?;
            Some(Beside {
                label: format!("Node {} {}", row.node, row.zone),
                kernel: row.free_blocks.clone(),
                mirror: memory.free_blocks(zone).to_vec(),
            })
        });
        Some(beside.collect())
    }

    /// The page blocks at this moment.
    pub(super) fn blocks(&self, types: &[String]) -> Option<BlockMap> {
        let memory = self.mirror.as_ref()?.memory();
        let machine = memory.machine();
        let shift = machine.block_order;
        let count = (machine.end as usize).div_ceil(1 << shift);
        let outside = Block { zone: u8::MAX, ..Block::default() };
        let mut blocks = vec![outside; count];
        for (index, block) in blocks.iter_mut().enumerate() {
            let pfn = (index as u32) << shift;
            if let Some(zone) = memory.zone_of(pfn) {
                block.zone = zone as u8;
                block.migrate = memory.block_type(pfn);
            }
        }
        free_in_blocks(memory, &mut blocks);
        for (pfn, (order, migrate)) in &self.foreign {
            if let Some(block) = blocks.get_mut((pfn >> shift) as usize)
                && block.migrate != *migrate
            {
                block.foreign += 1 << order.min(&shift);
            }
        }
        Some(BlockMap {
            pages_per_block: 1 << shift,
            zones: spans(machine),
            types: types.to_vec(),
            blocks,
            ..BlockMap::default()
        })
    }
}

fn spans(machine: &Machine) -> Vec<(String, usize, usize)> {
    let shift = machine.block_order;
    let span = |zone: &kmemlab_replay::machine::ZoneSpan| {
        let name = format!("Node {} {}", zone.node, zone.name);
        (name, (zone.start >> shift) as usize, (zone.end as usize).div_ceil(1 << shift))
    };
    machine.zones.iter().map(span).collect()
}

/// Spreads the free blocks of all lists over the page blocks.
fn free_in_blocks(memory: &kmemlab_replay::memory::Memory, blocks: &mut [Block]) {
    let machine = memory.machine();
    let shift = machine.block_order;
    for zone in 0..machine.zones.len() {
        for order in 0..machine.orders {
            for migrate in 0..machine.types {
                for head in memory.list_of(zone, order, migrate) {
                    let first = (head >> shift) as usize;
                    let last = first + (1usize << order.saturating_sub(shift));
                    let inside = order.min(shift);
                    for block in blocks.get_mut(first..last).into_iter().flatten() {
                        block.free += 1 << inside;
                        block.orders[usize::from(inside) & 15] += 1;
                    }
                }
            }
        }
    }
}

/// Pages by use of each page block.
pub(super) type Uses = Arc<Vec<[u16; 9]>>;

/// What the first page map told of each page block, and when it was whole.
pub(super) fn uses(recording: &Recording, machine: &Machine) -> Result<(Uses, Nanos), Error> {
    let shift = machine.block_order;
    let mut uses = vec![[0u16; 9]; (machine.end as usize).div_ceil(1 << shift)];
    let mut read = Nanos(0);
    for run in recording.page_map(&PAGEMAP_FIRST)? {
        let run = run?;
        read = run.stamp.after;
        let last = (uses.len() as u64) << shift;
        let (mut at, end) = (run.pfn.0, run.pfn.0.saturating_add(run.pages).min(last));
        while at < end {
            let stop = ((at >> shift) + 1) << shift;
            let pages = stop.min(end) - at;
            if let Some(block) = uses.get_mut((at >> shift) as usize) {
                let count = &mut block[run.page_use as usize];
                *count = count.saturating_add(pages as u16);
            }
            at += pages;
        }
    }
    Ok((Arc::new(uses), read))
}
