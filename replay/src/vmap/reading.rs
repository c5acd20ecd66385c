//! One read of `/proc/vmallocinfo` against the areas that were there while it was read.
//!
//! The file is read node by node, so it shows no single moment. But each of its areas must have
//! been there at some time of the read, and each that was there all the time must be in it.

use super::samples::VmapSample;

/// A free is told after the area has left its place, and an area is told before the file has it: by
/// so much at most, if its thread is preempted in between.
pub(super) const LATE_NS: u64 = 10_000_000;

/// An area that was there while the file was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    /// Where the kernel had it.
    pub(super) start: u64,
    /// Bytes.
    pub(super) size: u64,
    /// Since when.
    pub(super) since_ns: u64,
    /// Until when.
    pub(super) until_ns: u64,
}

/// What was there while the file was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Reading {
    held: Vec<Held>,
    /// Areas that waited when it began.
    pub(super) lazy_areas: u64,
    /// Largest gap when it began.
    pub(super) largest_gap_bytes: u64,
}

/// What a reading came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    /// Areas: what is nearest to the file's of all that were there while it was read.
    pub(super) areas: u64,
    /// Their bytes, likewise.
    pub(super) bytes: u64,
    /// Areas of the file that were not there, and areas that were there and not in the file.
    pub(super) wrong: u64,
}

impl Reading {
    /// The read begins.
    pub(super) fn new(held: impl Iterator<Item = Held>) -> Self {
        Self { held: held.collect(), ..Self::default() }
    }

    /// An area came to be.
    pub(super) fn came(&mut self, held: Held) {
        self.held.push(held);
    }

    /// An area went.
    pub(super) fn went(&mut self, start: u64, now_ns: u64) {
        let is_it = |held: &&mut Held| held.start == start && held.until_ns == u64::MAX;
        if let Some(held) = self.held.iter_mut().rev().find(is_it) {
            held.until_ns = now_ns;
        }
    }

    /// Compares with what the file said.
    pub(super) fn compare(mut self, sample: &VmapSample) -> Found {
        let (before, after) = (sample.stamp.before.0, sample.stamp.after.0);
        self.held.retain(|held| held.since_ns <= after && held.until_ns >= before);
        self.held.sort_by_key(|held| (held.start, held.since_ns));
        let must = |held: &&Held| {
            held.since_ns.saturating_add(LATE_NS) <= before
                && held.until_ns > after.saturating_add(LATE_NS)
        };
        let mut found = Found::default();
        let mut told = 0_u64;
        let mut told_bytes = 0_u64;
        let rows = || sample.rows.iter().filter(|row| !row.is_lazy);
        for row in rows() {
            told += 1;
            told_bytes = told_bytes.saturating_add(row.size);
            let from = self.held.partition_point(|held| held.start < row.start);
            let mine = self.held[from..].iter().take_while(|held| held.start == row.start);
            found.wrong += u64::from(!mine.into_iter().any(|held| held.size == row.size));
        }
        let sum = |held: &mut dyn Iterator<Item = &Held>| {
            held.fold((0, 0), |(areas, bytes): (u64, u64), held| {
                (areas + 1, bytes.saturating_add(held.size))
            })
        };
        let least = sum(&mut self.held.iter().filter(must));
        let most = sum(&mut self.held.iter());
        found.areas = told.clamp(least.0, most.0);
        found.bytes = told_bytes.clamp(least.1, most.1);
        let is_told = |held: &&Held| rows().any(|row| row.start == held.start);
        found.wrong += self.held.iter().filter(must).filter(|held| !is_told(held)).count() as u64;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmap::samples::Row;
    use kmemlab_trace::snapshot::Stamp;
    use kmemlab_trace::unit::Nanos;

    const MS: u64 = 1_000_000;

    fn sample(starts: &[u64]) -> VmapSample {
        let row = |start: &u64| Row {
            start: *start,
            size: 8,
            pages: 0,
            is_lazy: false,
            is_percpu: false,
        };
        let stamp = Stamp { before: Nanos(100 * MS), after: Nanos(102 * MS) };
        VmapSample { stamp, rows: starts.iter().map(row).collect() }
    }

    fn held(start: u64, since_ms: u64, until_ms: u64) -> Held {
        Held { start, size: 8, since_ns: since_ms * MS, until_ns: until_ms.saturating_mul(MS) }
    }

    #[test]
    fn an_area_that_came_or_went_meanwhile_may_be_in_the_file_or_not() {
        let areas = [held(1, 0, 500), held(2, 0, 101), held(3, 101, 500)];
        for starts in [&[1][..], &[1, 2], &[1, 3], &[1, 2, 3]] {
            let found = Reading::new(areas.into_iter()).compare(&sample(starts));
            let count = starts.len() as u64;
            assert_eq!(found, Found { areas: count, bytes: 8 * count, wrong: 0 }, "{starts:?}");
        }
    }

    #[test]
    fn an_area_too_many_or_too_few_is_wrong_though_their_number_is_right() {
        let mut reading = Reading::new([held(1, 0, u64::MAX)].into_iter());
        assert_eq!(reading.clone().compare(&sample(&[2])), Found { areas: 1, bytes: 8, wrong: 2 });
        reading.came(held(2, 101, u64::MAX));
        reading.went(1, 101 * MS);
        assert_eq!(reading.compare(&sample(&[2])).wrong, 0);
    }
}
