//! SLUB with other parameters.

use std::sync::Arc;

use super::{Begin, Entry, Host, START, SlabLayer, SlabPolicy, begin_of};
use crate::policy::Param;
use crate::slab::geometry::Parameters;
use crate::slab::slub::{Slub, Tuning};

pub(super) const ENTRY: Entry<dyn SlabLayer> = Entry {
    name: "slub-tuned",
    help: "SLUB with other parameters; slabs are cut anew when an order or min_objects is given.",
    source: "slab_min_order, slab_max_order, slab_min_objects; cpu_partial, \
             min_partial in sysfs",
    params: &[
        Param { name: "min_order", default: "0", help: "least order of a slab, 0 to 10" },
        Param { name: "max_order", default: "3", help: "largest order looked for, 0 to 10" },
        Param {
            name: "min_objects",
            default: "by processors",
            help: "objects wanted in a slab, 1 to 32767",
        },
        Param {
            name: "cpu_partial",
            default: "by size",
            help: "objects in a processor's partial slabs, 0 to 65535",
        },
        Param {
            name: "min_partial",
            default: "by size",
            help: "empty slabs kept by a node, 0 to 65535",
        },
        START,
        Param { name: "sheaves", default: "recorded", help: "no: without sheaves" },
        Param {
            name: "merging",
            default: "recorded",
            help: "no: merged caches apart, told by their callers (slab_nomerge)",
        },
    ],
    make: |params, _| {
        let small = |key, most| {
            params.number(key, 0..=most).map(|number| number.map(|number| number as u32))
        };
        let (min_order, max_order) = (small("min_order", 10)?, small("max_order", 10)?);
        let min_objects = params.number("min_objects", 1..=32_767)?.map(|number| number as u32);
        Ok(Arc::new(Tuned {
            min_order: min_order.map(|order| order as u8),
            max_order: max_order.map(|order| order as u8),
            min_objects,
            cpu_partial: small("cpu_partial", 65_535)?,
            min_partial: small("min_partial", 65_535)?,
            begin: begin_of(params)?,
            no_sheaves: params.truth("sheaves")? == Some(false),
            is_unmerged: params.truth("merging")? == Some(false),
        }))
    },
};

#[derive(Debug)]
struct Tuned {
    min_order: Option<u8>,
    max_order: Option<u8>,
    min_objects: Option<u32>,
    cpu_partial: Option<u32>,
    min_partial: Option<u32>,
    no_sheaves: bool,
    begin: Begin,
    is_unmerged: bool,
}

impl SlabLayer for Tuned {
    fn is_unmerged(&self) -> bool {
        self.is_unmerged
    }

    fn make(&self, host: &Host) -> Box<dyn SlabPolicy> {
        let is_cut_anew =
            self.min_order.is_some() || self.max_order.is_some() || self.min_objects.is_some();
        let usual = Parameters::of_host(host.page_bytes, host.cpus as u32);
        let min_order = self.min_order.unwrap_or(usual.min_order);
        let geometry = is_cut_anew.then_some(Parameters {
            min_order,
            max_order: self.max_order.unwrap_or(usual.max_order).max(min_order),
            min_objects: self.min_objects.unwrap_or(usual.min_objects),
            ..usual
        });
        let tuning = Tuning {
            geometry,
            cpu_partial: self.cpu_partial,
            min_partial: self.min_partial,
            fullest_first: false,
            no_sheaves: self.no_sheaves,
            begin: self.begin,
        };
        Box::new(Slub::new(host.cpus, host.rules, tuning))
    }
}
