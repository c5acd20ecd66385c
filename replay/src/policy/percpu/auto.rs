//! 6.7 and later: limits between a least and a largest value, tuned by demand.

use std::sync::Arc;

use super::{Entry, PerCpu, PerCpuPolicy, Pressure, SCALE_MAX, is_high_order};
use crate::machine::ZoneSpan;
use crate::rules::{FreeHigh, Rules};

pub(super) const ENTRY: Entry<dyn PerCpuPolicy> = Entry {
    name: "percpu-auto",
    help: "Batches double while demand lasts, and the limit follows demand between the low \
           watermark's share and an eighth of the zone.",
    source: "nr_pcp_alloc, nr_pcp_high, nr_pcp_free, decay_pcp_high, 6.7 to 6.18",
    params: &[],
    make: |_, rules| Ok(Arc::new(Auto::of(rules))),
};

#[derive(Debug)]
pub(super) struct Auto {
    free_high: FreeHigh,
}

impl Auto {
    pub(super) fn of(rules: &Rules) -> Self {
        // What an older release's rule says of drains has no meaning here.
        let is_newest = rules.free_high == FreeHigh::BatchAndHalfMin;
        Self { free_high: if is_newest { rules.free_high } else { FreeHigh::Batch } }
    }

    /// The limit a free is held against (`nr_pcp_high`).
    fn limit(&self, pcp: &mut PerCpu, free_high: bool, pressure: Pressure) -> i64 {
        let (high, batch) = (pcp.high, pcp.batch);
        if high == 0 {
            return 0;
        }
        if free_high {
            pcp.high = (high - (batch << SCALE_MAX)).max(pcp.high_min);
            return 0;
        }
        let freed = pcp.free_count.max(batch);
        if pressure.reclaiming {
            pcp.high = (high - freed).max(pcp.high_min);
            return (batch << 2).min(pcp.high);
        }
        if pcp.high_min == pcp.high_max {
            return high;
        }
        if pressure.below_high {
            pcp.high = (high - freed).max(pcp.high_min);
            return pcp.count.max(pcp.high_min);
        }
        if pcp.count >= high {
            let wanted = pcp.free_count + batch;
            if pcp.high < wanted {
                pcp.high = wanted.clamp(pcp.high_min, pcp.high_max.max(pcp.high_min));
            }
        }
        high
    }

    /// Pages to drain (`nr_pcp_free`).
    fn drain_pages(pcp: &PerCpu, high: i64, free_high: bool) -> i64 {
        if free_high {
            return pcp.count.min(pcp.batch << SCALE_MAX);
        }
        if high < pcp.batch {
            return 1;
        }
        pcp.free_count.clamp(pcp.batch, (high - pcp.batch).max(pcp.batch))
    }
}

impl PerCpuPolicy for Auto {
    fn limits(&self, told: PerCpu, zone: &ZoneSpan, cpus: usize) -> PerCpu {
        // A kernel without tuning tells one limit: the largest is what it would be with it.
        let most = (told.batch * 4).max((zone.managed / 8) as i64 / cpus.max(1) as i64);
        let high_max = if told.high_max > told.high_min { told.high_max } else { most };
        PerCpu { high_max, ..told }
    }

    fn refill_blocks(&self, pcp: &mut PerCpu, order: u8, pressure: Pressure) -> i64 {
        let batch = pcp.batch;
        if pcp.high < batch {
            return 1;
        }
        let mut blocks = if order == 0 { batch << pcp.alloc_factor } else { batch };
        if pcp.high_min != pcp.high_max && !pressure.below_high {
            pcp.high = (pcp.high + blocks).min(pcp.high_max);
        }
        if order == 0 {
            let limit = (pcp.high - pcp.count - batch).max(batch);
            if blocks <= limit && pcp.alloc_factor < SCALE_MAX {
                pcp.alloc_factor += 1;
            }
            blocks = blocks.min(limit);
        }
        if blocks > 1 { (blocks >> order).max(2) } else { blocks }
    }

    fn freed(&self, pcp: &mut PerCpu, order: u8, pressure: Pressure) -> Option<i64> {
        let half_min = self.free_high == FreeHigh::BatchAndHalfMin;
        let wanted = pcp.batch + if half_min { pcp.high_min / 2 } else { 0 };
        let free_high = is_high_order(order) && pcp.freed_high_order && pcp.free_count >= wanted;
        pcp.note_free(order);
        let high = self.limit(pcp, free_high, pressure);
        (pcp.count >= high).then(|| Self::drain_pages(pcp, high, free_high))
    }

    fn decay(&self, pcp: &mut PerCpu) -> i64 {
        if pcp.high > pcp.high_min {
            pcp.high = (pcp.count - (pcp.batch << SCALE_MAX))
                .max(pcp.high - (pcp.high >> 3))
                .max(pcp.high_min);
        }
        pcp.count - pcp.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: Auto = Auto { free_high: FreeHigh::BatchAndHalfMin };
    const CALM: Pressure = Pressure { reclaiming: false, below_high: false };

    fn fresh() -> PerCpu {
        PerCpu { high: 9612, high_min: 9612, high_max: 294_912, batch: 63, ..PerCpu::default() }
    }

    #[test]
    fn refills_without_a_free_double_up_to_the_scale() {
        // nr_pcp_alloc, 6.18: 63, 126, ... 2016, and again 2016.
        let mut pcp = fresh();
        let sizes: Vec<i64> = (0..8).map(|_| AUTO.refill_blocks(&mut pcp, 0, CALM)).collect();
        assert_eq!(sizes, [63, 126, 252, 504, 1008, 2016, 2016, 2016]);
        pcp.alloc_factor >>= 1;
        assert_eq!(AUTO.refill_blocks(&mut pcp, 0, CALM), 252);
        assert_eq!(AUTO.refill_blocks(&mut pcp, 0, CALM), 504);
    }

    #[test]
    fn refills_of_higher_orders_share_one_batch() {
        for (order, blocks) in [(1, 31), (2, 15), (3, 7), (9, 2)] {
            let mut pcp = fresh();
            assert_eq!(AUTO.refill_blocks(&mut pcp, order, CALM), blocks, "order {order}");
            assert_eq!(pcp.high, 9612 + 63);
            assert_eq!(super::super::batch_blocks(63, order), blocks);
        }
    }

    #[test]
    fn a_free_drains_what_was_freed_lately_within_batch_and_limit() {
        // nr_pcp_free, 6.18.
        let mut pcp = fresh();
        pcp.free_count = 500;
        assert_eq!(Auto::drain_pages(&pcp, 9612, false), 500);
        pcp.free_count = 1;
        assert_eq!(Auto::drain_pages(&pcp, 9612, false), 63);
        pcp.count = 5000;
        assert_eq!(Auto::drain_pages(&pcp, 0, true), 2016);
        assert_eq!(Auto::drain_pages(&pcp, 10, false), 1);
    }
}
