//! How much memory is kept back.

use std::fmt::Debug;
use std::sync::Arc;

use super::Entry;
use crate::machine::Machine;
use crate::model::Watermarks;

mod sysctl;

/// Decides on watermarks and reserves.
pub trait WatermarkPolicy: Debug + Send + Sync {
    /// A zone's watermarks: `told` are the recorded kernel's. `managed` are the pages of each zone
    /// by now.
    fn watermarks(
        &self,
        told: Watermarks,
        _zone: usize,
        _machine: &Machine,
        _managed: &[u64],
    ) -> Watermarks {
        told
    }

    /// Pages kept back in a zone from requests that could use a higher one, by that zone's index:
    /// `told` are the recorded kernel's (`lowmem_reserve`).
    fn reserve(&self, told: &[u64], _zone: usize, _machine: &Machine) -> Vec<u64> {
        told.to_vec()
    }

    /// Ten-thousandths of the high watermark that a boost may reach.
    fn boost_factor(&self, told: u64) -> u64 {
        told
    }
}

/// As the recorded kernel's sysctls were.
#[derive(Debug)]
struct Recorded;

impl WatermarkPolicy for Recorded {}

pub(super) fn baseline() -> Arc<dyn WatermarkPolicy> {
    Arc::new(Recorded)
}

/// Every watermark policy.
pub const ALL: &[Entry<dyn WatermarkPolicy>] = &[
    Entry {
        name: "recorded-watermarks",
        help: "The watermarks and reserves that the recorded kernel told.",
        source: "/proc/zoneinfo and mm_setup_per_zone_wmarks",
        params: &[],
        make: |_, _| Ok(baseline()),
    },
    sysctl::ENTRY,
];
