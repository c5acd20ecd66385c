//! What the model is told, and how it answers.

use kmemlab_trace::event::{Event, Kind};
use kmemlab_trace::unit::NodeId;

use super::Replay;
use crate::binding::Bound;
use crate::mirror::Effect;
use crate::model::{Model, Request};

/// What the model is told, in order: requests and frees, never places.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// A request; `kernel` is where the kernel put it, for the binding and the comparison only.
    Alloc { kernel: u32, request: Request },
    /// A request that no event shows, found by the mirror.
    Bulk { kernel: u32, request: Request },
    /// The event of a request that was served as bulk before.
    Told { kernel: u32, order: u8 },
    /// A free; `direct` when the per-CPU list's lock was busy.
    Free { cpu: usize, kernel: u32, order: u8, direct: bool },
    /// Compaction took a free block.
    Isolated { kernel: u32, order: u8 },
    /// New watermarks of a zone (by the number of its name): min, low, high.
    Marks { node: NodeId, zone: u16, marks: [u64; 3] },
    /// kswapd woke or went to sleep.
    Kswapd { awake: bool },
    /// The vmstat worker runs on a processor.
    Decay { cpu: usize },
    /// Compaction or reclaim emptied a processor's lists.
    Emptied { zone: usize, cpu: usize },
}

