//! Watermarks, reserves and per-CPU list limits as the kernel computes them from a zone's size.
//!
//! `__setup_per_zone_wmarks`, `setup_per_zone_lowmem_reserve`, `zone_batchsize`, `zone_highsize`
//! (`mm/page_alloc.c`, 5.14 to 6.18). Pages throughout; divisions truncate as the kernel's do.

use crate::machine::Machine;
use crate::model::{Start, Watermarks};
use crate::policy::percpu::PerCpu;
use crate::rules::{PcpHigh, Rules};

/// `vm.watermark_scale_factor` when nobody set it.
pub const SCALE_FACTOR: u64 = 10;

/// Watermarks of a zone: its share of `min_free_pages`, and gaps of a quarter of that or of
/// `scale_factor` ten-thousandths of the zone, whichever is more.
#[must_use]
pub fn watermarks(
    managed: u64,
    all_managed: u64,
    min_free_pages: u64,
    scale_factor: u64,
) -> Watermarks {
    let share = (min_free_pages * managed).checked_div(all_managed).unwrap_or(0);
    let gap = (share / 4).max(managed * scale_factor / 10_000);
    Watermarks { min: share, low: share + gap, high: share + 2 * gap, boost: 0 }
}

/// Pages moved at once between a per-CPU list and the buddy lists (`zone_batchsize`).
#[must_use]
pub fn batch(managed: u64) -> u64 {
    let quarter = ((managed / 1024).min(256) / 4).max(1);
    let power = (quarter + quarter / 2).checked_ilog2().map_or(1, |log| 1u64 << log);
    (power - 1).max(1)
}

/// The limits `high_min` and `high_max` of a per-CPU list for a zone shared by that many
/// processors; both are equal before 6.7 (`zone_highsize`).
#[must_use]
pub fn high(managed: u64, low: u64, cpus: u64, rules: &Rules) -> (u64, u64) {
    let (batch, cpus) = (batch(managed), cpus.max(1));
    let least = (batch * 4).max(low / cpus);
    match rules.pcp_high {
        PcpHigh::SixBatches => (batch * 6, batch * 6),
        PcpHigh::LowWatermark => (least, least),
        PcpHigh::Auto => (least, (batch * 4).max(managed / 8 / cpus)),
    }
}

impl Start {
    /// The numbers of a machine that was just booted: for machines that no recording describes.
    #[must_use]
    pub fn computed(machine: &Machine, min_free_pages: u64) -> Self {
        let all = machine.zones.iter().map(|zone| zone.managed).sum();
        let mut start = Self { cpus: machine.cpus, boost_factor: 15_000, ..Self::default() };
        for zone in &machine.zones {
            let marks = watermarks(zone.managed, all, min_free_pages, SCALE_FACTOR);
            let (least, most) = high(zone.managed, marks.low, machine.cpus as u64, &machine.rules);
            for _ in 0..machine.cpus {
                start.pcps.push(PerCpu {
                    high: least as i64,
                    high_min: least as i64,
                    high_max: most as i64,
                    batch: batch(zone.managed) as i64,
                    ..PerCpu::default()
                });
            }
            start.marks.push(marks);
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Managed pages of DMA, DMA32 and Normal, and what a 6.18 kernel printed for them in
    /// /proc/zoneinfo with min_free_kbytes 67584 (16896 pages) and two processors.
    #[test]
    fn watermarks_equal_those_of_a_running_kernel() {
        let cases: [([u64; 3], [[u64; 3]; 3]); 3] = [
            (
                [3840, 772_917, 393_216],
                [[55, 68, 81], [11_161, 13_951, 16_741], [5678, 7097, 8516]],
            ),
            (
                [3840, 772_917, 3_342_336],
                [[15, 18, 21], [3170, 3962, 4754], [13_709, 17_136, 20_563]],
            ),
            (
                [3840, 772_917, 4_718_592],
                [[11, 14, 17], [2376, 3148, 3920], [14_507, 19_225, 23_943]],
            ),
        ];
        for (managed, expected) in cases {
            let all = managed.iter().sum();
            for (managed, [min, low, high]) in managed.iter().zip(expected) {
                let marks = watermarks(*managed, all, 16_896, SCALE_FACTOR);
                assert_eq!((marks.min, marks.low, marks.high), (min, low, high));
            }
        }
    }

    #[test]
    fn list_limits_equal_those_of_a_running_kernel() {
        let rules = Rules::of("6.18");
        assert_eq!(batch(3840), 1);
        assert_eq!(batch(772_917), 63);
        assert_eq!(batch(0), 1);
        assert_eq!(high(4_718_592, 19_225, 2, &rules), (9612, 294_912));
        assert_eq!(high(772_917, 3148, 2, &rules), (1574, 48_307));
        assert_eq!(high(3840, 14, 2, &rules), (7, 240));
        assert_eq!(high(589_824, 9115, 2, &rules), (4557, 36_864));
        assert_eq!(high(589_824, 9115, 2, &Rules::of("6.6")), (4557, 4557));
        assert_eq!(high(589_824, 9115, 2, &Rules::of("5.10")), (378, 378));
    }
}
