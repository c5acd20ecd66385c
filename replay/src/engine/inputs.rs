//! What the model is told, and how it answers.

use kmemlab_trace::event::{Event, Kind};
use kmemlab_trace::measure::{FallbackKind, fallback_kind};
use kmemlab_trace::unit::NodeId;

use super::Replay;
use super::upper::{Fate, UpperInput};
use crate::mirror::Effect;
use crate::model::Request;
use crate::rules::Fallback;

/// What the model is told, in order: requests and frees, never places.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// A request; `kernel` is where the kernel put it, for the binding and the comparison only.
    Alloc { kernel: u32, request: Request },
    /// A request that no event shows, found by the mirror.
    Bulk { kernel: u32, request: Request },
    /// A request that the kernel failed.
    Failed { request: Request },
    /// The event of a request that was served as bulk before.
    Told { kernel: u32, order: u8 },
    /// A free; `direct` when the per-CPU list's lock was busy.
    Free { cpu: usize, kernel: u32, order: u8, direct: bool },
    /// Compaction took a free block.
    Isolated { kernel: u32, order: u8 },
    /// New watermarks of a zone: min, low, high; and its managed pages by then, where told.
    Marks { zone: usize, marks: [u64; 3], managed: Option<u64> },
    /// kswapd woke or went to sleep.
    Kswapd { awake: bool },
    /// kswapd was woken: it was not at work.
    KswapdNaps,
    /// The vmstat worker runs on a processor.
    Decay { cpu: usize },
    /// A free of a page that a layer above took without an event.
    FreeTaken { cpu: usize, kernel: u32, direct: bool },
    /// What a layer above asks for.
    Upper(UpperInput),
}

impl Replay<'_> {
    /// What the model may know of the event.
    #[inline]
    pub(super) fn listen(&mut self, event: &Event, fate: Fate) {
        let (mut direct, mut late, mut batched) = (false, false, false);
        if self.has_begun {
            self.count(event);
        }
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
        match event.kind {
            Kind::PageAlloc => {
                self.outcome.page_events += 1;
                let (order, gfp, migrate) = (event.order, event.gfp, event.migrate);
                let request = Request { cpu, order, gfp, migrate };
                if event.pfn().is_none() && event.order().is_some() {
                    self.inputs.push(Input::Failed { request });
                }
                let Some(kernel) = self.pfn(event) else { return };
                if fate == Fate::Own {
                    return;
                }
                self.inputs.push(if late {
                    Input::Told { kernel, order }
                } else {
                    Input::Alloc { kernel, request }
                });
            }
            Kind::PageFree => {
                self.outcome.page_events += 1;
                let Some(kernel) = self.pfn(event) else { return };
                if fate == Fate::Taken && event.order == 0 && !batched {
                    self.inputs.push(Input::FreeTaken { cpu, kernel, direct });
                } else if fate != Fate::Own && !batched {
                    self.inputs.push(Input::Free { cpu, kernel, order: event.order, direct });
                }
            }
            Kind::PageFreeBatched | Kind::ZoneLocked | Kind::PcpDrain => {
                self.outcome.page_events += 1;
            }
            Kind::ExtFrag => self.outcome.page_events += 1,
            Kind::ZoneWatermarks => {
                let marks = [event.args[0], event.args[1], event.args[2]].map(|m| m.max(0) as u64);
                let node = NodeId(event.node.max(0) as u16);
                let name = self.names.get(usize::from(event.name)).map_or("", String::as_str);
                if let Some(zone) = self.mirror.memory().machine().zone(node, name) {
                    let managed = self.start.managed(event.time.0, zone);
                    self.inputs.push(Input::Marks { zone, marks, managed });
                }
            }
            Kind::KswapdWakeup => self.inputs.push(Input::KswapdNaps),
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

    /// Counts what the kernel did.
    fn count(&mut self, event: &Event) {
        let machine = self.mirror.memory().machine();
        let cpu = usize::from(event.cpu.0).min(machine.cpus - 1);
        let kernel = &mut self.kernel;
        let taken = kernel.last_taken[cpu].take();
        let pfn = event.pfn_or_address as u32;
        let zone = self.mirror.memory().zone_of(pfn).unwrap_or(0);
        match event.kind {
            Kind::ZoneLocked => {
                let is_refill = event.flag().unwrap_or(true) && event.migrate < 3;
                if is_refill && machine.pcp_list(event.order, event.migrate).is_some() {
                    kernel.moved.refilled(cpu, zone, event.order);
                }
                kernel.last_taken[cpu] = Some(pfn);
            }
            Kind::ExtFrag => {
                let changed = event.flag != 0;
                match fallback_kind(event.other_order, machine.block_order, changed) {
                    FallbackKind::WholeClaim => kernel.fallbacks.whole_claims += 1,
                    FallbackKind::SmallClaim => kernel.fallbacks.small_claims += 1,
                    FallbackKind::Steal => kernel.fallbacks.steals += 1,
                }
                // A block that is told of here alone goes to the per-CPU list as well.
                let alone = machine.rules.fallback != Fallback::MoveThenCount && taken != Some(pfn);
                if alone && machine.pcp_list(event.order, event.migrate).is_some() {
                    kernel.moved.refilled(cpu, zone, event.order);
                }
            }
            Kind::PcpDrain => kernel.moved.drained(cpu, zone, event.order),
            Kind::PageAlloc => {
                kernel.moved.ended(cpu);
                kernel.failures += u64::from(event.pfn().is_none());
            }
            Kind::PageFree | Kind::PageFreeBatched => kernel.moved.ended(cpu),
            Kind::KswapdWakeup => kernel.kswapd_wakes += 1,
            _ => {}
        }
    }

    /// The time since the last reckoning was the mirror's.
    pub(super) fn charge_mirror(&mut self) {
        let now = self.now();
        self.outcome.mirror.speed.spent_ns += now - self.segment_start.min(now);
        self.segment_start = now;
    }

    /// The models catch up with the mirror.
    pub(super) fn run_models(&mut self) {
        self.charge_mirror();
        let mut begin = self.segment_start;
        let inputs = std::mem::take(&mut self.inputs);
        let clock = self.options.clock;
        for run in &mut self.models {
            run.take(&inputs);
            let end = clock.map_or(0, |clock| clock());
            run.spent_ns += end - begin.min(end);
            begin = end;
        }
        self.inputs = inputs;
        self.inputs.clear();
        self.segment_start = begin;
    }
}
