//! How a request takes from another migrate type's free lists when its own are empty.

use std::fmt::Debug;
use std::sync::Arc;

use super::{Entry, View};
use crate::rules::{Fallback as Regime, Rules};

mod claim_then_steal;
mod largest_first;
mod never_mix;

/// The types a request turns to, in order: UNMOVABLE, MOVABLE, RECLAIMABLE (`fallbacks`).
const ORDER_OF_TYPES: [[u8; 2]; 3] = [[2, 1], [2, 0], [0, 1]];

/// How a bulk is being served: it does not turn back to what it found empty (`enum rmqueue_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// One's own lists first.
    Normal,
    /// One's own lists were empty.
    Claim,
    /// Nothing could be taken over either.
    Steal,
}

/// A request whose own lists are empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Zone.
    pub zone: usize,
    /// Order wanted.
    pub order: u8,
    /// Migrate type wanted: UNMOVABLE, MOVABLE or RECLAIMABLE.
    pub migrate: u8,
    /// Other types' pageblocks must not be broken up (`ALLOC_NOFRAGMENT`).
    pub no_fragment: bool,
}

impl Ask {
    /// The smallest order that another type's block may have.
    fn lowest_order(&self, view: &View<'_>) -> u8 {
        let block_order = view.machine().block_order;
        if self.no_fragment && self.order < block_order { block_order } else { self.order }
    }

    /// Whether a block of that order may be taken over (`should_try_claim_block`).
    fn may_claim(&self, view: &View<'_>, order: u8) -> bool {
        order >= view.machine().block_order / 2 || self.migrate != 1
    }

    /// The head of the first other type's list of exactly that order, and its type
    /// (`find_suitable_fallback`).
    fn candidate(&self, view: &View<'_>, order: u8) -> Option<(u32, u8)> {
        let types = ORDER_OF_TYPES.get(usize::from(self.migrate))?;
        types.iter().find_map(|&other| view.head(self.zone, order, other).map(|head| (head, other)))
    }
}

/// What to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// A block of at least a pageblock changes its type; what is left of it goes to the request's
    /// lists.
    Whole {
        /// Its first page.
        head: u32,
        /// Its order.
        order: u8,
    },
    /// As above, but it first goes to the tail of the request's list whole.
    WholeByList {
        /// Its first page.
        head: u32,
        /// Its order.
        order: u8,
    },
    /// The pageblock of a block changes its type, with all its free blocks.
    Pageblock {
        /// A block in it.
        head: u32,
    },
    /// The free blocks of a pageblock change lists, the pageblock keeps its type.
    FreeBlocks {
        /// A block in it.
        head: u32,
    },
    /// One block changes lists, its pageblock keeps its type.
    OneBlock {
        /// Its first page.
        head: u32,
        /// Its order.
        order: u8,
    },
    /// A block is taken, what is left of it stays with its type.
    Steal {
        /// Its first page.
        head: u32,
        /// Its order.
        order: u8,
        /// Its type.
        other: u8,
    },
}

/// A verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// What to take; `None`: nothing here, another zone may serve.
    pub take: Option<Take>,
    /// How often a pageblock was about to be broken up: each time raises the watermarks
    /// (`boost_watermark`).
    pub boosts: u32,
    /// Lists looked at.
    pub lists: u64,
}

/// Decides on fallbacks.
pub trait FallbackPolicy: Debug + Send + Sync {
    /// Whether a bulk in that mode looks at its own lists again.
    fn looks_at_own(&self, _mode: Mode) -> bool {
        true
    }

    /// What to take for a request whose own lists are empty. `mode` lives as long as the bulk.
    fn decide(&self, view: &View<'_>, ask: &Ask, mode: &mut Mode) -> Verdict;
}

pub(super) fn baseline(rules: &Rules) -> Arc<dyn FallbackPolicy> {
    match rules.fallback {
        Regime::MoveThenCount => Arc::new(largest_first::LargestFirst { moves_first: true }),
        Regime::CountThenMove => Arc::new(largest_first::LargestFirst { moves_first: false }),
        Regime::ClaimThenSteal => Arc::new(claim_then_steal::ClaimThenSteal),
    }
}

/// Every fallback policy.
pub const ALL: &[Entry<dyn FallbackPolicy>] =
    &[largest_first::A, largest_first::B, claim_then_steal::C, never_mix::ENTRY];
