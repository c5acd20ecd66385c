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

/// What a scan of a range went over and took.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Scan {
    scanned: u64,
    taken: u64,
    heads: Vec<u32>,
}

impl Scan {
    fn fits(&self, scanned: u64, taken: u64) -> bool {
        (self.scanned, self.taken) == (scanned, taken)
    }
}

impl Mirror {
    /// The scanner went over `[start, end)` and took blocks of so many pages in all.
    pub(super) fn isolate(&mut self, event: &Event) {
        let (scanned, taken) = (event.args[0], event.args[1]);
        if taken <= 0 {
            return;
        }
        let Some((start, _)) = self.possible_page(event) else { return };
        let Ok(end) = u32::try_from(event.end) else { return };
        if self.seed.phase(start, event.time.0) != Phase::After {
            return;
        }
        let (scanned, taken) = (scanned as u64, taken as u64);
        // A block may reach beyond the pageblock that was told of.
        let reached = (u64::from(start) + taken).min(u64::from(self.memory.machine().end)) as u32;
        let end = end.min(self.memory.machine().end).max(reached);
        let is_whole = taken == u64::from(end.saturating_sub(start));
        if is_whole && !self.is_free_range(start, end) {
            // What was freed into the isolated pageblocks went past the per-CPU lists.
            self.recall_range(start, end);
        }
        if is_whole && self.is_free_range(start, end) {
            self.take_range(start, end);
            return;
        }
        self.guesses.searches += 1;
        let exact = self.tries(start, end, taken).find(|try_| try_.fits(scanned, taken));
        match exact {
            Some(found) => found.heads.into_iter().for_each(|head| self.take_isolated(head)),
            None => self.isolate_likely(start, end, scanned, taken),
        }
    }

    /// Scans with every stride, and with compound pages counted as scanned or not.
    fn tries(&self, start: u32, end: u32, taken: u64) -> impl Iterator<Item = Scan> + '_ {
        let ways = STRIDES.into_iter().flat_map(|stride| [(stride, true), (stride, false)]);
        ways.map(move |way| self.scan((start, end), way, taken))
    }

    /// No scan fits exactly: compound pages of the start, which nobody knows, turned its steps. The
    /// blocks taken are guesses, which later events put right.
    fn isolate_likely(&mut self, start: u32, end: u32, scanned: u64, taken: u64) {
        let number = self.guesses.searches;
        let mut left = taken;
        for (head, order) in self.told_searches.get(&number).cloned().unwrap_or_default() {
            if self.holds(head, order) && 1 << order <= left {
                self.take_as_guess(head, order, (start, end), number);
                left -= 1 << order;
            }
        }
        if left == 0 {
            return;
        }
        self.residue.unsolved_isolations += 1;
        self.misfit(Cause::Isolation, start, 0, 0);
        let found = self.nearest_scan(start, end, scanned, left);
        let Some(found) = found else {
            self.isolate_all(start, end, left);
            return;
        };
        for head in found.heads {
            let order = self.memory.pages.get(head).order();
            self.take_as_guess(head, order, (start, end), number);
        }
    }

    /// The scan whose count is nearest, begun at whichever of the stride's pages gives the total.
    fn nearest_scan(&self, start: u32, end: u32, scanned: u64, taken: u64) -> Option<Scan> {
        let mut strides = STRIDES;
        strides.sort_by_key(|stride| {
            let visited = u64::from((end - start).div_ceil(*stride));
            visited.abs_diff(scanned)
        });
        strides.into_iter().find_map(|stride| {
            (0..stride)
                .map(|first| self.scan((start + first, end), (stride, true), taken))
                .find(|scan| scan.taken == taken)
        })
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
    fn scan(&self, range: (u32, u32), way: (u32, bool), wanted: u64) -> Scan {
        let (mut at, end) = range;
        let (stride, counts_compound) = way;
        let mut scan = Scan::default();
        while at < end {
            let node = self.memory.pages.get(at);
            let size = 1u32 << node.order();
            let fits = u64::from(at) + u64::from(size) <= u64::from(end);
            scan.scanned += 1;
            if node.state() == State::Free && scan.taken + u64::from(size) <= wanted {
                scan.taken += u64::from(size);
                scan.scanned += u64::from(size) - 1;
                scan.heads.push(at);
                at = at.saturating_add(size - 1);
            } else if node.state() == State::Live && fits {
                // A compound page is passed over as a whole.
                scan.scanned += if counts_compound { u64::from(size) - 1 } else { 0 };
                at = at.saturating_add(size - 1);
            }
            at = at.saturating_add(stride);
        }
        scan
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
        self.memory.note(head, State::Isolated, order);
        self.effects.push(Effect::Isolated { pfn: head, order });
    }
}
