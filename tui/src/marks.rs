//! What happened when: the places that the time bar marks and that one can jump to.

use kmemlab_trace::unit::Nanos;

/// What a mark stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkKind {
    /// A request took a page block of another migrate type.
    Fallback,
    /// A task waited for reclaim or compaction.
    Stall,
    /// An allocation failed, or the machine was out of memory.
    Failure,
    /// Events are missing.
    Loss,
}

impl MarkKind {
    /// Every kind, the worst last.
    pub const ALL: [Self; 4] = [Self::Fallback, Self::Stall, Self::Failure, Self::Loss];

    /// Its sign on the time bar.
    #[must_use]
    pub fn sign(self) -> char {
        match self {
            Self::Fallback => 'f',
            Self::Stall => 's',
            Self::Failure => 'x',
            Self::Loss => '!',
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::Stall => "stall",
            Self::Failure => "failure",
            Self::Loss => "loss",
        }
    }
}

/// Moments worth a look, by kind, each kind rising in time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    times: [Vec<Nanos>; MarkKind::ALL.len()],
}

impl Marks {
    /// Adds a moment; late ones are put in their place.
    pub fn push(&mut self, kind: MarkKind, at: Nanos) {
        let times = &mut self.times[kind as usize];
        if times.last().is_none_or(|last| *last <= at) {
            times.push(at);
        } else {
            let place = times.partition_point(|time| *time <= at);
            times.insert(place, at);
        }
    }

    /// Moments of that kind.
    #[must_use]
    pub fn count(&self, kind: MarkKind) -> usize {
        self.times[kind as usize].len()
    }

    /// Moments of that kind at or after `from` and before `to`.
    #[must_use]
    pub fn within(&self, kind: MarkKind, from: Nanos, to: Nanos) -> usize {
        let times = &self.times[kind as usize];
        let before = |limit: Nanos| times.partition_point(|time| *time < limit);
        before(to).saturating_sub(before(from))
    }

    /// The worst kind at or after `from` and before `to`.
    #[must_use]
    pub fn worst(&self, from: Nanos, to: Nanos) -> Option<MarkKind> {
        MarkKind::ALL.into_iter().rev().find(|kind| self.within(*kind, from, to) > 0)
    }

    /// The first moment after that one, and what it is.
    #[must_use]
    pub fn next(&self, after: Nanos) -> Option<(Nanos, MarkKind)> {
        let firsts = MarkKind::ALL.into_iter().filter_map(|kind| {
            let times = &self.times[kind as usize];
            let place = times.partition_point(|time| *time <= after);
            times.get(place).map(|time| (*time, kind))
        });
        firsts.min_by_key(|(time, _)| *time)
    }

    /// The last moment before that one, and what it is.
    #[must_use]
    pub fn previous(&self, before: Nanos) -> Option<(Nanos, MarkKind)> {
        let lasts = MarkKind::ALL.into_iter().filter_map(|kind| {
            let times = &self.times[kind as usize];
            let place = times.partition_point(|time| *time < before);
            place.checked_sub(1).map(|place| (times[place], kind))
        });
        lasts.max_by_key(|(time, _)| *time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_stop_at_every_kind_in_order() {
        let mut marks = Marks::default();
        marks.push(MarkKind::Stall, Nanos(20));
        marks.push(MarkKind::Fallback, Nanos(30));
        marks.push(MarkKind::Stall, Nanos(10));
        marks.push(MarkKind::Loss, Nanos(25));
        let mut at = Nanos(0);
        let mut seen = Vec::new();
        while let Some((next, kind)) = marks.next(at) {
            seen.push((next.0, kind.sign()));
            at = next;
        }
        assert_eq!(seen, [(10, 's'), (20, 's'), (25, '!'), (30, 'f')]);
        assert_eq!(marks.previous(Nanos(25)), Some((Nanos(20), MarkKind::Stall)));
        assert_eq!(marks.previous(Nanos(10)), None);
        assert_eq!(marks.worst(Nanos(0), Nanos(31)), Some(MarkKind::Loss));
        assert_eq!(marks.worst(Nanos(26), Nanos(31)), Some(MarkKind::Fallback));
        assert_eq!(marks.within(MarkKind::Stall, Nanos(10), Nanos(20)), 1);
    }
}
