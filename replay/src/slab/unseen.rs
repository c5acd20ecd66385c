//! Objects and slabs that came without an event, and when they came.
//!
//! An event names them later: a free of an object that no event allocated. Until then a layer that
//! knows nothing of them hands their room out again. Two things date them:
//!
//! - a processor goes on to another slab only when nothing is free in the one before
//!   (`___slab_alloc`): what was still thought free there had been allocated by then;
//! - pages that left a per-CPU list without an event are known to the mirror when one behind them
//!   is popped; those that left the buddy lists are missing from the next `/proc/buddyinfo`: as
//!   many pages of slabs found later had come by then.

use std::collections::{BTreeMap, HashMap};

use super::caches::CacheId;
use super::follow::{NONE, Place};
use super::graces::Grace;

/// What came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// The object at that address, in a slab that was there.
    Object(u64),
    /// The object at that address did not come but went: it was freed.
    Freed(u64),
    /// The object at that address was freed at once with others, on the spot.
    FreedTogether(u64),
    /// A grace period goes on.
    Grace(Grace),
    /// A slab, by its number among [`Unseen::slabs`], with the objects in it.
    Slab(u32),
    /// Objects that no event ever names, in slabs that no event names either.
    Objects(CacheId, u64),
}

/// When, on which processor as far as known, and what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// `CLOCK_MONOTONIC`: no later than this.
    pub at_ns: u64,
    /// Processor.
    pub cpu: u16,
    /// What.
    pub came: Came,
}

/// A slab that came in the recording without an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LateSlab {
    /// Where.
    pub place: Place,
    /// Pages.
    pub pages: u64,
    /// Objects that were free when an event first named the slab.
    pub free: Vec<u16>,
    /// When an event first named it.
    pub named_ns: u64,
    /// When its pages went back; `u64::MAX` if they did not.
    pub gone_ns: u64,
    /// The processor of that first event.
    pub cpu: u16,
    /// Its first event allocated from it: its processor had it then.
    pub is_taken: bool,
}

/// Everything that came unseen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unseen {
    /// Slabs.
    pub slabs: Vec<LateSlab>,
    /// All arrivals, in order of time.
    pub arrivals: Vec<Arrival>,
    /// The migrate types of the slabs' pages, by cache, as far as known.
    pub types: Vec<(CacheId, u8)>,
}

/// Pages that the kernel's buddy lists had fewer than the mirror's, at one sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// When `/proc/buddyinfo` was read.
    pub at_ns: u64,
    /// Pages.
    pub pages: u64,
}

/// What the mirror can tell of pages that left without an event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnseenPages {
    /// Pages missing, by sample.
    pub missing: Vec<Missing>,
    /// By first page of a slab: when a block there was known to have left its per-CPU list (true)
    /// or was freed, in order of time.
    left: HashMap<u32, Vec<(u64, bool)>>,
    /// By first page of a slab: how often its pageblock was told to be UNMOVABLE and RECLAIMABLE.
    types: HashMap<u32, [u32; 2]>,
}

/// The types that a slab's pages can be asked for with.
const TYPES: [u8; 2] = [0, 2];

impl UnseenPages {
    /// Nothing is known of the pages of these slabs.
    #[must_use]
    pub fn of(slabs: &[LateSlab]) -> Self {
        let left = slabs.iter().map(|slab| (slab.place.pfn, Vec::new())).collect();
        Self { left, ..Self::default() }
    }

    /// A block left its list of that type without an event, or was freed in a pageblock of it.
    pub fn note(&mut self, pfn: u32, migrate: u8, at_ns: u64, has_left: bool) {
        let Some(times) = self.left.get_mut(&pfn) else { return };
        times.push((at_ns, has_left));
        if let Some(at) = TYPES.iter().position(|it| *it == migrate) {
            let told = &mut self.types.entry(pfn).or_default()[at];
            *told = told.saturating_add(1);
        }
    }

