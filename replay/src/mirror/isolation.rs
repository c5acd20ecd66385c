//! Free pages taken by compaction and isolation, which tell only the range they scanned.
//!
//! `isolate_freepages_block` (`mm/compaction.c`) visits every stride-th page, takes the heads of
//! free blocks it meets, and reports after dropping the lock how much it scanned and took. The
//! stride is not told: the one for which both totals come out right is the one that was used.

use kmemlab_trace::event::Event;

use super::{Effect, Mirror};
use crate::pages::State;
use crate::residue::Cause;
use crate::seeding::Phase;

/// Strides the free scanner uses: it doubles after a block that gave nothing.
const STRIDES: [u32; 6] = [1, 2, 4, 8, 16, 32];

impl Mirror {
    /// The scanner went over `[start, end)` and took blocks of so many pages in all.
    pub(super) fn isolate(&mut self, event: &Event) {
        let Some((start, _)) = self.page(event) else { return };
        let Ok(end) = u32::try_from(event.end) else { return };
        let (scanned, taken) = (event.args[0], event.args[1]);
        if taken <= 0 || self.seed.phase(start, event.time.0) != Phase::After {
            return;
        }
        let (scanned, taken) = (scanned as u64, taken as u64);
        let end = end.min(self.memory.machine().end);
        let tries = STRIDES.map(|stride| self.scan(start, end, stride, taken));
        let is_whole = taken == u64::from(end.saturating_sub(start));
        if is_whole && !self.is_free_range(start, end) {
            // What was freed into the isolated pageblocks went past the per-CPU lists.
            self.recall_range(start, end);
        }
        if is_whole && self.is_free_range(start, end) {
            self.take_range(start, end);
            return;
        }
        let exact = tries.iter().position(|try_| (try_.0, try_.1) == (scanned, taken));
        let found = exact.or_else(|| tries.iter().position(|try_| try_.1 == taken));
        if exact.is_none() {
            self.residue.unsolved_isolations += 1;
            self.misfit(Cause::Isolation, start, 0, 0);
        }
        let Some(found) = found else {
            self.isolate_all(start, end, taken);
            return;
        };
        let heads = tries.into_iter().nth(found).map(|try_| try_.2).unwrap_or_default();
        for head in heads {
            self.take_isolated(head);
        }
    }

    /// Strict isolation (`alloc_contig_range`) took everything: the pageblocks were isolated before
    /// it, so that larger blocks were cut at their borders.
    fn take_range(&mut self, start: u32, end: u32) {
        let mut at = start;
        while let Some((head, have)) = self.memory.block_at(at).filter(|_| at < end) {
            let fits = |order: &u8| {
                let last = u64::from(at) + (1 << *order);
                at & ((1 << *order) - 1) == 0
                    && last <= u64::from(end)
                    && last <= u64::from(head) + (1 << have)
            };
            let order = (0..=have).rev().find(fits).unwrap_or(0);
            if order < have {
                self.memory.carve(head, at, order);
                self.note_isolated(at, order);
            } else {
                self.take_isolated(at);
            }
            at += 1 << order;
        }
    }

    fn is_free_range(&self, start: u32, end: u32) -> bool {
        let mut at = start;
        while let Some((head, order)) = self.memory.block_at(at).filter(|_| at < end) {
            at = head.saturating_add(1 << order);
        }
        at >= end
    }

    /// What a scan with that stride would have scanned and taken.
    fn scan(&self, start: u32, end: u32, stride: u32, wanted: u64) -> (u64, u64, Vec<u32>) {
        let (mut scanned, mut taken, mut heads) = (0u64, 0u64, Vec::new());
        let mut at = start;
        while at < end {
            let node = self.memory.pages.get(at);
            scanned += 1;
            if node.state() == State::Free && taken + (1 << node.order()) <= wanted {
                let size = 1u32 << node.order();
                taken += u64::from(size);
                scanned += u64::from(size) - 1;
                heads.push(at);
                at = at.saturating_add(size - 1);
            }
            at = at.saturating_add(stride);
        }
        (scanned, taken, heads)
    }

    /// No stride fits: take free blocks in rising order until the total is reached.
    fn isolate_all(&mut self, start: u32, end: u32, wanted: u64) {
        let mut left = wanted;
        let mut at = start;
        while at < end && left > 0 {
            let node = self.memory.pages.get(at);
            let size = 1u64 << node.order();
            if node.state() == State::Free && size <= left {
                self.take_isolated(at);
                left -= size;
                at += size as u32;
            } else {
                at += 1;
            }
        }
        self.residue.missing_takes += left;
        if left > 0 {
            self.misfit(Cause::Isolation, start, 0, -(left as i64));
        }
    }

    fn take_isolated(&mut self, head: u32) {
        let (order, _) = self.memory.remove(head);
        // `__isolate_free_page` gives the pageblocks of a large block to MOVABLE.
        if order + 1 >= self.memory.machine().block_order && self.memory.block_type(head) < 3 {
            self.memory.set_range_type(head, order, 1);
        }
        self.note_isolated(head, order);
    }

    fn note_isolated(&mut self, head: u32, order: u8) {
        self.memory.pages.note(head, State::Isolated, order);
        self.effects.push(Effect::Isolated { pfn: head, order });
    }
}
