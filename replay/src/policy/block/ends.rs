//! Freed blocks always to one end.

use std::sync::Arc;

use super::{BlockPolicy, Entry};
use crate::memory::EndRule;

pub(super) const HEAD: Entry<dyn BlockPolicy> = Entry {
    name: "free-to-head",
    help: "A freed block always goes to the head of its list: last in, first out.",
    source: "__free_one_page without buddy_merge_likely",
    params: &[],
    make: |_, _| Ok(Arc::new(OneEnd(EndRule::Head))),
};

pub(super) const TAIL: Entry<dyn BlockPolicy> = Entry {
    name: "free-to-tail",
    help: "A freed block always goes to the tail of its list: first in, first out.",
    source: "__free_one_page with FPI_TO_TAIL everywhere",
    params: &[],
    make: |_, _| Ok(Arc::new(OneEnd(EndRule::Tail))),
};

#[derive(Debug)]
struct OneEnd(EndRule);

impl BlockPolicy for OneEnd {
    fn end(&self) -> EndRule {
        self.0
    }
}
