//! Which moments of a processor a ring tells nothing about.

use kmemlab_trace::unit::{Cpu, Nanos};

use crate::capture::Loss;

/// Follows one ring's records and its tales of loss.
#[derive(Debug)]
pub(super) struct Gaps {
    cpu: Cpu,
    last_event: Nanos,
    told: u64,
}

impl Gaps {
    pub(super) fn new(cpu: Cpu) -> Self {
        Self { cpu, last_event: Nanos(0), told: 0 }
    }

    /// An event came out of the ring.
    #[inline]
    pub(super) fn event(&mut self, time: Nanos) {
        self.last_event = time;
    }

    /// The ring tells of records that it had no room for. It tells so with the first one that fits
    /// again: the gap is between that and the event before.
    pub(super) fn told(&mut self, time: Nanos, events: u64) -> Loss {
        self.told += events;
        self.gap(time, events)
    }

    /// The gap that a ring which was full to the end could not tell of: what its events count as
    /// lost in all, less what was told.
    pub(super) fn untold(&mut self, until: Nanos, lost_in_all: u64) -> Option<Loss> {
        let events = lost_in_all.saturating_sub(self.told);
        self.told += events;
        (events > 0).then(|| self.gap(until, events))
    }

    fn gap(&self, until: Nanos, events: u64) -> Loss {
        // Nested interrupts may put a later time before an earlier one.
        Loss { cpu: self.cpu, from: self.last_event.min(until), to: until, events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lost_event_is_in_one_gap() {
        let mut gaps = Gaps::new(Cpu(3));
        gaps.event(Nanos(10));
        gaps.event(Nanos(20));
        let first = gaps.told(Nanos(50), 7);
        assert_eq!(first, Loss { cpu: Cpu(3), from: Nanos(20), to: Nanos(50), events: 7 });
        gaps.event(Nanos(51));
        assert_eq!(gaps.untold(Nanos(90), 7), None);
        let last = gaps.untold(Nanos(90), 12).unwrap();
        assert_eq!((last.from, last.to, last.events), (Nanos(51), Nanos(90), 5));
        assert_eq!(gaps.untold(Nanos(95), 12), None, "told once");
    }

    #[test]
    fn a_gap_never_ends_before_it_begins() {
        let mut gaps = Gaps::new(Cpu(0));
        gaps.event(Nanos(60));
        let loss = gaps.told(Nanos(50), 1);
        assert_eq!((loss.from, loss.to), (Nanos(50), Nanos(50)));
    }
}
