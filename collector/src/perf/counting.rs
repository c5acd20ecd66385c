//! The events of one processor, counted and not written anywhere.

use std::io;
use std::rc::Rc;

use kmemlab_trace::unit::Cpu;
use perf_event_open::config::{Opts, Proc, sibling};
use perf_event_open::count::Counter;
use perf_event_open::count::group::CounterGroup;
use perf_event_open::event::sw::Software;
use perf_event_open::event::tp::Tracepoint;

use super::group::refused;
use super::{Wanted, sys};
use crate::record_error::RecordError;

/// Counters of all tracepoints on one processor, which go on and off together.
pub(crate) struct CountingGroup {
    group: CounterGroup,
    members: Vec<(u16, Rc<Counter>)>,
}

impl std::fmt::Debug for CountingGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountingGroup")
            .field("members", &self.members.len())
            .finish_non_exhaustive()
    }
}

impl CountingGroup {
    /// One group for each of the processors; nothing is counted yet.
    pub(crate) fn open_all(cpus: &[Cpu], wanted: &[Wanted]) -> Result<Vec<Self>, RecordError> {
        let open_files = sys::OpenFiles::raise();
        cpus.iter().map(|cpu| Self::open(*cpu, wanted, open_files.limit())).collect()
    }

    fn open(cpu: Cpu, wanted: &[Wanted], open_files: u64) -> Result<Self, RecordError> {
        let target = (Proc::ALL, perf_event_open::config::Cpu(u32::from(cpu.0)));
        let leader = Counter::new(Software::Dummy, target, Opts::default())
            .map_err(|source| refused("a group", cpu, open_files, source))?;
        let mut group = CounterGroup::from(leader);
        // Not disabled: a sibling waits for its leader, and goes on and off with it.
        let opts = sibling::Opts { enable: true, ..sibling::Opts::default() };
        let mut members = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let counter = group
                .add(Tracepoint { id: u64::from(wanted.id) }, &opts)
                .map_err(|source| refused(&wanted.name, cpu, open_files, source))?;
            members.push((wanted.id, counter));
        }
        Ok(Self { group, members })
    }

    /// Starts counting.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.group.enable()
    }

    /// Ends counting.
    pub(crate) fn disable(&self) -> io::Result<()> {
        self.group.disable()
    }

    /// The kernel's number of each tracepoint, and how often it fired.
    pub(crate) fn counts(&self) -> io::Result<Vec<(u16, u64)>> {
        self.members.iter().map(|(id, counter)| Ok((*id, counter.stat()?.count))).collect()
    }
}
