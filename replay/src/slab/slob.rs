//! SLOB (`mm/slob.c`, 6.1; removed in 6.4): lists of pages that all caches share, first fit in a
//! page. Units are two bytes.

use super::caches::{CacheId, Caches};
use super::follow::NONE;
use super::learning::Learned;
use super::policy::{
    Ask, Begin, CacheCounts, NO_TOKEN, Occupancy, Origin, PageRequest, Pages, SlabPolicy, Token,
    plenty,
};

/// Bytes of a unit.
const UNIT: u32 = 2;
/// Bytes of the length that stands before a kmalloc object.
const HEADER: u32 = 8;
/// Pages for objects up to 255 bytes, up to 1023, and larger ones.
const LISTS: usize = 3;
const BREAKS: [u32; 2] = [256, 1024];

/// A free piece of a page: first unit and units.
type Piece = (u16, u16);

#[derive(Clone, Debug)]
struct Page {
    /// Free pieces by rising address; none of a page of large objects.
    free: Vec<Piece>,
    units: u16,
    /// On which list; `LISTS` for none.
    list: usize,
    previous: u32,
    next: u32,
    order: u8,
    is_live: bool,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, Default)]
struct CacheState {
    stride: u32,
    is_kmalloc: bool,
    live: u64,
}

/// The layer.
#[derive(Debug)]
pub struct Slob {
    begin: Begin,
    page_bytes: u32,
    page_units: u32,
    heads: [u32; LISTS],
    pages: Vec<Page>,
    unused: Vec<u32>,
    /// Units of the object that begins at each unit of each page.
    sizes: Vec<Vec<u16>>,
    caches: Vec<CacheState>,
    before: Vec<Vec<Token>>,
    requests: Vec<PageRequest>,
    live_pages: u64,
    new_pages: u64,
    released: u64,
}

impl Slob {
    /// A layer with nothing in it.
    #[must_use]
    pub fn new(page_bytes: u64, begin: Begin) -> Self {
        let page_bytes = page_bytes as u32;
        Self {
            begin,
            page_bytes,
            page_units: page_bytes / UNIT,
            heads: [NONE; LISTS],
            pages: Vec::new(),
            unused: Vec::new(),
            sizes: Vec::new(),
            caches: Vec::new(),
            before: Vec::new(),
            requests: Vec::new(),
            live_pages: 0,
            new_pages: 0,
            released: 0,
        }
    }

    fn list_of(bytes: u32) -> usize {
        BREAKS.iter().position(|limit| bytes < *limit).unwrap_or(BREAKS.len())
    }

    /// `slob_alloc`: bytes with their alignment, which the byte `offset` of the block has.
    fn take(&mut self, bytes: u32, align: u32, offset: u32, cache: CacheId) -> Token {
        let list = Self::list_of(bytes);
        let units = bytes.div_ceil(UNIT) as u16;
        let mut at = self.heads[list];
        while at != NONE {
            let next = self.pages[at as usize].next;
            if self.pages[at as usize].units >= units
                && let Some(unit) = self.take_in(at, units, align, offset)
            {
                self.rotate(list, at);
                return at * self.page_units + u32::from(unit);
            }
            at = next;
        }
        let page = self.make_page(0, cache, Origin::Made);
        self.pages[page as usize].free = vec![(0, self.page_units as u16)];
        self.pages[page as usize].units = self.page_units as u16;
        self.sizes[page as usize] = vec![0; self.page_units as usize];
        self.push_front(list, page);
        match self.take_in(page, units, align, offset) {
            Some(unit) => page * self.page_units + u32::from(unit),
            None => NO_TOKEN,
        }
    }

    /// First fit in a page (`slob_page_alloc`).
    fn take_in(&mut self, page: u32, units: u16, align: u32, offset: u32) -> Option<u16> {
        let one = &mut self.pages[page as usize];
        for index in 0..one.free.len() {
            let (start, length) = one.free[index];
            let byte = u32::from(start) * UNIT + offset;
            let first = (byte.next_multiple_of(align.max(UNIT)) - offset) / UNIT;
            let gap = first - u32::from(start);
            if gap + u32::from(units) > u32::from(length) {
                continue;
            }
            let first = first as u16;
            let tail = (first + units, start + length - first - units);
            one.free.remove(index);
            if tail.1 > 0 {
                one.free.insert(index, tail);
            }
            if gap > 0 {
                one.free.insert(index, (start, gap as u16));
            }
            one.units -= units;
            self.sizes[page as usize][usize::from(first)] = units;
            return Some(first);
        }
        None
    }

