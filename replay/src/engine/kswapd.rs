//! When kswapd was done with its work.
//!
//! `balance_pgdat` pays the boost of the watermarks back when it is done. kswapd then naps for a
//! tenth of a second, and its event of going to sleep comes after the nap: too late to go by. What
//! its thread did last before that event is the last that is known of its work.

use kmemlab_trace::event::{Event, Kind};

/// Notes it.
#[derive(Clone, Debug, Default)]
pub(super) struct KswapdWork {
    /// Each kswapd that is at work: its thread, and when it was last seen.
    threads: Vec<(u32, u64)>,
    done: Vec<u64>,
}

impl KswapdWork {
    /// Looks at an event; answers whether it is one of kswapd's own.
    pub(super) fn watch(&mut self, event: &Event) -> bool {
        let (pid, now) = (event.pid.0, event.time.0);
        let place = self.threads.iter().position(|(known, _)| *known == pid);
        match (event.kind, place) {
            (Kind::KswapdWake, Some(place)) => self.threads[place].1 = now,
            (Kind::KswapdWake, None) => self.threads.push((pid, now)),
            (Kind::KswapdSleep, Some(place)) => {
                let (_, last) = self.threads.swap_remove(place);
                self.done.push(last);
            }
            (_, Some(place)) if event.context.is_task() => self.threads[place].1 = now,
            _ => {}
        }
        matches!(event.kind, Kind::KswapdWake | Kind::KswapdSleep)
    }

    /// The moments, rising.
    pub(super) fn into_list(mut self) -> Vec<u64> {
        self.done.sort_unstable();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmemlab_trace::unit::{Cpu, Nanos, Pid};

    #[test]
    fn its_work_ends_with_what_its_thread_did_last_before_the_nap() {
        let mut work = KswapdWork::default();
        let see = |work: &mut KswapdWork, kind, time, pid| {
            work.watch(&Event::new(kind, Nanos(time), Cpu(0), Pid(pid)))
        };
        assert!(see(&mut work, Kind::KswapdWake, 10, 42));
        assert!(!see(&mut work, Kind::PageFree, 20, 42), "reclaimed by it");
        assert!(!see(&mut work, Kind::PageFree, 30, 7));
        assert!(see(&mut work, Kind::KswapdSleep, 120, 42));
        assert!(see(&mut work, Kind::KswapdSleep, 130, 42), "without a wake: nothing is known");
        assert_eq!(work.into_list(), [20]);
    }
}
