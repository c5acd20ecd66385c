//! The recording's manifest: everything that is said once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::direct_map::{DirectMap, FoundBy};

/// What made this recording, on what, and how it ended. Written when the recording starts (with
/// `end` absent) and again when it ends.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Version of the bytes ([`crate::format::VERSION`]).
    pub format_version: u64,
    /// `kmemlab` and its version.
    pub tool: String,
    /// `kernel` for a recording of a kernel, `model` for a model's run.
    pub origin: String,
    /// `perf` or `tracefs`: where the events come from.
    pub backend: String,
    /// Wall clock at the start, nanoseconds since 1970.
    pub started_realtime_ns: u64,
    /// `CLOCK_MONOTONIC` at the same moment.
    pub started_monotonic_ns: u64,
    /// Clock of every time in the recording.
    pub clock: String,
    /// The command recorded, if one was given.
    pub command: Vec<String>,
    /// kmemlab's own command line.
    pub command_line: Vec<String>,
    /// The recorder's threads: their events are tagged.
    pub recorder_pids: Vec<u32>,
    /// The machine.
    pub host: Host,
    /// The tracepoints recorded.
    pub tracepoints: Vec<TracepointRecord>,
    /// Tracepoints wanted that this kernel has not.
    pub absent_tracepoints: Vec<String>,
    /// `none`, `sampled:N` or `all`.
    pub stacks: String,
    /// Size of each ring.
    pub ring_bytes: u64,
    /// How the thread that drains the rings ran: `SCHED_RR 1`, or `nice` and a number.
    pub reader_priority: String,
    /// Time between snapshots.
    pub snapshot_every_ns: u64,
    /// All events were on from this moment.
    pub events_valid_from_ns: Option<u64>,
    /// Base of the kernel's direct map: where page frame 0 is mapped.
    pub direct_map_base: Option<u64>,
    /// What told it: `slab pages` or `page map`.
    pub direct_map_found_by: Option<String>,
    /// Page events, or objects, that agree on it.
    pub direct_map_votes: Option<u64>,
    /// Page events, or objects, that voted.
    pub direct_map_votes_of: Option<u64>,
    /// Notes that a reader should see: what could not be recorded and why.
    pub notes: Vec<String>,
    /// What was left out ([`crate::privacy`]): empty for nothing, `anonymous` or `scrubbed`.
    pub privacy: String,
    /// What a model's run was made from and came to; absent in a recording of a kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRun>,
    /// How it ended; absent when it was cut off.
    pub end: Option<End>,
}

/// A model's run: from which recording, under which policies, and how far to be trusted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRun {
    /// Name of the recording replayed.
    pub recording: String,
    /// CRC-32 of that recording's index: two runs with the same one replayed the same events.
    pub recording_crc32: u32,
    /// `CLOCK_MONOTONIC` from which the model ran: when the first page map was whole.
    pub began_ns: u64,
    /// Row of rules.
    pub rules: String,
    /// Policies that differ from the recorded kernel's; none in a baseline.
    pub policies: Vec<PolicyChoice>,
    /// What the model did.
    pub counts: RunCounts,
    /// What the kernel did in the same time.
    pub kernel_counts: RunCounts,
    /// The baseline model against the kernel on the same recording: the error bar of every number
    /// here.
    pub error: ModelError,
    /// The layers above pages, when they ran too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<StackRun>,
}

/// The layers above pages over a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StackRun {
    /// What this run came to.
    pub model: StackFigures,
    /// What the kernel did in the same time; null where it does not tell.
    pub kernel: StackFigures,
    /// How far the baseline model is from the kernel: the error bar of every number of `model`.
    pub error: StackFigures,
    /// The slab layer began with full slabs of its own, not with the kernel's.
    pub starts_compact: bool,
}

/// Figures of slab and vmalloc; null where nothing tells them.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StackFigures {
    /// Pages of slabs, mean over the samples.
    pub slab_pages_mean: Option<f64>,
    /// Bytes of these pages that are no used object's, mean over the samples.
    pub slab_waste_mean_bytes: Option<f64>,
    /// Used objects' share of these pages, mean over the samples.
    pub slab_utilisation_mean_percent: Option<f64>,
    /// Slabs made.
    pub slab_new_slabs: Option<f64>,
    /// Slabs given back.
    pub slab_released_slabs: Option<f64>,
    /// Bytes free in slabs that are neither empty nor full, at the end.
    pub slab_partial_waste_bytes: Option<f64>,
    /// Slabs kept by at most a fourth of their objects, at the end.
    pub slab_sparse_slabs: Option<f64>,
    /// Slabs made soon after the cache gave one back.
    pub slab_ping_pong_slabs: Option<f64>,
    /// Purges of the vmalloc space.
    pub vmap_purges: Option<f64>,
    /// Areas at the last sample.
    pub vmap_areas: Option<f64>,
    /// Bytes of these areas.
    pub vmap_size_bytes: Option<f64>,
    /// Largest hole below the highest area.
    pub vmap_largest_hole_bytes: Option<f64>,
}

/// A policy chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyChoice {
    /// Its role.
    pub role: String,
    /// Its name.
    pub name: String,
    /// Parameters given: name and text.
    pub params: Vec<(String, String)>,
}

