//! The allocator of small machines.

use std::sync::Arc;

use super::{Begin, Entry, Host, START, SlabLayer, SlabPolicy, begin_of};
use crate::slab::slob::Slob;

pub(super) const ENTRY: Entry<dyn SlabLayer> = Entry {
    name: "slob",
    help: "SLOB: first fit in lists of pages that all caches share, an empty page goes back at once.",
    source: "mm/slob.c, 6.1",
    params: &[START],
    make: |params, _| Ok(Arc::new(SmallSlob(begin_of(params)?))),
};

#[derive(Debug)]
struct SmallSlob(Begin);

impl SlabLayer for SmallSlob {
    fn make(&self, host: &Host) -> Box<dyn SlabPolicy> {
        Box::new(Slob::new(host.page_bytes, self.0))
    }
}
