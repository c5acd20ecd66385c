//! The events of one processor and their ring.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use kmemlab_trace::unit::{Cpu, Nanos};
use perf_event_open::config::{CallChain, Clock, Opts, Proc, SampleOn, WakeUpOn, sibling};
use perf_event_open::count::Counter;
use perf_event_open::count::group::CounterGroup;
use perf_event_open::event::sw::Software;
use perf_event_open::event::tp::Tracepoint;
use perf_event_open::sample::Sampler;

use super::gaps::Gaps;
use super::record::{Record, parse};
use super::{Stacks, Wanted, sys};
use crate::capture::{Count, RawRecord, Role, Sink};
use crate::clock;
use crate::record_error::RecordError;

/// Frames kept of a call chain: deeper ones are the system call's entry.
const CHAIN_FRAMES: u16 = 32;

/// What all processors share.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) wanted: &'a [Wanted],
    pub(super) stacks: Stacks,
    pub(super) ring_bytes: u64,
    pub(super) page_bytes: u64,
    pub(super) open_files: u64,
}

/// A tracepoint on this processor.
struct Member {
    id: u16,
    /// Fills the ring, and counts what it was asked to put there.
    sampling: Rc<Counter>,
    /// Fills the ring with call chains, now and then.
    chains: Option<Rc<Counter>>,
}

/// The group of one processor.
pub(super) struct CpuGroup {
    cpu: Cpu,
    // Before the counters: the ring is unmapped first.
    sampler: Sampler,
    group: CounterGroup,
    members: Vec<Member>,
    stacks: Stacks,
    has_lost: bool,
    gaps: Gaps,
    disabled_at: Nanos,
}

impl std::fmt::Debug for CpuGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuGroup").field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

/// The ring was refused for the memory it would lock.
pub(super) fn is_locked_memory(error: &io::Error) -> bool {
    // perf_event_open itself says EACCES to those without the right.
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOMEM))
}

