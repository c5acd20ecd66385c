//! Fragmentation over the whole time, in bounded memory.

use kmemlab_trace::measure;
use kmemlab_trace::unit::Nanos;

/// Orders whose unusable free space index is shown: the costly order, a huge page, the largest
/// block.
pub const ORDERS: [usize; 3] = [3, 9, 10];

/// Points kept, an even number: more than a screen has columns.
const POINTS: usize = 1000;

/// Unusable free space index at [`ORDERS`], in thousandths; `None` where there is no such order.
pub type Indices = [Option<u16>; ORDERS.len()];

/// The indices of one set of free blocks.
#[must_use]
pub fn indices(free_blocks: &[u64]) -> Indices {
    ORDERS.map(|order| {
        let told = order < free_blocks.len();
        told.then(|| measure::unusable_free_index(free_blocks, order).min(1000) as u16)
    })
}

/// The worst of a stretch of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// When the stretch began.
    pub at: Nanos,
    /// Its highest indices.
    pub indices: Indices,
}

/// Indices over time. When there are too many points, neighbours become one that keeps the worse
/// of the two: a peak is never lost, only its place gets coarser.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    points: Vec<Point>,
    stride: usize,
    in_last: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, in_last: 0 }
    }
}

impl History {
    /// Adds a moment, later than all before it.
    pub fn push(&mut self, at: Nanos, free_blocks: &[u64]) {
        let point = Point { at, indices: indices(free_blocks) };
        match self.points.last_mut() {
            Some(last) if self.in_last < self.stride => {
                *last = worse(*last, point);
                self.in_last += 1;
            }
            _ => {
                self.points.push(point);
                self.in_last = 1;
            }
        }
        if self.points.len() > POINTS {
            let halved = self.points.chunks(2).map(|pair| pair.iter().copied().reduce(worse));
            self.points = halved.flatten().collect();
            // The odd last point stays alone: a stretch just begun.
            self.stride *= 2;
        }
    }

    /// The points, ascending in time.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }
}

fn worse(earlier: Point, later: Point) -> Point {
    let mut indices = earlier.indices;
    for (index, other) in indices.iter_mut().zip(later.indices) {
        *index = (*index).max(other);
    }
    Point { at: earlier.at, indices }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_that_are_not_there_have_no_index() {
        assert_eq!(indices(&[16, 0, 0, 0]), [Some(1000), None, None]);
        assert_eq!(indices(&[0; 0]), [None; 3]);
    }

    #[test]
    fn a_long_recording_keeps_its_peaks_in_few_points() {
        let mut history = History::default();
        for second in 0..50_000u64 {
            // All free memory in order 3, but for one second in single pages.
            let blocks = if second == 31_234 { [8, 0, 0, 0] } else { [0, 0, 0, 1] };
            history.push(Nanos(second), &blocks);
        }
        let points = history.points();
        assert!((POINTS / 2..=POINTS).contains(&points.len()), "{}", points.len());
        assert!(points.is_sorted_by_key(|point| point.at));
        let peaks: Vec<_> = points.iter().filter(|point| point.indices[0] == Some(1000)).collect();
        assert_eq!(peaks.len(), 1);
        assert!(peaks[0].at.0 <= 31_234 && 31_234 - peaks[0].at.0 < 64);
        assert_eq!(points[0].at, Nanos(0));
    }
}
