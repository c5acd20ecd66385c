//! What differs between kernel releases in how pages are placed, as data.
//!
//! One row a release that changed something, oldest first; the row of a kernel is the newest that
//! is not newer than it. Nothing else in the model asks for a release.

/// How a request takes from another migrate type (`mm/page_alloc.c`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// Up to 6.9: `__rmqueue_fallback` moves the free pages of the block, then retypes it or not.
    MoveThenCount,
    /// 6.10 to 6.14: pages move only when the block is retyped.
    CountThenMove,
    /// 6.15 and late 6.12.y: `__rmqueue_claim` over the large orders, then `__rmqueue_steal` from
    /// the small ones, with a mode kept over a bulk.
    ClaimThenSteal,
}

/// How large a per-CPU list may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PcpHigh {
    /// 5.13 and older: six batches.
    SixBatches,
    /// 5.14 to 6.6: the low watermark shared by the node's CPUs (`zone_highsize`).
    LowWatermark,
    /// 6.7 and later: between that and an eighth of the zone, tuned by demand.
    Auto,
}

/// How many pages a full per-CPU list gives back (`nr_pcp_free`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PcpDrain {
    /// 5.13 and older: a batch.
    Batch,
    /// 5.14 to 6.6: a batch that doubles from drain to drain and halves with each allocation.
    FreeFactor,
    /// 6.7 and later: as many as were freed lately.
    FreeCount,
}

/// When freeing a block of order 1 to 3 empties the per-CPU lists (`free_high`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreeHigh {
    /// 5.17 and older: never.
    Never,
    /// 5.18 to 6.6: whenever the last drain was not followed by allocations.
    AfterDrain,
    /// 6.7 to 6.17: after a batch of frees, when the free before was of order 1 to 3 too.
    Batch,
    /// 6.18: the same, after half of `high_min` more frees.
    BatchAndHalfMin,
}

/// In which order `free_pcppages_bulk` empties the lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BulkDrain {
    /// 5.17 and older: round robin over the lists.
    RoundRobin,
    /// 5.18 and later: the list freed to first, each until it is empty.
    Exhaust,
}

/// Which blocks may not merge across a pageblock border.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeLimit {
    /// 5.15 and older: isolated ones.
    Isolated,
    /// 6.1 and later: isolated, CMA and HIGHATOMIC ones.
    SpecialTypes,
}

/// Everything the page model does differently from one release to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// First release (major, minor) this row is for.
    pub since: (u16, u16),
    /// Taking from another type.
    pub fallback: Fallback,
    /// Largest order below the huge one that per-CPU lists hold.
    pub pcp_max_order: u8,
    /// Per-CPU lists of blocks of the pageblock's order: none, one for all types, two for movable
    /// ones and others (6.10 and stable), or one a type (5.14 to 5.17).
    pub pcp_huge_lists: u8,
    /// Size of the per-CPU lists.
    pub pcp_high: PcpHigh,
    /// The per-CPU lists shrink with time (`decay_pcp_high`, 6.7).
    pub pcp_decay: bool,
    /// Pages a full list gives back.
    pub pcp_drain: PcpDrain,
    /// When a free of order 1 to 3 empties the lists.
    pub free_high: FreeHigh,
    /// Order of a bulk drain.
    pub bulk_drain: BulkDrain,
    /// Limits of merging.
    pub merge_limit: MergeLimit,
    /// Merging across a pageblock border gives the partner the freed block's type (6.10).
    pub merge_retypes: bool,
    /// A block above the pageblock's order is freed pageblock by pageblock (6.10).
    pub split_large_frees: bool,
}

const V5_10: Rules = Rules {
    since: (5, 10),
    fallback: Fallback::MoveThenCount,
    pcp_max_order: 0,
    pcp_huge_lists: 0,
    pcp_high: PcpHigh::SixBatches,
    pcp_decay: false,
    pcp_drain: PcpDrain::Batch,
    free_high: FreeHigh::Never,
    bulk_drain: BulkDrain::RoundRobin,
    merge_limit: MergeLimit::Isolated,
    merge_retypes: false,
    split_large_frees: false,
};
/// Orders up to 3 and the huge order on per-CPU lists: `pcp_allowed_order`.
const V5_14: Rules = Rules {
    since: (5, 14),
    pcp_max_order: 3,
    pcp_huge_lists: 3,
    pcp_high: PcpHigh::LowWatermark,
    pcp_drain: PcpDrain::FreeFactor,
    ..V5_10
};
/// `free_pcppages_bulk` starts at the list freed to; `__free_one_page` tests
/// `migratetype_is_mergeable`; `free_unref_page_commit` knows `free_high`. The second list of huge
/// blocks came with 6.1.y, 6.6.y and 6.10.
const V6_1: Rules = Rules {
    since: (5, 18),
    pcp_huge_lists: 2,
    free_high: FreeHigh::AfterDrain,
    bulk_drain: BulkDrain::Exhaust,
    merge_limit: MergeLimit::SpecialTypes,
    ..V5_14
};
/// `nr_pcp_alloc`, `nr_pcp_high`, `decay_pcp_high`.
const V6_7: Rules = Rules {
    since: (6, 7),
    pcp_high: PcpHigh::Auto,
    pcp_decay: true,
    pcp_drain: PcpDrain::FreeCount,
    free_high: FreeHigh::Batch,
    ..V6_1
};
/// Free lists hold their own type only; `split_large_buddy`.
const V6_10: Rules = Rules {
    since: (6, 10),
    fallback: Fallback::CountThenMove,
    merge_retypes: true,
    split_large_frees: true,
    ..V6_7
};
/// `__rmqueue_claim`, `__rmqueue_steal`.
const V6_15: Rules = Rules { since: (6, 15), fallback: Fallback::ClaimThenSteal, ..V6_10 };
/// `free_frozen_page_commit` with a higher threshold for freeing high orders at once.
const V6_18: Rules = Rules { since: (6, 18), free_high: FreeHigh::BatchAndHalfMin, ..V6_15 };

/// Every row, oldest first.
pub const ALL: &[Rules] = &[V5_10, V5_14, V6_1, V6_7, V6_10, V6_15, V6_18];

impl Rules {
    /// The rules of a kernel release like `6.18.44-generic`; the oldest row for anything older, the
    /// newest for what cannot be read.
    #[must_use]
    pub fn of(release: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u16>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return V6_18;
        };
        let fits = ALL.iter().rev().find(|row| row.since <= (major, minor));
        *fits.unwrap_or(&V5_10)
    }

    /// The name of the row: its first release.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.since.0, self.since.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_gets_the_newest_row_not_newer_than_it() {
        for (release, since) in [
            ("6.18.44-fc", (6, 18)),
            ("6.17.1", (6, 15)),
            ("6.12.117+deb12-cloud-amd64", (6, 10)),
            ("6.6.63", (5, 18)),
            ("5.15.0-91-generic", (5, 14)),
            ("4.19.0", (5, 10)),
            ("7.1.0", (6, 18)),
            ("nonsense", (6, 18)),
        ] {
            assert_eq!(Rules::of(release).since, since, "{release}");
        }
    }
}
