//! Requests in the order in which they took effect, as [`super::overtaken`] found it.

use super::caches::CacheId;
use super::overtaken::{Late, Moments, Overtaken};

/// A free that is held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held<T> {
    until: u32,
    /// What it frees.
    pub token: T,
    /// Of which cache.
    pub cache: CacheId,
    /// Where.
    pub cpu: usize,
}

/// Goes through what was found while the events pass.
#[derive(Clone, Debug)]
pub struct Ahead<'a, T> {
    overtaken: &'a [Overtaken],
    late: &'a [Late],
    number: u32,
    parked: Vec<(u32, T)>,
    held: Vec<Held<T>>,
}

impl<'a, T: Copy> Ahead<'a, T> {
    /// Before the first event.
    #[must_use]
    pub fn new(moments: &'a Moments) -> Self {
        let Moments { overtaken, late } = moments;
        Self { overtaken, late, number: 0, parked: Vec::new(), held: Vec::new() }
    }

    /// The next event comes.
    pub fn begin_event(&mut self) {
        self.number = self.number.saturating_add(1);
    }

    /// An allocation that is due before this event.
    #[inline]
    pub fn next_due(&mut self) -> Option<Overtaken> {
        let (first, rest) = self.overtaken.split_first()?;
        if first.moment > self.number {
            return None;
        }
        self.overtaken = rest;
        Some(*first)
    }

    /// Keeps what it got until its event comes.
    pub fn park(&mut self, of: &Overtaken, token: T) {
        self.parked.push((of.event, token));
    }

    /// What the allocation that this event tells of got before.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if self.parked.is_empty() {
            return None;
        }
        let place = self.parked.iter().position(|(event, _)| *event == self.number)?;
        Some(self.parked.swap_remove(place).1)
    }

    /// Holds this event's free back if it takes effect later; answers whether it does.
    #[inline]
    pub fn hold(&mut self, token: T, cache: CacheId, cpu: usize) -> bool {
        while let Some((first, rest)) = self.late.split_first()
            && first.event <= self.number
        {
            self.late = rest;
            if first.event == self.number {
                self.held.push(Held { until: first.until, token, cache, cpu });
                return true;
            }
        }
        false
    }

    /// A free that takes effect now, after this event.
    #[inline]
    pub fn release(&mut self) -> Option<Held<T>> {
        let place = self.held.iter().position(|held| held.until <= self.number)?;
        Some(self.held.remove(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: CacheId = CacheId(0);

    #[test]
    fn what_is_made_ahead_is_handed_out_with_its_own_event() {
        let (moment, event) = (2, 4);
        let due = Overtaken { moment, event, cache: PROBE, cpu: 0, bytes: 8, gfp: 0 };
        let moments = Moments { overtaken: vec![due], late: vec![Late { event: 3, until: 4 }] };
        let mut ahead = Ahead::new(&moments);
        ahead.begin_event();
        assert_eq!(ahead.next_due(), None);
        ahead.begin_event();
        assert_eq!(ahead.next_due(), Some(due));
        ahead.park(&due, 11_u32);
        assert_eq!(ahead.take(), None);
        assert!(!ahead.hold(5, PROBE, 1));
        ahead.begin_event();
        assert!(ahead.hold(5, PROBE, 1), "the third event's free takes effect later");
        assert_eq!(ahead.release(), None);
        ahead.begin_event();
        assert_eq!(ahead.take(), Some(11));
        assert_eq!(ahead.release().map(|held| held.token), Some(5));
        assert_eq!(ahead.release(), None);
    }
}
