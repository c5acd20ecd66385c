//! The snapshots among the events: when time reaches one, mirror and model are compared with it.

use std::iter::Peekable;

use kmemlab_trace::reader::{BuddySample, BuddySamples, PageRuns};
use kmemlab_trace::snapshot::BuddyRow;

use super::inputs::Input;
use super::{Replay, ReplayError, Row, SampleRow};
use crate::compare::{Chunk, OpenSample};

impl Replay<'_> {
    /// Time has reached a sample or a chunk of the page map, or passed its end.
    pub(super) fn stop(&mut self, time: u64) -> Result<(), ReplayError> {
        self.charge_mirror();
        while let Some(cpu) = self.worker.due(time) {
            self.inputs.push(Input::Decay { cpu });
        }
        while time > self.next_stop {
            self.close_passed(time);
            self.open_reached(time)?;
            self.lists_reached(time);
            self.losses.falls_before(time);
            let begin = |at: Option<u64>| at.unwrap_or(u64::MAX);
            let sample = match &self.open {
                Some(open) => open.sample.stamp.after.0,
                None => begin(peek_sample(&mut self.samples).map(|s| s.stamp.before.0)),
            };
            let chunk = match &self.chunk {
                Some(chunk) => chunk.runs.first().map_or(0, |run| run.stamp.after.0),
                None => begin(peek_run(&mut self.map)),
            };
            let worker = self.worker.next_due_ns();
            let others = self.lists.next_ns().min(self.losses.next_ns());
            self.next_stop = sample.min(chunk).min(worker).min(others).max(time);
            if self.next_stop == time {
                break;
            }
        }
        // What the comparisons took is charged to nobody.
        self.segment_start = self.now();
        Ok(())
    }

    pub(super) fn close_passed(&mut self, time: u64) {
        if self.open.as_ref().is_some_and(|open| time > open.sample.stamp.after.0)
            && let Some(open) = self.open.take()
        {
            self.close_sample(&open);
        }
        let passed = |chunk: &Chunk| chunk.runs.first().is_none_or(|run| time > run.stamp.after.0);
        if self.chunk.as_ref().is_some_and(passed)
            && let Some(chunk) = self.chunk.take()
        {
            self.close_chunk(chunk);
        }
    }

    pub(super) fn open_reached(&mut self, time: u64) -> Result<(), ReplayError> {
        while self.open.is_none()
            && peek_sample(&mut self.samples).is_none_or(|sample| sample.stamp.before.0 < time)
        {
            let Some(sample) = self.samples.next() else { break };
            let sample = sample?;
            // The mirror knows nothing before the first page map is whole.
            if sample.stamp.before.0 < self.seed.last_read() {
                continue;
            }
            self.segment_start = self.now();
            self.run_models();
            self.compare(&sample)?;
            let mut open = OpenSample::new(sample);
            open.look(self.mirror.memory());
            if open.sample.stamp.after.0 < time {
                self.close_sample(&open);
            } else {
                self.open = Some(open);
            }
        }
        while self.chunk.is_none() && peek_run(&mut self.map).is_none_or(|before| before < time) {
            let Some(mut chunk) = self.next_chunk()? else { break };
            chunk.open(self.mirror.memory());
            if chunk.runs.first().is_some_and(|run| run.stamp.after.0 >= time) {
                self.chunk = Some(chunk);
            } else {
                self.close_chunk(chunk);
            }
        }
        Ok(())
    }

    /// The next runs of the last page map that share one read.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Chunk>, ReplayError> {
        let Some(first) = self.map.next() else { return Ok(None) };
        let first = first?;
        let mut runs = vec![first];
        while let Some(Ok(run)) = self.map.peek() {
            if run.stamp != first.stamp {
                break;
            }
            runs.push(*run);
            self.map.next();
        }
        Ok(Some(Chunk::new(runs)))
    }

    /// Samples taken before the first page map was whole have no mirror to compare with.
    pub(super) fn compare(&mut self, sample: &BuddySample) -> Result<(), ReplayError> {
        let start = self.first_event.unwrap_or(0);
        if !self.has_begun {
            return Ok(());
        }
        let mirror = self.mirror.memory();
        for row in &sample.zones {
            if let Some(zone) = mirror.machine().zone(row.node, &row.zone) {
                (self.observe)(observed("kernel", sample, row, &row.free_blocks));
                (self.observe)(observed("mirror", sample, row, mirror.free_blocks(zone)));
            }
        }
        if self.options.check {
            mirror.check().map_err(|law| ReplayError::Law(format!("mirror: {law}")))?;
        }
        for (index, run) in self.models.iter_mut().enumerate() {
            let Some(model) = &run.model else { continue };
            let (model, name) = (model.memory(), run.policies.name.as_str());
            let source = if index == 0 { "model" } else { name };
            run.tally.model(sample, start, mirror, model, &self.active);
            for row in &sample.zones {
                if let Some(zone) = model.machine().zone(row.node, &row.zone) {
                    (self.observe)(observed(source, sample, row, model.free_blocks(zone)));
                }
            }
            if self.options.check {
                model.check().map_err(|law| ReplayError::Law(format!("{name}: {law}")))?;
            }
        }
        Ok(())
    }

    pub(super) fn look(&mut self) {
        if let Some(open) = &mut self.open {
            open.event(self.mirror.memory());
        }
        self.lists.look(self.mirror.memory());
    }
}

fn observed<'a>(
    source: &'a str,
    sample: &BuddySample,
    row: &'a BuddyRow,
    free_blocks: &'a [u64],
) -> Row<'a> {
    let at_ns = sample.stamp.before.0;
    Row::Sample(SampleRow { source, at_ns, node: row.node.0, zone: &row.zone, free_blocks })
}

fn peek_sample(samples: &mut Peekable<BuddySamples>) -> Option<&BuddySample> {
    samples.peek().and_then(|sample| sample.as_ref().ok())
}

fn peek_run(map: &mut Peekable<PageRuns>) -> Option<u64> {
    map.peek().and_then(|run| run.as_ref().ok()).map(|run| run.stamp.before.0)
}
