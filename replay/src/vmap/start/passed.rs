//! Holes that the kernel passed over: something stands there that no file names.
//!
//! A request that no pool serves gets the lowest hole that is long enough (`alloc_vmap_area`). What
//! nothing was given out of since the start, and looks like such a hole, waits in a pool since
//! then: `/proc/vmallocinfo` does not tell of pools. It stays there until a purge gives it back
//! (`decay_va_pool_node`), so each time it is passed over it had stayed through the purges before.

use std::collections::BTreeMap;

use crate::vmap::rules::Length;
use crate::vmap::space::{FreeSpace, Request};

/// Something that stood in a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hole {
    /// First address.
    pub(super) start: u64,
    /// Bytes.
    pub(super) size: u64,
    /// Node of the request that passed over it first.
    pub(super) node: usize,
    /// Purges that it stayed through.
    pub(super) purges: u64,
    /// It was given out from the free space later.
    pub(super) is_freed: bool,
    /// It is what is left of a larger one.
    pub(super) is_rest: bool,
}

/// The holes that were passed over.
#[derive(Debug)]
pub(super) struct Passed {
    length: Length,
    page_bytes: u64,
    /// What nothing was given out of, and nothing was found to stand in.
    untouched: FreeSpace,
    /// What stands there still.
    holes: BTreeMap<u64, Hole>,
    /// What was given out from the free space.
    freed: Vec<Hole>,
    /// By size and alignment: up to where all is searched.
    searched: BTreeMap<(u64, u64), u64>,
    /// The same since the last purge.
    marked: BTreeMap<(u64, u64), u64>,
    purges: u64,
}

impl Passed {
    /// `space` is all that is free as far as the first sample tells.
    pub(super) fn new(space: FreeSpace, length: Length, page_bytes: u64) -> Self {
        Self {
            length,
            page_bytes,
            untouched: space,
            holes: BTreeMap::new(),
            freed: Vec::new(),
            searched: BTreeMap::new(),
            marked: BTreeMap::new(),
            purges: 0,
        }
    }

    /// The worker ran.
    pub(super) fn purged(&mut self) {
        self.purges += 1;
        self.marked.clear();
    }

    /// An area was given out.
    pub(super) fn given_out(&mut self, request: &Request, start: u64, node: usize, is_hit: bool) {
        if !is_hit {
            self.pass(request, start, node);
        }
        let end = start.saturating_add(request.size);
        self.untouched.remove(start, end);
        let below = self.holes.range(..end).rev();
        let over: Vec<u64> = below
            .take_while(|(_, hole)| hole.start + hole.size > start)
            .map(|(at, _)| *at)
            .collect();
        for at in over {
            if let Some(hole) = self.holes.remove(&at).filter(|_| !is_hit) {
                self.free_part(hole, start, end);
            }
        }
    }

    /// Part of a hole was given out from the free space. What stands in the hole stands beside it.
    /// If it was all of the hole, and was passed over after the same purge: another processor had
    /// it meanwhile, or the purge was done before its event came.
    fn free_part(&mut self, hole: Hole, start: u64, end: u64) {
        let hole_end = hole.start + hole.size;
        let (start, end) = (start.max(hole.start), end.min(hole_end));
        let is_whole = (start, end) == (hole.start, hole_end);
        for (start, end) in [(hole.start, start), (end, hole_end)] {
            if start < end {
                self.holes.insert(start, Hole { start, size: end - start, is_rest: true, ..hole });
            }
        }
        let is_late = hole.purges == self.purges;
        let late = hole.purges.checked_sub(1).filter(|_| is_whole);
        if let Some(purges) = if is_late { late } else { Some(hole.purges) } {
            self.freed.push(Hole { start, size: end - start, purges, is_freed: true, ..hole });
        }
    }

    /// All that is long enough below is not free.
    fn pass(&mut self, request: &Request, below: u64, node: usize) {
        let key = (request.size, request.align);
        let from = self.marked.get(&key).map_or(request.start, |at| request.start.max(*at));
        let wanted = request.wanted(self.length, self.page_bytes);
        for hole in self.holes.range_mut(from..below.max(from)).map(|(_, hole)| hole) {
            let end = hole.start + hole.size;
            if end <= below && self.untouched.length_with(hole.start, end) >= wanted {
                hole.purges = self.purges;
            }
        }
        self.marked.insert(key, below.max(from));
        let from = self.searched.get(&key).map_or(request.start, |at| request.start.max(*at));
        let searched = Request { start: from, ..*request };
        let found = self.untouched.pass_over(&searched, self.length, self.page_bytes, below);
        for (start, size) in found {
            let purges = self.purges;
            self.holes
                .insert(start, Hole { start, size, node, purges, is_freed: false, is_rest: false });
        }
        self.searched.insert(key, below.max(from));
    }

    /// What was passed over and came from no pool later, by rising address.
    pub(super) fn take_holes(&mut self) -> Vec<Hole> {
        let standing = std::mem::take(&mut self.holes).into_values();
        let mut holes: Vec<Hole> = standing.chain(std::mem::take(&mut self.freed)).collect();
        holes.sort_unstable_by_key(|hole| hole.start);
        holes
    }
}
