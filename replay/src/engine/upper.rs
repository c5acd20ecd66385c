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
    /// A free of a page that a layer above took without an event.
    Taken,
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
    /// Pages that the kernel takes in bulk, without an event; the mirror finds their places later.
    Bulk { pages: u32, request: Request },
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
    /// By processor: pages taken in bulk whose place in the kernel is not known yet.
    owed: Vec<VecDeque<u32>>,
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
            UpperInput::Bulk { pages, request } => {
                if self.owed.len() <= request.cpu {
                    self.owed.resize(request.cpu + 1, VecDeque::new());
                }
                for _ in 0..pages {
                    if let Some(pfn) = model.alloc_bulk(&request) {
                        self.owed[request.cpu].push_back(pfn);
                    }
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

    /// The page that stands for one that the mirror found to be taken in bulk.
    pub(super) fn owed(&mut self, request: &Request) -> Option<u32> {
        if request.order > 0 {
            return None;
        }
        let pfn = self.owed.get_mut(request.cpu)?.pop_front()?;
        self.counts.bound_late += 1;
        Some(pfn)
    }

    /// Any page taken in bulk, the processor's own first.
    pub(super) fn any_owed(&mut self, cpu: usize) -> Option<u32> {
        let own = self.owed.get_mut(cpu).and_then(VecDeque::pop_front);
        let found = own.or_else(|| self.owed.iter_mut().find_map(VecDeque::pop_front))?;
        self.counts.bound_late += 1;
        Some(found)
    }
}
