//! The laws of the page allocator's state, checked one by one.

use super::Memory;
use crate::pages::State;

impl Memory {
    /// Checks every law of the state; answers the first that is broken, with its numbers.
    ///
    /// Blocks are aligned and disjoint and stand on a list of their order and zone; counts are the
    /// sums of the lists; no two free buddies below the pageblock's order stay unmerged.
    pub fn check(&self) -> Result<(), String> {
        let mut counts = vec![[0u64; 16]; self.machine.zones.len()];
        for (zone, count) in counts.iter_mut().enumerate() {
            for order in 0..self.machine.orders {
                for migrate in 0..self.machine.types {
                    let list = self.list(zone, order, migrate);
                    let mut length = 0;
                    for pfn in self.pages.iter(list) {
                        length += 1;
                        self.check_block(zone, order, list, pfn)?;
                    }
                    if length != self.pages.lists[list].len {
                        return Err(format!(
                            "list {list} has {length} blocks, says {}",
                            self.pages.lists[list].len
                        ));
                    }
                    count[usize::from(order)] += u64::from(length);
                }
            }
        }
        for (zone, count) in counts.iter().enumerate() {
            let pages: u64 = count.iter().enumerate().map(|(order, n)| n << order).sum();
            if *count != self.free_blocks[zone] || pages != self.free_pages[zone] {
                return Err(format!(
                    "zone {zone} counts {:?}, lists hold {count:?}",
                    self.free_blocks[zone]
                ));
            }
        }
        Ok(())
    }

    fn check_block(&self, zone: usize, order: u8, list: usize, pfn: u32) -> Result<(), String> {
        let node = self.pages.get(pfn);
        if node.state() != State::Free || node.order() != order || node.list() != list {
            return Err(format!("block {pfn:#x} on list {list} of order {order} is {node:?}"));
        }
        if pfn & ((1 << order) - 1) != 0 {
            return Err(format!("block {pfn:#x} of order {order} is not aligned"));
        }
        if self.zone_of(pfn) != Some(zone) {
            return Err(format!("block {pfn:#x} is on a list of zone {zone}"));
        }
        let buddy = pfn ^ (1 << order);
        let merges = order < self.machine.block_order && order + 1 < self.machine.orders;
        if merges && self.is_free_block(buddy, order) && self.zone_of(buddy) == Some(zone) {
            return Err(format!(
                "blocks {pfn:#x} and {buddy:#x} of order {order} are unmerged buddies"
            ));
        }
        // Disjoint: no smaller head inside. Larger ones around it would find this one inside them.
        for inner in pfn + 1..pfn + (1 << order.min(self.machine.block_order)) {
            if matches!(self.pages.get(inner).state(), State::Free | State::Pcp) {
                return Err(format!("block {pfn:#x} of order {order} holds the block {inner:#x}"));
            }
        }
        Ok(())
    }
}
