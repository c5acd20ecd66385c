//! What differs between kernel releases in how pages are placed, as data.
//!
//! One row a release that changed something, oldest first; the row of a kernel is the newest that
//! is not newer than it. What the recorder found the kernel to have corrects the row, because fixes
//! travel to stable kernels. Nothing else in the model asks for a release.

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

impl Fallback {
    /// In a word, for the result.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MoveThenCount => "move, then count",
            Self::CountThenMove => "count, then move",
            Self::ClaimThenSteal => "claim/steal",
        }
    }
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

impl PcpHigh {
    /// In a word, for the result.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SixBatches => "six batches",
            Self::LowWatermark => "low watermark",
            Self::Auto => "tuned by demand",
        }
    }
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
    /// The HIGHATOMIC reserve's limit is a hundredth of the zone rounded to pageblocks, and none if
    /// that is less than one (6.12); before, a hundredth and a pageblock.
    pub highatomic_rounded: bool,
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
    highatomic_rounded: false,
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
    highatomic_rounded: true,
    ..V6_7
};
/// `__rmqueue_claim`, `__rmqueue_steal`.
const V6_15: Rules = Rules { since: (6, 15), fallback: Fallback::ClaimThenSteal, ..V6_10 };
/// `free_frozen_page_commit` with a higher threshold for freeing high orders at once.
const V6_18: Rules = Rules { since: (6, 18), free_high: FreeHigh::BatchAndHalfMin, ..V6_15 };

/// Every row, oldest first.
pub const ALL: &[Rules] = &[V5_10, V5_14, V6_1, V6_7, V6_10, V6_15, V6_18];

/// The row for a release like `6.18.44-generic`, of rows that rise with the release they are for:
/// the newest that is not newer than it, the newest of all for what cannot be read, none for
/// anything older than the oldest.
pub(crate) fn row_of<'a, T>(
    rows: &'a [T],
    since: impl Fn(&T) -> (u16, u16),
    release: &str,
) -> Option<&'a T> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => {
            rows.iter().rev().find(|row| since(row) <= (major, minor))
        }
        _ => rows.last(),
    }
}

impl Rules {
    /// The rules of a kernel release like `6.18.44-generic`; the oldest row for anything older, the
    /// newest for what cannot be read.
    #[must_use]
    pub fn of(release: &str) -> Self {
        *row_of(ALL, |row| row.since, release).unwrap_or(&V5_10)
    }

    /// The rules of a kernel: its release's row, each field corrected by what the kernel was found
    /// to have. `probe` tells a feature by name, where it was looked for. Answers the corrections
    /// in words as well.
    #[must_use]
    pub fn probed(release: &str, probe: impl Fn(&str) -> Option<u64>) -> (Self, Vec<String>) {
        let row = Self::of(release);
        let mut rules = row;
        let has = |name: &str| probe(name).map(|found| found > 0);
        rules.set_fallback(has("enum.rmqueue_mode"));
        rules.set_lists(probe("per_cpu_pages.lists"));
        // /proc tells of a limit of its own later than the kernel has it.
        let tunes = has("per_cpu_pages.high_min").or(has("zoneinfo.pcp_high_min").filter(|it| *it));
        rules.set_limits(tunes, has("per_cpu_pages.free_factor"));
        let mut said = Vec::new();
        if rules.fallback != row.fallback {
            said.push(format!("fallback by probe: {}", rules.fallback.name()));
        }
        if (rules.pcp_max_order, rules.pcp_huge_lists) != (row.pcp_max_order, row.pcp_huge_lists) {
            said.push(format!("per-CPU lists by probe: {}", rules.lists()));
        }
        if rules.pcp_high != row.pcp_high {
            said.push(format!("per-CPU limits by probe: {}", rules.pcp_high.name()));
        }
        (rules, said)
    }

    /// `enum rmqueue_mode` came with `__rmqueue_claim` and was ported back to 6.12.y.
    fn set_fallback(&mut self, has_mode: Option<bool>) {
        self.fallback = match (has_mode, self.fallback) {
            (Some(true), _) => Fallback::ClaimThenSteal,
            (Some(false), Fallback::ClaimThenSteal) => Fallback::CountThenMove,
            (_, kept) => kept,
        };
    }

