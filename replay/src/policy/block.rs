//! Which free block of a list is taken, and to which end one is given back.

use std::fmt::Debug;
use std::sync::Arc;

use super::{Entry, View};
use crate::memory::EndRule;

mod ends;
mod fullest;
mod lowest;

/// A list of free blocks: zone, order, migrate type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeList {
    /// Zone.
    pub zone: usize,
    /// Order.
    pub order: u8,
    /// Migrate type.
    pub migrate: u8,
}

/// Chooses blocks.
pub trait BlockPolicy: Debug + Send + Sync {
    /// Whether the head of a list is always taken; [`Self::choose`] is not asked then.
    fn takes_head(&self) -> bool {
        true
    }

    /// Whether lists are to be kept by address, for [`View::lowest`].
    fn by_address(&self) -> bool {
        false
    }

    /// A block of a list that is not empty, and how many blocks were looked at to find it.
    fn choose(&self, view: &View<'_>, list: FreeList) -> Option<(u32, u64)> {
        view.head(list.zone, list.order, list.migrate).map(|head| (head, 1))
    }

    /// Where a freed block goes.
    fn end(&self) -> EndRule {
        EndRule::MergeLikely
    }
}

/// As the kernel does.
#[derive(Debug)]
struct Kernel;

impl BlockPolicy for Kernel {}

pub(super) fn baseline() -> Arc<dyn BlockPolicy> {
    Arc::new(Kernel)
}

/// Every block policy.
pub const ALL: &[Entry<dyn BlockPolicy>] = &[
    Entry {
        name: "last-freed-first",
        help: "The head of the list; a freed block goes to the head, or to the tail where a merge \
               is likely.",
        source: "__rmqueue_smallest, __free_one_page, buddy_merge_likely, 5.10 to 6.18",
        params: &[],
        make: |_, _| Ok(baseline()),
    },
    lowest::ENTRY,
    fullest::ENTRY,
    ends::HEAD,
    ends::TAIL,
];
