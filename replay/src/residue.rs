//! What the mirror could not explain, row by row: where, when, how much, and why.
//!
//! A row counts blocks as mirror minus kernel: more than zero when the mirror held free what the
//! kernel did not. Rows come from three places: an event that did not fit the mirror's state, a
//! step of the difference between two samples of `/proc/buddyinfo`, and the last page map.

use std::collections::BTreeMap;

mod steps;

pub(crate) use steps::{Step, Steps};

/// Why mirror and kernel differed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// A step of exactly one refill of a per-CPU list: a thread that fires no events.
    HiddenRefill,
    /// The same back to the buddy lists.
    HiddenDrain,
    /// Pages left the buddy lists and no event told.
    UnseenAllocation,
    /// Pages came to the buddy lists and no event told.
    UnseenFree,
    /// A free met a locked per-CPU list and went past it; no event has told yet.
    DirectFree,
    /// Compaction's fast search took a block without telling which.
    FastSearch,
    /// Compaction or isolation took blocks from a range, and no reading of the event fits.
    Isolation,
    /// Whole pageblocks were out of the lists while the host was told of them (page reporting).
    PageReporting,
    /// As many free pages in other blocks.
    OtherBlocks,
    /// The zone has more pages than before, and no event told of them.
    NewMemory,
    /// Events are missing around here.
    LostEvents,
    /// Gone at the next sample: the file was read between an event and what it tells of.
    InFlight,
    /// An event named pages that were wrong before: the difference shrank.
    Settled,
}

impl Cause {
    /// Every cause with its name, in the order in which they are told.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::HiddenRefill, "hidden_refill"),
        (Self::HiddenDrain, "hidden_drain"),
        (Self::UnseenAllocation, "unseen_allocation"),
        (Self::UnseenFree, "unseen_free"),
        (Self::DirectFree, "direct_free"),
        (Self::FastSearch, "fast_search"),
        (Self::Isolation, "isolation"),
        (Self::PageReporting, "page_reporting"),
        (Self::OtherBlocks, "other_blocks"),
        (Self::NewMemory, "new_memory"),
        (Self::LostEvents, "lost_events"),
        (Self::InFlight, "in_flight"),
        (Self::Settled, "settled"),
    ];

    /// The name that tables and JSON print.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(cause, _)| *cause == self).map_or("", |(_, name)| name)
    }
}

/// Where a row of residue came to light.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Evidence {
    /// At an event that did not fit.
    Event,
    /// At a sample of `/proc/buddyinfo`: a step since the sample before.
    Sample,
    /// In the last page map.
    Map,
}

impl Evidence {
    /// The name that tables and JSON print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Sample => "sample",
            Self::Map => "map",
        }
    }
}

/// One row of residue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResidueRow<'a> {
    /// Where it came to light.
    pub evidence: Evidence,
    /// When, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// NUMA node.
    pub node: u16,
    /// Zone name.
    pub zone: &'a str,
    /// Block order.
    pub order: u8,
    /// First page; `None` at a sample, which tells counts alone.
    pub pfn: Option<u32>,
    /// Why.
    pub cause: Cause,
    /// Blocks, mirror minus kernel.
    pub blocks: i64,
}

/// What an event brought to light: blocks of a page's zone, mirror minus kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Misfit {
    /// Why.
    pub cause: Cause,
    /// First page.
    pub pfn: u32,
    /// Order of the blocks.
    pub order: u8,
    /// Blocks, mirror minus kernel, until this event; zero when the place is not known.
    pub blocks: i64,
}

/// Rows of one kind, added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResidueSum {
    /// Rows.
    pub rows: u64,
    /// Pages that the mirror had too many.
    pub pages_over: u64,
    /// Pages that it had too few.
    pub pages_under: u64,
    /// First moment.
    pub first_ns: u64,
    /// Last moment.
    pub last_ns: u64,
}

impl ResidueSum {
    fn add(&mut self, at_ns: u64, pages: i64) {
        if self.rows == 0 {
            self.first_ns = at_ns;
        }
        self.rows += 1;
        self.last_ns = at_ns;
        if pages > 0 {
            self.pages_over += pages.unsigned_abs();
        } else {
            self.pages_under += pages.unsigned_abs();
        }
    }

    /// Adds the rows of another sum.
    pub fn merge(&mut self, other: &Self) {
        let is_first = self.rows == 0;
        self.first_ns = if is_first { other.first_ns } else { self.first_ns.min(other.first_ns) };
        self.last_ns = self.last_ns.max(other.last_ns);
        self.rows += other.rows;
        self.pages_over += other.pages_over;
        self.pages_under += other.pages_under;
    }
}

/// Which rows a sum is of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ResidueKey {
    /// Where they came to light.
    pub evidence: Evidence,
    /// NUMA node.
    pub node: u16,
    /// Zone name.
    pub zone: String,
    /// Why.
    pub cause: Cause,
    /// Block order.
    pub order: u8,
}

/// All residue of a replay, added up by zone, cause and order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResidueTable {
    /// The sums.
    pub sums: BTreeMap<ResidueKey, ResidueSum>,
    /// Steps of one refill taken by threads that fire no events.
    pub hidden_refills: u64,
    /// Their pages.
    pub hidden_refill_pages: u64,
    /// The same back to the buddy lists.
    pub hidden_drains: u64,
    /// Their pages.
    pub hidden_drain_pages: u64,
}

impl ResidueTable {
    pub(crate) fn add(&mut self, row: &ResidueRow<'_>) {
        let key = ResidueKey {
            evidence: row.evidence,
            node: row.node,
            zone: row.zone.to_owned(),
            cause: row.cause,
            order: row.order,
        };
        self.sums.entry(key).or_default().add(row.at_ns, row.blocks << row.order);
    }

    /// The rows of one place and cause, over zones and orders.
    #[must_use]
    pub fn of(&self, evidence: Evidence, cause: Cause) -> ResidueSum {
        let mut whole = ResidueSum::default();
        let fitting = self.sums.iter().filter(|(k, _)| k.evidence == evidence && k.cause == cause);
        fitting.for_each(|(_, sum)| whole.merge(sum));
        whole
    }
}
