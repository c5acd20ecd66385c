//! Frees in an interrupt that met a locked per-CPU list and went past it (`free_one_page`).
//!
//! An interrupt that came while its processor was at work on a zone's per-CPU lists finds their
//! lock taken for as long as it lasts: all of its frees to that zone go past the lists, or none.
//! So one page that turns up on the buddy lists tells for all, and one that leaves a list too. When
//! no page ever tells, the interrupt's surroundings do: preemption disabled twice over (the lists'
//! own section and their lock), and beside it the half-told event of the thread it interrupted: a
//! free told just before, or an allocation told just after.

use std::collections::HashMap;

use kmemlab_trace::event::{Event, Kind};

/// Preemption is disabled at least so deep within a section of the per-CPU lists.
const LOCKED_DEPTH: u8 = 2;

/// A free in an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Free {
    number: u64,
    zone: u8,
}

/// Frees of one interrupt to all zones.
#[derive(Clone, Debug, Default)]
struct Spell {
    pid: u32,
    frees: Vec<Free>,
    /// Zones, as bits, to which a page was proven to have gone past the lists, and onto them.
    past: u32,
    onto: u32,
    /// Zones, as bits, whose lists the interrupted thread had locked, if it had any.
    likely: u32,
    /// The least depth at which preemption was disabled.
    depth: u8,
}

/// All interrupts that freed something.
#[derive(Clone, Debug, Default)]
pub(super) struct Spells {
    spells: Vec<Spell>,
    /// The spell under way on each processor.
    open: HashMap<u16, usize>,
    /// The last thread on each processor, and the zone, as a bit, whose lists it has locked.
    last: HashMap<u16, (u32, u32)>,
    /// The last free of a page in an interrupt: its spell and its number among all frees.
    freed: HashMap<u32, (usize, u64)>,
    /// Frees found to have gone past the lists, with their spells.
    proven: Vec<(usize, u64)>,
    /// The kernel counts how deep preemption is disabled.
    has_depth: bool,
}

impl Spells {
    /// An event, of a page in that zone if it names one.
    #[inline]
    pub(super) fn watch(&mut self, event: &Event, zone: Option<usize>) {
        if !event.context.is_task() {
            return;
        }
        self.has_depth |= event.kind == Kind::ZoneLocked && event.preempt_depth >= LOCKED_DEPTH;
        let cpu = event.cpu.0;
        let zones = zone.map_or(0, |zone| 1u32 << zone.min(31));
        if let Some(spell) = self.open.remove(&cpu).and_then(|index| self.spells.get_mut(index))
            && spell.pid == event.pid.0
            && event.kind == Kind::PageFreeBatched
        {
            spell.likely |= zones;
        }
        let is_locked = matches!(event.kind, Kind::ZoneLocked | Kind::ExtFrag);
        self.last.insert(cpu, (event.pid.0, if is_locked { zones } else { 0 }));
    }

    /// A page was freed in an interrupt.
    pub(super) fn freed(&mut self, pfn: u32, number: u64, zone: usize, event: &Event) {
        let (cpu, pid) = (event.cpu.0, event.pid.0);
        let index = match self.open.get(&cpu) {
            Some(index) if self.spells[*index].pid == pid => *index,
            _ => {
                let last = self.last.get(&cpu).filter(|last| last.0 == pid);
                let likely = last.map_or(0, |last| last.1);
                self.spells.push(Spell { pid, likely, depth: u8::MAX, ..Spell::default() });
                self.open.insert(cpu, self.spells.len() - 1);
                self.spells.len() - 1
            }
        };
        let spell = &mut self.spells[index];
        spell.depth = spell.depth.min(event.preempt_depth);
        spell.frees.push(Free { number, zone: zone.min(31) as u8 });
        self.freed.insert(pfn, (index, number));
    }

    /// The page's last free went past the lists.
    pub(super) fn was_past(&mut self, pfn: u32, zone: usize) {
        if self.freed.is_empty() {
            return;
        }
        if let Some((index, number)) = self.freed.remove(&pfn) {
            self.proven.push((index, number));
            self.spells[index].past |= 1 << zone.min(31);
        }
    }

