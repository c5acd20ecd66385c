//! Watermarks under other settings.

use std::sync::Arc;

use super::{Entry, WatermarkPolicy};
use crate::limits;
use crate::machine::Machine;
use crate::model::Watermarks;
use crate::policy::Param;

pub(super) const ENTRY: Entry<dyn WatermarkPolicy> = Entry {
    name: "sysctl",
    help: "Watermarks and reserves under other settings; `vm.NAME=VALUE` means the same.",
    source: "__setup_per_zone_wmarks, setup_per_zone_lowmem_reserve, boost_watermark, 5.10 to 6.18",
    params: &[
        Param { name: "min_free_kbytes", default: "recorded", help: "kibibytes, 128 to 2^32" },
        Param {
            name: "watermark_scale_factor",
            default: "recorded",
            help: "ten-thousandths of a zone between two watermarks, 1 to 3000",
        },
        Param {
            name: "watermark_boost_factor",
            default: "recorded",
            help: "ten-thousandths of the high watermark, 0 (off) to 100000",
        },
        Param {
            name: "lowmem_reserve_ratio",
            default: "recorded",
            help: "a ratio a zone, lowest first, with slashes: 256/256/32",
        },
    ],
    make: |params, _| {
        Ok(Arc::new(Sysctl {
            min_free_pages: params.number("min_free_kbytes", 128..=1 << 32)?.map(|kib| kib / 4),
            scale_factor: params.number("watermark_scale_factor", 1..=3000)?,
            boost_factor: params.number("watermark_boost_factor", 0..=100_000)?,
            reserve_ratio: params.numbers("lowmem_reserve_ratio")?,
        }))
    },
};

#[derive(Debug)]
struct Sysctl {
    min_free_pages: Option<u64>,
    scale_factor: Option<u64>,
    boost_factor: Option<u64>,
    reserve_ratio: Option<Vec<u64>>,
}

/// `ZONE_MOVABLE` has watermarks of its own.
const MOVABLE: u8 = 3;

impl WatermarkPolicy for Sysctl {
    fn watermarks(
        &self,
        told: Watermarks,
        zone: usize,
        machine: &Machine,
        managed: &[u64],
    ) -> Watermarks {
        if self.min_free_pages.is_none() && self.scale_factor.is_none() {
            return told;
        }
        let pages = managed.get(zone).copied().unwrap_or(0);
        let is_low = |index: usize| machine.zones.get(index).is_some_and(|z| z.index < MOVABLE);
        let all: u64 =
            managed.iter().enumerate().filter(|(index, _)| is_low(*index)).map(|(_, n)| n).sum();
        let least = match self.min_free_pages {
            _ if !is_low(zone) => told.min,
            Some(min_free) => limits::watermarks(pages, all, min_free, 0).min,
            None => told.min,
        };
        let scale = self.scale_factor.unwrap_or_else(|| {
            // What the recorded gap says, where it is not just a quarter of the low mark's base.
            let gap = told.low.saturating_sub(told.min);
            let is_scaled = gap > told.min / 4 && pages > 0;
            if is_scaled { (gap * 10_000).div_ceil(pages) } else { limits::SCALE_FACTOR }
        });
        let gap = (least / 4).max(pages * scale / 10_000);
        Watermarks { min: least, low: least + gap, high: least + 2 * gap, boost: told.boost }
    }

    fn reserve(&self, told: &[u64], zone: usize, machine: &Machine) -> Vec<u64> {
        let Some(ratios) = &self.reserve_ratio else { return told.to_vec() };
        let own = &machine.zones[zone];
        let ratio = ratios.get(usize::from(own.index)).copied().unwrap_or(0);
        let above = |index: usize| -> u64 {
            let between = |other: &&crate::machine::ZoneSpan| {
                other.node == own.node
                    && other.index > own.index
                    && usize::from(other.index) <= index
            };
            machine.zones.iter().filter(between).map(|other| other.managed).sum()
        };
        let reserve = |index| above(index).checked_div(ratio).unwrap_or(0);
        (0..told.len()).map(|index| if own.managed == 0 { 0 } else { reserve(index) }).collect()
    }

    fn boost_factor(&self, told: u64) -> u64 {
        self.boost_factor.unwrap_or(told)
    }
}
