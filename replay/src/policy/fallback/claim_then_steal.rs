//! 6.15 and later: take over from the large orders, then steal from the small ones.

use std::sync::Arc;

use super::{Ask, Entry, FallbackPolicy, Mode, Take, Verdict, View};

pub(super) const C: Entry<dyn FallbackPolicy> = Entry {
    name: "claim-then-steal",
    help: "Regime C: take over a pageblock from the largest order down, else steal a block from \
           the smallest order up; a bulk that steals goes on stealing.",
    source: "__rmqueue_claim, __rmqueue_steal, 6.15 and late 6.12.y",
    params: &[],
    make: |_, _| Ok(Arc::new(ClaimThenSteal)),
};

#[derive(Debug)]
pub(super) struct ClaimThenSteal;

impl FallbackPolicy for ClaimThenSteal {
    fn looks_at_own(&self, mode: Mode) -> bool {
        mode == Mode::Normal
    }

    fn decide(&self, view: &View<'_>, ask: &Ask, mode: &mut Mode) -> Verdict {
        let mut verdict = Verdict::default();
        if *mode != Mode::Steal {
            *mode = Mode::Claim;
            claim(view, ask, &mut verdict);
            if verdict.take.is_some() {
                *mode = Mode::Normal;
                return verdict;
            }
        }
        if !ask.no_fragment {
            steal(view, ask, &mut verdict);
            if verdict.take.is_some() {
                *mode = Mode::Steal;
            }
        }
        verdict
    }
}

/// From the largest order down: a block of at least a pageblock, or a pageblock of which at least
/// half is free or alike (`__rmqueue_claim`, `try_to_claim_block`).
pub(super) fn claim(view: &View<'_>, ask: &Ask, verdict: &mut Verdict) {
    let block_order = view.machine().block_order;
    for order in (ask.lowest_order(view)..view.machine().orders).rev() {
        if !ask.may_claim(view, order) {
            return;
        }
        verdict.lists += 1;
        let Some((head, other)) = ask.candidate(view, order) else { continue };
        if order >= block_order {
            verdict.take = Some(Take::Whole { head, order });
            return;
        }
        verdict.boosts += 1;
        let alike = view.free_and_alike(head, ask.migrate, other);
        if alike.is_some_and(|(free, alike)| free + alike >= 1 << block_order >> 1) {
            verdict.take = Some(Take::Pageblock { head });
            return;
        }
    }
}

/// From the smallest order up: a block, whatever its pageblock (`__rmqueue_steal`).
pub(super) fn steal(view: &View<'_>, ask: &Ask, verdict: &mut Verdict) {
    for order in ask.order..view.machine().orders {
        verdict.lists += 1;
        if let Some((head, other)) = ask.candidate(view, order) {
            verdict.take = Some(Take::Steal { head, order, other });
            return;
        }
    }
}
