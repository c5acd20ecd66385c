//! What the model is told, and how it answers.

use kmemlab_trace::event::{Event, Kind};
use kmemlab_trace::unit::NodeId;

use super::Replay;
use super::upper::{Fate, UpperInput};
use crate::mirror::Effect;
use crate::model::Request;

/// No larger order is on a per-CPU list.
const LARGEST: u8 = 15;

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
    /// It was another one: what is bound to `guess` stands for `kernel`.
    Instead { guess: u32, kernel: u32, order: u8 },
    /// New watermarks of a zone: min, low, high; and its managed pages by then, where told.
    Marks { zone: usize, marks: [u64; 3], managed: Option<u64> },
    /// kswapd woke or went to sleep.
    Kswapd { awake: bool },
    /// kswapd was woken: it was not at work.
    KswapdNaps,
    /// The vmstat worker runs on a processor.
    Decay { cpu: usize },
    /// Compaction or reclaim emptied a processor's lists.
    Emptied { zone: usize, cpu: usize },
    /// The event of a request that was served as bulk before, and is a layer's own: the layer asks
    /// for itself, so what was served goes back to where it came from.
    Unserved { cpu: usize, kernel: u32, order: u8 },
    /// What a layer above asks for.
    Upper(UpperInput),
}

impl Replay<'_> {
    /// What the model may know of the event.
    #[inline]
    pub(super) fn listen(&mut self, event: &Event, fate: Fate) {
        let (mut direct, mut late, mut batched, mut kept) = (false, false, false, false);
        if self.has_begun {
            self.kernel.count(event, self.mirror.memory());
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
                Effect::Kept { .. } => {
                    kept = true;
                    continue;
                }
                Effect::Instead { guess, pfn, order } => {
                    Input::Instead { guess, kernel: pfn, order }
                }
                Effect::Bulk { pfn, .. } if self.upper.as_ref().is_some_and(|it| it.owns(pfn)) => {
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
                let (order, gfp, migrate) = (event.order, event.gfp, event.migrate);
                let request = Request { cpu, order, gfp, migrate };
                if event.pfn().is_none() && event.order().is_some() && fate != Fate::Own {
                    self.inputs.push(Input::Failed { request });
                }
                let Some(kernel) = self.pfn(event) else { return };
                match (fate, late) {
                    (Fate::Own, true) => self.inputs.push(Input::Unserved { cpu, kernel, order }),
                    (Fate::Own, false) => {}
                    (_, true) => self.inputs.push(Input::Told { kernel, order }),
                    (_, false) => self.inputs.push(Input::Alloc { kernel, request }),
                }
            }
            Kind::PageFree => {
                self.outcome.page_events += 1;
                let Some(kernel) = self.pfn(event).filter(|_| !kept) else { return };
                if fate != Fate::Own && !batched {
                    self.inputs.push(Input::Free { cpu, kernel, order: event.order, direct });
                }
                if !event.context.is_task() && !direct {
                    self.in_interrupt(kernel, event.order);
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

    /// A free in an interrupt may have gone past its per-CPU list.
    fn in_interrupt(&mut self, pfn: u32, order: u8) {
        if let Some(zone) = self.mirror.memory().zone_of(pfn) {
            self.steps.between(zone).interrupt_pages += 1i64 << order.min(LARGEST);
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
