//! The state at any moment, on demand: from the checkpoint before it, or from where it stands.

use std::sync::Arc;

use kmemlab_trace::reader::EventBatches;
use kmemlab_trace::unit::Nanos;
use kmemlab_trace::{Error, EventBatch, Recording};

use super::index::{Checkpoint, Index, Known};
use super::sites::{Freed, Frees};
use super::walk::State;

/// A state that moves.
#[derive(Debug)]
pub(super) struct Cursor<S> {
    state: S,
    /// All events up to here are in it.
    at: Nanos,
    batches: EventBatches,
    batch: Option<EventBatch>,
    /// Of the wanted events of the batch, how many are done.
    done: usize,
    next_batch: u64,
    frees: usize,
}

impl<S: State> Cursor<S> {
    fn at(checkpoint: &Checkpoint<S>, recording: &Recording) -> Result<Self, Error> {
        Ok(Self {
            state: checkpoint.state.clone(),
            at: checkpoint.at,
            batches: recording.events_from(checkpoint.batch)?,
            batch: None,
            done: 0,
            next_batch: checkpoint.batch,
            frees: checkpoint.frees,
        })
    }

    /// Goes on to a moment that is not before this one.
    fn go_on(&mut self, recording: &Recording, index: &Index, to: Nanos) -> Result<(), Error> {
        loop {
            if self.batch.is_none() && !self.next(recording, to)? {
                break;
            }
            let Some(batch) = &self.batch else { break };
            // A batch has no more frees than events.
            let known: Vec<Freed> = {
                let known = index.known();
                let end = (self.frees + batch.len()).min(known.freed.len());
                known.freed[self.frees.min(end)..end].to_vec()
            };
            let mut frees = Frees::Known(known.iter());
            let mut is_over = true;
            for event in batch.iter_only(self.state.kinds()).skip(self.done) {
                if event.time > to {
                    is_over = false;
                    break;
                }
                self.state.step(&event, &mut frees);
                self.done += 1;
            }
            if let Frees::Known(rest) = frees {
                self.frees += known.len() - rest.len();
            }
            if !is_over {
                break;
            }
            self.batch = None;
        }
        self.at = to;
        Ok(())
    }

    /// Takes the next batch, if it may hold something up to that moment.
    fn next(&mut self, recording: &Recording, to: Nanos) -> Result<bool, Error> {
        let times = recording.batch_times(kmemlab_trace::format::EVENTS);
        let first = times.skip(self.next_batch as usize).map(|(first, ..)| first).next();
        if first.is_none_or(|first| first > to) {
            return Ok(false);
        }
        let batch = match self.batches.next() {
            Some(batch) => Some(batch?),
            // The recording has grown since the stream was opened.
            None => {
                self.batches = recording.events_from(self.next_batch)?;
                self.batches.next().transpose()?
            }
        };
        let Some(batch) = batch else { return Ok(false) };
        self.state.begin(&batch);
        self.batch = Some(batch);
        self.done = 0;
        self.next_batch += 1;
        Ok(true)
    }
}

/// The state at that moment; `None` where the background has not come so far, or the page map was
/// not whole yet. `slot` is where the state stood last.
pub(super) fn state_at<'a, S: State>(
    slot: &'a mut Option<Cursor<S>>,
    list: fn(&Known) -> &[Arc<Checkpoint<S>>],
    recording: &Recording,
    index: &Index,
    at: Nanos,
) -> Result<Option<&'a S>, Error> {
    let checkpoint: Option<Arc<Checkpoint<S>>> = {
        let known = index.known();
        let is_known = known
            .until
            .is_some_and(|until| at <= until || (known.is_done && known.trouble.is_none()))
            && known.from.is_some_and(|from| at >= from);
        if !is_known {
            return Ok(None);
        }
        let checkpoints = list(&known);
        let place = checkpoints.partition_point(|checkpoint| checkpoint.at <= at);
        place.checked_sub(1).map(|place| Arc::clone(&checkpoints[place]))
    };
    let Some(checkpoint) = checkpoint else { return Ok(None) };
    let is_near = slot.as_ref().is_some_and(|known| known.at <= at && known.at >= checkpoint.at);
    if !is_near {
        // The old one goes last: given back first, its memory would go to the system and have to be
        // had from there again, which was measured to double the time.
        *slot = Some(Cursor::at(&checkpoint, recording)?);
    }
    let Some(cursor) = slot else { return Ok(None) };
    if let Err(error) = cursor.go_on(recording, index, at) {
        *slot = None;
        return Err(error);
    }
    Ok(slot.as_ref().map(|cursor| &cursor.state))
}
