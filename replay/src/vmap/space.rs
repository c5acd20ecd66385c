//! The free address space: holes by address, merged with their neighbours.

use std::collections::BTreeMap;

use super::rules::Length;

/// Which hole a request gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fit {
    /// The lowest that is large enough.
    #[default]
    First,
    /// The smallest that is large enough, the lowest of those.
    Best,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Bytes, guard page included.
    pub size: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Lowest address.
    pub start: u64,
    /// End of the window.
    pub end: u64,
}

impl Request {
    /// How long a hole must be so that the search cannot miss it (`find_vmap_lowest_match`).
    #[must_use]
    pub fn wanted(&self, length: Length, page_bytes: u64) -> u64 {
        let is_padded = self.align > page_bytes || length == Length::Padded;
        let is_exact = self.end.wrapping_sub(self.start) == self.size;
        let is_padded = is_padded && !(is_exact && length == Length::PaddedWhenAligned);
        self.size.saturating_add(if is_padded { self.align.max(1) - 1 } else { 0 })
    }

    /// The first aligned address of a hole within the window, if the area fits there.
    fn place(&self, hole: u64, hole_end: u64) -> Option<u64> {
        let mask = self.align.max(1) - 1;
        let at = hole.max(self.start).checked_add(mask)? & !mask;
        (at.checked_add(self.size)? <= hole_end).then_some(at)
    }
}

/// A kernel stack, and its alignment.
const STACK_BYTES: u64 = 16 << 10;

/// Holes: start and end.
#[derive(Clone, Debug, Default)]
pub struct FreeSpace {
    holes: BTreeMap<u64, u64>,
}

