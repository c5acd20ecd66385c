//! What the kernel did, counted from its events.

use kmemlab_trace::event::{Event, Kind};
use kmemlab_trace::measure::{FallbackKind, fallback_kind};

use crate::memory::Memory;
use crate::model::FallbackCounts;
use crate::moved::Runs;
use crate::rules::Fallback;

/// What the kernel did since the models began.
#[derive(Debug)]
pub(super) struct KernelCounts {
    pub(super) fallbacks: FallbackCounts,
    pub(super) moved: Runs,
    /// The block that a processor's last event took off the buddy lists.
    last_taken: Vec<Option<u32>>,
    pub(super) failures: u64,
    pub(super) kswapd_wakes: u64,
}

impl KernelCounts {
    pub(super) fn new(cpus: usize) -> Self {
        Self {
            fallbacks: FallbackCounts::default(),
            moved: Runs::new(cpus),
            last_taken: vec![None; cpus],
            failures: 0,
            kswapd_wakes: 0,
        }
    }

    /// Counts an event.
    pub(super) fn count(&mut self, event: &Event, memory: &Memory) {
        let machine = memory.machine();
        let cpu = usize::from(event.cpu.0).min(machine.cpus - 1);
        let taken = self.last_taken[cpu].take();
        let pfn = event.pfn_or_address as u32;
        let zone = memory.zone_of(pfn).unwrap_or(0);
        match event.kind {
            Kind::ZoneLocked => {
                let is_refill = event.flag().unwrap_or(true) && event.migrate < 3;
                if is_refill && machine.pcp_list(event.order, event.migrate).is_some() {
                    self.moved.refilled(cpu, zone, event.order);
                }
                self.last_taken[cpu] = Some(pfn);
            }
            Kind::ExtFrag => {
                let changed = event.flag != 0;
                match fallback_kind(event.other_order, machine.block_order, changed) {
                    FallbackKind::WholeClaim => self.fallbacks.whole_claims += 1,
                    FallbackKind::SmallClaim => self.fallbacks.small_claims += 1,
                    FallbackKind::Steal => self.fallbacks.steals += 1,
                }
                // A block that is told of here alone goes to the per-CPU list as well.
                let alone = machine.rules.fallback != Fallback::MoveThenCount && taken != Some(pfn);
                if alone && machine.pcp_list(event.order, event.migrate).is_some() {
                    self.moved.refilled(cpu, zone, event.order);
                }
            }
            Kind::PcpDrain => self.moved.drained(cpu, zone, event.order),
            Kind::PageAlloc => {
                self.moved.ended(cpu);
                self.failures += u64::from(event.pfn().is_none());
            }
            Kind::PageFree | Kind::PageFreeBatched => self.moved.ended(cpu),
            Kind::KswapdWakeup => self.kswapd_wakes += 1,
            _ => {}
        }
    }
}
