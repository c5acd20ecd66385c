//! Residue as it comes to light: handed to the observer row by row, and added up.

use kmemlab_trace::event::Event;

use super::{Replay, ResidueRow, Row};
use crate::compare::{Chunk, OpenSample, WrongBlock};
use crate::residue::{Cause, Evidence, Step};

/// What differs in a row.
struct What {
    cause: Cause,
    pfn: Option<u32>,
    order: u8,
    blocks: i64,
}

impl Replay<'_> {
    fn residue(&mut self, evidence: Evidence, at_ns: u64, zone: usize, what: What) {
        let Some(span) = self.mirror.memory().machine().zones.get(zone) else { return };
        let (node, zone) = (span.node.0, span.name.as_str());
        let What { cause, pfn, order, blocks } = what;
        let row = ResidueRow { evidence, at_ns, node, zone, order, pfn, cause, blocks };
        self.outcome.mirror.table.add(&row);
        (self.observe)(Row::Residue(row));
    }

    /// What of an event did not fit the mirror.
    pub(super) fn misfits(&mut self, event: &Event) {
        for misfit in self.mirror.misfits().to_vec() {
            let Some(zone) = self.mirror.memory().zone_of(misfit.pfn) else { continue };
            let pages = misfit.blocks << misfit.order;
            let between = self.steps.between(zone);
            match misfit.cause {
                Cause::FastSearch => between.fast_search_pages += pages,
                Cause::Isolation => between.isolations += 1,
                _ => between.settled_pages += pages,
            }
            let at_ns = event.time.0;
            let cause = if self.losses.is_unsure() { Cause::LostEvents } else { misfit.cause };
            let (order, blocks) = (misfit.order, misfit.blocks);
            let what = What { cause, pfn: Some(misfit.pfn), order, blocks };
            self.residue(Evidence::Event, at_ns, zone, what);
        }
    }

    /// A sample's reading is over.
    pub(super) fn close_sample(&mut self, open: &OpenSample) {
        open.close(&mut self.outcome.mirror);
        let at_ns = open.sample.stamp.before.0;
        if self.losses.falls_before(open.sample.stamp.after.0) {
            self.steps.lossy();
        }
        for (row, difference) in open.sample.zones.iter().zip(&open.differences) {
            let Some(zone) = self.mirror.memory().machine().zone(row.node, &row.zone) else {
                continue;
            };
            if let Some(step) = self.steps.sample(zone, at_ns, *difference) {
                self.step(&step);
            }
        }
        self.settle_loss(open);
    }

    /// The last steps, when nothing more comes.
    pub(super) fn finish_steps(&mut self) {
        for step in self.steps.finish() {
            self.step(&step);
        }
    }

    fn step(&mut self, step: &Step) {
        let table = &mut self.outcome.mirror.table;
        let pages: i64 = step.blocks.iter().enumerate().map(|(order, n)| n << order).sum();
        match step.cause {
            Cause::HiddenRefill => {
                table.hidden_refills += step.times;
                table.hidden_refill_pages += pages.unsigned_abs();
            }
            Cause::HiddenDrain => {
                table.hidden_drains += step.times;
                table.hidden_drain_pages += pages.unsigned_abs();
            }
            _ => {}
        }
        for (order, blocks) in (0u8..).zip(step.blocks) {
            if blocks != 0 {
                let what = What { cause: step.cause, pfn: None, order, blocks };
                self.residue(Evidence::Sample, step.at_ns, step.zone, what);
            }
        }
    }

    /// A part of the last page map has been read.
    pub(super) fn close_chunk(&mut self, mut chunk: Chunk) {
        chunk.close(self.mirror.memory(), &mut self.outcome.mirror);
        let Some(at_ns) = chunk.runs.first().map(|run| run.stamp.before.0) else { return };
        for WrongBlock { pfn, order, is_free, cause } in chunk.wrong_blocks(&self.mirror) {
            let Some(zone) = self.mirror.memory().zone_of(pfn) else { continue };
            let cause = if self.losses.is_unsure() { Cause::LostEvents } else { cause };
            let blocks = if is_free { -1 } else { 1 };
            let what = What { cause, pfn: Some(pfn), order, blocks };
            self.residue(Evidence::Map, at_ns, zone, what);
        }
    }
}
