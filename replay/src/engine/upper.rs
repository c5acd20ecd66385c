//! Layers above the pages: they hear every event, take the page events that are theirs out of the
//! model's inputs, and ask for pages themselves.

use std::collections::VecDeque;

use kmemlab_trace::EventBatch;
use kmemlab_trace::event::Event;

use crate::model::{Model, Request};
use crate::outcome::OwnCounts;

/// Whose an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The page allocator's.
    Pages,
    /// A page event that a layer above caused in the kernel: its model asks for itself.
    Own,
    /// No page event at all.
    Object,
}

/// What a layer above asks of the page model. Blocks go by the layer's own numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UpperInput {
    /// A block is where the kernel has it.
    Bind { number: u32, pfn: u32 },
    /// A block that the kernel has and the layer has not.
    Drop { pfn: u32, order: u8 },
    /// A request that another can stand in for: it fails where no zone meets its mark. What it
    /// takes serves the next `Alloc`.
    Try { request: Request },
    /// A request.
    Alloc { number: u32, request: Request },
    /// A block goes back.
    Free { number: u32, cpu: usize, order: u8 },
}

/// A layer above the pages.
pub(crate) trait Upper {
    /// A batch begins. Answers the kinds of events that the layer listens to.
    fn batch(&mut self, batch: &EventBatch) -> u64;
    /// An event. `ask` answers at once whether a request is served.
    fn event(&mut self, event: &Event, ask: &mut dyn FnMut(UpperInput) -> bool) -> Fate;
    /// Whether a page that the mirror finds to have left its list without an event belongs to what
    /// the layer asks for itself.
    fn owns(&self, pfn: u32) -> bool;
    /// The page model starts, with the kernel's pages.
    fn begin(&mut self, ask: &mut dyn FnMut(UpperInput));
    /// What the last event made the layer ask for.
    fn take(&mut self, ask: &mut dyn FnMut(UpperInput));
}

/// Where the blocks of the layers above are in one model.
#[derive(Debug, Default)]
pub(super) struct OwnBlocks {
    /// Page frame plus one, by number.
    places: Vec<u32>,
    /// Taken by `Try`, with their orders, until their `Alloc` comes.
    granted: VecDeque<(u8, u32)>,
    has_granted: bool,
    pub(super) counts: OwnCounts,
}

impl OwnBlocks {
    pub(super) fn take(&mut self, model: &mut Model, input: UpperInput) {
        match input {
            UpperInput::Bind { number, pfn } => self.place(number, pfn + 1),
            UpperInput::Drop { pfn, order } => model.free_from_before(0, pfn, order, false),
            UpperInput::Try { request } => {
                let pfn = model.try_alloc(&request);
                self.has_granted = pfn.is_some();
                self.granted.extend(pfn.map(|pfn| (request.order, pfn)));
            }
            UpperInput::Alloc { number, request } => {
                let pfn = self.granted(request.order).or_else(|| model.alloc(&request));
                self.counts.allocs += 1;
                self.counts.failures += u64::from(pfn.is_none());
                self.place(number, pfn.map_or(0, |pfn| pfn + 1));
            }
            UpperInput::Free { number, cpu, order } => {
                self.counts.frees += 1;
                match self.places.get_mut(number as usize).map(std::mem::take) {
                    None | Some(0) => self.counts.unplaced += 1,
                    Some(pfn) => model.free(cpu, pfn - 1, order),
                }
            }
        }
    }

    /// Whether the last request that could do without was served.
    pub(super) fn has_granted(&self) -> bool {
        self.has_granted
    }

    /// What was taken for the request that comes now.
    fn granted(&mut self, order: u8) -> Option<u32> {
        let (_, pfn) = *self.granted.front().filter(|(granted, _)| *granted == order)?;
        self.granted.pop_front();
        Some(pfn)
    }

    fn place(&mut self, number: u32, pfn: u32) {
        let index = number as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, 0);
        }
        self.places[index] = pfn;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;
    use std::path::Path;

    use kmemlab_trace::Recording;
    use kmemlab_trace::event::Kind;

    use super::*;
    use crate::engine::{Options, replay, replay_under, rules_of};
    use crate::policy::PolicySet;

    /// Asks for what the kernel's layers asked for: every block that is not a user's.
    #[derive(Default)]
    struct Shadow {
        /// The kernel's blocks, by first page.
        blocks: HashMap<u32, u32>,
        next: u32,
        has_begun: bool,
        asked: Option<UpperInput>,
    }

    impl Upper for Shadow {
        fn batch(&mut self, _: &EventBatch) -> u64 {
            Kind::PageAlloc.bit() | Kind::PageFree.bit()
        }

        fn event(&mut self, event: &Event, _: &mut dyn FnMut(UpperInput) -> bool) -> Fate {
            let Some(pfn) = event.pfn().filter(|_| self.has_begun) else { return Fate::Pages };
            let (pfn, cpu, order) = (pfn.0 as u32, usize::from(event.cpu.0), event.order);
            match event.kind {
                Kind::PageAlloc if event.migrate != 1 => {
                    let (number, gfp, migrate) = (self.next, event.gfp, event.migrate);
                    self.next += 1;
                    self.blocks.insert(pfn, number);
                    let request = Request { cpu, order, gfp, migrate };
                    self.asked = Some(UpperInput::Alloc { number, request });
                    Fate::Own
                }
                Kind::PageFree => match self.blocks.remove(&pfn) {
                    Some(number) => {
                        self.asked = Some(UpperInput::Free { number, cpu, order });
                        Fate::Own
                    }
                    None => Fate::Pages,
                },
                _ => Fate::Pages,
            }
        }

        fn owns(&self, _: u32) -> bool {
            false
        }

        fn begin(&mut self, _: &mut dyn FnMut(UpperInput)) {
            self.has_begun = true;
        }

        fn take(&mut self, ask: &mut dyn FnMut(UpperInput)) {
            self.asked.take().into_iter().for_each(ask);
        }
    }

    #[test]
    fn a_layer_that_asks_for_what_the_kernel_asked_leaves_the_pages_as_they_are_alone() {
        // In these every free goes to its list, and no block is given out twice.
        for name in ["slab-churn", "guest-6.12", "pressure"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-traces");
            let recording = Recording::open(&folder.join(format!("{name}.kmt")), false).unwrap();
            let alone = replay(&recording, &Options::default(), &mut |_| {}).unwrap();
            let residue = alone.mirror.residue;
            assert_eq!((residue.direct_frees, residue.unmatched_allocs), (0, 0), "{name}");
            let set = PolicySet::baseline(&rules_of(recording.manifest()).0);
            let (mut shadow, options) = (Shadow::default(), Options::default());
            let upper = Some((&mut shadow as &mut dyn Upper, &set));
            let under = replay_under(&recording, &options, upper, &mut |_| {}).unwrap();
            assert_eq!(under.digest, alone.digest, "{name}");
            assert_eq!(under.model.own.allocs, u64::from(shadow.next));
            assert!(shadow.next > 1_000, "{name}: the layer asked for next to nothing");
        }
    }
}
