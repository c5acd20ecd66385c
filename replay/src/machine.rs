//! The recorded machine as the replay needs it: zones by page frame, processors, list geometry.

use kmemlab_trace::manifest::Manifest;
use kmemlab_trace::unit::{Migrate, NodeId};

use crate::rules::Rules;

/// A zone's place and numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneSpan {
    /// NUMA node.
    pub node: NodeId,
    /// Name, as `/proc/buddyinfo` prints it.
    pub name: String,
    /// First page frame.
    pub start: u32,
    /// First page frame after the zone.
    pub end: u32,
    /// Pages managed by the page allocator when the recording began.
    pub managed: u64,
    /// Extra pages kept back from requests that could use a higher zone, by that zone.
    pub protection: Vec<u64>,
    /// Position in the kernel's zone order (DMA 0, DMA32 1, Normal 2, Movable 3).
    pub index: u8,
}

/// Why a recording cannot be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoMachine(pub String);

impl std::fmt::Display for NoMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoMachine {}

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Populated zones, by node and then by rising address.
    pub zones: Vec<ZoneSpan>,
    /// One more than the highest processor number.
    pub cpus: usize,
    /// Orders of the buddy lists: 0 to `orders - 1`.
    pub orders: u8,
    /// Order of a pageblock.
    pub block_order: u8,
    /// Number of migrate types.
    pub types: u8,
    /// First page frame after all zones.
    pub end: u32,
    /// What the kernel's release does differently.
    pub rules: Rules,
}

/// Largest machine that page links and bindings of 32 bits can hold: 8 TiB of 4 KiB pages.
const MAX_PFN: u64 = (1 << 31) - 2;

impl Machine {
    /// The machine a recording was made on.
    pub fn of(manifest: &Manifest, rules: Rules) -> Result<Self, NoMachine> {
        let host = &manifest.host;
        let bad = |why: String| Err(NoMachine(why));
        if !(2..=15).contains(&host.orders) || host.pageblock_order >= host.orders {
            return bad(format!(
                "the manifest tells of {} orders and pageblocks of order {}; record again with this version",
                host.orders, host.pageblock_order
            ));
        }
        let mut zones = Vec::new();
        for zone in &host.zones {
            if zone.spanned_pages == 0 || zone.present_pages == 0 {
                continue;
            }
            let end = zone.start_pfn.saturating_add(zone.spanned_pages);
            if end > MAX_PFN {
                return bad(format!("zone {} ends at pfn {end}, beyond 8 TiB", zone.name));
            }
            zones.push(ZoneSpan {
                node: NodeId(zone.node),
                name: zone.name.clone(),
                start: zone.start_pfn as u32,
                end: end as u32,
                managed: zone.managed_pages,
                protection: zone.protection_pages.clone(),
                index: zone_index(&zone.name),
            });
        }
        if zones.is_empty() {
            return bad("the manifest tells of no zone with pages; record again".to_owned());
        }
        zones.sort_by_key(|zone| (zone.node, zone.start));
        let highest_cpu = host.cpus.iter().copied().max().unwrap_or(0);
        let end = zones.iter().map(|zone| zone.end).max().unwrap_or(0);
        Ok(Self {
            zones,
            cpus: usize::from(highest_cpu) + 1,
            orders: host.orders,
            block_order: host.pageblock_order,
            types: (host.migrate_types.len().clamp(4, 15)) as u8,
            end,
            rules,
        })
    }

    /// The zone of that node and name.
    #[must_use]
    pub fn zone(&self, node: NodeId, name: &str) -> Option<usize> {
        self.zones.iter().position(|zone| zone.node == node && zone.name == name)
    }

    /// Lists of one per-CPU page set.
    #[must_use]
    pub fn pcp_lists(&self) -> usize {
        let types = usize::from(Migrate::HIGHATOMIC.0);
        let small = types * (usize::from(self.rules.pcp_max_order) + 1);
        small + usize::from(self.rules.pcp_huge_lists)
    }

    /// The per-CPU list for an order and type (`order_to_pindex`); `None` for orders that are not
    /// kept per CPU.
    #[must_use]
    #[inline]
    pub fn pcp_list(&self, order: u8, migrate: u8) -> Option<usize> {
        let types = usize::from(Migrate::HIGHATOMIC.0);
        if order <= self.rules.pcp_max_order {
            return Some(types * usize::from(order) + usize::from(pcp_type(migrate)));
        }
        if order != self.block_order {
            return None;
        }
        let first = types * (usize::from(self.rules.pcp_max_order) + 1);
        match self.rules.pcp_huge_lists {
            0 => None,
            1 => Some(first),
            2 => Some(first + usize::from(pcp_type(migrate) == Migrate::MOVABLE.0)),
            _ => Some(first + usize::from(pcp_type(migrate))),
        }
    }

    /// The migrate type of a per-CPU list; of the two huge ones the first is for all but movable.
    #[must_use]
    pub fn pcp_list_type(&self, list: usize) -> u8 {
        let types = usize::from(Migrate::HIGHATOMIC.0);
        let small = types * (usize::from(self.rules.pcp_max_order) + 1);
        if list < small { (list % types) as u8 } else { (list - small) as u8 }
    }

    /// The order of the blocks on a per-CPU list (`pindex_to_order`).
    #[must_use]
    #[inline]
    pub fn pcp_list_order(&self, list: usize) -> u8 {
        let types = usize::from(Migrate::HIGHATOMIC.0);
        let order = list / types;
        if order <= usize::from(self.rules.pcp_max_order) { order as u8 } else { self.block_order }
    }
}

/// Special types have no per-CPU lists: their blocks wait among the MOVABLE ones
/// (`free_frozen_pages`).
fn pcp_type(migrate: u8) -> u8 {
    if migrate < Migrate::HIGHATOMIC.0 { migrate } else { Migrate::MOVABLE.0 }
}

/// The kernel's number of a zone on x86-64 and arm64, by name.
fn zone_index(name: &str) -> u8 {
    match name {
        "DMA" => 0,
        "DMA32" => 1,
        "Movable" => 3,
        "Device" => 4,
        _ => 2,
    }
}
