//! The HIGHATOMIC reserve: pageblocks kept for high-order requests that cannot wait.

use super::Model;

/// Its migrate type.
pub(super) const HIGHATOMIC: u8 = 3;

/// Pageblocks reserved, by zone.
#[derive(Clone, Debug, Default)]
pub(super) struct Highatomic {
    blocks: Vec<Vec<u32>>,
}

impl Highatomic {
    pub(super) fn new(zones: usize) -> Self {
        Self { blocks: vec![Vec::new(); zones] }
    }
}

impl Model {
    /// Free pages that only the reserve's users may have (`nr_free_highatomic`, 6.12 and later).
    pub(super) fn highatomic_pages(&self, zone: usize) -> u64 {
        if self.highatomic.blocks[zone].is_empty() {
            return 0;
        }
        let orders = 0..self.memory.machine().orders;
        orders.map(|order| self.memory.free_of_type(zone, order, HIGHATOMIC) << order).sum()
    }

    /// Reserves the pageblock of a block just taken, within a hundredth of the zone
    /// (`reserve_highatomic_pageblock`).
    pub(super) fn reserve_highatomic(&mut self, zone: usize, pfn: u32) {
        let block_order = self.memory.machine().block_order;
        let pageblock = 1u64 << block_order;
        let hundredth = self.managed[zone] / 100;
        let limit = if self.memory.machine().rules.highatomic_rounded {
            if hundredth < pageblock { 0 } else { hundredth.next_multiple_of(pageblock) }
        } else {
            hundredth + pageblock
        };
        let reserved = (self.highatomic.blocks[zone].len() as u64) << block_order;
        if reserved >= limit || self.memory.block_type(pfn) >= HIGHATOMIC {
            return;
        }
        self.memory.move_block(pfn, HIGHATOMIC);
        self.memory.set_block_type(pfn, HIGHATOMIC);
        self.highatomic.blocks[zone].push(pfn >> block_order << block_order);
    }

    /// Gives one pageblock back, to the type that asks (`unreserve_highatomic_pageblock`).
    pub(super) fn unreserve_highatomic(&mut self, migrate: u8) {
        for zone in 0..self.highatomic.blocks.len() {
            let Some(pfn) = self.highatomic.blocks[zone].pop() else { continue };
            self.memory.move_block(pfn, migrate.min(HIGHATOMIC - 1));
            self.memory.set_block_type(pfn, migrate.min(HIGHATOMIC - 1));
            return;
        }
    }
}
