//! One model among those that replay a recording: its state, what its blocks stand for, and how it
//! compares with the kernel.

use super::KernelCounts;
use super::inputs::Input;
use super::upper::OwnBlocks;
use crate::binding::{Bindings, Bound};
use crate::compare::Tally;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::model::{Model, Request, Start};
use crate::outcome::{ModelResult, Outcome, Placement};
use crate::policy::PolicySet;
use crate::seeding::Seed;

/// Inputs looked at before they are carried out.
const AHEAD: usize = 16;

/// A model at work.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) policies: PolicySet,
    pub(super) model: Option<Model>,
    bindings: Bindings,
    pub(super) tally: Tally,
    placement: Placement,
    /// Blocks of the layers above.
    own: OwnBlocks,
    pub(super) spent_ns: u64,
}

impl Run {
    pub(super) fn new(policies: PolicySet, machine: &Machine) -> Self {
        Self {
            policies,
            model: None,
            bindings: Bindings::new(machine.end, machine.block_order, machine.orders),
            tally: Tally::default(),
            placement: Placement::default(),
            own: OwnBlocks::default(),
            spent_ns: 0,
        }
    }

    /// Starts from the kernel's own state.
    pub(super) fn begin(&mut self, memory: &Memory, seed: &Seed, start: &Start) {
        self.model = Some(Model::under(self.policies.clone(), memory.clone(), seed, start));
    }

    /// Whether the last request of a layer above that could do without was served.
    pub(super) fn has_granted(&self) -> bool {
        self.own.has_granted()
    }

    pub(super) fn digest(&self) -> Option<u64> {
        self.model.as_ref().map(|model| model.memory().digest())
    }

    /// Goes through what the model is told.
    pub(super) fn take(&mut self, inputs: &[Input]) {
        let Some(mut model) = self.model.take() else { return };
        for some in inputs.chunks(AHEAD) {
            self.warm_up(&model, some);
            for input in some {
                self.input(&mut model, *input);
            }
        }
        self.model = Some(model);
    }

    /// Looks at what the next inputs will change: far apart in memory, it is fetched all at once
    /// instead of one after the other.
    #[inline]
    fn warm_up(&self, model: &Model, inputs: &[Input]) {
        let pages = inputs.iter().filter_map(|input| match *input {
            Input::Alloc { kernel, .. } | Input::Bulk { kernel, .. } => Some(kernel),
            Input::Free { kernel, .. } => Some(kernel),
            _ => None,
        });
        let bound = pages.map(|kernel| self.bindings.at(kernel).map_or(kernel, |bound| bound.pfn));
        let seen = bound.fold(0, |seen, pfn| seen ^ model.memory().glance(pfn));
        std::hint::black_box(seen);
    }

    #[inline]
    fn input(&mut self, model: &mut Model, input: Input) {
        match input {
            Input::Alloc { kernel, request } => self.alloc(model, kernel, &request, false),
            Input::Bulk { kernel, request } => self.alloc(model, kernel, &request, true),
            Input::Failed { request } => model.refuse(&request),
            Input::Free { cpu, kernel, order, direct } => {
                self.free(model, cpu, kernel, order, direct);
            }
            Input::Told { kernel, order } => {
                // The model served it when the mirror found it missing.
                if let Some(bound) = self.bindings.take(kernel, order) {
                    self.bindings.bind(kernel, bound);
                    self.placed(model, kernel, bound.pfn, order);
                }
            }
            Input::Isolated { kernel, order } => {
                if let Some(pfn) = model.isolate(kernel, order) {
                    self.bindings.bind(kernel, Bound { pfn, order });
                }
            }
            Input::Instead { guess, kernel, order } => {
                if let Some(bound) = self.bindings.take(guess, order) {
                    self.bindings.bind(kernel, bound);
                }
            }
            Input::Marks { zone, marks, managed } => model.set_watermarks(zone, marks, managed),
            Input::Kswapd { awake: true } => model.kswapd_woke(),
            Input::Kswapd { awake: false } => model.kswapd_slept(),
            Input::KswapdNaps => model.kswapd_naps(),
            Input::Decay { cpu } => model.decay(cpu),
            Input::Emptied { zone, cpu } => model.drain_set(zone, cpu),
            Input::Unserved { cpu, kernel, order } => {
                if let Some(bound) = self.bindings.take(kernel, order) {
                    model.unserve(cpu, bound.pfn, order);
                }
            }
            Input::Upper(input) => self.own.take(model, input),
        }
    }

    #[inline]
    fn free(&mut self, model: &mut Model, cpu: usize, kernel: u32, order: u8, direct: bool) {
        match self.bindings.take(kernel, order) {
            Some(bound) if direct => model.free_direct(bound.pfn, order),
            Some(bound) => model.free(cpu, bound.pfn, order),
            None => {
                // What was taken in smaller blocks is given back block by block.
                let smaller =
                    if order == 0 { Vec::new() } else { self.bindings.take_within(kernel, order) };
                if smaller.is_empty() {
                    model.free_from_before(cpu, kernel, order, direct);
                }
                for bound in smaller {
                    model.free_direct(bound.pfn, bound.order);
                }
            }
        }
    }

    #[inline]
    fn alloc(&mut self, model: &mut Model, kernel: u32, request: &Request, is_bulk: bool) {
        // A block that the kernel allocates twice was freed unseen, and popped as the last one
        // freed.
        if let Some(old) = self.bindings.take(kernel, request.order) {
            model.free(request.cpu, old.pfn, old.order);
        }
        let taken = if is_bulk { model.alloc_bulk(request) } else { model.alloc(request) };
        let Some(pfn) = taken else { return };
        if !is_bulk {
            self.placed(model, kernel, pfn, request.order);
        }
        self.bindings.bind(kernel, Bound { pfn, order: request.order });
    }

