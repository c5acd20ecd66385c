//! Pageblocks of one kind only.

use std::sync::Arc;

use super::claim_then_steal::steal;
use super::{Ask, Entry, FallbackPolicy, Mode, Take, Verdict, View};
use crate::policy::Param;

pub(super) const ENTRY: Entry<dyn FallbackPolicy> = Entry {
    name: "never-mix",
    help: "Only whole free pageblocks change their type; a request that finds none looks at other \
           zones, and fails if they have none either.",
    source: "ALLOC_NOFRAGMENT at all times (vm.defrag_mode=1, 6.15, without its last resort)",
    params: &[Param {
        name: "last-resort",
        default: "no",
        help: "yes: steal a block rather than leave the zone",
    }],
    make: |params, _| {
        Ok(Arc::new(NeverMix { last_resort: params.truth("last-resort")?.unwrap_or(false) }))
    },
};

#[derive(Debug)]
struct NeverMix {
    last_resort: bool,
}

impl FallbackPolicy for NeverMix {
    fn decide(&self, view: &View<'_>, ask: &Ask, _mode: &mut Mode) -> Verdict {
        let mut verdict = Verdict::default();
        let block_order = view.machine().block_order;
        for order in (block_order.max(ask.order)..view.machine().orders).rev() {
            verdict.lists += 1;
            if let Some((head, _)) = ask.candidate(view, order) {
                verdict.take = Some(Take::Whole { head, order });
                return verdict;
            }
        }
        if self.last_resort && !ask.no_fragment {
            verdict.boosts = 1;
            steal(view, ask, &mut verdict);
        }
        verdict
    }
}