    /// For each cache of these slabs the type that most of their pageblocks had: requests fall
    /// back to other types' pageblocks seldom.
    fn types_of(&self, slabs: &[LateSlab]) -> Vec<(CacheId, u8)> {
        let mut sums: BTreeMap<CacheId, [u32; 2]> = BTreeMap::new();
        for slab in slabs {
            if let Some(told) = self.types.get(&slab.place.pfn) {
                let sum = sums.entry(slab.place.cache).or_default();
                sum.iter_mut().zip(told).for_each(|(sum, told)| *sum = sum.saturating_add(*told));
            }
        }
        let most = |[unmovable, reclaimable]: [u32; 2]| TYPES[usize::from(reclaimable > unmovable)];
        sums.into_iter().map(|(cache, sum)| (cache, most(sum))).collect()
    }

    /// When the slab's block left a per-CPU list, if one that the mirror knew was it.
    fn left_at(&self, slab: &LateSlab) -> Option<u64> {
        let times = self.left.get(&slab.place.pfn)?;
        let until = times.partition_point(|(at_ns, _)| *at_ns <= slab.named_ns);
        times[..until].last().filter(|(_, has_left)| *has_left).map(|(at_ns, _)| *at_ns)
    }
}

impl Unseen {
    /// Dates the slabs by what the mirror tells of their pages.
    pub fn date(&mut self, pages: &UnseenPages) {
        let mut signs: Vec<u64> = self.arrivals.iter().map(|arrival| arrival.at_ns).collect();
        let taken = self.slabs.iter().filter(|slab| slab.is_taken);
        signs.extend(taken.map(|slab| slab.named_ns));
        signs.sort_unstable();
        let dates = self.dates(pages, &signs);
        self.types = pages.types_of(&self.slabs);
        for (number, at_ns) in (0u32..).zip(dates) {
            let cpu = self.slabs[number as usize].cpu;
            self.arrivals.push(Arrival { at_ns, cpu, came: Came::Slab(number) });
        }
        self.arrivals.sort_by_key(|arrival| arrival.at_ns);
    }

    /// When the first slab of a cache came, by cache.
    #[must_use]
    pub fn first_slabs(&self) -> HashMap<CacheId, u64> {
        let mut first = HashMap::new();
        for arrival in &self.arrivals {
            if let Came::Slab(number) = arrival.came {
                let cache = self.slabs[number as usize].place.cache;
                first.entry(cache).or_insert(arrival.at_ns);
            }
        }
        first
    }

    /// Slabs that had come by then, by cache.
    #[must_use]
    pub fn slabs_until(&self, at_ns: u64) -> HashMap<CacheId, u64> {
        let mut slabs = HashMap::new();
        for arrival in self.arrivals.iter().take_while(|arrival| arrival.at_ns <= at_ns) {
            if let Came::Slab(number) = arrival.came {
                *slabs.entry(self.slabs[number as usize].place.cache).or_insert(0) += 1;
            }
        }
        slabs
    }

    /// Adds what came before anything else of the same moment.
    pub fn add(&mut self, arrivals: Vec<Arrival>) {
        self.arrivals.splice(0..0, arrivals);
        self.arrivals.sort_by_key(|arrival| arrival.at_ns);
    }

