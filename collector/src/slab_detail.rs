//! `/sys/kernel/slab`: what SLUB says of each cache beside `/proc/slabinfo`.
//!
//! Limits and what each processor keeps are read once at the start. The rest only on request: the
//! files are many, some walk every list of partial slabs, and their numbers mean most when each
//! cache was shrunk just before, which disturbs the host.

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

/// The files that cost the kernel nothing but their text.
const CHEAP: [&str; 4] = ["min_partial", "cpu_partial", "sheaf_capacity", "partial"];

/// What the processors keep: `157(15) C0=84(8) C1=73(7)`, objects and slabs.
const KEPT: &str = "slabs_cpu_partial";

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
        numbers(root, cache, &FILES, &mut rows);
        kept(root, cache, &mut rows);
    }
    rows
}

/// What costs little and disturbs nothing: limits, and the partial slabs of each processor.
pub(crate) fn look(root: &Root, caches: &[String]) -> Vec<SlabDetailRow> {
    let mut rows = Vec::new();
    for cache in caches {
        numbers(root, cache, &CHEAP, &mut rows);
        kept(root, cache, &mut rows);
    }
    rows
}

/// The first number of each file.
fn numbers(root: &Root, cache: &str, files: &[&str], rows: &mut Vec<SlabDetailRow>) {
    for file in files {
        let path = format!("{FOLDER}/{cache}/{file}");
        let Ok((stamp, text)) = root.read_stamped(&path) else { continue };
        let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
        if let Some(value) = first {
            rows.push(row(stamp, cache, file, value));
        }
    }
}

/// Partial slabs that the processors keep, together and, as `slabs_cpu_partial.0` and so on, each:
/// the file names only those that keep some.
fn kept(root: &Root, cache: &str, rows: &mut Vec<SlabDetailRow>) {
    let Ok((stamp, text)) = root.read_stamped(&format!("{FOLDER}/{cache}/{KEPT}")) else { return };
    let mut words = text.split_whitespace();
    let Some(all) = words.next().and_then(in_brackets) else { return };
    rows.push(row(stamp, cache, KEPT, all));
    for word in words {
        let told = word.strip_prefix('C').and_then(|rest| rest.split_once('='));
        let Some((cpu, counts)) = told else { continue };
        if let (Ok(cpu), Some(slabs)) = (cpu.parse::<u32>(), in_brackets(counts)) {
            rows.push(row(stamp, cache, &format!("{KEPT}.{cpu}"), slabs));
        }
    }
}

/// The second number of `84(8)`.
fn in_brackets(word: &str) -> Option<i64> {
    word.split_once('(')?.1.strip_suffix(')')?.parse().ok()
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

    #[test]
    fn what_each_processor_keeps_is_read_without_a_shrink() {
        let scratch = Scratch::new();
        scratch.write("sys/kernel/slab/pid/shrink", "");
        scratch.write("sys/kernel/slab/pid/min_partial", "5\n");
        scratch.write("sys/kernel/slab/pid/slabs_cpu_partial", "157(15) C0=84(8) C3=73(7)\n");
        scratch.write("sys/kernel/slab/cred/slabs_cpu_partial", "0(0)\n");
        scratch.write("sys/kernel/slab/bad/slabs_cpu_partial", "what\n");
        let rows = look(&scratch.0, &["pid", "cred", "bad"].map(str::to_owned));
        let told: Vec<(&str, &str, i64)> =
            rows.iter().map(|row| (row.cache.as_str(), row.key.as_str(), row.value)).collect();
        let expected = [
            ("pid", "min_partial", 5),
            ("pid", "slabs_cpu_partial", 15),
            ("pid", "slabs_cpu_partial.0", 8),
            ("pid", "slabs_cpu_partial.3", 7),
            ("cred", "slabs_cpu_partial", 0),
        ];
        assert_eq!(told, expected);
        assert_eq!(scratch.0.read("sys/kernel/slab/pid/shrink").unwrap(), "");
    }
}
