//! `/sys/kernel/slab`: what SLUB says of each cache beside `/proc/slabinfo`.
//!
//! Only on request: the files are many, some walk every list of partial slabs, and their numbers
//! mean most when each cache was shrunk just before, which disturbs the host.

use std::fs;

use kmemlab_trace::snapshot::{SlabDetailRow, Stamp};

use crate::clock;
use crate::root::Root;

/// Where the caches stand below the root.
const FOLDER: &str = "sys/kernel/slab";

/// The files that are read: geometry, limits and counts. Not every release has each.
const FILES: [&str; 18] = [
    "object_size",
    "slab_size",
    "align",
    "order",
    "objs_per_slab",
    "min_partial",
    "cpu_partial",
    "sheaf_capacity",
    "aliases",
    "destroy_by_rcu",
    "reclaim_account",
    "hwcache_align",
    "slabs",
    "total_objects",
    "partial",
    "cpu_slabs",
    "objects",
    "objects_partial",
];

/// Key of the row that tells when a cache was shrunk.
const SHRUNK: &str = "shrunk";

/// What is said in the recording of a shrunk host.
pub(crate) const NOTE: &str = "--slab-detail: every slab cache was shrunk before the first and the \
                               last /proc/slabinfo, which disturbs the host and empties what its \
                               processors keep";

/// Shrinks each cache, then reads its files. Caches without a folder are left out.
pub(crate) fn take(root: &Root, caches: &[String]) -> Vec<SlabDetailRow> {
    let mut rows = Vec::new();
    for cache in caches {
        let before = clock::now();
        if fs::write(root.join(&format!("{FOLDER}/{cache}/shrink")), "1\n").is_ok() {
            let stamp = Stamp { before, after: clock::now() };
            rows.push(row(stamp, cache, SHRUNK, 1));
        }
    }
    for cache in caches {
        for file in FILES {
            let path = format!("{FOLDER}/{cache}/{file}");
            let Ok((stamp, text)) = root.read_stamped(&path) else { continue };
            let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
            if let Some(value) = first {
                rows.push(row(stamp, cache, file, value));
            }
        }
    }
    rows
}

fn row(stamp: Stamp, cache: &str, key: &str, value: i64) -> SlabDetailRow {
    SlabDetailRow { stamp, cache: cache.to_owned(), key: key.to_owned(), value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    #[test]
    fn numbers_are_read_and_a_cache_without_a_folder_is_left_out() {
        let scratch = Scratch::new();
        scratch.write("sys/kernel/slab/pid/shrink", "");
        scratch.write("sys/kernel/slab/pid/slabs", "7 N0=7\n");
        scratch.write("sys/kernel/slab/pid/order", "1\n");
        scratch.write("sys/kernel/slab/pid/align", "none\n");
        let rows = take(&scratch.0, &["pid".to_owned(), "gone".to_owned()]);
        let told: Vec<(&str, i64)> = rows.iter().map(|row| (row.key.as_str(), row.value)).collect();
        assert_eq!(told, [(SHRUNK, 1), ("order", 1), ("slabs", 7)]);
        assert_eq!(scratch.0.read("sys/kernel/slab/pid/shrink").unwrap(), "1\n");
    }
}
