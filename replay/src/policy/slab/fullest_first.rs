//! The fullest partial slab first.

use std::sync::Arc;

use super::{Entry, Host, SlabLayer, SlabPolicy};
use crate::slab::slub::{Slub, Tuning};

pub(super) const ENTRY: Entry<dyn SlabLayer> = Entry {
    name: "slub-fullest-first",
    help: "SLUB that takes the fullest of the node's partial slabs, so that the others can empty.",
    source: "the order that __kmem_cache_do_shrink makes, kept at all times",
    params: &[],
    make: |_, _| Ok(Arc::new(FullestFirst)),
};

#[derive(Debug)]
struct FullestFirst;

impl SlabLayer for FullestFirst {
    fn make(&self, host: &Host) -> Box<dyn SlabPolicy> {
        let tuning = Tuning { fullest_first: true, ..Tuning::default() };
        Box::new(Slub::new(host.cpus, host.rules, tuning))
    }
}
