//! No per-CPU lists.

use std::sync::Arc;

use super::{Entry, PerCpu, PerCpuPolicy, Pressure};

pub(super) const ENTRY: Entry<dyn PerCpuPolicy> = Entry {
    name: "percpu-off",
    help: "Every block comes from the buddy lists and goes back to them at once.",
    source: "zone_pcp_disable, 5.12 to 6.18",
    params: &[],
    make: |_, _| Ok(Arc::new(Off)),
};

#[derive(Debug)]
struct Off;

impl PerCpuPolicy for Off {
    fn is_on(&self) -> bool {
        false
    }

    fn refill_blocks(&self, _pcp: &mut PerCpu, _order: u8, _pressure: Pressure) -> i64 {
        1
    }

    fn freed(&self, _pcp: &mut PerCpu, _order: u8, _pressure: Pressure) -> Option<i64> {
        None
    }
}
