//! What can be asked of the state beyond its lists.

use super::Memory;
use crate::pages::State;

impl Memory {
    /// Touches what is known of a page, so that it is at hand.
    #[inline]
    pub(crate) fn glance(&self, pfn: u32) -> u32 {
        self.pages.get(pfn).next
    }

    /// Whether a page is in a block that is free, waits on a per-CPU list, or is known to be taken.
    pub(crate) fn is_spoken_for(&self, page: u32) -> bool {
        (0..self.machine.orders).any(|order| {
            let head = page >> order << order;
            let node = self.pages.get(head);
            node.state() != State::Unknown && page - head < 1 << node.order()
        })
    }

    /// The first free page at or after `from` and before `to`, and the end of its block.
    #[must_use]
    pub fn next_free(&self, from: u32, to: u32) -> Option<(u32, u32)> {
        let of = |head: u32, order: u8| head.saturating_add(1 << order).min(to);
        if from >= to {
            return None;
        }
        if let Some((head, order)) = self.block_at(from) {
            return Some((from, of(head, order)));
        }
        let block = 1u32 << self.machine.block_order;
        let mut at = from + 1;
        while at < to {
            let node = self.pages.get(at);
            if node.state() == State::Free {
                return Some((at, of(at, node.order())));
            }
            // An untouched pageblock has nothing beyond its head.
            let is_head = at & (block - 1) == 0;
            at += if is_head && !self.pages.is_touched(at) { block } else { 1 };
        }
        None
    }

    /// Free pages of a page's pageblock that are on buddy lists.
    #[must_use]
    pub fn free_in_block(&self, pfn: u32) -> u64 {
        let start = pfn >> self.machine.block_order << self.machine.block_order;
        if self.block_at(start).is_some_and(|(_, order)| order >= self.machine.block_order) {
            return 1 << self.machine.block_order;
        }
        self.free_heads(pfn).into_iter().map(|head| 1u64 << self.pages.get(head).order()).sum()
    }

    /// A number that is equal for equal states, on every machine: FNV-1a over all lists in order,
    /// and the pageblock types.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |value: u64| {
            for byte in value.to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for list in 0..self.pages.lists.len() {
            eat(list as u64);
            for pfn in self.pages.iter(list) {
                eat(u64::from(pfn) << 8 | u64::from(self.pages.get(pfn).order()));
            }
        }
        for migrate in &self.block_type {
            eat(u64::from(*migrate));
        }
        hash
    }
}