impl CpuGroup {
    pub(super) fn open(cpu: Cpu, setup: &Setup<'_>) -> Result<Self, RecordError> {
        // Linux before 6.0 does not count what single events lost, and refuses to be asked.
        match Self::open_with(cpu, setup, true) {
            Err(RecordError::Open { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL) =>
            {
                Self::open_with(cpu, setup, false)
            }
            done => done,
        }
    }

    fn open_with(cpu: Cpu, setup: &Setup<'_>, has_lost: bool) -> Result<Self, RecordError> {
        let fail = |event: &str| {
            let event = event.to_owned();
            move |source: io::Error| refused(&event, cpu, setup.open_files, source)
        };
        let target = (Proc::ALL, perf_event_open::config::Cpu(u32::from(cpu.0)));
        let leader =
            Counter::new(Software::Dummy, target, leader_opts(setup)).map_err(fail("a group"))?;
        let pages = (setup.ring_bytes / setup.page_bytes.max(1)).max(1);
        let exponent = u8::try_from(pages.ilog2()).unwrap_or(u8::MAX);
        let sampler = leader.sampler(exponent).map_err(fail("a ring"))?;
        let mut group = CounterGroup::from(leader);
        let mut members = Vec::with_capacity(setup.wanted.len());
        for wanted in setup.wanted {
            let id = u64::from(wanted.id);
            let mut add = |opts: sibling::Opts| -> io::Result<Rc<Counter>> {
                let counter = group.add(Tracepoint { id }, &opts)?;
                sys::redirect(counter.file(), group.leader().file())?;
                Ok(counter)
            };
            let chains = wanted.is_allocation.then_some(setup.stacks);
            let is_whole = chains == Some(Stacks::All);
            let opts = sampling_opts(1, setup.stacks, is_whole, has_lost);
            let sampling = add(opts).map_err(fail(&wanted.name))?;
            // The event that was opened last fires first: a chain stands right before its event.
            let chains = match chains {
                Some(Stacks::Sampled(period)) => {
                    let opts =
                        sampling_opts(u64::from(period.max(1)), setup.stacks, true, has_lost);
                    Some(add(opts).map_err(fail(&wanted.name))?)
                }
                _ => None,
            };
            members.push(Member { id: wanted.id, sampling, chains });
        }
        let stacks = setup.stacks;
        Ok(Self {
            cpu,
            sampler,
            group,
            members,
            stacks,
            has_lost,
            gaps: Gaps::new(cpu),
            disabled_at: Nanos(0),
        })
    }

    /// What to poll.
    pub(super) fn fd(&self) -> RawFd {
        self.group.leader().file().as_raw_fd()
    }

    pub(super) fn enable(&self) -> io::Result<()> {
        self.group.enable()
    }

    pub(super) fn disable(&mut self) -> io::Result<()> {
        self.group.disable()?;
        self.disabled_at = clock::now();
        Ok(())
    }

    /// Hands over records up to one of that time; returns the bytes read.
    pub(super) fn drain(&mut self, until: Nanos, sink: &mut dyn Sink) -> u64 {
        let Some(iter) = self.sampler.iter() else { return 0 };
        let mut records = iter.into_cow();
        let has_chain = self.stacks != Stacks::None;
        let mut read = 0;
        while let Some(record) = records.lending_next() {
            let bytes = record.as_raw().as_bytes();
            read += bytes.len() as u64;
            match parse(bytes, has_chain) {
                Record::Sample { time, raw, chain } => {
                    let is_extra = !chain.is_empty() && matches!(self.stacks, Stacks::Sampled(_));
                    let role = if is_extra { Role::ChainOfNext } else { Role::Event };
                    sink.record(RawRecord { cpu: self.cpu, time, bytes: raw, chain, role });
                    self.gaps.event(time);
                    if time >= until {
                        break;
                    }
                }
                Record::Lost { time, records } => {
                    sink.loss(self.gaps.told(time, records));
                }
                Record::Other => {}
            }
        }
        read
    }

    /// What the counters say. A ring that was full to the end could tell of no gap: that last gap
    /// goes to the sink.
    pub(super) fn counts(
        &mut self,
        counts: &mut Vec<Count>,
        sink: &mut dyn Sink,
    ) -> io::Result<()> {
        let mut lost = 0;
        for member in &self.members {
            let sampled = member.sampling.stat()?;
            lost += sampled.lost_records.unwrap_or(0);
            if let Some(chains) = &member.chains {
                lost += chains.stat()?.lost_records.unwrap_or(0);
            }
            counts.push(Count {
                cpu: self.cpu,
                id: member.id,
                counted: Some(sampled.count),
                lost: sampled.lost_records.filter(|_| self.has_lost),
            });
        }
        if let Some(loss) = self.gaps.untold(self.disabled_at, lost) {
            sink.loss(loss);
        }
        Ok(())
    }
}

fn leader_opts(setup: &Setup<'_>) -> Opts {
    let mut opts = Opts { timer: Some(Clock::Monotonic), ..Opts::default() };
    // An eighth of the ring leaves seven eighths of time to come and empty it.
    opts.wake_up.on = WakeUpOn::Bytes(u32::try_from(setup.ring_bytes / 8).unwrap_or(u32::MAX));
    opts
}

/// All records of a ring have one layout, so that each can be taken apart without asking whose it
/// is: with stacks on, events without a call chain carry an empty one (8 bytes).
fn sampling_opts(period: u64, stacks: Stacks, has_chain: bool, has_lost: bool) -> sibling::Opts {
    // Not disabled: a sibling waits for its leader, and goes on and off with it.
    let mut opts = sibling::Opts { enable: true, ..sibling::Opts::default() };
    opts.sample_on = SampleOn::Count(period);
    opts.sample_format.raw = true;
    opts.sample_format.call_chain = (stacks != Stacks::None).then_some(CallChain {
        exclude_user: true,
        exclude_kernel: !has_chain,
        defer_user: false,
        max_stack_frames: CHAIN_FRAMES,
    });
    opts.record_id_format.time = true;
    opts.record_id_all = true;
    opts.stat_format.lost_records = has_lost;
    opts
}

/// The kernel refused to open this.
pub(super) fn refused(event: &str, cpu: Cpu, open_files: u64, source: io::Error) -> RecordError {
    let hint = hint(&source, open_files);
    RecordError::Open { event: event.to_owned(), cpu: cpu.0, source, hint }
}

fn hint(error: &io::Error, open_files: u64) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "run as root or with CAP_PERFMON, and see kernel.perf_event_paranoid and lockdown"
                .into()
        }
        Some(libc::EMFILE | libc::ENFILE) => format!(
            "an open file for each event and processor is needed and the limit is {open_files}: \
             raise it (ulimit -n) or record fewer groups (--events)"
        ),
        Some(libc::ENOENT) => "the tracepoint went away: its module was unloaded; try again".into(),
        Some(libc::EBUSY) => "another tool holds it; end that tool and try again".into(),
        _ => "report this with the kernel's release".into(),
    }
}