    /// For each slab the latest moment at which it can have come: when its pages left a per-CPU
    /// list; the sample at which they are missing, or the last sign of unseen work before that
    /// sample; or its first event.
    fn dates(&self, known: &UnseenPages, signs: &[u64]) -> Vec<u64> {
        let mut dates: Vec<u64> = self.slabs.iter().map(|slab| slab.named_ns).collect();
        // Slabs whose pages the mirror holds free meanwhile, in the order of their first events.
        let mut unknown = Vec::new();
        for (number, slab) in self.slabs.iter().enumerate() {
            match known.left_at(slab) {
                Some(at_ns) => dates[number] = at_ns,
                None => unknown.push(number),
            }
        }
        unknown.sort_by_key(|number| self.slabs[*number].named_ns);
        let (most, all) = self.scale(&known.missing, &unknown);
        let mut waiting = unknown.iter().filter(|at| !self.slabs[**at].is_taken).peekable();
        let mut since = 0;
        for sample in &known.missing {
            let there = |number: &usize| {
                let slab = &self.slabs[*number];
                let is_there = dates[*number] <= sample.at_ns && slab.gone_ns > sample.at_ns;
                if is_there { slab.pages } else { 0 }
            };
            let mut pages: u64 = unknown.iter().map(there).sum();
            let wanted = sample.pages.saturating_mul(all) / most.max(1);
            let until = signs.partition_point(|sign| *sign <= sample.at_ns);
            let sign = until.checked_sub(1).map(|at| signs[at]).filter(|sign| *sign > since);
            while pages < wanted
                && let Some(number) = waiting.next()
            {
                if dates[*number] > sample.at_ns {
                    dates[*number] = sign.unwrap_or(sample.at_ns);
                    pages += self.slabs[*number].pages;
                }
            }
            since = sample.at_ns;
        }
        dates
    }
}

impl Unseen {
    /// Most pages missing at a sample, and the pages of the slabs that may be meant. Other pages
    /// that came unseen make it fewer than they are: what is missing tells their course.
    fn scale(&self, missing: &[Missing], unknown: &[usize]) -> (u64, u64) {
        let Some(peak) = missing.iter().max_by_key(|sample| sample.pages) else { return (1, 1) };
        let of = unknown.iter().map(|number| &self.slabs[*number]);
        let later = of.filter(|slab| !slab.is_taken && slab.named_ns > peak.at_ns);
        let all: u64 = later.map(|slab| slab.pages).sum();
        (peak.pages, all.max(peak.pages))
    }
}

/// Which objects a processor passed over when it went on to another slab.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// By cache and processor: the slab that it allocates from.
    current: Vec<Vec<u32>>,
    /// By object row: when it was passed over, and by whom.
    since: Vec<(u64, u16)>,
    /// Objects passed over that were freed later: they had been allocated.
    pub(super) found: Vec<Arrival>,
}

impl Passed {
    /// The processor allocates from this slab. Answers the one before, if it is another.
    pub(super) fn goes_to(&mut self, cache: CacheId, cpu: usize, slab: u32) -> Option<u32> {
        if self.current.len() <= cache.index() {
            self.current.resize(cache.index() + 1, Vec::new());
        }
        let cpus = &mut self.current[cache.index()];
        if cpus.len() <= cpu {
            cpus.resize(cpu + 1, NONE);
        }
        let before = std::mem::replace(&mut cpus[cpu], slab);
        (before != slab && before != NONE).then_some(before)
    }

    /// The slab is gone.
    pub(super) fn gone(&mut self, cache: CacheId, slab: u32) {
        if let Some(cpus) = self.current.get_mut(cache.index()) {
            cpus.iter_mut().filter(|current| **current == slab).for_each(|current| *current = NONE);
        }
    }

    /// An object thought free was passed over.
    pub(super) fn pass(&mut self, row: usize, at_ns: u64, cpu: u16) {
        if self.since.len() <= row {
            self.since.resize(row + 1, (0, 0));
        }
        if self.since[row].0 == 0 {
            self.since[row] = (at_ns, cpu);
        }
    }