    /// The lists that `struct per_cpu_pages` has room for: three types for each order up to 3, and
    /// those of huge blocks.
    fn set_lists(&mut self, lists: Option<u64>) {
        match lists {
            Some(3) => (self.pcp_max_order, self.pcp_huge_lists) = (0, 0),
            Some(lists @ 12..=15) => {
                (self.pcp_max_order, self.pcp_huge_lists) = (3, (lists - 12) as u8);
            }
            _ => {}
        }
    }

    fn lists(&self) -> u8 {
        3 * (self.pcp_max_order + 1) + self.pcp_huge_lists
    }

    /// Members of `struct per_cpu_pages`: `high_min` where the limits tune themselves,
    /// `free_factor` where only the drains do.
    fn set_limits(&mut self, tunes: Option<bool>, has_factor: Option<bool>) {
        let like = match (tunes, has_factor) {
            (Some(true), _) => &V6_7,
            (Some(false), Some(true)) => &V6_1,
            (Some(false), Some(false)) => &V5_10,
            _ => return,
        };
        if self.pcp_high != like.pcp_high {
            (self.pcp_high, self.pcp_decay) = (like.pcp_high, like.pcp_decay);
            (self.pcp_drain, self.free_high) = (like.pcp_drain, like.free_high);
        }
    }

    /// A free block is on the list of its pageblock's type, always (6.10). Before, a block taken
    /// over without its pageblock is on the list of the type that took it, and a page on a per-CPU
    /// list keeps the type of the list it came from, or of its pageblock when it was freed.
    #[must_use]
    #[inline]
    pub fn lists_follow_blocks(&self) -> bool {
        self.fallback != Fallback::MoveThenCount
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

    fn with(release: &str, features: &[(&str, u64)]) -> (Rules, Vec<String>) {
        Rules::probed(release, |name| {
            features.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
        })
    }

    #[test]
    fn without_probes_the_release_s_row_stands() {
        for row in ALL {
            let (rules, said) = with(&row.name(), &[]);
            assert_eq!((rules, said.len()), (*row, 0));
        }
    }

    #[test]
    fn a_probe_corrects_the_row_and_is_said() {
        let (rules, said) = with("6.12.117", &[("enum.rmqueue_mode", 1)]);
        assert_eq!((rules.fallback, rules.since), (Fallback::ClaimThenSteal, (6, 10)));
        assert_eq!(said, ["fallback by probe: claim/steal"]);
        // Before the enum was ported back, and a row that needs no correction.
        assert!(with("6.12.1", &[("enum.rmqueue_mode", 0)]).1.is_empty());
        assert!(with("6.18.1", &[("enum.rmqueue_mode", 1)]).1.is_empty());
        assert_eq!(with("6.15", &[("enum.rmqueue_mode", 0)]).0.fallback, Fallback::CountThenMove);

        let (rules, said) = with("6.1.10", &[("per_cpu_pages.lists", 13)]);
        assert_eq!((rules.pcp_max_order, rules.pcp_huge_lists), (3, 1));
        assert_eq!(said, ["per-CPU lists by probe: 13"]);
        assert!(with("6.1.192", &[("per_cpu_pages.lists", 14)]).1.is_empty());

        let (rules, said) = with("6.5", &[("per_cpu_pages.high_min", 1)]);
        assert_eq!((rules.pcp_high, rules.pcp_drain), (PcpHigh::Auto, PcpDrain::FreeCount));
        assert!(rules.pcp_decay);
        assert_eq!(said, ["per-CPU limits by probe: tuned by demand"]);
        let features = [("per_cpu_pages.high_min", 0), ("per_cpu_pages.free_factor", 1)];
        let (rules, _) = with("6.7", &features);
        assert_eq!(
            (rules.pcp_high, rules.pcp_drain),
            (PcpHigh::LowWatermark, PcpDrain::FreeFactor)
        );
        assert!(!rules.pcp_decay);
        assert_eq!(with("6.1", &features).0, with("6.1", &[]).0);
    }
}
