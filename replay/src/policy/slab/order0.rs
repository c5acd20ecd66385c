//! Slabs of one page.

use std::sync::Arc;

use super::{Entry, Host, SlabLayer, SlabPolicy};
use crate::slab::geometry::Parameters;
use crate::slab::slub::{Slub, Tuning};

pub(super) const ENTRY: Entry<dyn SlabLayer> = Entry {
    name: "slub-order0",
    help: "SLUB with slabs of one page; larger objects get the least order that holds one.",
    source: "slab_max_order=0",
    params: &[],
    make: |_, _| Ok(Arc::new(Order0)),
};

#[derive(Debug)]
struct Order0;

impl SlabLayer for Order0 {
    fn make(&self, host: &Host) -> Box<dyn SlabPolicy> {
        let usual = Parameters::of_host(host.page_bytes, host.cpus as u32);
        let geometry = Some(Parameters { max_order: 0, ..usual });
        Box::new(Slub::new(host.cpus, host.rules, Tuning { geometry, ..Tuning::default() }))
    }
}
