//! The block with the lowest address.

use std::sync::Arc;

use super::{BlockPolicy, Entry, FreeList, View};

pub(super) const ENTRY: Entry<dyn BlockPolicy> = Entry {
    name: "lowest-address",
    help: "The block with the lowest address of the smallest order that serves.",
    source: "address-ordered best fit (Wilson et al., Dynamic Storage Allocation, 1995)",
    params: &[],
    make: |_, _| Ok(Arc::new(LowestAddress)),
};

#[derive(Debug)]
struct LowestAddress;

impl BlockPolicy for LowestAddress {
    fn takes_head(&self) -> bool {
        false
    }

    fn by_address(&self) -> bool {
        true
    }

    fn choose(&self, view: &View<'_>, list: FreeList) -> Option<(u32, u64)> {
        view.lowest(list.zone, list.order, list.migrate).map(|block| (block, 1))
    }
}
