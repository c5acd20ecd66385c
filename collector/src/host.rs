//! Facts of the host that a recording says once: kernel, processors, zones, migrate types,
//! settings.

#[cfg(test)]
mod tests;

use std::ops::Range;

use kmemlab_trace::snapshot::ZoneRow;
use kmemlab_trace::unit::{Cpu, NodeId, Order, Pfn};

use crate::error::{Error, ParseError};
use crate::proc::{buddyinfo, iomem, pagetypeinfo, zoneinfo};
use crate::root::Root;

/// `/proc/sys/vm` files to record; a `*` at the end stands for any ending. Missing ones are left
/// out.
const VM_SETTINGS: &[&str] = &[
    "admin_reserve_kbytes",
    "compact_unevictable_allowed",
    "compaction_proactiveness",
    "defrag_mode",
    "dirty_*",
    "extfrag_threshold",
    "laptop_mode",
    "lowmem_reserve_ratio",
    "min_free_kbytes",
    "min_slab_ratio",
    "min_unmapped_ratio",
    "nr_hugepages*",
    "nr_overcommit_hugepages",
    "numa_stat",
    "overcommit_*",
    "page-cluster",
    "percpu_pagelist_fraction",
    "percpu_pagelist_high_fraction",
    "stat_interval",
    "swappiness",
    "user_reserve_kbytes",
    "vfs_cache_pressure*",
    "watermark_boost_factor",
    "watermark_scale_factor",
    "zone_reclaim_mode",
];

/// Other settings: name and file.
const OTHER_SETTINGS: &[(&str, &str)] = &[
    ("kernel.kptr_restrict", "proc/sys/kernel/kptr_restrict"),
    ("kernel.perf_event_paranoid", "proc/sys/kernel/perf_event_paranoid"),
    ("transparent_hugepage.enabled", "sys/kernel/mm/transparent_hugepage/enabled"),
    ("transparent_hugepage.defrag", "sys/kernel/mm/transparent_hugepage/defrag"),
    ("lockdown", LOCKDOWN),
];

/// Where the lockdown state stands; absent also when securityfs is not mounted.
pub(crate) const LOCKDOWN: &str = "sys/kernel/security/lockdown";
/// Where the list of processors that run stands.
pub(crate) const ONLINE_CPUS: &str = "sys/devices/system/cpu/online";

const POSSIBLE_CPUS: &str = "sys/devices/system/cpu/possible";
const ONLINE_NODES: &str = "sys/devices/system/node/online";
const AUXV: &str = "proc/self/auxv";
const AT_PAGESZ: usize = 6;

/// The machine and its kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// `uname -n`.
    pub name: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// `uname -m`.
    pub architecture: String,
    /// The kernel's boot command line.
    pub kernel_command_line: String,
    /// Bytes of a page.
    pub page_size_bytes: u64,
    /// Number of orders: columns of `/proc/buddyinfo`.
    pub orders: u8,
    /// Order of a pageblock; `None` when `/proc/pagetypeinfo` may not be read.
    pub pageblock_order: Option<Order>,
    /// Migrate type names, by the kernel's numbers; empty when `/proc/pagetypeinfo` may not be
    /// read.
    pub migrate_types: Vec<String>,
    /// Processors that run.
    pub online_cpus: Vec<Cpu>,
    /// Processors that could ever run.
    pub possible_cpus: Vec<Cpu>,
    /// Nodes that are online.
    pub nodes: Vec<NodeId>,
    /// Every zone, empty ones too, by node and zone index. A node's zonelist is its populated zones
    /// in reverse.
    pub zones: Vec<Zone>,
    /// Pages that are memory, ascending; empty when the kernel hides `/proc/iomem`'s addresses.
    pub ram: Vec<Range<Pfn>>,
    /// Settings by name (`vm.swappiness`), with the word or text the kernel prints.
    pub settings: Vec<(String, String)>,
}

/// One zone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Zone {
    /// Node of the zone.
    pub node: NodeId,
    /// Name.
    pub name: String,
    /// First page frame; `None` for a zone without pages.
    pub start_pfn: Option<Pfn>,
    /// Pages from the first to the last, holes included.
    pub spanned_pages: u64,
    /// Pages that exist.
    pub present_pages: u64,
    /// Pages given to the page allocator so far.
    pub managed_pages: u64,
    /// `lowmem_reserve` in pages, by the index of the highest zone that a request may use.
    pub protection_pages: Vec<u64>,
}

impl Zone {
    /// From the first page to behind the last, holes included; `None` for a zone without pages.
    #[must_use]
    pub fn span(&self) -> Option<Range<Pfn>> {
        let start = self.start_pfn.filter(|_| self.spanned_pages > 0)?;
        Some(start..Pfn(start.0.saturating_add(self.spanned_pages)))
    }
}