    /// Where the page's last free went is not known.
    pub(super) fn is_open(&self, pfn: u32) -> bool {
        self.freed.contains_key(&pfn)
    }

    /// The page left a per-CPU list.
    pub(super) fn was_onto(&mut self, pfn: u32, zone: usize) {
        if self.freed.is_empty() {
            return;
        }
        if let Some((index, _)) = self.freed.remove(&pfn) {
            self.spells[index].onto |= 1 << zone.min(31);
        }
    }

    /// The frees that went past the lists, by their number among all frees, rising.
    pub(super) fn finish(self) -> Vec<u64> {
        // Who holds the lock cannot be interrupted at no depth: such a page was drained unseen.
        let may_be_locked = |spell: &Spell| !self.has_depth || spell.depth >= LOCKED_DEPTH;
        let is_believed = |index: &usize| self.spells.get(*index).is_some_and(may_be_locked);
        let proven = self.proven.iter().filter(|(index, _)| is_believed(index));
        let mut past: Vec<u64> = proven.map(|(_, number)| *number).collect();
        for spell in self.spells.iter().filter(|spell| may_be_locked(spell)) {
            let guessed = if self.has_depth { spell.likely } else { 0 };
            let zones = (spell.past | guessed) & !spell.onto;
            let fitting = spell.frees.iter().filter(|free| zones >> free.zone & 1 == 1);
            past.extend(fitting.map(|free| free.number));
        }
        past.sort_unstable();
        past.dedup();
        past
    }
}

#[cfg(test)]
mod tests {
    use kmemlab_trace::unit::{Cpu, Nanos, Pid};

    use super::*;

    fn event(kind: Kind, pid: u32, depth: Option<u8>) -> Event {
        let mut event = Event::new(kind, Nanos(1), Cpu(0), Pid(pid));
        if let Some(depth) = depth {
            event.context.0 = 2;
            event.preempt_depth = depth;
        }
        event
    }

    /// Three frees in a softirq of that depth, then an event of the interrupted thread.
    fn spell(depth: u8, after: Kind) -> Spells {
        let mut spells = Spells { has_depth: true, ..Spells::default() };
        for number in 1..=3 {
            let free = event(Kind::PageFree, 7, Some(depth));
            spells.freed(100 + number as u32, number, 2, &free);
        }
        spells.watch(&event(after, 7, None), Some(2));
        spells
    }

    #[test]
    fn one_page_found_past_the_lists_tells_for_the_whole_interrupt() {
        for (depth, has_depth, past) in
            [(2, true, vec![1, 2, 3]), (0, false, vec![1, 2, 3]), (0, true, vec![])]
        {
            let mut spells = spell(depth, Kind::PageAlloc);
            spells.has_depth = has_depth;
            spells.was_past(102, 2);
            assert_eq!(spells.finish(), past);
        }
    }

    #[test]
    fn a_page_that_left_a_list_tells_that_the_others_are_on_it() {
        let mut spells = spell(2, Kind::PageFreeBatched);
        spells.was_onto(101, 2);
        assert!(spells.finish().is_empty());
    }

    #[test]
    fn without_proof_the_depth_and_the_interrupted_batch_tell() {
        assert_eq!(spell(2, Kind::PageFreeBatched).finish(), [1, 2, 3]);
        assert!(spell(1, Kind::PageFreeBatched).finish().is_empty());
        assert!(spell(2, Kind::PageAlloc).finish().is_empty());
        // The interrupt came when a refill let go of the zone's lock.
        let mut spells = Spells::default();
        spells.watch(&Event { preempt_depth: 3, ..event(Kind::ZoneLocked, 7, None) }, Some(2));
        spells.freed(101, 1, 2, &event(Kind::PageFree, 7, Some(3)));
        assert_eq!(spells.finish(), [1]);
        // To another zone, whose lists nobody had locked.
        let mut spells = Spells { has_depth: true, ..Spells::default() };
        spells.freed(101, 1, 2, &event(Kind::PageFree, 7, Some(2)));
        spells.freed(102, 2, 1, &event(Kind::PageFree, 7, Some(2)));
        spells.watch(&event(Kind::PageFreeBatched, 7, None), Some(2));
        assert_eq!(spells.finish(), [1]);
    }
}
