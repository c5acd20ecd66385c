//! Places for blocks of which only the number is known.
//!
//! A block takes the lower half of a room of twice its size, so that its buddy is not a free block
//! of the same order and the two do not merge; the upper half is a room for smaller blocks. The
//! largest order needs no such care.

use crate::machine::Machine;

/// Rooms of a zone by order: aligned ranges in which nothing is.
struct Rooms(Vec<Vec<u32>>);

impl Rooms {
    fn of(machine: &Machine, zone: usize) -> Self {
        let top = machine.orders - 1;
        let mut rooms = Self(vec![Vec::new(); usize::from(machine.orders)]);
        let span = &machine.zones[zone];
        let mut at = span.start;
        while at < span.end {
            let fits = |order: &u8| {
                at & ((1 << *order) - 1) == 0
                    && u64::from(at) + (1u64 << *order) <= u64::from(span.end)
            };
            let order = (0..=top).rev().find(fits).unwrap_or(0);
            rooms.0[usize::from(order)].push(at);
            at += 1 << order;
        }
        // The last one is taken first: the lowest stays for the end.
        rooms
    }

    /// A room of exactly that order, cut from a larger one if need be.
    fn take(&mut self, order: u8) -> Option<u32> {
        let from = (usize::from(order)..self.0.len()).find(|order| !self.0[*order].is_empty())?;
        let at = self.0[from].pop()?;
        for half in (usize::from(order)..from).rev() {
            self.0[half].push(at + (1 << half));
        }
        Some(at)
    }
}

/// Adds runs of free pages that make just these blocks; answers the pages that found no room.
pub(super) fn fill(
    machine: &Machine,
    zone: usize,
    blocks: &[u64],
    free: &mut Vec<(u32, u32)>,
) -> u64 {
    let mut rooms = Rooms::of(machine, zone);
    let top = machine.orders - 1;
    let mut homeless = 0;
    for order in (0..=top).rev() {
        for _ in 0..blocks.get(usize::from(order)).copied().unwrap_or(0) {
            let room = if order == top { order } else { order + 1 };
            let Some(at) = rooms.take(room) else {
                homeless += 1 << order;
                continue;
            };
            free.push((at, at + (1 << order)));
            if room > order {
                rooms.0[usize::from(order)].push(at + (1 << order));
            }
        }
    }
    homeless
}
