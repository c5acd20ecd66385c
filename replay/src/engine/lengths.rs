//! How many pages waited on each per-CPU list at the start that no event ever tells of.
//!
//! `/proc/zoneinfo` counts all that wait, the mirror knows those that events tell of. The rest may
//! stay for good, or leave in bulk without an event: mostly the first kernel stack of the recorded
//! command. Two moments tell how many are left: when the kernel drains a list, it holds as many
//! pages as its limit; and when the lists are counted again.

use kmemlab_trace::event::{Event, Kind};

use crate::memory::Memory;
use crate::mirror::Mirror;
use crate::model::Start;

/// Drains of each list to look at.
const DRAINS: usize = 8;

/// What a processor did last.
#[derive(Clone, Copy, Debug, Default)]
struct Doing {
    last: Option<Kind>,
    /// Pages freed in a batch that have not yet got to their list.
    pending: i64,
}

/// Watches the first pass.
#[derive(Debug)]
pub(super) struct Lengths {
    since_ns: u64,
    /// The limits in force at the start.
    high: Vec<i64>,
    /// When the lists were counted next, and how many pages they held.
    counted: Option<(u64, Vec<i64>)>,
    /// Pages left when they were counted, before those that are seen to leave later.
    at_count: Option<Vec<i64>>,
    /// The same at the kernel's first drains, if they were because of the limit: compaction drains
    /// for reasons of its own.
    at_drains: Vec<Vec<i64>>,
    doing: Vec<Doing>,
}

impl Lengths {
    pub(super) fn new(start: &Start, counted: Option<(u64, Vec<i64>)>) -> Self {
        Self {
            since_ns: start.since_ns,
            high: start.pcps.iter().map(|pcp| pcp.high).collect(),
            counted,
            at_count: None,
            at_drains: vec![Vec::new(); start.pcps.len()],
            doing: vec![Doing::default(); start.cpus],
        }
    }

    /// Looks at an event before the mirror takes it.
    pub(super) fn watch(&mut self, event: &Event, mirror: &Mirror) {
        let time = event.time.0;
        if self.at_count.is_none()
            && let Some((at, counts)) = &self.counted
            && time >= *at
        {
            let known = mirror.known_waiting();
            self.at_count = Some(counts.iter().zip(known).map(|(a, b)| a - b).collect());
        }
        let cpu = usize::from(event.cpu.0).min(self.doing.len() - 1);
        let doing = &mut self.doing[cpu];
        let (last, pages) = (doing.last.replace(event.kind), 1 << event.order.min(15));
        match event.kind {
            Kind::PageFree if last == Some(Kind::PageFree) => doing.pending += pages,
            Kind::PageFree => doing.pending = pages,
            Kind::PageFreeBatched => doing.pending -= pages,
            Kind::PcpDrain if time > self.since_ns => self.drained(event, last, cpu, mirror),
            _ => {}
        }
    }

    fn drained(&mut self, event: &Event, last: Option<Kind>, cpu: usize, mirror: &Mirror) {
        let pending = match last {
            Some(Kind::PageFree) => 0,
            Some(Kind::PageFreeBatched) => self.doing[cpu].pending.max(0),
            _ => return,
        };
        let Some((_, zone)) = mirror.page(event) else { return };
        let set = zone * self.doing.len() + cpu;
        let (Some(at), Some(high)) = (self.at_drains.get_mut(set), self.high.get(set)) else {
            return;
        };
        if at.len() < DRAINS {
            let known = mirror.known_waiting().get(set).copied().unwrap_or(0);
            at.push(high - (known - pending));
        }
    }

    /// Lets the model's counts start without the pages that were gone when it first mattered.
    /// `left` are the pages of each list that were seen to leave from the start to the end.
    pub(super) fn settle(&self, start: &mut Start, left: &[i64], memory: &Memory) {
        let Some(at_count) = &self.at_count else { return };
        for (set, pcp) in start.pcps.iter_mut().enumerate() {
            let known = memory.pcp_pages(set / start.cpus, set % start.cpus) as i64;
            let left = left.get(set).copied().unwrap_or(0);
            let most = pcp.count - known;
            let least = (at_count[set] - left).clamp(0, most.max(0));
            let mut told = self.at_drains[set].iter().map(|untold| untold - left);
            if most > least {
                let untold = told.find(|untold| (least..=most).contains(untold));
                pcp.count = known + untold.unwrap_or(least);
            }
        }
    }
}
