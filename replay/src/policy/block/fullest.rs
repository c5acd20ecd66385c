//! The block whose pageblock has least free.

use std::sync::Arc;

use super::{BlockPolicy, Entry, FreeList, View};
use crate::policy::Param;

pub(super) const ENTRY: Entry<dyn BlockPolicy> = Entry {
    name: "fullest-pageblock-first",
    help: "Of the first blocks of the list, the one whose pageblock has the fewest free pages.",
    source: "packing: fullest first, as SLUB and LLFree (USENIX ATC 2023) choose their blocks",
    params: &[Param {
        name: "scan",
        default: "32",
        help: "blocks of the list looked at, 1 to 4096",
    }],
    make: |params, _| {
        let scan = params.number("scan", 1..=4096)?.unwrap_or(32) as usize;
        Ok(Arc::new(FullestFirst { scan }))
    },
};

#[derive(Debug)]
struct FullestFirst {
    scan: usize,
}

impl BlockPolicy for FullestFirst {
    fn takes_head(&self) -> bool {
        false
    }

    fn choose(&self, view: &View<'_>, list: FreeList) -> Option<(u32, u64)> {
        let mut looked = 0;
        let best = view
            .blocks(list.zone, list.order, list.migrate)
            .take(self.scan)
            .inspect(|_| looked += 1)
            .enumerate()
            .min_by_key(|(place, block)| (view.free_in_block(*block), *place));
        best.map(|(_, block)| (block, looked))
    }
}
