//! What lies between the areas.

use super::Vmap;

/// Per-CPU chunks stand at the window's far end, top down, and say nothing of its use.
const FAR: u64 = 1 << 40;

impl Vmap {
    /// Holes of the free space; what waits in pools is none.
    #[must_use]
    pub fn holes(&self) -> u64 {
        self.free.holes() as u64
    }

    /// The largest gap between two areas of the window, in use or waiting to be purged, in bytes:
    /// as `/proc/vmallocinfo` shows it, which does not tell what waits in pools.
    #[must_use]
    pub fn largest_gap(&self) -> u64 {
        let (start, end) = (self.window.0, self.window.1.max(self.window.0));
        let lazy = self.lazy.iter().filter(|area| (start..end).contains(&area.start));
        let busy = self.busy.range(start..end).map(|(_, area)| area);
        let mut areas: Vec<(u64, u64)> = busy
            .chain(lazy)
            .map(|area| (area.start, area.start.saturating_add(area.size)))
            .collect();
        areas.sort_unstable();
        let (mut largest, mut reached) = (0, start);
        for (first, last) in areas.into_iter().filter(|it| it.1 < end.saturating_sub(FAR)) {
            largest = largest.max(first.saturating_sub(reached));
            reached = reached.max(last);
        }
        largest
    }
}
