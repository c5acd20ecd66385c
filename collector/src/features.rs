//! What this kernel has of what changed between releases.
//!
//! Fixes travel to stable kernels, and vendors patch theirs: the release alone does not tell how a
//! kernel works. Each probe is a number: 0 where something was looked for and is not there, 1 where
//! it is, or how many of it. A probe that cannot be made is left out.

use std::collections::BTreeMap;

use crate::btf::{self, Btf};
use crate::proc::zoneinfo;
use crate::root::Root;
use crate::tracefs::Tracefs;

/// Members of `struct per_cpu_pages` that came and went.
const PCP_MEMBERS: [&str; 4] = ["high_min", "free_factor", "alloc_factor", "free_count"];
/// Functions that came and are too large, or called from too many files, to be inlined.
const FUNCTIONS: [&str; 2] = ["decay_pcp_high", "split_large_buddy"];
/// Tracepoints that came.
const EVENTS: [(&str, &str); 3] = [
    ("kmem", "mm_setup_per_zone_wmarks"),
    ("compaction", "mm_compaction_fast_isolate_freepages"),
    ("vmalloc", "alloc_vmap_area"),
];
/// Lines of `/proc/zoneinfo` that came.
const ZONEINFO: [&str; 3] = ["pcp_high_min", "promo", "nr_free_pages_blocks"];
/// Settings that came.
const SETTINGS: [&str; 2] = ["defrag_mode", "percpu_pagelist_high_fraction"];

/// Probes the kernel; never fails.
#[must_use]
pub fn probe(root: &Root, tracefs: &Tracefs) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    if let Ok(bytes) = root.read_bytes(btf::PATH)
        && let Some(btf) = Btf::parse(&bytes)
    {
        types(&btf, &mut found);
    }
    for (system, event) in EVENTS {
        if let Ok(format) = tracefs.format(system, event) {
            found.insert(format!("event.{event}"), u64::from(format.is_some()));
        }
    }
    if let Ok(Some(format)) = tracefs.format("kmem", "mm_page_alloc_zone_locked") {
        let has = format.field("percpu_refill").is_some();
        found.insert("event.mm_page_alloc_zone_locked.percpu_refill".to_owned(), u64::from(has));
    }
    if let Ok(text) = root.read(zoneinfo::PATH)
        && let Ok(rows) = zoneinfo::parse(&text)
    {
        for key in ZONEINFO {
            let has = rows.iter().any(|row| row.key == key);
            found.insert(format!("zoneinfo.{key}"), u64::from(has));
        }
    }
    if root.exists("proc/sys/vm") {
        for name in SETTINGS {
            let has = root.exists(&format!("proc/sys/vm/{name}"));
            found.insert(format!("vm.{name}"), u64::from(has));
        }
    }
    found
}

/// What the kernel's own type description tells.
fn types(btf: &Btf<'_>, found: &mut BTreeMap<String, u64>) {
    found.insert("enum.rmqueue_mode".to_owned(), u64::from(btf.has_enum("rmqueue_mode")));
    let has_bit = btf.has_value("pageblock_bits", "PB_migrate_isolate");
    found.insert("enum.pageblock_bits.PB_migrate_isolate".to_owned(), u64::from(has_bit));
    // A damaged or foreign description without this structure tells nothing by what it lacks.
    if btf.has_struct("per_cpu_pages") {
        for member in PCP_MEMBERS {
            let has = btf.has_member("per_cpu_pages", member);
            found.insert(format!("per_cpu_pages.{member}"), u64::from(has));
        }
    }
    if let Some(lists) = btf.array_length("per_cpu_pages", "lists") {
        found.insert("per_cpu_pages.lists".to_owned(), u64::from(lists));
    }
    for name in FUNCTIONS {
        found.insert(format!("function.{name}"), u64::from(btf.has_function(name)));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn probed(release: &str) -> BTreeMap<String, u64> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(release);
        let root = Root::new(path);
        probe(&root, &Tracefs::at(root.clone()))
    }

    #[test]
    fn releases_are_told_apart_by_their_files() {
        for (release, wmarks, fast_isolate, high_min) in
            [("6.1", 0, 0, 0), ("6.12", 0, 1, 0), ("6.18", 1, 1, 1)]
        {
            let found = probed(release);
            assert_eq!(found["event.mm_setup_per_zone_wmarks"], wmarks, "{release}");
            let isolate = found["event.mm_compaction_fast_isolate_freepages"];
            assert_eq!(isolate, fast_isolate, "{release}");
            assert_eq!(found["zoneinfo.pcp_high_min"], high_min, "{release}");
            assert_eq!(found["event.mm_page_alloc_zone_locked.percpu_refill"], 1, "{release}");
            // Nothing was looked for where there is nothing to look in.
            assert!(!found.contains_key("enum.rmqueue_mode"), "{release}");
            assert!(!found.contains_key("vm.defrag_mode"), "{release}");
        }
    }

    #[test]
    fn a_root_without_anything_tells_nothing_and_is_no_error() {
        let root = Root::new("/nonexistent");
        let found = probe(&root, &Tracefs::at(root.clone()));
        assert!(found.values().all(|value| *value == 0), "{found:?}");
    }
}