impl Host {
    /// Reads the facts.
    ///
    /// # Errors
    /// A file that every kernel has is missing, or one is laid out as no known kernel does.
    pub fn read(root: &Root) -> Result<Self, Error> {
        let sysctl = |name: &str| root.read(&format!("proc/sys/kernel/{name}")).map(trimmed);
        let page_size_bytes = page_size(&root.read_bytes(AUXV)?).map_err(at(root, AUXV))?;
        let zones = zones(&parsed(root, zoneinfo::PATH, zoneinfo::parse)?);
        let buddies = parsed(root, buddyinfo::PATH, buddyinfo::parse)?;
        let orders = buddies.first().map_or(0, |row| row.free_blocks.len());
        let blocks = told(root, pagetypeinfo::PATH, pagetypeinfo::parse_whole)?;
        let ram = told(root, iomem::PATH, |text| iomem::parse(text, page_size_bytes))?;
        let mut nodes: Vec<NodeId> = match told(root, ONLINE_NODES, parse_list)? {
            Some(nodes) => nodes.into_iter().map(NodeId).collect(),
            // Without NUMA there is no such folder.
            None => zones.iter().map(|zone| zone.node).collect(),
        };
        nodes.dedup();
        Ok(Self {
            name: sysctl("hostname")?,
            kernel_release: sysctl("osrelease")?,
            kernel_version: sysctl("version")?,
            architecture: root
                .read_if_told("proc/sys/kernel/arch")?
                .map_or_else(|| std::env::consts::ARCH.to_owned(), trimmed),
            kernel_command_line: root
                .read_if_told("proc/cmdline")?
                .map_or_else(String::new, trimmed),
            page_size_bytes,
            orders: u8::try_from(orders).unwrap_or(u8::MAX),
            pageblock_order: blocks.as_ref().map(|info| info.pageblock_order),
            migrate_types: blocks.map_or_else(Vec::new, |info| info.migrate_types),
            online_cpus: cpus(root, ONLINE_CPUS)?,
            possible_cpus: cpus(root, POSSIBLE_CPUS)?,
            nodes,
            zones,
            ram: ram.unwrap_or_default(),
            settings: settings(root)?,
        })
    }

    /// A setting by its name.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The pages worth reading from the page map: the zones' spans without the holes, where the
    /// kernel tells which pages are memory.
    #[must_use]
    pub fn page_map_ranges(&self) -> Vec<Range<Pfn>> {
        let spans = self.zones.iter().filter_map(Zone::span);
        if self.ram.is_empty() {
            return spans.collect();
        }
        let within = |span: Range<Pfn>| {
            self.ram.iter().map(move |ram| ram.start.max(span.start)..ram.end.min(span.end))
        };
        spans.flat_map(within).filter(|range| range.start < range.end).collect()
    }
}

/// The numbers of the kernel's list syntax (`0-3,8`), ascending.
///
/// # Errors
/// The text is no such list, or an empty one.
pub fn parse_list(text: &str) -> Result<Vec<u16>, ParseError> {
    let wrong = || ParseError::Line {
        file: "list of numbers",
        line: 1,
        expected: "numbers and ranges such as `0-3,8`",
        found: crate::error::quoted(text.trim()),
    };
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u16 = first.parse().map_err(|_| wrong())?;
        let last: u16 = last.parse().map_err(|_| wrong())?;
        if first > last {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// The word in brackets of `always [madvise] never`; the whole text where nothing is in brackets.
pub(crate) fn chosen(text: &str) -> &str {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or_else(|| text.trim(), |(word, _)| word)
}

fn cpus(root: &Root, rel: &str) -> Result<Vec<Cpu>, Error> {
    Ok(parsed(root, rel, parse_list)?.into_iter().map(Cpu).collect())
}

/// The page size out of the auxiliary vector: pairs of words, ended by a pair of zeros.
fn page_size(auxv: &[u8]) -> Result<u64, ParseError> {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, usize::from_ne_bytes);
    auxv.chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == AT_PAGESZ)
        .map(|pair| word(&pair[WORD..]) as u64)
        .filter(|bytes| bytes.is_power_of_two())
        .ok_or(ParseError::Absent {
            file: "/proc/self/auxv",
            expected: "the page size, a power of two",
        })
}

/// The zones of zoneinfo's rows, in the file's order.
fn zones(rows: &[ZoneRow]) -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    for row in rows.iter().filter(|row| !row.zone.is_empty() && row.cpu.is_none()) {
        if zones.last().is_none_or(|zone| zone.node != row.node || zone.name != row.zone) {
            zones.push(Zone { node: row.node, name: row.zone.clone(), ..Zone::default() });
        }
        let Some(zone) = zones.last_mut() else {
            continue;
        };
        let value = u64::try_from(row.value).unwrap_or(0);
        match row.key.as_str() {
            "start_pfn" => zone.start_pfn = Some(Pfn(value)),
            "spanned" => zone.spanned_pages = value,
            "present" => zone.present_pages = value,
            "managed" => zone.managed_pages = value,
            key if key.starts_with("protection_") => zone.protection_pages.push(value),
            _ => {}
        }
    }
    zones
}

fn settings(root: &Root) -> Result<Vec<(String, String)>, Error> {
    let mut settings = Vec::new();
    for name in root.names("proc/sys/vm") {
        let is_wanted = VM_SETTINGS.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *wanted,
        });
        if is_wanted && let Some(value) = root.read_if_told(&format!("proc/sys/vm/{name}"))? {
            settings.push((format!("vm.{name}"), trimmed(value)));
        }
    }
    for (name, rel) in OTHER_SETTINGS {
        if let Some(value) = root.read_if_told(rel)? {
            settings.push(((*name).to_owned(), chosen(&value).to_owned()));
        }
    }
    Ok(settings)
}

/// Reads and parses a file that must be there.
fn parsed<T>(
    root: &Root,
    rel: &str,
    parse: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<T, Error> {
    parse(&root.read(rel)?).map_err(at(root, rel))
}

/// Reads and parses a file that this kernel may lack or hide.
fn told<T>(
    root: &Root,
    rel: &str,
    parse: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<Option<T>, Error> {
    root.read_if_told(rel)?.map(|text| parse(&text).map_err(at(root, rel))).transpose()
}

fn at(root: &Root, rel: &str) -> impl FnOnce(ParseError) -> Error {
    let path = root.join(rel);
    move |source| Error::Parse { path, source }
}

fn trimmed(text: String) -> String {
    text.trim().to_owned()
}
