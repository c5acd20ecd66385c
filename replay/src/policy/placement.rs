//! In which order a request looks at the zones.

use std::fmt::Debug;
use std::sync::Arc;

use super::{Entry, View};
use crate::machine::Machine;

mod freest;
mod lowest;

/// Orders the zones.
pub trait PlacementPolicy: Debug + Send + Sync {
    /// The zones in the order that requests look at them; those too high for a request are passed
    /// over. The kernel's: the first node's from the highest down, then the other nodes'
    /// (`build_zonelists`). No event tells on which node a processor is.
    fn zonelist(&self, machine: &Machine) -> Vec<usize> {
        let zones = &machine.zones;
        let mut list: Vec<usize> = (0..zones.len()).collect();
        list.sort_by_key(|&zone| (zones[zone].node, std::cmp::Reverse(zones[zone].index)));
        list
    }

    /// Whether [`Self::rank`] is to be asked at every request.
    fn is_dynamic(&self) -> bool {
        false
    }

    /// Orders the zones anew for one request.
    fn rank(&self, _view: &View<'_>, _zones: &mut [usize]) {}
}

/// As the kernel does.
#[derive(Debug)]
struct Kernel;

impl PlacementPolicy for Kernel {}

pub(super) fn baseline() -> Arc<dyn PlacementPolicy> {
    Arc::new(Kernel)
}

/// Every placement policy.
pub const ALL: &[Entry<dyn PlacementPolicy>] = &[
    Entry {
        name: "highest-zone-first",
        help: "From the highest zone that the request allows down, node by node.",
        source: "build_zonelists, 5.10 to 6.18",
        params: &[],
        make: |_, _| Ok(baseline()),
    },
    lowest::ENTRY,
    freest::ENTRY,
];