    /// Compares where an allocation went; bulk ones are not compared, for want of an event.
    #[inline]
    fn placed(&mut self, model: &Model, kernel: u32, pfn: u32, order: u8) {
        let block_order = model.memory().machine().block_order;
        let placement = &mut self.placement;
        let is_exact = u64::from(pfn == kernel);
        placement.allocs += 1;
        placement.exact += is_exact;
        placement.same_block += u64::from(pfn >> block_order == kernel >> block_order);
        if order == 0 {
            placement.order0_allocs += 1;
            placement.order0_exact += is_exact;
        }
    }

    /// The result beside what the kernel did.
    pub(super) fn finish(&mut self, kernel: &KernelCounts, outcome: &Outcome) -> ModelResult {
        let mut result = ModelResult { placement: self.placement, ..ModelResult::default() };
        if let Some(model) = &self.model {
            result.counts = model.counts;
            result.state_bytes = model.state_bytes() + self.bindings.bytes();
            result.fallback.model = model.fallbacks;
            result.work = model.memory().work;
            result.own = self.own.counts;
            result.moved.model_refills = model.moved.refills();
            result.moved.model_drains = model.moved.drains();
            let shared = kernel.moved.moved.shared(&model.moved);
            (result.moved.equal_refills, result.moved.equal_drains) = shared;
        }
        result.moved.kernel_refills = kernel.moved.moved.refills();
        result.moved.kernel_drains = kernel.moved.moved.drains();
        result.fallback.kernel = kernel.fallbacks;
        result.kernel_failures = kernel.failures;
        result.kernel_kswapd_wakes = kernel.kswapd_wakes;
        result.speed.spent_ns = self.spent_ns;
        result.speed.events = outcome.events;
        result.speed.page_events = outcome.page_events;
        self.tally.finish(&mut result);
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kmemlab_trace::Manifest;
    use kmemlab_trace::manifest::Zone;
    use kmemlab_trace::snapshot::{PageRun, PageUse, Stamp};
    use kmemlab_trace::unit::Pfn;

    use super::super::upper::UpperInput;
    use super::*;
    use crate::mirror::Mirror;
    use crate::rules::Rules;

    /// A run over 4,096 free pages in one zone of one processor.
    fn begun() -> Run {
        let mut manifest = Manifest::default();
        (manifest.host.orders, manifest.host.pageblock_order) = (11, 9);
        manifest.host.cpus = vec![0];
        manifest.host.zones = vec![Zone {
            name: "Normal".to_owned(),
            spanned_pages: PAGES,
            present_pages: PAGES,
            managed_pages: PAGES,
            ..Zone::default()
        }];
        let rules = Rules::of("6.18");
        let machine = Machine::of(&manifest, rules).unwrap();
        let mut seed = Seed::new(&machine);
        let (stamp, page_use) = (Stamp::default(), PageUse::Free);
        seed.add(&PageRun { stamp, pfn: Pfn(0), pages: PAGES, page_use }, &machine);
        let mirror = Mirror::new(&machine, seed.clone(), None);
        let mut run = Run::new(PolicySet::baseline(&rules), &machine);
        run.begin(mirror.memory(), &seed, &Start::computed(&machine, 0));
        run
    }

    const PAGES: u64 = 8 * 512;

    /// `alloc_contig_range` takes pageblocks one by one, and a gigantic page is freed as one.
    #[test]
    fn what_was_taken_block_by_block_comes_back_when_freed_as_one() {
        let mut run = begun();
        let free = |run: &Run| run.model.as_ref().unwrap().memory().free_pages(0);
        let taken = (0..4).map(|block| Input::Isolated { kernel: block * 512, order: 9 });
        run.take(&taken.collect::<Vec<_>>());
        assert_eq!(free(&run), PAGES - 4 * 512);
        run.take(&[Input::Free { cpu: 0, kernel: 0, order: 11, direct: true }]);
        assert_eq!(free(&run), PAGES);
        run.model.unwrap().memory().check().unwrap();
    }

    /// The mirror sees a page leave its list before its event tells that it is a layer's own, which
    /// asks for it then.
    #[test]
    fn what_was_served_for_a_layer_s_own_event_is_not_served_twice() {
        let request = Request { cpu: 0, order: 0, gfp: 0xcc0, migrate: 0 };
        let upper = Input::Upper(UpperInput::Alloc { number: 0, request });
        let (mut once, mut twice) = (begun(), begun());
        once.take(&[upper]);
        let late = Input::Unserved { cpu: 0, kernel: 77, order: 0 };
        twice.take(&[Input::Bulk { kernel: 77, request }, late, upper]);
        let memory = |run: &Run| run.model.as_ref().unwrap().memory().clone();
        assert_eq!(memory(&once).digest(), memory(&twice).digest(), "the same pages everywhere");
        let freed = Input::Upper(UpperInput::Free { number: 0, cpu: 0, order: 0 });
        twice.take(&[freed]);
        let model = twice.model.as_mut().unwrap();
        model.drain_all();
        assert_eq!(model.memory().free_pages(0), PAGES, "none is left behind");
        assert_eq!((model.counts.allocs, model.counts.frees), (1, 1));
        model.memory().check().unwrap();
    }
}
