//! Blocks taken by compaction's fast search, which tells their size and not their place.
//!
//! `fast_isolate_freepages` (`mm/compaction.c`) walks a MOVABLE list from its tail, takes the first
//! block in the highest quarter of what is left to compact, else the highest one in its upper half,
//! and turns the list so that this block is its head. Its event tells the bound of the upper half,
//! the free scanner's place, how many blocks it looked at, and the pages taken. The mirror does the
//! same on its own list. The result is a guess until an event names one of the block's pages; when
//! one names a page that the mirror holds free, that one was taken, and the guess is put back.

use std::collections::{BTreeMap, HashMap};

use kmemlab_trace::event::Event;

use super::{Effect, Mirror};
use crate::pages::State;
use crate::residue::Cause;
use crate::seeding::Phase;

/// A block that the fast search may have taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Guess {
    pfn: u32,
    /// Which of all searches.
    number: u64,
    /// It took nothing below this page, and nothing from that one on.
    least: u32,
    end: u32,
}

impl Guess {
    fn may_be(&self, pfn: u32) -> bool {
        (self.least..self.end).contains(&pfn)
    }

    /// A range has an end, a search has none.
    fn cause(&self) -> Cause {
        if self.end == u32::MAX { Cause::FastSearch } else { Cause::Isolation }
    }
}

/// Blocks taken by searches and not named since.
#[derive(Clone, Debug, Default)]
pub(super) struct Guesses {
    /// Searches and ranges so far.
    pub(super) searches: u64,
    by_order: BTreeMap<(usize, u8), Vec<Guess>>,
    /// Order of each guess, by its first page.
    heads: HashMap<u32, u8>,
}

impl Guesses {
    /// The guess that holds a page.
    fn holding(&self, pfn: u32) -> Option<(u32, u8)> {
        if self.heads.is_empty() {
            return None;
        }
        (0..16).find_map(|order| {
            let head = pfn >> order << order;
            self.heads.get(&head).filter(|have| **have == order).map(|have| (head, *have))
        })
    }

    fn remove(&mut self, zone: usize, head: u32, order: u8) -> Option<Guess> {
        self.heads.remove(&head)?;
        let guesses = self.by_order.get_mut(&(zone, order))?;
        let index = guesses.iter().position(|guess| guess.pfn == head)?;
        Some(guesses.swap_remove(index))
    }

    fn add(&mut self, zone: usize, order: u8, guess: Guess) {
        self.heads.insert(guess.pfn, order);
        self.by_order.entry((zone, order)).or_default().push(guess);
    }
}

impl Mirror {
    /// The fast search took at most one block.
    pub(super) fn fast_isolate(&mut self, event: &Event) {
        let (scanned, taken) = (event.args[0], event.args[1]);
        // A search after the scanners have met tells a bound beyond any machine, and takes nothing.
        if taken <= 0 {
            return;
        }
        let Some((least, zone)) = self.possible_page(event) else { return };
        if self.seed.phase(least, event.time.0) != Phase::After {
            return;
        }
        let order = taken.unsigned_abs().ilog2() as u8;
        if order >= self.memory.machine().orders {
            self.residue.impossible_events += 1;
            return;
        }
        self.guesses.searches += 1;
        let number = self.guesses.searches;
        let top = u32::try_from(event.end).unwrap_or(u32::MAX);
        let seen = scanned - (taken - 1);
        let told = self.told_searches.get(&number).and_then(|told| told.first()).copied();
        let found = told
            .map(|(pfn, _)| pfn)
            .filter(|pfn| self.holds(*pfn, order))
            .or_else(|| self.search(zone, order, (least, top), seen));
        let Some(pfn) = found else {
            self.residue.ambiguous_isolations += 1;
            self.misfit(Cause::FastSearch, least, 0, taken);
            return;
        };
        if told.is_none() {
            self.residue.ambiguous_isolations += 1;
        }
        self.take_as_guess(pfn, order, (least, u32::MAX), number);
    }

    /// Takes a block that may not be the one that the kernel took.
    pub(super) fn take_as_guess(&mut self, pfn: u32, order: u8, range: (u32, u32), number: u64) {
        let zone = self.memory.zone_of(pfn).unwrap_or(0);
        self.take_guess(pfn, order);
        self.guesses.add(zone, order, Guess { pfn, number, least: range.0, end: range.1 });
        self.effects.push(Effect::Isolated { pfn, order });
    }

