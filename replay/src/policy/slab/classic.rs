//! The allocator that SLUB replaced.

use std::sync::Arc;

use super::{Begin, Entry, Host, START, SlabLayer, SlabPolicy, begin_of};
use crate::slab::classic::Classic;

pub(super) const ENTRY: Entry<dyn SlabLayer> = Entry {
    name: "slab",
    help: "Classic SLAB: arrays of objects a processor, shared arrays, a reaper every two seconds.",
    source: "mm/slab.c, 6.1",
    params: &[START],
    make: |params, _| Ok(Arc::new(ClassicSlab(begin_of(params)?))),
};

#[derive(Debug)]
struct ClassicSlab(Begin);

impl SlabLayer for ClassicSlab {
    fn make(&self, host: &Host) -> Box<dyn SlabPolicy> {
        Box::new(Classic::new(host.cpus, host.page_bytes, self.0))
    }
}
