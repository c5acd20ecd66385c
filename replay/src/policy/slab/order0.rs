//! Slabs of one page.

use std::sync::Arc;

use super::{Begin, Entry, Host, START, SlabLayer, SlabPolicy, begin_of};
use crate::slab::geometry::Parameters;
use crate::slab::slub::{Slub, Tuning};

pub(super) const ENTRY: Entry<dyn SlabLayer> = Entry {
    name: "slub-order0",
    help: "SLUB with slabs of one page; larger objects get the least order that holds one.",
    source: "slab_max_order=0",
    params: &[START],
    make: |params, _| Ok(Arc::new(Order0(begin_of(params)?))),
};

#[derive(Debug)]
struct Order0(Begin);

impl SlabLayer for Order0 {
    fn make(&self, host: &Host) -> Box<dyn SlabPolicy> {
        let usual = Parameters::of_host(host.page_bytes, host.cpus as u32);
        let geometry = Some(Parameters { max_order: 0, ..usual });
        Box::new(Slub::new(
            host.cpus,
            host.rules,
            Tuning { geometry, begin: self.0, ..Tuning::default() },
        ))
    }
}
