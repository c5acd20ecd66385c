//! The lowest zone first.

use std::sync::Arc;

use super::{Entry, PlacementPolicy};
use crate::machine::Machine;

pub(super) const ENTRY: Entry<dyn PlacementPolicy> = Entry {
    name: "lowest-zone-first",
    help: "From the lowest zone up, as far as watermarks and reserves allow.",
    source: "the kernel's order turned round: what its order saves the low zones from",
    params: &[],
    make: |_, _| Ok(Arc::new(LowestFirst)),
};

#[derive(Debug)]
struct LowestFirst;

impl PlacementPolicy for LowestFirst {
    fn zonelist(&self, machine: &Machine) -> Vec<usize> {
        let zones = &machine.zones;
        let mut list: Vec<usize> = (0..zones.len()).collect();
        list.sort_by_key(|&zone| (zones[zone].node, zones[zone].index));
        list
    }
}
