//! Model and kernel at the samples of `/proc/slabinfo`, summed over them.

use super::drive::nearest;
use crate::slab::policy::{CacheCounts, Occupancy};
use kmemlab_trace::snapshot::SlabRow;

/// A number of the model and of the kernel, each summed over the samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// The model's.
    pub model: i64,
    /// The kernel's.
    pub kernel: i64,
    /// What they differ by, sample by sample, without its sign.
    pub away: i64,
}

impl Sums {
    fn add(&mut self, model: i64, kernel: i64) {
        self.model = self.model.saturating_add(model);
        self.kernel = self.kernel.saturating_add(kernel);
        let away = i64::try_from(model.abs_diff(kernel)).unwrap_or(i64::MAX);
        self.away = self.away.saturating_add(away);
    }
}

/// All caches together. Objects count as `/proc/slabinfo` counts them, and are as large as it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlabSums {
    /// Pages of slabs.
    pub pages: Sums,
    /// Bytes of these pages that are no used object's; negative where a policy packs tighter than
    /// the kernel's object sizes.
    pub waste_bytes: Sums,
    /// Used objects' share of the pages, in millionths.
    pub utilisation_ppm: Sums,
    /// Bytes free in slabs that are neither empty nor full, the kernel's by its objects' addresses.
    pub partial_waste_bytes: Sums,
    /// Slabs kept by at most a fourth of their objects, likewise.
    pub sparse_slabs: Sums,
    /// Live objects' share of the room in slabs, in millionths, likewise.
    pub live_ppm: Sums,
}

impl SlabSums {
    /// Adds a sample.
    pub(super) fn add(&mut self, model: Held, kernel: Held, page_bytes: u64) {
        self.pages.add(model.pages, kernel.pages);
        self.waste_bytes.add(model.waste(page_bytes), kernel.waste(page_bytes));
        self.utilisation_ppm.add(model.ppm(page_bytes), kernel.ppm(page_bytes));
    }

    /// Adds how full the slabs are at a sample.
    pub(super) fn add_fullness(&mut self, model: &Fullness, kernel: &Fullness) {
        self.partial_waste_bytes.add(model.partial_bytes, kernel.partial_bytes);
        self.sparse_slabs.add(model.sparse_slabs, kernel.sparse_slabs);
        self.live_ppm.add(model.live_ppm(), kernel.live_ppm());
    }
}

/// How full all slabs are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Fullness {
    partial_bytes: i64,
    sparse_slabs: i64,
    live_bytes: i64,
    room_bytes: i64,
}

impl Fullness {
    pub(super) fn add(&mut self, occupancy: &Occupancy, room: u64, stride: u64) {
        let bytes =
            |objects: u64| i64::try_from(objects.saturating_mul(stride)).unwrap_or(i64::MAX);
        self.partial_bytes = self.partial_bytes.saturating_add(bytes(occupancy.partial_free));
        self.sparse_slabs = self.sparse_slabs.saturating_add_unsigned(occupancy.sparse_slabs);
        self.live_bytes = self.live_bytes.saturating_add(bytes(occupancy.live));
        self.room_bytes = self.room_bytes.saturating_add(bytes(room));
    }

    fn live_ppm(&self) -> i64 {
        let ppm = i128::from(self.live_bytes) * 1_000_000 / i128::from(self.room_bytes.max(1));
        i64::try_from(ppm).unwrap_or(i64::MAX)
    }
}

/// Pages, and the bytes of the objects in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    pub(super) pages: i64,
    pub(super) object_bytes: i64,
}

impl Held {
    pub(super) fn add(&mut self, pages: u64, objects: u64, object_bytes: u64) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.pages = self.pages.saturating_add(signed(pages));
        let bytes = signed(objects).saturating_mul(signed(object_bytes));
        self.object_bytes = self.object_bytes.saturating_add(bytes);
    }

    fn bytes(self, page_bytes: u64) -> i64 {
        self.pages.saturating_mul(i64::try_from(page_bytes).unwrap_or(i64::MAX))
    }

    fn waste(self, page_bytes: u64) -> i64 {
        self.bytes(page_bytes).saturating_sub(self.object_bytes)
    }

    fn ppm(self, page_bytes: u64) -> i64 {
        let bytes = i128::from(self.bytes(page_bytes).max(1));
        i64::try_from(i128::from(self.object_bytes) * 1_000_000 / bytes).unwrap_or(i64::MAX)
    }
}

/// One cache at one sample of `/proc/slabinfo`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CacheSample {
    /// When the kernel's read of the file began.
    pub at_ns: u64,
    /// The cache, by its place in [`super::SlabOutcome::caches`].
    pub cache: usize,
    /// Bytes from one object to the next, as the kernel says.
    pub object_bytes: u64,
    /// The kernel's.
    pub kernel: CacheCount,
    /// The model's.
    pub model: CacheCount,
}

/// A cache's slabs and objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCount {
    /// Slabs.
    pub slabs: u64,
    /// Pages of them.
    pub pages: u64,
    /// Objects that count as used.
    pub active_objects: u64,
}

impl CacheCount {
    /// What the file says.
    pub(super) fn of_row(row: &SlabRow, page_bytes: u64) -> Self {
        let pages = row.pages(page_bytes);
        Self { slabs: row.slabs, pages, active_objects: row.active_objects }
    }

    /// What the model held while the file was read: of all that, what is nearest to the kernel's.
    pub(super) fn nearest(before: &CacheCounts, after: &CacheCounts, kernel: &Self) -> Self {
        Self {
            slabs: nearest(before.slabs, after.slabs, kernel.slabs),
            pages: nearest(before.pages, after.pages, kernel.pages),
            active_objects: nearest(before.active, after.active, kernel.active_objects),
        }
    }

    /// Bytes of the pages that are no used object's.
    #[must_use]
    pub fn waste_bytes(&self, object_bytes: u64, page_bytes: u64) -> i64 {
        self.held(object_bytes).waste(page_bytes)
    }

    /// Used objects' share of the pages, in millionths.
    #[must_use]
    pub fn utilisation_ppm(&self, object_bytes: u64, page_bytes: u64) -> i64 {
        self.held(object_bytes).ppm(page_bytes)
    }

    fn held(&self, object_bytes: u64) -> Held {
        let mut held = Held::default();
        held.add(self.pages, self.active_objects, object_bytes);
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waste_is_what_no_object_fills() {
        let count = CacheCount { slabs: 2, pages: 2, active_objects: 3 };
        assert_eq!(count.waste_bytes(1024, 4096), 2 * 4096 - 3 * 1024);
        assert_eq!(count.utilisation_ppm(1024, 4096), 375_000);
        assert_eq!(CacheCount::default().utilisation_ppm(64, 4096), 0);
    }

    #[test]
    fn differences_of_either_sign_do_not_cancel() {
        let mut sums = SlabSums::default();
        let of = |pages| Held { pages, object_bytes: 0 };
        sums.add(of(3), of(5), 4096);
        sums.add(of(7), of(5), 4096);
        assert_eq!(sums.pages, Sums { model: 10, kernel: 10, away: 4 });
    }
}