impl Replay<'_> {
    /// What the model may know of the event.
    #[inline]
    pub(super) fn listen(&mut self, event: &Event) {
        let (mut direct, mut late, mut batched) = (false, false, false);
        let cpu = usize::from(event.cpu.0).min(self.mirror.memory().machine().cpus - 1);
        for effect in self.mirror.effects() {
            self.inputs.push(match *effect {
                Effect::Direct { .. } => {
                    direct = true;
                    continue;
                }
                Effect::Late { .. } => {
                    late = true;
                    continue;
                }
                Effect::Batched => {
                    batched = true;
                    continue;
                }
                Effect::Bulk { cpu, pfn, order, migrate } => Input::Bulk {
                    kernel: pfn,
                    request: Request { cpu, order, gfp: 0xcc0, migrate },
                },
                Effect::Returned { pfn, order } => {
                    Input::Free { cpu, kernel: pfn, order, direct: true }
                }
                Effect::Isolated { pfn, order } => Input::Isolated { kernel: pfn, order },
                Effect::Moved { cpu, pfn, order } => {
                    Input::Free { cpu, kernel: pfn, order, direct: false }
                }
            });
        }
        if let Some(cpu) = self.worker.watch(event) {
            self.inputs.push(Input::Decay { cpu });
        }
        if let Some((zone, cpu)) = self.emptied.watch(event, self.mirror.memory()) {
            self.inputs.push(Input::Emptied { zone, cpu });
        }
        match event.kind {
            Kind::PageAlloc => {
                self.outcome.page_events += 1;
                let Some(kernel) = self.pfn(event) else { return };
                let (order, gfp, migrate) = (event.order, event.gfp, event.migrate);
                let request = Request { cpu, order, gfp, migrate };
                self.inputs.push(if late {
                    Input::Told { kernel, order }
                } else {
                    Input::Alloc { kernel, request }
                });
            }
            Kind::PageFree => {
                self.outcome.page_events += 1;
                let Some(kernel) = self.pfn(event) else { return };
                if !batched {
                    self.inputs.push(Input::Free { cpu, kernel, order: event.order, direct });
                }
            }
            Kind::PageFreeBatched | Kind::ZoneLocked | Kind::PcpDrain => {
                self.outcome.page_events += 1;
            }
            Kind::ExtFrag => {
                self.outcome.page_events += 1;
                self.count_fallback(event);
            }
            Kind::ZoneWatermarks => {
                let marks = [event.args[0], event.args[1], event.args[2]].map(|m| m.max(0) as u64);
                let node = NodeId(event.node.max(0) as u16);
                self.inputs.push(Input::Marks { node, zone: event.name, marks });
                self.run_model();
            }
            Kind::KswapdWake => self.inputs.push(Input::Kswapd { awake: true }),
            Kind::KswapdSleep => self.inputs.push(Input::Kswapd { awake: false }),
            _ => {}
        }
    }

    #[inline]
    pub(super) fn pfn(&mut self, event: &Event) -> Option<u32> {
        let (pfn, zone) = self.mirror.page(event)?;
        self.active[zone] = true;
        Some(pfn)
    }

    pub(super) fn count_fallback(&mut self, event: &Event) {
        if self.model.is_none() {
            return;
        }
        let block_order = self.mirror.memory().machine().block_order;
        if event.other_order >= block_order {
            self.kernel_fallbacks.whole_claims += 1;
        } else if event.flag != 0 {
            self.kernel_fallbacks.small_claims += 1;
        } else {
            self.kernel_fallbacks.steals += 1;
        }
    }

    /// The time since the last reckoning was the mirror's.
    pub(super) fn charge_mirror(&mut self) {
        let now = self.now();
        self.outcome.mirror.speed.spent_ns += now - self.segment_start.min(now);
        self.segment_start = now;
    }

    /// The model catches up with the mirror.
    pub(super) fn run_model(&mut self) {
        self.charge_mirror();
        let begin = self.segment_start;
        let mut inputs = std::mem::take(&mut self.inputs);
        if let Some(mut model) = self.model.take() {
            for input in &inputs {
                self.input(&mut model, *input);
            }
            self.model = Some(model);
        }
        inputs.clear();
        self.inputs = inputs;
        let end = self.now();
        self.outcome.model.speed.spent_ns += end - begin;
        self.segment_start = end;
    }

    #[inline]
    pub(super) fn input(&mut self, model: &mut Model, input: Input) {
        match input {
            Input::Alloc { kernel, request } => self.alloc(model, kernel, &request, false),
            Input::Bulk { kernel, request } => self.alloc(model, kernel, &request, true),
            Input::Free { cpu, kernel, order, direct } => {
                let bound = self.bindings.take(kernel, order);
                let pfn = bound.map_or(kernel, |bound| bound.pfn);
                // Of a damaged recording parts of a large block may be free already.
                let is_large = order > model.memory().machine().block_order;
                if is_large || (bound.is_none() && order > 0) {
                    model.free_from_before(cpu, pfn, order);
                } else if direct {
                    model.free_direct(pfn, order);
                } else {
                    model.free(cpu, pfn, order);
                }
            }
            Input::Told { kernel, order } => {
                // The model served it when the mirror found it missing.
                let bound = self.bindings.take(kernel, order);
                let bound = bound.unwrap_or(Bound { pfn: kernel, order });
                self.bindings.bind(kernel, bound);
                self.placed(model, kernel, bound.pfn, order);
            }
            Input::Isolated { kernel, order } => {
                if let Some(pfn) = model.isolate(kernel, order) {
                    self.bindings.bind(kernel, Bound { pfn, order });
                }
            }
            Input::Marks { node, zone, marks } => {
                let name = self.names.get(usize::from(zone)).cloned().unwrap_or_default();
                model.set_watermarks(node, &name, marks[0], marks[1], marks[2]);
            }
            Input::Kswapd { awake: true } => model.kswapd_woke(),
            Input::Kswapd { awake: false } => model.kswapd_slept(),
            Input::Decay { cpu } => model.decay(cpu),
            Input::Emptied { zone, cpu } => model.drain_set(zone, cpu),
        }
    }

    #[inline]
    pub(super) fn alloc(
        &mut self,
        model: &mut Model,
        kernel: u32,
        request: &Request,
        is_bulk: bool,
    ) {
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
    pub(super) fn placed(&mut self, model: &Model, kernel: u32, pfn: u32, order: u8) {
        let block_order = model.memory().machine().block_order;
        let placement = &mut self.outcome.model.placement;
        let is_exact = u64::from(pfn == kernel);
        placement.allocs += 1;
        placement.exact += is_exact;
        placement.same_block += u64::from(pfn >> block_order == kernel >> block_order);
        if order == 0 {
            placement.order0_allocs += 1;
            placement.order0_exact += is_exact;
        }
    }
}