    /// A page that still has room leads its list; a full one leaves it.
    fn rotate(&mut self, list: usize, page: u32) {
        self.remove(page);
        if self.pages[page as usize].units > 0 {
            self.push_front(list, page);
        }
    }

    fn push_front(&mut self, list: usize, page: u32) {
        let next = self.heads[list];
        let one = &mut self.pages[page as usize];
        (one.list, one.previous, one.next) = (list, NONE, next);
        if next != NONE {
            self.pages[next as usize].previous = page;
        }
        self.heads[list] = page;
    }

    fn remove(&mut self, page: u32) {
        let (list, previous, next) = {
            let one = &mut self.pages[page as usize];
            (std::mem::replace(&mut one.list, LISTS), one.previous, one.next)
        };
        if list == LISTS {
            return;
        }
        match previous {
            NONE => self.heads[list] = next,
            _ => self.pages[previous as usize].next = next,
        }
        if next != NONE {
            self.pages[next as usize].previous = previous;
        }
    }

    fn make_page(&mut self, order: u8, cache: CacheId, origin: Origin) -> u32 {
        let (previous, next) = (NONE, NONE);
        let page = Page {
            free: Vec::new(),
            units: 0,
            list: LISTS,
            previous,
            next,
            order,
            is_live: true,
            origin,
        };
        let number = match self.unused.pop() {
            Some(number) => {
                self.pages[number as usize] = page;
                self.sizes[number as usize].clear();
                number
            }
            None => {
                self.pages.push(page);
                self.sizes.push(Vec::new());
                self.pages.len() as u32 - 1
            }
        };
        self.live_pages += 1 << order;
        self.new_pages += 1;
        self.requests.push(PageRequest::Alloc { slab: number, cache, order });
        number
    }

    fn give_back(&mut self, page: u32) {
        self.remove(page);
        let one = &mut self.pages[page as usize];
        one.is_live = false;
        let order = one.order;
        self.live_pages -= 1 << order;
        self.released += 1;
        self.requests.push(PageRequest::Free { slab: page, order });
        self.unused.push(page);
    }

    /// `slob_free`.
    fn put(&mut self, page: u32, unit: u16) {
        let units = std::mem::take(&mut self.sizes[page as usize][usize::from(unit)]);
        if units == 0 {
            return;
        }
        let was_full = self.pages[page as usize].units == 0;
        let one = &mut self.pages[page as usize];
        one.units += units;
        if u32::from(one.units) == self.page_units {
            self.give_back(page);
            return;
        }
        let place = one.free.partition_point(|(start, _)| *start < unit);
        one.free.insert(place, (unit, units));
        if place + 1 < one.free.len() && unit + units == one.free[place + 1].0 {
            one.free[place].1 += one.free[place + 1].1;
            one.free.remove(place + 1);
        }
        if place > 0 && one.free[place - 1].0 + one.free[place - 1].1 == unit {
            one.free[place - 1].1 += one.free[place].1;
            one.free.remove(place);
        }
        if was_full {
            self.push_front(Self::list_of(u32::from(units) * UNIT), page);
        }
    }
}

impl SlabPolicy for Slob {
    fn seed(&mut self, caches: &Caches, learned: &Learned) {
        self.learn(caches);
        self.before = vec![Vec::new(); learned.before.len()];
        let mut free = Vec::new();
        for (index, recorded) in caches.list().iter().enumerate() {
            let cache = CacheId(index as u16);
            let start = learned.cache(cache);
            let ask = Ask { cache, cpu: 0, bytes: recorded.stride, may_block: true };
            for number in &start.slabs {
                let slab = learned.before[*number as usize];
                let live = slab.objects.saturating_sub(slab.free);
                let places = self.begin.places(slab.objects, live);
                let tokens = (0..places).map(|_| self.alloc(&ask, &mut plenty)).collect();
                let mut unused = Vec::new();
                self.before[*number as usize] = Begin::part(tokens, live, &mut unused);
                free.extend(unused.into_iter().map(|token| (cache, token)));
            }
            let room = start.nameless_slabs * u64::from(recorded.objects);
            let is_spread = self.begin == Begin::Spread;
            let held = if is_spread { room } else { room.saturating_sub(start.nameless_free) };
            let bytes = held * u64::from(recorded.stride);
            for _ in 0..bytes.div_ceil(u64::from(self.page_bytes)) {
                self.make_page(0, cache, Origin::Nameless);
            }
        }
        for (cache, token) in free {
            self.free(token, cache, 0);
        }
        self.requests.clear();
        (self.new_pages, self.released) = (0, 0);
    }

    fn starts_compact(&self) -> bool {
        self.begin == Begin::Compact
    }

    fn before(&mut self, before: u32, _: CacheId) -> Token {
        self.before.get_mut(before as usize).and_then(Vec::pop).unwrap_or(NO_TOKEN)
    }

