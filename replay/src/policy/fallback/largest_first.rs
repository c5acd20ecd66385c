//! 6.14 and older: one search from the largest order down.

use std::sync::Arc;

use super::{Ask, Entry, FallbackPolicy, Mode, Take, Verdict, View};

pub(super) const A: Entry<dyn FallbackPolicy> = Entry {
    name: "move-then-count",
    help: "Regime A: the largest candidate; the free blocks of its pageblock change lists, and the \
           pageblock its type if at least half of it is free or alike.",
    source: "__rmqueue_fallback, steal_suitable_fallback, 5.10 to 6.9",
    params: &[],
    make: |_, _| Ok(Arc::new(LargestFirst { moves_first: true })),
};

pub(super) const B: Entry<dyn FallbackPolicy> = Entry {
    name: "count-then-move",
    help: "Regime B: the largest candidate; blocks move only when the pageblock changes its type, \
           else one block is stolen.",
    source: "__rmqueue_fallback, steal_suitable_fallback, 6.10 to 6.14",
    params: &[],
    make: |_, _| Ok(Arc::new(LargestFirst { moves_first: false })),
};

#[derive(Debug)]
pub(super) struct LargestFirst {
    pub(super) moves_first: bool,
}

impl FallbackPolicy for LargestFirst {
    fn decide(&self, view: &View<'_>, ask: &Ask, _mode: &mut Mode) -> Verdict {
        let mut verdict = Verdict::default();
        let orders = view.machine().orders;
        let block_order = view.machine().block_order;
        let mut look = |order: u8| {
            verdict.lists += 1;
            ask.candidate(view, order).map(|(head, other)| (order, head, other))
        };
        let Some(largest) = (ask.lowest_order(view)..orders).rev().find_map(&mut look) else {
            return verdict;
        };
        let (mut order, mut head, mut other) = largest;
        let may_claim = ask.may_claim(view, order);
        // A movable request breaks up the smallest block when it may not take over anyway.
        if !may_claim
            && ask.migrate == 1
            && order > ask.order
            && let Some(smallest) = (ask.order..orders).find_map(&mut look)
        {
            (order, head, other) = smallest;
        }
        if order >= block_order {
            verdict.take = Some(if self.moves_first {
                Take::WholeByList { head, order }
            } else {
                Take::Whole { head, order }
            });
            return verdict;
        }
        verdict.boosts = 1;
        let may_claim = ask.may_claim(view, order);
        // Up to 6.9 the block may be on another list than its pageblock's.
        let before = view.block_type(head);
        let alike = view.free_and_alike(head, ask.migrate, before).filter(|_| may_claim);
        verdict.take = Some(match alike {
            Some((free, alike)) if free + alike >= 1 << block_order >> 1 => {
                Take::Pageblock { head }
            }
            Some(_) if self.moves_first => Take::FreeBlocks { head },
            _ if self.moves_first => Take::OneBlock { head, order },
            _ => Take::Steal { head, order, other },
        });
        verdict
    }
}