/// What was done to memory over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunCounts {
    /// Blocks of a pageblock or more that changed their type.
    pub whole_claims: u64,
    /// Pageblocks taken over by another type.
    pub small_claims: u64,
    /// Blocks taken out of another type's pageblock.
    pub steals: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Times that kswapd was woken.
    pub kswapd_wakes: u64,
    /// Refills of per-CPU lists.
    pub refills: u64,
    /// Drains of per-CPU lists.
    pub drains: u64,
    /// Blocks split in two; 0 where only a model could tell.
    pub splits: u64,
    /// Pairs of buddies merged; 0 where only a model could tell.
    pub merges: u64,
    /// Free lists looked at in vain; 0 where only a model could tell.
    pub lists_scanned: u64,
}

/// How far the baseline model is from the kernel.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelError {
    /// Order error, mean over the samples, percent of the free pages.
    pub order_error_mean_percent: f64,
    /// Order error of the worst sample.
    pub order_error_worst_percent: f64,
    /// Order error of all zones together, events or not, mean over the samples.
    pub order_difference_percent: f64,
    /// What the baseline model did.
    pub baseline_counts: RunCounts,
    /// The unusable free space index.
    pub unusable: Vec<UnusableBar>,
}

/// The unusable free space index at one order, of all zones together.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnusableBar {
    /// Order.
    pub order: u8,
    /// Mean over the samples of the absolute difference between baseline and kernel, points.
    pub mean_points: f64,
    /// Largest difference of any sample, points.
    pub worst_points: f64,
}

/// The recorded machine.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
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
    /// Order of a pageblock.
    pub pageblock_order: u8,
    /// Migrate type names, by number.
    pub migrate_types: Vec<String>,
    /// Online processors.
    pub cpus: Vec<u16>,
    /// Zones, by node and zone index, lowest first.
    pub zones: Vec<Zone>,
    /// `/proc/sys/vm` and the like: name and text.
    pub settings: Vec<(String, String)>,
    /// What the kernel has of what changed between releases: 0 where it was looked for and is not
    /// there, else 1 or how many of it. What was not looked for is not in it.
    pub features: BTreeMap<String, u64>,
    /// Slab caches that share slabs, by the kernel's name for what they share; `None` where nothing
    /// tells.
    pub slab_aliases: Option<BTreeMap<String, Vec<String>>>,
}

/// A zone that has pages.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Zone {
    /// NUMA node.
    pub node: u16,
    /// Name.
    pub name: String,
    /// First page frame.
    pub start_pfn: u64,
    /// Pages from the first to the last, holes included.
    pub spanned_pages: u64,
    /// Pages that exist.
    pub present_pages: u64,
    /// Pages given to the page allocator so far.
    pub managed_pages: u64,
    /// `lowmem_reserve` by the highest zone of the request.
    pub protection_pages: Vec<u64>,
}

/// One tracepoint as it was recorded.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TracepointRecord {
    /// `system:event`.
    pub name: String,
    /// The kernel's number of it.
    pub id: u64,
    /// The kernel's own description of its fields.
    pub format: String,
    /// Events in the recording.
    pub recorded: Option<u64>,
    /// Events that the rings dropped.
    pub lost: Option<u64>,
    /// Events that the counting twin saw.
    pub counted: Option<u64>,
}

/// How the recording ended.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// `duration`, `command`, `signal`, `disk full` or `error`; `cut off` in a scrubbed copy.
    pub reason: String,
    /// `CLOCK_MONOTONIC` when the events were turned off.
    pub monotonic_ns: u64,
    /// The command's exit status, if there was one.
    pub command_exit_status: Option<i32>,
    /// Events in the recording.
    pub events: u64,
    /// Events that the rings dropped.
    pub lost_events: u64,
    /// Events that the counting twins saw; absent where they could not be opened.
    pub counted_events: Option<u64>,
    /// CPU time that the recorder used.
    pub recorder_cpu_ns: u64,
    /// Length and checksum of the index, which vouches for all else.
    pub index_bytes: u64,
    /// CRC-32 of the index.
    pub index_crc32: u32,
}

impl Manifest {
    /// The base of the direct map as the recorder stored it.
    #[must_use]
    pub fn direct_map(&self) -> Option<DirectMap> {
        let is_by_map = self.direct_map_found_by.as_deref() == Some(FoundBy::PageMap.name());
        Some(DirectMap {
            base: self.direct_map_base?,
            votes: self.direct_map_votes.unwrap_or(0),
            of: self.direct_map_votes_of.unwrap_or(0),
            found_by: if is_by_map { FoundBy::PageMap } else { FoundBy::SlabPages },
        })
    }

    /// Stores a base of the direct map.
    pub fn set_direct_map(&mut self, map: &DirectMap) {
        self.direct_map_base = Some(map.base);
        self.direct_map_found_by = Some(map.found_by.name().to_owned());
        self.direct_map_votes = Some(map.votes);
        self.direct_map_votes_of = Some(map.of);
    }

    /// Whether the recorder came to the end of its work.
    #[must_use]
    pub fn ended_cleanly(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| !["disk full", "error", "cut off"].contains(&end.reason.as_str()))
    }

    /// A feature of the recorded kernel, if it was looked for.
    #[must_use]
    pub fn feature(&self, name: &str) -> Option<u64> {
        self.host.features.get(name).copied()
    }

    /// A setting of the recorded host.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.host.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_no_clean_end() {
        let ended = |reason: &str| {
            let end = End { reason: reason.to_owned(), ..End::default() };
            Manifest { end: Some(end), ..Manifest::default() }.ended_cleanly()
        };
        assert!(ended("duration") && ended("command") && ended("signal"));
        assert!(!ended("disk full") && !ended("error") && !ended("cut off"));
        assert!(!Manifest::default().ended_cleanly());
    }
}