    /// Nothing is known of the object any more. Answers when it was passed over.
    pub(super) fn forget(&mut self, row: usize) -> Option<(u64, u16)> {
        let since = self.since.get_mut(row)?;
        let (at_ns, cpu) = std::mem::take(since);
        (at_ns > 0).then_some((at_ns, cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(named_ns: u64, gone_ns: u64, is_taken: bool) -> LateSlab {
        let place = Place { pfn: 0, cache: CacheId(0), is_late: true };
        LateSlab { place, pages: 4, free: Vec::new(), named_ns, gone_ns, cpu: 0, is_taken }
    }

    fn dates(slabs: Vec<LateSlab>, missing: &[(u64, u64)]) -> Vec<(u32, u64)> {
        let mut unseen = Unseen { slabs, ..Unseen::default() };
        let of = |(at_ns, pages): &(u64, u64)| Missing { at_ns: *at_ns, pages: *pages };
        let missing = missing.iter().map(of).collect();
        // What the mirror knew to have left at 5 is not among the missing.
        let mut pages = UnseenPages { missing, ..UnseenPages::of(&unseen.slabs) };
        for (pfn, at_ns, has_left) in [(7, 5, true), (7, 95, false), (8, 3, true), (8, 4, false)] {
            pages.note(pfn, 0, at_ns, has_left);
        }
        unseen.date(&pages);
        let number = |came| match came {
            Came::Slab(number) => number,
            _ => NONE,
        };
        unseen.arrivals.iter().map(|it| (number(it.came), it.at_ns)).collect()
    }

    #[test]
    fn slabs_come_when_their_pages_are_missing() {
        let slabs = vec![slab(90, 95, false), slab(91, 95, false), slab(92, 95, false)];
        let found = dates(slabs, &[(10, 0), (20, 4), (30, 12), (40, 12)]);
        assert_eq!(found, [(0, 20), (1, 30), (2, 30)]);
    }

    #[test]
    fn what_is_missing_tells_the_course_where_it_is_fewer_pages_than_came() {
        let slabs = (90..94).map(|named_ns| slab(named_ns, 95, false)).collect();
        let found = dates(slabs, &[(10, 0), (20, 4), (30, 8)]);
        assert_eq!(found, [(0, 20), (1, 20), (2, 30), (3, 30)]);
    }

    #[test]
    fn a_block_that_the_mirror_saw_leave_came_then() {
        let mut known = slab(60, 95, false);
        known.place.pfn = 7;
        let mut freed_since = slab(91, 95, false);
        freed_since.place.pfn = 8;
        let found = dates(vec![known, freed_since], &[(10, 4), (20, 4)]);
        assert_eq!(found, [(0, 5), (1, 10)]);
    }

    #[test]
    fn a_sign_of_unseen_work_dates_them_more_closely() {
        let slabs = vec![slab(17, 95, true), slab(91, 95, false), slab(92, 95, false)];
        // The first is known at 17 and takes its share of what is missing at 20.
        let found = dates(slabs, &[(10, 0), (20, 8), (30, 12)]);
        assert_eq!(found, [(0, 17), (1, 17), (2, 30)]);
    }

    #[test]
    fn a_cache_s_pages_are_of_the_type_that_most_of_its_pageblocks_had() {
        let of = |pfn: u32, cache: u16| {
            let place = Place { pfn, cache: CacheId(cache), is_late: true };
            LateSlab { place, ..slab(90, 95, false) }
        };
        let mut unseen = Unseen {
            slabs: vec![of(8, 1), of(16, 1), of(24, 1), of(32, 2), of(40, 3)],
            ..Unseen::default()
        };
        let mut pages = UnseenPages::of(&unseen.slabs);
        // The first fell back to an UNMOVABLE pageblock; 48 is no slab's, and none is MOVABLE.
        for (pfn, migrate) in
            [(8, 0), (16, 2), (24, 2), (32, 1), (32, 1), (32, 0), (40, 1), (48, 2)]
        {
            pages.note(pfn, migrate, 91, false);
        }
        unseen.date(&pages);
        assert_eq!(unseen.types, [(CacheId(1), 2), (CacheId(2), 0)]);
    }

    #[test]
    fn what_is_gone_is_missing_no_more() {
        let slabs = vec![slab(12, 15, false), slab(91, 95, false)];
        assert_eq!(dates(slabs, &[(10, 4), (20, 4)]), [(0, 10), (1, 20)]);
    }
}
