//! How busy each per-CPU list was just before the model starts.
//!
//! The sizes of refills and drains depend on what came before (`alloc_factor`, `free_count` and
//! `free_factor` in `struct per_cpu_pages`), which no file tells. The events between the start of
//! the recording and that of the model do: the counters forget within a few events.

use kmemlab_trace::event::{Event, Kind};

use crate::mirror::Effect;
use crate::model::Start;
use crate::policy::percpu::PerCpu;

/// What each processor did last.
#[derive(Clone, Debug, Default)]
pub(super) struct Habits {
    last: Vec<Option<Kind>>,
}

impl Habits {
    /// An event before the model starts, in this zone, and what the mirror found in it.
    pub(super) fn watch(
        &mut self,
        event: &Event,
        effects: &[Effect],
        zone: usize,
        start: &mut Start,
    ) {
        let cpu = usize::from(event.cpu.0).min(start.cpus - 1);
        self.last.resize(start.cpus, None);
        let goes_on = self.last[cpu].replace(event.kind) == Some(event.kind);
        let Some(pcp) = start.pcps.get_mut(zone * start.cpus + cpu) else { return };
        moved(effects, pcp);
        match event.kind {
            Kind::PageAlloc => pcp.note_alloc(),
            Kind::PageFree if effects.is_empty() => pcp.note_free(event.order),
            Kind::ZoneLocked if !goes_on && event.order == 0 => pcp.note_refill(),
            Kind::PcpDrain if !goes_on => pcp.note_drain(),
            _ => {}
        }
    }
}

/// Pages freed before get to their list.
fn moved(effects: &[Effect], pcp: &mut PerCpu) {
    for effect in effects {
        if let Effect::Moved { order, .. } = effect {
            pcp.note_free(*order);
        }
    }
}