impl FreeSpace {
    /// One hole.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Self {
        Self { holes: BTreeMap::from([(start, end)]) }
    }

    /// Gives a range back; it merges with its neighbours. What is free already stays so.
    pub fn insert(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end);
        if start >= end {
            return;
        }
        while let Some((&other, &other_end)) = self.holes.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.holes.remove(&other);
            start = start.min(other);
            end = end.max(other_end);
        }
        self.holes.insert(start, end);
    }

    /// Takes a range out of the holes, as far as it is free. Answers whether all of it was.
    pub fn remove(&mut self, start: u64, end: u64) -> bool {
        let mut free = 0;
        while let Some((&hole, &hole_end)) = self.holes.range(..end).next_back() {
            if hole_end <= start {
                break;
            }
            self.holes.remove(&hole);
            free += hole_end.min(end) - hole.max(start);
            if hole_end > end {
                self.holes.insert(end, hole_end);
            }
            if hole < start {
                self.holes.insert(hole, start);
                break;
            }
        }
        free == end.saturating_sub(start)
    }

    /// Whether all of a range is free.
    #[must_use]
    pub fn holds(&self, start: u64, end: u64) -> bool {
        self.holes.range(..=start).next_back().is_some_and(|(_, hole_end)| *hole_end >= end)
    }

    /// How long the hole would be if a range were free.
    #[must_use]
    pub fn length_with(&self, start: u64, end: u64) -> u64 {
        let below =
            self.holes.range(..=start).next_back().filter(|(_, hole_end)| **hole_end >= start);
        let above =
            self.holes.range(start..=end).next_back().map_or(end, |(_, hole_end)| *hole_end);
        above.max(end).saturating_sub(below.map_or(start, |(hole, _)| *hole))
    }

    /// Where a request goes. A hole that fits only because it happens to begin aligned is taken
    /// when no hole is as long as size and alignment together.
    #[must_use]
    pub fn find(
        &self,
        request: &Request,
        fit: Fit,
        length: Length,
        page_bytes: u64,
    ) -> Option<u64> {
        let wanted = request.wanted(length, page_bytes);
        let from = self.holes.range(..=request.start).next_back().map_or(0, |(start, _)| *start);
        let mut lucky = None;
        let mut best: Option<(u64, u64)> = None;
        for (&hole, &end) in self.holes.range(from..) {
            let Some(at) = request.place(hole, end) else { continue };
            if end - hole < wanted {
                lucky = lucky.or(Some(at));
                continue;
            }
            if fit == Fit::First {
                return (at + request.size <= request.end).then_some(at);
            }
            if at + request.size <= request.end && best.is_none_or(|(room, _)| end - hole < room) {
                best = Some((end - hole, at));
            }
        }
        let found = best.map(|(_, at)| at).or(lucky)?;
        (found + request.size <= request.end).then_some(found)
    }

    /// The kernel passed over every hole below `below`: something unseen is in each that is large
    /// enough. Takes that out of the free space and answers it, as start and size.
    pub fn pass_over(
        &mut self,
        request: &Request,
        length: Length,
        page_bytes: u64,
        below: u64,
    ) -> Vec<(u64, u64)> {
        let mut unseen = Vec::new();
        while let Some(at) = self.find(request, Fit::First, length, page_bytes)
            && at < below
        {
            let (start, size) = self.unseen_at(request, at, page_bytes);
            self.remove(start, start.saturating_add(size));
            unseen.push((start, size));
        }
        unseen
    }

    /// What may stand in a hole that was passed over: a kernel stack where one fits so that no room
    /// is left for the request, since most areas are stacks; else something of the request's size.
    fn unseen_at(&self, request: &Request, at: u64, page_bytes: u64) -> (u64, u64) {
        let other = (at, request.size.max(1));
        let stack = STACK_BYTES + page_bytes;
        let hole = self.holes.range(..=at).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = hole.filter(|_| request.size >= stack) else { return other };
        let start = start.max(request.start);
        let lowest = start.max(end.saturating_sub(stack + request.size - page_bytes));
        let at = lowest.next_multiple_of(STACK_BYTES);
        if at < start + request.size && at + stack <= end { (at, stack) } else { other }
    }

    /// The largest hole within a window, in bytes.
    #[must_use]
    pub fn largest(&self, start: u64, end: u64) -> u64 {
        let within = |(hole, hole_end): (&u64, &u64)| {
            (*hole_end).min(end).saturating_sub((*hole).max(start))
        };
        self.holes.range(..end).map(within).max().unwrap_or(0)
    }

    /// Holes.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.holes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn find(space: &FreeSpace, pages: u64, align: u64, fit: Fit) -> Option<u64> {
        let request = Request { size: pages * PAGE, align, start: 0, end: 1 << 30 };
        let found = space.find(&request, fit, Length::PaddedWhenAligned, PAGE);
        found.map(|address| address / PAGE)
    }

    fn space(holes: &[(u64, u64)]) -> FreeSpace {
        let mut space = FreeSpace::default();
        for (start, end) in holes {
            space.insert(start * PAGE, end * PAGE);
        }
        space
    }

    #[test]
    fn neighbours_merge_and_a_taken_middle_leaves_two() {
        let mut free = space(&[(1, 3), (5, 8), (3, 5)]);
        assert_eq!(free.holes(), 1);
        assert!(free.remove(4 * PAGE, 6 * PAGE));
        assert_eq!((free.holes(), free.largest(0, u64::MAX)), (2, 3 * PAGE));
        assert!(!free.remove(3 * PAGE, 5 * PAGE), "page 4 is taken");
        free.insert(0, 100 * PAGE);
        assert_eq!((free.holes(), free.largest(0, 50 * PAGE)), (1, 50 * PAGE));
    }

    #[test]
    fn first_and_best_fit_choose_differently() {
        let free = space(&[(1, 9), (10, 12), (20, 23), (30, 32)]);
        assert_eq!(find(&free, 2, 1, Fit::First), Some(1));
        assert_eq!(find(&free, 2, 1, Fit::Best), Some(10));
        assert_eq!(find(&free, 3, 1, Fit::Best), Some(20));
        assert_eq!(find(&free, 9, 1, Fit::Best), None);
    }

    #[test]
    fn a_kernel_stack_stands_in_a_hole_that_was_passed_over() {
        // Three pages, a stack, three pages: seven pages found no room.
        let mut free = space(&[(9, 20), (30, 90)]);
        let request = Request { size: 7 * PAGE, align: 1, start: 0, end: 1 << 30 };
        let unseen = free.pass_over(&request, Length::PaddedWhenAligned, PAGE, 30 * PAGE);
        assert_eq!(unseen, [(12 * PAGE, 5 * PAGE)]);
        assert_eq!(find(&free, 3, 1, Fit::First), Some(9));
        assert!(free.holds(17 * PAGE, 20 * PAGE) && !free.holds(16 * PAGE, 20 * PAGE));
        // Where none fits, the request's own size is taken.
        let mut free = space(&[(9, 13), (30, 90)]);
        let request = Request { size: 3 * PAGE, align: 1, start: 0, end: 1 << 30 };
        let unseen = free.pass_over(&request, Length::PaddedWhenAligned, PAGE, 30 * PAGE);
        assert_eq!(unseen, [(9 * PAGE, 3 * PAGE)]);
    }

    #[test]
    fn an_aligned_request_wants_room_to_align_first() {
        // A stack: five pages aligned to four. The hole at 8 would do, but is not long enough for
        // any start; the one at 21 is.
        let free = space(&[(8, 13), (21, 40)]);
        assert_eq!(find(&free, 5, 4 * PAGE, Fit::First), Some(24));
        assert_eq!(find(&space(&[(8, 13)]), 5, 4 * PAGE, Fit::First), Some(8));
        assert_eq!(find(&space(&[(9, 14)]), 5, 4 * PAGE, Fit::First), None);
    }
}
