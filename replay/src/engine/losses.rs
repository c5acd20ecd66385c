//! Gaps in the events: from where to where the state is unsure, and how it is brought back.

use kmemlab_trace::format;
use kmemlab_trace::reader::Recording;
use kmemlab_trace::table::Cell;

use super::{Replay, ReplayError};
use crate::compare::OpenSample;
use crate::outcome::Unsure;

/// A gap: the last moment before it, the first one after it, and what is missing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Gap {
    from_ns: u64,
    to_ns: u64,
    lost_events: u64,
}

/// The gaps of a recording, in the order of their beginnings.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    gaps: Vec<Gap>,
    next: usize,
    /// The interval under way, and the end of its last gap.
    open: Option<(Unsure, u64)>,
}

impl Losses {
    pub(super) fn of(recording: &Recording) -> Result<Self, ReplayError> {
        let mut gaps = Vec::new();
        if recording.has(&format::LOSS) {
            for batch in recording.table(&format::LOSS)? {
                let batch = batch?;
                for row in 0..batch.rows() {
                    let number = |column: usize| match batch.cell(row, column) {
                        Cell::U64(value) => value,
                        _ => 0,
                    };
                    let (from_ns, to_ns) = (number(1), number(2));
                    gaps.push(Gap { from_ns, to_ns: to_ns.max(from_ns), lost_events: number(3) });
                }
            }
        }
        gaps.sort_unstable();
        Ok(Self { gaps, next: 0, open: None })
    }

    /// When the next gap begins.
    pub(super) fn next_ns(&self) -> u64 {
        self.gaps.get(self.next).map_or(u64::MAX, |gap| gap.from_ns)
    }

    /// The state is unsure.
    pub(super) fn is_unsure(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the gaps that began before that moment; `true` when the state is unsure.
    pub(super) fn falls_before(&mut self, time: u64) -> bool {
        while let Some(gap) = self.gaps.get(self.next).filter(|gap| gap.from_ns <= time) {
            let fresh = Unsure { from_ns: gap.from_ns, ..Unsure::default() };
            let (unsure, until) = self.open.get_or_insert((fresh, gap.to_ns));
            unsure.lost_events += gap.lost_events;
            *until = (*until).max(gap.to_ns);
            self.next += 1;
        }
        self.is_unsure()
    }
}

impl Replay<'_> {
    /// The first sample after a gap ends the unsure interval: its counts are taken over.
    pub(super) fn settle_loss(&mut self, sample: &OpenSample) {
        let read = sample.sample.stamp;
        let Some((mut unsure, until)) = self.losses.open else { return };
        if read.before.0 <= until {
            return;
        }
        for row in &sample.sample.zones {
            let zone = self.mirror.memory().machine().zone(row.node, &row.zone);
            if let Some(zone) = zone
                && !sample.is_exact()
            {
                let (removed, added) = self.mirror.resync(zone, &row.free_blocks);
                unsure.removed_pages += removed;
                unsure.added_pages += added;
            }
        }
        self.steps.reset();
        unsure.until_ns = Some(read.before.0);
        self.outcome.mirror.unsure.push(unsure);
        self.losses.open = None;
    }

    /// The events are at their end: an interval under way has none.
    pub(super) fn finish_losses(&mut self) {
        self.losses.falls_before(u64::MAX);
        let open = self.losses.open.take();
        self.outcome.mirror.unsure.extend(open.map(|(unsure, _)| unsure));
    }
}
