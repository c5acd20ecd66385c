//! What differs between kernel releases in `mm/vmalloc.c`, as data.

/// How the pools of a node shrink at a purge (`decay_va_pool_node`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decay {
    /// There are no pools (6.8 and older).
    NoPools,
    /// A fourth; a list of less than four is emptied (6.9 to 6.13).
    FourthOrAll,
    /// A fourth, rounded down.
    Fourth,
}

/// How an aligned request looks for a hole (`find_vmap_lowest_match`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// Always as long as size and alignment together (5.15 and older).
    Padded,
    /// Only where the alignment is more than a page.
    PaddedWhenAligned,
}

/// One row a release that changed something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmapRules {
    /// First release (major, minor) this row is for.
    pub since: (u16, u16),
    /// Pools and their decay.
    pub decay: Decay,
    /// Lengths that are searched for.
    pub length: Length,
    /// A worker purges; before, the task that frees does.
    pub purges_in_worker: bool,
    /// Areas freed beside each other count as one when they are purged (5.12 to 6.8).
    pub counts_merged: bool,
}

const V5_10: VmapRules = VmapRules {
    since: (5, 10),
    decay: Decay::NoPools,
    length: Length::Padded,
    purges_in_worker: false,
    counts_merged: false,
};
const V5_12: VmapRules = VmapRules { since: (5, 12), counts_merged: true, ..V5_10 };
const V6_1: VmapRules = VmapRules {
    since: (5, 18),
    length: Length::PaddedWhenAligned,
    purges_in_worker: true,
    ..V5_12
};
const V6_9: VmapRules =
    VmapRules { since: (6, 9), decay: Decay::FourthOrAll, counts_merged: false, ..V6_1 };
const V6_14: VmapRules = VmapRules { since: (6, 14), decay: Decay::Fourth, ..V6_9 };

/// Every row, oldest first.
pub const ALL: &[VmapRules] = &[V5_10, V5_12, V6_1, V6_9, V6_14];

impl VmapRules {
    /// The rules of a kernel release; the newest for what cannot be read.
    #[must_use]
    pub fn of(release: &str) -> Self {
        *crate::rules::row_of(ALL, |row| row.since, release).unwrap_or(&V5_10)
    }

    /// The name of the row: its first release.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.since.0, self.since.1)
    }
}

/// Pages that may wait to be purged (`lazy_max_pages`).
#[must_use]
pub fn lazy_max_pages(cpus: u32, page_bytes: u64) -> u64 {
    let log = u32::BITS - cpus.max(1).leading_zeros();
    u64::from(log) * ((32 << 20) / page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_of_lazily_freed_pages() {
        let found = [1, 2, 3, 4, 8, 64].map(|cpus| lazy_max_pages(cpus, 4096));
        assert_eq!(found, [8192, 16_384, 16_384, 24_576, 32_768, 57_344]);
    }

    #[test]
    fn a_release_gets_its_row() {
        let since = |release| VmapRules::of(release).since;
        assert_eq!([since("5.10.1"), since("5.15.2"), since("6.6.1")], [(5, 10), (5, 12), (5, 18)]);
        assert_eq!([since("6.12.3"), since("6.18.44")], [(6, 9), (6, 14)]);
    }
}
