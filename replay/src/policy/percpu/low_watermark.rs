//! 5.14 to 6.6: a fixed limit, the low watermark's share; drains that double while frees last.

use std::sync::Arc;

use super::{Entry, PerCpu, PerCpuPolicy, Pressure, SCALE_MAX, batch_blocks, is_high_order};
use crate::machine::ZoneSpan;
use crate::rules::{FreeHigh, Rules};

pub(super) const ENTRY: Entry<dyn PerCpuPolicy> = Entry {
    name: "percpu-low-watermark",
    help: "A fixed limit, the low watermark shared by the processors; drains double while frees \
           last.",
    source: "zone_highsize, nr_pcp_high, nr_pcp_free, 5.14 to 6.6",
    params: &[],
    make: |_, rules| Ok(Arc::new(LowWatermark::of(rules))),
};

#[derive(Debug)]
pub(super) struct LowWatermark {
    /// A free of order 1 to 3 while frees last drains everything (5.18 to 6.6).
    high_orders_at_once: bool,
}

impl LowWatermark {
    pub(super) fn of(rules: &Rules) -> Self {
        Self { high_orders_at_once: rules.free_high != FreeHigh::Never }
    }

    /// Pages to drain (`nr_pcp_free`).
    fn drain_pages(pcp: &mut PerCpu, high: i64, free_high: bool) -> i64 {
        if free_high {
            return pcp.count;
        }
        if high < pcp.batch {
            return 1;
        }
        let most = high - pcp.batch;
        let scaled = pcp.batch << pcp.free_factor;
        if scaled < most && pcp.free_factor < SCALE_MAX {
            pcp.free_factor += 1;
        }
        scaled.clamp(pcp.batch, most.max(pcp.batch))
    }
}

impl PerCpuPolicy for LowWatermark {
    fn limits(&self, told: PerCpu, _zone: &ZoneSpan, _cpus: usize) -> PerCpu {
        PerCpu { high: told.high_min, high_max: told.high_min, ..told }
    }

    fn refill_blocks(&self, pcp: &mut PerCpu, order: u8, _pressure: Pressure) -> i64 {
        batch_blocks(pcp.batch, order)
    }

    fn freed(&self, pcp: &mut PerCpu, order: u8, pressure: Pressure) -> Option<i64> {
        let free_high = self.high_orders_at_once && is_high_order(order) && pcp.free_factor > 0;
        pcp.note_free(order);
        let high = if pcp.high == 0 || free_high {
            0
        } else if pressure.reclaiming {
            (pcp.batch << 2).min(pcp.high)
        } else {
            pcp.high
        };
        (pcp.count >= high).then(|| Self::drain_pages(pcp, high, free_high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drains_double_and_an_allocation_halves_them() {
        // nr_pcp_free, 6.1: batch << free_factor, halved by rmqueue_pcplist.
        let policy = LowWatermark { high_orders_at_once: true };
        let calm = Pressure::default();
        let mut pcp = PerCpu { count: 5000, high: 4557, batch: 63, ..PerCpu::default() };
        let drains: Vec<_> = (0..7).map(|_| policy.freed(&mut pcp, 0, calm)).collect();
        assert_eq!(drains, [63, 126, 252, 504, 1008, 2016, 2016].map(Some));
        policy.allocated(&mut pcp);
        assert_eq!(policy.freed(&mut pcp, 0, calm), Some(252));
        // free_high: everything.
        assert_eq!(policy.freed(&mut pcp, 2, calm), Some(5000));
        // ZONE_RECLAIM_ACTIVE: four batches are the limit.
        pcp.count = 300;
        pcp.free_factor = 0;
        assert_eq!(policy.freed(&mut pcp, 0, calm), None);
        let reclaiming = Pressure { reclaiming: true, below_high: false };
        assert_eq!(policy.freed(&mut pcp, 0, reclaiming), Some(63));
    }
}
