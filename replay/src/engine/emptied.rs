//! Per-CPU lists that somebody emptied for reasons of his own.
//!
//! Compaction gives back all that its processor keeps, so that it can merge
//! (`drain_local_pages`), and reclaim all that every processor keeps when it made progress and
//! found no page (`drain_all_pages`). Neither is a matter of the lists' policy: the model is told.

use kmemlab_trace::event::{Event, Kind};

use crate::memory::Memory;

/// Watches what each processor drains.
#[derive(Clone, Debug, Default)]
pub(super) struct Emptied {
    /// What was last seen of each processor but drains.
    before: Vec<Option<(Kind, u8)>>,
}

impl Emptied {
    /// Looks at an event that the mirror has just taken. `Some` zone and processor when the lists
    /// are empty now, not because of a free: a free leaves a batch, unless its order is 1 to 3.
    pub(super) fn watch(&mut self, event: &Event, memory: &Memory) -> Option<(usize, usize)> {
        let cpus = memory.machine().cpus;
        let cpu = usize::from(event.cpu.0).min(cpus - 1);
        self.before.resize(cpus, None);
        if event.kind != Kind::PcpDrain {
            self.before[cpu] = Some((event.kind, event.order));
            return None;
        }
        if let Some((Kind::PageFree, 1..=3)) = self.before[cpu] {
            return None;
        }
        let zone = memory.zone_of(u32::try_from(event.pfn()?.0).ok()?)?;
        (memory.pcp_pages(zone, cpu) == 0).then_some((zone, cpu))
    }
}
