//! A fixed batch and a fixed limit.

use std::sync::Arc;

use super::{Entry, PerCpu, PerCpuPolicy, Pressure, batch_blocks};
use crate::machine::ZoneSpan;
use crate::policy::Param;

pub(super) const ENTRY: Entry<dyn PerCpuPolicy> = Entry {
    name: "percpu-fixed",
    help: "Lists move a fixed batch at a time and drain one at a fixed limit.",
    source: "zone_batchsize and six batches, 5.13 and older; vm.percpu_pagelist_high_fraction",
    params: &[
        Param { name: "batch", default: "the zone's", help: "pages moved at once, 1 to 65536" },
        Param { name: "high", default: "6 * batch", help: "pages a processor keeps, 0 to 2^32" },
    ],
    make: |params, _| {
        let batch = params.number("batch", 1..=65_536)?.map(|batch| batch as i64);
        let high = params.number("high", 0..=1 << 32)?.map(|high| high as i64);
        Ok(Arc::new(Fixed { batch, high }))
    },
};

#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) batch: Option<i64>,
    pub(super) high: Option<i64>,
}

impl PerCpuPolicy for Fixed {
    fn limits(&self, told: PerCpu, _zone: &ZoneSpan, _cpus: usize) -> PerCpu {
        let batch = self.batch.unwrap_or(told.batch);
        let high = self.high.unwrap_or(batch * 6);
        PerCpu { batch, high, high_min: high, high_max: high, ..told }
    }

    fn refill_blocks(&self, pcp: &mut PerCpu, order: u8, _pressure: Pressure) -> i64 {
        batch_blocks(pcp.batch, order)
    }

    fn freed(&self, pcp: &mut PerCpu, _order: u8, _pressure: Pressure) -> Option<i64> {
        (pcp.count >= pcp.high).then_some(pcp.batch)
    }
}
