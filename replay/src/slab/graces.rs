//! Grace periods: when a processor runs what was handed to `call_rcu`.
//!
//! Callbacks of a processor run there, in the order of their calls. Two things date them. The
//! number of a process is freed by a callback, the call comes when the process is released, and
//! both have events (`free_pids`, `delayed_put_pid`). And frees within `rcu_do_batch` tell when a
//! processor began with what one grace period had held back.

use std::collections::HashMap;

use super::unseen::{Arrival, Came};

/// What is known of grace periods, in order of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grace {
    /// The processor begins to run what waited for one.
    Began,
    /// A callback was handed over that is seen to run.
    Called,
    /// The next one of those ran.
    Ran,
}

/// A processor notices the end of a grace period at its tick, of which there are at most 1,000 a
/// second (`rcu_sched_clock_irq`; `CONFIG_HZ`): what runs within that time ran after the same one.
const TICK_NS: u64 = 1_000_000;

/// The listener.
#[derive(Clone, Debug, Default)]
pub struct Graces {
    /// By processor: the last free of a batch, and the last call that was seen to run.
    cpus: Vec<(u64, u64)>,
    /// By thread: the signal handlers of the process that it makes.
    made: HashMap<u32, u64>,
    /// By signal handlers: the number of their process.
    pids: HashMap<u64, u64>,
    /// Numbers that wait: since when, and where.
    called: HashMap<u64, (u64, u16)>,
    found: Vec<Arrival>,
}

impl Graces {
    fn cpu(&mut self, cpu: u16) -> &mut (u64, u64) {
        let place = usize::from(cpu);
        if self.cpus.len() <= place {
            self.cpus.resize(place + 1, (0, 0));
        }
        &mut self.cpus[place]
    }

    /// A processor frees what waited.
    pub fn freed(&mut self, at_ns: u64, cpu: u16) {
        let (last, _) = self.cpu(cpu);
        let before = std::mem::replace(last, at_ns);
        if before == 0 || at_ns.saturating_sub(before) > TICK_NS {
            self.found.push(Arrival { at_ns, cpu, came: Came::Grace(Grace::Began) });
        }
    }

    /// A thread allocates the signal handlers of a process (`copy_sighand`).
    pub fn handlers(&mut self, thread: u32, address: u64) {
        self.made.insert(thread, address);
    }

    /// It allocates the number of that process (`alloc_pid`).
    pub fn number(&mut self, thread: u32, address: u64) {
        if let Some(handlers) = self.made.remove(&thread) {
            self.pids.insert(handlers, address);
        }
    }

    /// The signal handlers are freed, with the process (`release_task`).
    pub fn released(&mut self, handlers: u64, at_ns: u64, cpu: u16) {
        if let Some(number) = self.pids.remove(&handlers) {
            self.called.insert(number, (at_ns, cpu));
        }
    }

    /// A number is freed by a callback.
    pub fn ran(&mut self, number: u64, at_ns: u64, cpu: u16) {
        let Some((called_ns, on)) = self.called.remove(&number) else { return };
        let (_, last) = self.cpu(cpu);
        if on == cpu && called_ns >= *last {
            *last = called_ns;
            let of = |at_ns, grace| Arrival { at_ns, cpu, came: Came::Grace(grace) };
            self.found.extend([of(called_ns, Grace::Called), of(at_ns, Grace::Ran)]);
        }
    }

    /// What was found.
    pub fn take(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(graces: &mut Graces) -> Vec<(u64, Came)> {
        graces.take().iter().map(|it| (it.at_ns, it.came)).collect()
    }

    #[test]
    fn a_number_tells_when_the_callbacks_before_it_ran() {
        let mut graces = Graces::default();
        for (thread, handlers, number) in [(1, 10, 100), (2, 20, 200)] {
            graces.handlers(thread, handlers);
            graces.number(thread, number);
        }
        graces.number(1, 300);
        graces.released(10, 5, 0);
        graces.released(20, 6, 0);
        graces.ran(300, 7, 0);
        graces.ran(200, 8, 1);
        assert!(found(&mut graces).is_empty(), "no process's number, and another processor's");
        graces.ran(100, 9, 0);
        let (called, ran) = (Came::Grace(Grace::Called), Came::Grace(Grace::Ran));
        assert_eq!(found(&mut graces), [(5, called), (9, ran)]);
    }

    #[test]
    fn frees_within_a_tick_follow_one_grace_period() {
        let mut graces = Graces::default();
        for at_ns in [1, 2, TICK_NS, 3 * TICK_NS, 4 * TICK_NS] {
            graces.freed(at_ns, 0);
        }
        graces.freed(2, 1);
        let began = Came::Grace(Grace::Began);
        assert_eq!(found(&mut graces), [(1, began), (3 * TICK_NS, began), (2, began)]);
    }
}