    fn learn(&mut self, caches: &Caches) {
        for cache in caches.list().iter().skip(self.caches.len()) {
            let is_kmalloc = cache.name.contains("kmalloc-")
                || cache.name.starts_with("msg_msg-")
                || cache.name.starts_with("memdup_user-");
            self.caches.push(CacheState { stride: cache.stride, is_kmalloc, live: 0 });
        }
    }

    fn alloc(&mut self, ask: &Ask, _: &mut Pages<'_>) -> Token {
        let state = &mut self.caches[ask.cache.index()];
        state.live += 1;
        let bytes = if state.is_kmalloc { ask.bytes.clamp(1, state.stride) } else { state.stride };
        let limit = if state.is_kmalloc { self.page_bytes - HEADER } else { self.page_bytes };
        if bytes >= limit {
            let pages = bytes.div_ceil(self.page_bytes).next_power_of_two();
            let order = pages.trailing_zeros() as u8;
            return self.make_page(order, ask.cache, Origin::Made) * self.page_units;
        }
        if state.is_kmalloc {
            let align = if bytes.is_power_of_two() { bytes.max(HEADER) } else { HEADER };
            return self.take(bytes + HEADER, align, HEADER, ask.cache);
        }
        self.take(bytes, 8, 0, ask.cache)
    }

    fn free(&mut self, token: Token, cache: CacheId, _: usize) {
        let page = token / self.page_units;
        let Some(one) = self.pages.get(page as usize).filter(|one| one.is_live) else { return };
        self.caches[cache.index()].live = self.caches[cache.index()].live.saturating_sub(1);
        if one.free.is_empty() && self.sizes[page as usize].is_empty() {
            self.give_back(page);
        } else {
            self.put(page, (token % self.page_units) as u16);
        }
    }

    /// A page holds objects of any cache: a cache has objects only.
    fn counts(&self, cache: CacheId) -> CacheCounts {
        let live = self.caches.get(cache.index()).map_or(0, |state| state.live);
        CacheCounts { objects: live, active: live, ..CacheCounts::default() }
    }

    fn pages(&self) -> u64 {
        self.live_pages
    }

    fn occupancy(&self) -> Vec<Occupancy> {
        let of = |state: &CacheState| Occupancy { live: state.live, ..Occupancy::default() };
        self.caches.iter().map(of).collect()
    }

    fn take_requests(&mut self, into: &mut Vec<PageRequest>) {
        into.append(&mut self.requests);
    }

    fn slabs(&self, visit: &mut dyn FnMut(u32, CacheId, u8, Origin)) {
        for (number, page) in self.pages.iter().enumerate().filter(|(_, page)| page.is_live) {
            visit(number as u32, CacheId::UNKNOWN, page.order, page.origin);
        }
    }

    fn state_bytes(&self) -> u64 {
        let sizes: usize = self.sizes.iter().map(|page| page.len() * 2).sum();
        (self.pages.len() * size_of::<Page>() + sizes) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::geometry::Parameters;
    use crate::slab::gfp::GfpBits;
    use crate::slab::rules::SlabRules;

    #[test]
    fn two_objects_share_a_page_and_the_second_free_gives_it_back() {
        let rules = SlabRules::of("6.1");
        let host = Parameters::of_host(4096, 2);
        let mut caches = Caches::new(&[], rules, host, GfpBits::default());
        let small = caches.named("kmalloc-16", 16);
        let large = caches.named("kmalloc-4k", 4096);
        let mut slob = Slob::new(4096, Begin::Compact);
        slob.learn(&caches);
        let ask = |cache, bytes| Ask { cache, cpu: 0, bytes, may_block: true };
        // Eighteen bytes with the header, at the page's start: nine units.
        let first = slob.alloc(&ask(small, 10), &mut plenty);
        assert_eq!(first, 0);
        // The payload of the next stands at byte 32, so its header at byte 24: unit 12.
        let second = slob.alloc(&ask(small, 16), &mut plenty);
        assert_eq!(second, 12);
        assert_eq!(slob.pages[0].free, [(9, 3), (24, 2024)]);
        slob.free(first, small, 0);
        assert_eq!(slob.pages[0].free, [(0, 12), (24, 2024)]);
        assert_eq!(slob.pages(), 1);
        slob.free(second, small, 0);
        assert_eq!((slob.pages(), slob.released), (0, 1));
        let page = slob.alloc(&ask(large, 4088), &mut plenty);
        assert_eq!(slob.pages(), 1, "a whole page without a header");
        slob.free(page, large, 0);
        assert_eq!(slob.pages(), 0);
    }
}
