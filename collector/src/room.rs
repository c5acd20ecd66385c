//! How much memory a recording takes: for the rings, and for what waits between its threads.

use crate::root::Root;

const MIB: u64 = 1 << 20;
/// Ring of a processor where memory is scarce: a tenth of a second at two million events a second.
const RING_BYTES_MIN: u64 = 8 * MIB;
/// Ring of a processor where it is not. A second of an event every 700 ns; more only makes caches
/// colder.
const RING_BYTES_MAX: u64 = 64 * MIB;
/// All rings together take one in so many parts of the memory that is left.
const RING_PART: u64 = 64;

/// Memory of a chunk that waits: records, and the keys that they are sorted by.
const JOB_BYTES: u64 = 2 * MIB;
const JOBS_MIN: u64 = 64;
const JOBS_MAX: u64 = 512;
/// The queue takes one in so many parts of the memory that is left.
const QUEUE_PART: u64 = 32;

/// Memory that can be had without anything being taken from others.
pub(crate) fn available_bytes(root: &Root) -> Option<u64> {
    let text = root.read("proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Size of each processor's ring where none is asked for: a power of two.
#[must_use]
pub(crate) fn ring_bytes(available: Option<u64>, cpus: usize) -> u64 {
    let share = available.unwrap_or(0) / RING_PART / (cpus as u64).max(1);
    let power = share.checked_ilog2().map_or(0, |log| 1 << log);
    power.clamp(RING_BYTES_MIN, RING_BYTES_MAX)
}

/// Jobs that may wait for the second thread.
pub(crate) fn queue_jobs(available: Option<u64>) -> usize {
    let jobs = available.unwrap_or(0) / QUEUE_PART / JOB_BYTES;
    usize::try_from(jobs.clamp(JOBS_MIN, JOBS_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    #[test]
    fn memory_left_bounds_rings_and_queue() {
        let gib = |gib: u64| Some(gib << 30);
        assert_eq!(ring_bytes(gib(22), 2), 64 * MIB);
        assert_eq!(ring_bytes(gib(256), 256), 16 * MIB);
        assert_eq!(ring_bytes(gib(2), 4), 8 * MIB);
        assert_eq!(ring_bytes(None, 0), 8 * MIB);
        assert_eq!(queue_jobs(gib(22)), 352);
        assert_eq!(queue_jobs(gib(1)), 64);
        assert_eq!(queue_jobs(gib(999)), 512);
        assert_eq!(queue_jobs(None), 64);
    }

    #[test]
    fn memory_left_is_what_the_kernel_tells() {
        let scratch = Scratch::new();
        assert_eq!(available_bytes(&scratch.0), None);
        scratch.write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    1024 kB\n");
        assert_eq!(available_bytes(&scratch.0), Some(1 << 20));
    }
}
