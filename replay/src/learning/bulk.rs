//! Pages allocated in bulk and freed again (`alloc_pages_bulk`: splice, page pools).
//!
//! No event tells of the allocation; a free of a page that should be on a per-CPU list does, one
//! page at a time. What is freed in a row left its list together, before the first of these frees.

use std::collections::{HashMap, HashSet};

use kmemlab_trace::event::Event;

/// Frees in a row, by one thread, of pages that left a list together.
#[derive(Clone, Debug, Default)]
struct Row {
    pid: u32,
    /// The first free, by its number among all frees.
    first: u64,
    pages: HashSet<u32>,
}

/// All such rows.
#[derive(Clone, Debug, Default)]
pub(super) struct BulkRows {
    /// The row under way on each processor.
    open: HashMap<u16, Row>,
    found: Vec<(u64, u32)>,
}

impl BulkRows {
    /// A page on a per-CPU list was freed: it had left the list in bulk.
    pub(super) fn freed(&mut self, pfn: u32, number: u64, event: &Event) {
        let row = self.open.entry(event.cpu.0).or_default();
        // The same page again, or another thread: another row.
        if row.pages.is_empty() || row.pid != event.pid.0 || !row.pages.insert(pfn) {
            *row = Row { pid: event.pid.0, first: number, pages: HashSet::from([pfn]) };
        }
        self.found.push((row.first, pfn));
    }

    /// A thread was given a page on that processor: a row ends.
    pub(super) fn allocated(&mut self, event: &Event) {
        if let Some(row) = self.open.get_mut(&event.cpu.0) {
            row.pages.clear();
        }
    }

    /// Pages by the free before which they left their lists, rising.
    pub(super) fn finish(mut self) -> Vec<(u64, u32)> {
        self.found.sort_by_key(|(number, _)| *number);
        self.found
    }
}

#[cfg(test)]
mod tests {
    use kmemlab_trace::event::Kind;
    use kmemlab_trace::unit::{Cpu, Nanos, Pid};

    use super::*;

    #[test]
    fn pages_freed_in_a_row_left_together_before_the_first_free() {
        let free = Event::new(Kind::PageFree, Nanos(1), Cpu(0), Pid(7));
        let mut rows = BulkRows::default();
        for (number, pfn) in [(4, 30), (5, 31), (6, 31), (7, 30)] {
            rows.freed(pfn, number, &free);
        }
        rows.allocated(&free);
        rows.freed(40, 9, &free);
        assert_eq!(rows.finish(), [(4, 30), (4, 31), (6, 31), (6, 30), (9, 40)]);
    }
}
