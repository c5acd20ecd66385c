//! What a policy may see of the model: everything, and change nothing.

use crate::machine::Machine;
use crate::memory::Memory;
use crate::model::Watermarks;

/// A read-only view of the model.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) movable_in_block: &'a [u16],
    pub(crate) marks: &'a [Watermarks],
}

impl View<'_> {
    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        self.memory.machine()
    }

    /// Free pages of a zone.
    #[must_use]
    pub fn free_pages(&self, zone: usize) -> u64 {
        self.memory.free_pages(zone)
    }

    /// Watermarks of a zone.
    #[must_use]
    pub fn watermarks(&self, zone: usize) -> Watermarks {
        self.marks.get(zone).copied().unwrap_or_default()
    }

    /// Free blocks of a zone, order and type.
    #[must_use]
    pub fn free_of_type(&self, zone: usize, order: u8, migrate: u8) -> u64 {
        self.memory.free_of_type(zone, order, migrate)
    }

    /// The first block of a list: the one freed last.
    #[must_use]
    pub fn head(&self, zone: usize, order: u8, migrate: u8) -> Option<u32> {
        self.memory.front(self.memory.list(zone, order, migrate))
    }

    /// The blocks of a list, head first.
    pub fn blocks(
        &self,
        zone: usize,
        order: u8,
        migrate: u8,
    ) -> impl Iterator<Item = u32> + use<'_> {
        self.memory.pages.iter(self.memory.list(zone, order, migrate))
    }

    /// The block of a list with the lowest address; kept only for policies that ask for it
    /// ([`super::BlockPolicy::by_address`]).
    #[must_use]
    pub fn lowest(&self, zone: usize, order: u8, migrate: u8) -> Option<u32> {
        self.memory.lowest(self.memory.list(zone, order, migrate))
    }

    /// The type of a page's pageblock. Up to 6.9 a free block may be on another type's list.
    #[must_use]
    pub fn block_type(&self, pfn: u32) -> u8 {
        self.memory.block_type(pfn)
    }

    /// Free pages of a page's pageblock that are on buddy lists.
    #[must_use]
    pub fn free_in_block(&self, pfn: u32) -> u64 {
        self.memory.free_in_block(pfn)
    }

    /// Of a page's pageblock: how many pages are free, and how many of the others are of the kind
    /// of a request that would take it over from `other`; `None` when the pageblock reaches over
    /// its zone's border and cannot be taken over (`prep_move_freepages_block`).
    #[must_use]
    pub fn free_and_alike(&self, pfn: u32, migrate: u8, other: u8) -> Option<(u64, u64)> {
        let machine = self.machine();
        let pages = 1u64 << machine.block_order;
        let start = pfn >> machine.block_order << machine.block_order;
        let span = machine.zones.get(self.memory.zone_of(pfn)?)?;
        if start < span.start || u64::from(start) + pages > u64::from(span.end) {
            return None;
        }
        let free = self.free_in_block(pfn);
        let movable = self.movable_in_block.get((pfn >> machine.block_order) as usize);
        let movable = u64::from(movable.copied().unwrap_or(0)).min(pages - free);
        let alike = match (migrate, other) {
            (1, _) => movable,
            (_, 1) => pages - free - movable,
            _ => 0,
        };
        Some((free, alike))
    }
}
