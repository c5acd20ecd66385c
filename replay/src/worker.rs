//! The vmstat worker, which once a second shrinks the per-CPU lists (`refresh_cpu_vm_stats`,
//! `decay_pcp_high`): when it ran, as far as its drains show.
//!
//! It runs at whole seconds of the kernel's tick, on all processors nearly at once
//! (`round_jiffies_relative`), and drains nothing where the lists are short. So one drain that no
//! free caused tells the moment for all processors, and the moments repeat every second.

use kmemlab_trace::event::{Event, Kind};

/// `vm.stat_interval`, as it comes.
const PERIOD_NS: u64 = 1_000_000_000;
/// Two drains closer than this are one run of the worker.
const ONE_RUN_NS: u64 = PERIOD_NS / 2;
/// How long after the first processor the last one runs.
const SPREAD_NS: u64 = 20_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Processor {
    last_run_ns: u64,
    due_ns: u64,
    last_free_pid: Option<u32>,
}

/// Watches for the worker on every processor.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    processors: Vec<Processor>,
    first_run_ns: Option<u64>,
    next_due_ns: u64,
}

impl Worker {
    /// A worker whose first run, if the recording shows one, was at that moment.
    pub(crate) fn new(cpus: usize, from_ns: u64, first_run_ns: Option<u64>) -> Self {
        // The moments before the first one seen are whole periods earlier.
        let phase = first_run_ns.unwrap_or(from_ns + PERIOD_NS).max(from_ns) - from_ns;
        let due_ns = from_ns + phase % PERIOD_NS;
        let processor = Processor { last_run_ns: 0, due_ns, last_free_pid: None };
        Self { processors: vec![processor; cpus], first_run_ns: None, next_due_ns: due_ns }
    }

    /// When the worker was first seen.
    pub(crate) fn first_run_ns(&self) -> Option<u64> {
        self.first_run_ns
    }

    /// The next moment at which [`Self::due`] has something to say.
    pub(crate) fn next_due_ns(&self) -> u64 {
        self.next_due_ns
    }

    /// Looks at an event: `Some` processor when it shows the worker at work there.
    #[inline]
    pub(crate) fn watch(&mut self, event: &Event) -> Option<usize> {
        let cpu = usize::from(event.cpu.0).min(self.processors.len() - 1);
        let processor = &mut self.processors[cpu];
        match event.kind {
            Kind::PageFree | Kind::PageFreeBatched => processor.last_free_pid = Some(event.pid.0),
            Kind::PageAlloc => processor.last_free_pid = None,
            Kind::PcpDrain => {
                let by_free = processor.last_free_pid == Some(event.pid.0);
                let now = event.time.0;
                if by_free || now.saturating_sub(processor.last_run_ns) < ONE_RUN_NS {
                    return None;
                }
                if !event.context.is_task() {
                    return None;
                }
                self.seen(cpu, now);
                return Some(cpu);
            }
            _ => {}
        }
        None
    }

    fn seen(&mut self, cpu: usize, now: u64) {
        self.first_run_ns.get_or_insert(now);
        self.processors[cpu].last_run_ns = now;
        self.processors[cpu].due_ns = now + PERIOD_NS + SPREAD_NS;
        for other in &mut self.processors {
            if now.saturating_sub(other.last_run_ns) >= ONE_RUN_NS {
                other.due_ns = now + SPREAD_NS;
            }
        }
        self.reckon();
    }

    /// A processor whose moment has passed without a drain: its worker ran all the same.
    pub(crate) fn due(&mut self, now: u64) -> Option<usize> {
        let cpu = self.processors.iter().position(|processor| processor.due_ns <= now)?;
        let processor = &mut self.processors[cpu];
        processor.last_run_ns = processor.due_ns;
        processor.due_ns += PERIOD_NS;
        if processor.due_ns <= now {
            processor.due_ns = now + PERIOD_NS;
        }
        self.reckon();
        Some(cpu)
    }

    fn reckon(&mut self) {
        self.next_due_ns = self.processors.iter().map(|p| p.due_ns).min().unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use kmemlab_trace::unit::{Cpu, Nanos, Pid};

    use super::*;

    const SECOND: u64 = PERIOD_NS;

    fn event(kind: Kind, at: u64, cpu: u16, pid: u32) -> Event {
        Event::new(kind, Nanos(at), Cpu(cpu), Pid(pid))
    }

    #[test]
    fn a_drain_after_a_free_of_the_same_thread_is_not_the_worker_s() {
        let mut worker = Worker::new(2, 0, None);
        worker.watch(&event(Kind::PageFree, SECOND, 0, 7));
        assert_eq!(worker.watch(&event(Kind::PcpDrain, SECOND + 1, 0, 7)), None);
        assert_eq!(worker.watch(&event(Kind::PcpDrain, SECOND + 2, 0, 41)), Some(0));
        assert_eq!(worker.first_run_ns(), Some(SECOND + 2));
        // The rest of the same run.
        assert_eq!(worker.watch(&event(Kind::PcpDrain, SECOND + 3, 0, 41)), None);
    }

    #[test]
    fn one_processor_s_run_tells_the_moment_of_the_others() {
        let mut worker = Worker::new(2, 0, None);
        let seen = 3 * SECOND / 2;
        assert_eq!(worker.watch(&event(Kind::PcpDrain, seen, 1, 41)), Some(1));
        assert_eq!(worker.due(seen + SPREAD_NS), Some(0));
        assert_eq!(worker.due(seen + SPREAD_NS), None);
        // A second later both run without a sign.
        let later = seen + SECOND + 2 * SPREAD_NS;
        let ran = [worker.due(later), worker.due(later), worker.due(later)];
        assert_eq!(ran.iter().flatten().count(), 2);
    }

    #[test]
    fn the_first_run_seen_tells_the_moments_before_it() {
        let worker = Worker::new(1, 100, Some(100 + 5 * SECOND / 2));
        assert_eq!(worker.next_due_ns(), 100 + SECOND / 2);
    }
}
