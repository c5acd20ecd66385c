//! The zone with the most free memory first.

use std::sync::Arc;

use super::{Entry, PlacementPolicy, View};

pub(super) const ENTRY: Entry<dyn PlacementPolicy> = Entry {
    name: "freest-zone-first",
    help: "The zone of the node that has most free pages above its low watermark, each time.",
    source: "the zone fairness that 4.8 removed, taken to its end",
    params: &[],
    make: |_, _| Ok(Arc::new(FreestFirst)),
};

#[derive(Debug)]
struct FreestFirst;

impl PlacementPolicy for FreestFirst {
    fn is_dynamic(&self) -> bool {
        true
    }

    fn rank(&self, view: &View<'_>, zones: &mut [usize]) {
        zones.sort_by_key(|&zone| {
            let above = view.free_pages(zone).saturating_sub(view.watermarks(zone).low);
            (view.machine().zones[zone].node, std::cmp::Reverse(above), zone)
        });
    }
}