    fn take_guess(&mut self, pfn: u32, order: u8) {
        if let Some((head, have)) = self.memory.block_at(pfn) {
            if head == pfn && have == order {
                let list = self.memory.pages.get(pfn).list();
                self.memory.pages.turn(list, pfn);
            }
            self.memory.carve(head, pfn, order);
            self.memory.note(pfn, State::Isolated, order);
        }
    }

    /// The block that the kernel's search finds on the mirror's lists.
    fn search(&self, zone: usize, order: u8, bounds: (u32, u32), seen: i64) -> Option<u32> {
        let (least, top) = bounds;
        let list = self.memory.list(zone, order, 1);
        let quarter = top.saturating_sub(top.saturating_sub(least) / 2);
        let quarter =
            quarter >> self.memory.machine().block_order << self.memory.machine().block_order;
        let mut highest = None;
        let seen = usize::try_from(seen).unwrap_or(0).max(1);
        for pfn in self.memory.pages.iter_back(list).take(seen) {
            if pfn >= quarter {
                return Some(pfn);
            }
            if pfn >= least {
                highest = highest.max(Some(pfn));
            }
        }
        // The mirror's order of the list may not be the kernel's: then any block that fits.
        highest
            .or_else(|| self.memory.pages.iter_back(list).find(|pfn| *pfn >= least))
            .or_else(|| self.memory.back(list))
    }

    /// A page that the mirror holds free is in use: a search took its block, if one took a block of
    /// that size. `true` when that explains it.
    pub(super) fn swap_guess(&mut self, pfn: u32, order: u8, zone: usize) -> bool {
        let Some((_, have)) = self.memory.block_at(pfn) else { return false };
        let found = (order..=have).rev().find_map(|size| {
            let head = pfn >> size << size;
            let guesses = self.guesses.by_order.get(&(zone, size))?;
            let guess = guesses.iter().rev().find(|guess| guess.may_be(head))?;
            Some((*guess, head, size))
        });
        let Some((guess, head, size)) = found else { return false };
        self.guesses.remove(zone, guess.pfn, size);
        self.put_back(guess.pfn, size);
        self.learn_search(guess.number, head, size);
        self.take_guess(head, size);
        self.effects.push(Effect::Instead { guess: guess.pfn, pfn: head, order: size });
        true
    }

    fn put_back(&mut self, pfn: u32, order: u8) {
        let node = self.memory.pages.get(pfn);
        if node.state() == State::Isolated && node.order() == order {
            let migrate = self.memory.block_type(pfn);
            self.memory.free(pfn, order, migrate, false);
        }
    }

    /// The kernel takes a page from its free lists that a guess holds: another block was taken.
    pub(super) fn refute_guess(&mut self, pfn: u32, zone: usize) {
        let Some((head, order)) = self.guesses.holding(pfn) else { return };
        let Some(guess) = self.guesses.remove(zone, head, order) else { return };
        let list = self.memory.list(zone, order, 1);
        let other = self.memory.pages.iter_back(list).find(|other| guess.may_be(*other));
        self.put_back(head, order);
        let Some(other) = other.filter(|other| self.holds(*other, order)) else {
            self.misfit(Cause::FastSearch, head, order, 0);
            return;
        };
        self.take_guess(other, order);
        self.guesses.add(zone, order, Guess { pfn: other, ..guess });
        self.effects.push(Effect::Instead { guess: head, pfn: other, order });
    }

    /// A page that a guess holds was freed: the guess was right.
    pub(super) fn confirm_guess(&mut self, pfn: u32, zone: usize) {
        let Some((head, order)) = self.guesses.holding(pfn) else { return };
        if let Some(guess) = self.guesses.remove(zone, head, order) {
            self.learn_search(guess.number, head, order);
        }
    }

    /// What a guess that holds a page was made for.
    pub(crate) fn guessed_for(&self, pfn: u32) -> Option<Cause> {
        let (head, order) = self.guesses.holding(pfn)?;
        let zone = self.memory.zone_of(pfn)?;
        let guesses = self.guesses.by_order.get(&(zone, order))?;
        guesses.iter().find(|guess| guess.pfn == head).map(Guess::cause)
    }

    /// What a guess was made for that may as well have been a page's block.
    pub(crate) fn guess_beside(&self, pfn: u32) -> Option<Cause> {
        let zone = self.memory.zone_of(pfn)?;
        let of_zone = self.guesses.by_order.iter().filter(|((of, _), _)| *of == zone);
        let mut guesses = of_zone.flat_map(|(_, guesses)| guesses);
        guesses.find(|guess| guess.may_be(pfn)).map(Guess::cause)
    }
}
