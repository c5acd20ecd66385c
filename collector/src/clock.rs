//! The one clock of a recording: `CLOCK_MONOTONIC`, which tracepoints can be told to use too.

use kmemlab_trace::unit::Nanos;

/// The moment, by `CLOCK_MONOTONIC`.
#[must_use]
#[allow(unsafe_code)]
pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec that outlives the call. With a valid clock and a
    // valid pointer the call cannot fail, so that `time` always holds the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
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
    }
}
