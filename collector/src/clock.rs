//! The one clock of a recording: `CLOCK_MONOTONIC`, which tracepoints can be told to use too.

use kmemlab_trace::unit::Nanos;

/// The moment, by `CLOCK_MONOTONIC`.
#[must_use]
pub fn now() -> Nanos {
    read(libc::CLOCK_MONOTONIC)
}

/// Processor time that the calling thread has used so far: what it costs, however busy the machine.
#[must_use]
pub fn thread_cpu() -> Nanos {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

#[allow(unsafe_code)]
fn read(clock: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec that outlives the call. With a valid clock and a
    // valid pointer the call cannot fail, so that `time` always holds the answer.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_forward() {
        let first = now();
        let second = now();
        assert!(first.0 > 0);
        assert!(second >= first);
        let (first, second) = (thread_cpu(), thread_cpu());
        assert!(second >= first);
    }
}
