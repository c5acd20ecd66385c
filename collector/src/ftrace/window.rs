//! Which recorded events the counters can have seen.

use kmemlab_trace::unit::Nanos;

use super::Agreement;
use crate::perf::Wanted;

/// The kernel stamps an event, and then one probe after the other sees it.
const MARGIN_NS: u64 = 2_000;
/// A switch from afar is an interrupt there, which may come between the probes of one event.
const REMOTE_MARGIN_NS: u64 = 20_000;
/// No tracepoint of ours.
const NONE: u16 = u16::MAX;

/// A switch happened at some moment of this time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    before: Nanos,
    after: Nanos,
}

impl Span {
    pub(super) fn around(before: Nanos, after: Nanos, is_there: bool) -> Self {
        let margin = if is_there { MARGIN_NS } else { REMOTE_MARGIN_NS };
        Self {
            before: Nanos(before.0.saturating_sub(margin)),
            after: Nanos(after.0.saturating_add(margin)),
        }
    }

    const fn never() -> Self {
        Self { before: Nanos(u64::MAX), after: Nanos(u64::MAX) }
    }
}

/// When one processor's counters went on and off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    pub(super) on: Span,
    pub(super) off: Span,
}

impl Default for Window {
    fn default() -> Self {
        Self { on: Span::never(), off: Span::never() }
    }
}

/// Recorded events of one tracepoint on one processor.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    outside: u64,
    edge: u64,
    inside: u64,
}

/// Counts recorded events by processor, tracepoint and place in the window.
#[derive(Debug)]
pub(super) struct Tally {
    ids: Vec<u16>,
    /// The place in `ids` of each number.
    slots: Vec<u16>,
    cells: Vec<Cell>,
}

impl Tally {
    pub(super) fn new(cpus: usize, wanted: &[Wanted]) -> Self {
        let ids: Vec<u16> = wanted.iter().map(|wanted| wanted.id).collect();
        let most = ids.iter().max().map_or(0, |id| usize::from(*id) + 1);
        let mut slots = vec![NONE; most];
        for (slot, id) in ids.iter().enumerate() {
            slots[usize::from(*id)] = u16::try_from(slot).unwrap_or(NONE);
        }
        let cells = vec![Cell::default(); cpus * ids.len()];
        Self { ids, slots, cells }
    }

    pub(super) fn ids(&self) -> &[u16] {
        &self.ids
    }

    pub(super) fn of(&self, cpu_index: usize, slot: usize) -> Agreement {
        let Cell { outside, edge, inside } = self.cells[cpu_index * self.ids.len() + slot];
        Agreement { outside, edge, inside, counted: None }
    }

    pub(super) fn on(&mut self, cpu_index: usize, window: Window) -> CpuTally<'_> {
        let first = cpu_index * self.ids.len();
        let cells = &mut self.cells[first..first + self.ids.len()];
        CpuTally { slots: &self.slots, cells, window }
    }
}

/// The tally of one processor.
#[derive(Debug)]
pub(super) struct CpuTally<'a> {
    slots: &'a [u16],
    cells: &'a mut [Cell],
    window: Window,
}

impl CpuTally<'_> {
    /// Counts an event; every record starts with the kernel's number of its tracepoint.
    #[inline]
    pub(super) fn count(&mut self, time: Nanos, bytes: &[u8]) {
        let Some(id) = bytes.first_chunk::<2>() else { return };
        let id = usize::from(u16::from_ne_bytes(*id));
        let slot = self.slots.get(id).copied().unwrap_or(NONE);
        let Some(cell) = self.cells.get_mut(usize::from(slot)) else { return };
        let Window { on, off } = &self.window;
        if time > on.after && time < off.before {
            cell.inside += 1;
        } else if time < on.before || time > off.after {
            cell.outside += 1;
        } else {
            cell.edge += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(id: u16) -> Wanted {
        Wanted { name: format!("a:{id}"), id, is_allocation: false }
    }

    #[test]
    fn each_event_has_its_place_in_the_window() {
        let mut tally = Tally::new(2, &[wanted(300), wanted(7)]);
        let span = |time: u64| Span::around(Nanos(time), Nanos(time + 100), true);
        let window = Window { on: span(10_000), off: span(90_000) };
        let mut on = tally.on(1, window);
        let id = 7u16.to_ne_bytes();
        for time in [1, 7_999, 8_000, 12_100, 12_101, 50_000, 87_999, 88_000, 92_100, 92_101] {
            on.count(Nanos(time), &id);
        }
        on.count(Nanos(50_000), &301u16.to_ne_bytes());
        on.count(Nanos(50_000), &[7]);
        let of = tally.of(1, 1);
        assert_eq!((of.outside, of.edge, of.inside), (3, 4, 3));
        assert_eq!(tally.of(1, 0).recorded() + tally.of(0, 1).recorded(), 0);
        // Nothing is inside before the counters go on.
        tally.on(0, Window::default()).count(Nanos(5), &id);
        assert_eq!(tally.of(0, 1).outside, 1);
    }

    #[test]
    fn the_counter_agrees_within_its_bounds() {
        let with = |counted| Agreement { outside: 5, edge: 2, inside: 10, counted };
        let excess = |counted| with(Some(counted)).excess();
        assert_eq!(with(None).excess(), None);
        assert_eq!([10, 11, 12].map(excess), [Some(0); 3]);
        assert_eq!([9, 13, 0].map(excess), [Some(-1), Some(1), Some(-10)]);
    }
}
