//! Classic SLAB (`mm/slab.c`, 6.1; removed in 6.8): arrays of objects on each processor, an array
//! that all share, lists of full, partial and free slabs, and a reaper.
//!
//! Objects are known by their slab only, as in SLUB's model: which object of a slab is handed out
//! changes no count.

use std::collections::VecDeque;

use super::caches::{Cache, CacheId, Caches};
use super::follow::NONE;
use super::learning::Learned;
use super::policy::{
    Ask, Begin, CacheCounts, NO_TOKEN, Occupancy, Origin, PageRequest, Pages, SlabPolicy, Token,
    plenty,
};
use super::slub::PING_PONG_STEPS;
use crate::slab::numbers;

mod geometry;
mod lists;

pub use geometry::{Layout, layout};

/// On which list a slab is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum List {
    Full,
    Partial,
    Free,
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Slab {
    cache: CacheId,
    /// Objects not in the slab: in use or in an array.
    out: u16,
    objects: u16,
    list: List,
    previous: u32,
    next: u32,
    origin: Origin,
}

/// Objects that a processor, or all together, keep at hand.
#[derive(Clone, Debug, Default)]
struct Array {
    objects: VecDeque<Token>,
    is_touched: bool,
}

#[derive(Clone, Debug)]
struct CacheState {
    layout: Layout,
    arrays: Vec<Array>,
    shared: Array,
    /// First and last slab of the partial list, then of the free list.
    ends: [(u32, u32); 2],
    partial: u64,
    slabs: u64,
    free_slabs: u64,
    /// Objects in slabs, neither used nor in an array.
    free_objects: u64,
    is_free_touched: bool,
    new_slabs: u64,
    released: u64,
    last_release: u64,
    ping_pong: u64,
}

/// The layer.
#[derive(Debug)]
pub struct Classic {
    cpus: usize,
    begin: Begin,
    page_bytes: u64,
    caches: Vec<CacheState>,
    slabs: Vec<Slab>,
    unused: Vec<u32>,
    before: Vec<Vec<Token>>,
    requests: Vec<PageRequest>,
    next_reap_ns: u64,
    reaps: u64,
    /// Requests so far.
    steps: u64,
}

/// Objects that a processor takes at once while its array was not used since the last reaping.
const COLD_BATCH: usize = 16;
/// Nanoseconds between two reapings of a processor (`REAPTIMEOUT_AC`).
const REAP_NS: u64 = 2_000_000_000;

impl Classic {
    /// A layer with nothing in it.
    #[must_use]
    pub fn new(cpus: usize, page_bytes: u64, begin: Begin) -> Self {
        Self {
            cpus: cpus.max(1),
            begin,
            page_bytes,
            caches: Vec::new(),
            slabs: Vec::new(),
            unused: Vec::new(),
            before: Vec::new(),
            requests: Vec::new(),
            next_reap_ns: 0,
            reaps: 0,
            steps: 0,
        }
    }

    fn state_of(&self, cache: &Cache) -> CacheState {
        let is_kmalloc = cache.name.contains("kmalloc-");
        let stride = if is_kmalloc { cache.stride.max(32) } else { cache.stride };
        CacheState {
            layout: layout(u64::from(stride), self.cpus as u32, self.page_bytes),
            arrays: vec![Array::default(); self.cpus],
            shared: Array::default(),
            ends: [(NONE, NONE); 2],
            partial: 0,
            slabs: 0,
            free_slabs: 0,
            free_objects: 0,
            is_free_touched: false,
            new_slabs: 0,
            released: 0,
            last_release: 0,
            ping_pong: 0,
        }
    }

    /// `cache_alloc_refill`.
    fn refill(&mut self, cache: CacheId, cpu: usize) {
        let state = &mut self.caches[cache.index()];
        let mut wanted = state.layout.batch as usize;
        if !state.arrays[cpu].is_touched {
            wanted = wanted.min(COLD_BATCH);
        }
        let shared = wanted.min(state.shared.objects.len());
        if shared > 0 {
            let from = state.shared.objects.len() - shared;
            let moved: Vec<Token> = state.shared.objects.drain(from..).collect();
            state.arrays[cpu].objects.extend(moved);
            state.shared.is_touched = true;
            return;
        }
        while wanted > 0 {
            let Some(slab) = self.first_with_room(cache) else { break };
            wanted -= self.take_from(cache, cpu, slab, wanted);
        }
        if self.caches[cache.index()].arrays[cpu].objects.is_empty() {
            let slab = self.grow(cache);
            self.take_from(cache, cpu, slab, wanted);
        }
    }

    /// Moves objects of a slab to a processor's array; the slab goes to the list it belongs on.
    fn take_from(&mut self, cache: CacheId, cpu: usize, slab: u32, wanted: usize) -> usize {
        let one = self.slabs[slab as usize];
        let room = usize::from(one.objects - one.out);
        let taken = room.min(wanted);
        self.unlink(slab);
        self.slabs[slab as usize].out += taken as u16;
        let state = &mut self.caches[cache.index()];
        state.free_objects -= taken as u64;
        state.arrays[cpu].objects.extend(std::iter::repeat_n(slab, taken));
        if taken < room {
            self.link_head(slab, List::Partial);
        }
        taken
    }

    /// `cache_grow_begin`, `cache_grow_end`: the slab is on the free list.
    fn grow(&mut self, cache: CacheId) -> u32 {
        let number = self.make_slab(cache, Origin::Made);
        self.link_head(number, List::Free);
        let state = &mut self.caches[cache.index()];
        state.new_slabs += 1;
        if state.last_release > 0 && self.steps - state.last_release < PING_PONG_STEPS {
            state.ping_pong += 1;
        }
        let order = state.layout.order;
        self.requests.push(PageRequest::Alloc { slab: number, cache, order });
        number
    }

    fn make_slab(&mut self, cache: CacheId, origin: Origin) -> u32 {
        let state = &mut self.caches[cache.index()];
        state.slabs += 1;
        let objects = state.layout.objects;
        state.free_objects += u64::from(objects);
        let (previous, next) = (NONE, NONE);
        let slab = Slab { cache, out: 0, objects, list: List::Full, previous, next, origin };
        numbers::give(&mut self.slabs, &mut self.unused, slab)
    }

    /// The oldest `count` objects of an array go to the shared one, or to their slabs
    /// (`cache_flusharray`).
    fn flush(&mut self, cache: CacheId, cpu: usize) {
        let state = &mut self.caches[cache.index()];
        let batch = (state.layout.batch as usize).min(state.arrays[cpu].objects.len());
        let room = state.layout.shared as usize - state.shared.objects.len();
        if room > 0 {
            let count = batch.min(room);
            let moved: Vec<Token> = state.arrays[cpu].objects.drain(..count).collect();
            state.shared.objects.extend(moved);
            return;
        }
        let moved: Vec<Token> = state.arrays[cpu].objects.drain(..batch).collect();
        self.free_block(cache, moved);
    }

    /// `free_block`: objects go back to their slabs; free slabs beyond the limit go back.
    fn free_block(&mut self, cache: CacheId, objects: Vec<Token>) {
        for slab in objects {
            let one = &mut self.slabs[slab as usize];
            if one.list == List::Gone || one.out == 0 {
                continue;
            }
            one.out -= 1;
            let is_free = one.out == 0;
            self.caches[cache.index()].free_objects += 1;
            self.unlink(slab);
            if is_free {
                self.link_head(slab, List::Free);
            } else {
                self.link_tail(slab, List::Partial);
            }
        }
        while self.caches[cache.index()].free_objects > self.caches[cache.index()].layout.free_limit
        {
            let Some(slab) = self.last_free(cache) else { break };
            self.destroy(slab);
        }
    }

    fn destroy(&mut self, slab: u32) {
        self.unlink(slab);
        let one = self.slabs[slab as usize];
        let state = &mut self.caches[one.cache.index()];
        state.slabs -= 1;
        state.released += 1;
        state.last_release = self.steps;
        state.free_objects -= u64::from(one.objects);
        self.requests.push(PageRequest::Free { slab, order: state.layout.order });
        self.slabs[slab as usize].list = List::Gone;
        self.unused.push(slab);
    }

    /// `cache_reap` on one processor.
    fn reap(&mut self, cpu: usize, with_shared: bool) {
        for index in 0..self.caches.len() {
            let cache = CacheId(index as u16);
            let limit = self.caches[index].layout.limit as usize;
            let aged = age(&mut self.caches[index].arrays[cpu], limit);
            self.free_block(cache, aged);
            if !with_shared {
                continue;
            }
            let limit = self.caches[index].layout.shared as usize;
            let aged = age(&mut self.caches[index].shared, limit);
            self.free_block(cache, aged);
            let state = &mut self.caches[index];
            if std::mem::take(&mut state.is_free_touched) {
                continue;
            }
            let five = u64::from(state.layout.objects) * 5;
            let count = (state.layout.free_limit + five - 1) / five.max(1);
            for _ in 0..count {
                let Some(slab) = self.last_free(cache) else { break };
                self.destroy(slab);
            }
        }
    }
}

/// `drain_array`: what was not used since the last time shrinks by a fifth of its limit.
fn age(array: &mut Array, limit: usize) -> Vec<Token> {
    if std::mem::take(&mut array.is_touched) {
        return Vec::new();
    }
    let available = array.objects.len();
    let mut count = limit.div_ceil(5);
    if count > available {
        count = available.div_ceil(2);
    }
    array.objects.drain(..count).collect()
}

impl SlabPolicy for Classic {
    fn seed(&mut self, caches: &Caches, learned: &Learned) {
        self.learn(caches);
        self.before = vec![Vec::new(); learned.before.len()];
        for index in 0..caches.list().len() {
            let cache = CacheId(index as u16);
            let start = learned.cache(cache);
            let mut free = Vec::new();
            for number in &start.slabs {
                let slab = learned.before[*number as usize];
                let live = slab.objects.saturating_sub(slab.free);
                let ask = Ask { cache, cpu: 0, bytes: 0, may_block: true };
                let places = self.begin.places(slab.objects, live);
                let tokens = (0..places).map(|_| self.alloc(&ask, &mut plenty)).collect();
                self.before[*number as usize] = Begin::part(tokens, live, &mut free);
            }
            free.into_iter().for_each(|token| self.free(token, cache, 0));
            let recorded = caches.get(cache).map_or(0, |cache| u64::from(cache.objects));
            let room = start.nameless_slabs * recorded;
            let live = room.saturating_sub(start.nameless_free);
            let objects = u64::from(self.caches[index].layout.objects);
            let is_spread = self.begin == Begin::Spread;
            let slabs = if is_spread { room } else { live }.div_ceil(objects);
            for slab in 0..slabs {
                let even = live * (slab + 1) / slabs - live * slab / slabs;
                let used = if is_spread { even } else { objects };
                let number = self.make_slab(cache, Origin::Nameless);
                self.slabs[number as usize].out = used as u16;
                self.caches[index].free_objects -= used;
                if used < objects {
                    self.link_tail(number, if used > 0 { List::Partial } else { List::Free });
                }
            }
            (self.caches[index].released, self.caches[index].last_release) = (0, 0);
            self.caches[index].new_slabs = 0;
        }
        self.requests.clear();
    }

    fn starts_compact(&self) -> bool {
        self.begin == Begin::Compact
    }

    fn before(&mut self, before: u32, _: CacheId) -> Token {
        self.before.get_mut(before as usize).and_then(Vec::pop).unwrap_or(NO_TOKEN)
    }

    fn learn(&mut self, caches: &Caches) {
        for cache in caches.list().iter().skip(self.caches.len()) {
            let state = self.state_of(cache);
            self.caches.push(state);
        }
    }

    fn alloc(&mut self, ask: &Ask, _: &mut Pages<'_>) -> Token {
        self.steps += 1;
        let cpu = ask.cpu.min(self.cpus - 1);
        if self.caches[ask.cache.index()].arrays[cpu].objects.is_empty() {
            self.refill(ask.cache, cpu);
        }
        let array = &mut self.caches[ask.cache.index()].arrays[cpu];
        array.is_touched = true;
        array.objects.pop_back().unwrap_or(NO_TOKEN)
    }

    fn free(&mut self, token: Token, cache: CacheId, cpu: usize) {
        self.steps += 1;
        let cpu = cpu.min(self.cpus - 1);
        let state = &self.caches[cache.index()];
        if state.arrays[cpu].objects.len() >= state.layout.limit as usize {
            self.flush(cache, cpu);
        }
        self.caches[cache.index()].arrays[cpu].objects.push_back(token);
    }

    fn tick(&mut self, now_ns: u64) {
        if self.next_reap_ns == 0 {
            self.next_reap_ns = now_ns + REAP_NS / self.cpus as u64;
        }
        while now_ns >= self.next_reap_ns {
            let cpu = (self.reaps % self.cpus as u64) as usize;
            // Each second round of a processor looks at the shared arrays too.
            let round = self.reaps / self.cpus as u64;
            self.reap(cpu, round % 2 == 1);
            self.reaps += 1;
            self.next_reap_ns += REAP_NS / self.cpus as u64;
        }
    }

    fn counts(&self, cache: CacheId) -> CacheCounts {
        let Some(state) = self.caches.get(cache.index()) else { return CacheCounts::default() };
        let objects = state.slabs * u64::from(state.layout.objects);
        CacheCounts {
            slabs: state.slabs,
            objects,
            active: objects - state.free_objects,
            pages: state.slabs << state.layout.order,
            new_slabs: state.new_slabs,
            released_slabs: state.released,
            partial: state.partial,
            ping_pong: state.ping_pong,
            min_order: 0,
        }
    }

    fn occupancy(&self) -> Vec<Occupancy> {
        let mut list = vec![Occupancy::default(); self.caches.len()];
        for slab in self.slabs.iter().filter(|slab| slab.list != List::Gone) {
            list[slab.cache.index()].add(u32::from(slab.out), u32::from(slab.objects));
        }
        for (occupancy, state) in list.iter_mut().zip(&self.caches) {
            let arrays = state.arrays.iter().chain(std::iter::once(&state.shared));
            let at_hand: usize = arrays.map(|array| array.objects.len()).sum();
            occupancy.live = occupancy.live.saturating_sub(at_hand as u64);
        }
        list
    }

    fn pages(&self) -> u64 {
        self.caches.iter().map(|state| state.slabs << state.layout.order).sum()
    }

    fn take_requests(&mut self, into: &mut Vec<PageRequest>) {
        into.append(&mut self.requests);
    }

    fn slabs(&self, visit: &mut dyn FnMut(u32, CacheId, u8, Origin)) {
        for (number, slab) in self.slabs.iter().enumerate() {
            if slab.list != List::Gone {
                let order = self.caches[slab.cache.index()].layout.order;
                visit(number as u32, slab.cache, order, slab.origin);
            }
        }
    }

    fn state_bytes(&self) -> u64 {
        let arrays = self.caches.iter().flat_map(|state| &state.arrays);
        let at_hand: usize = arrays.map(|array| array.objects.len() * 4).sum();
        (self.slabs.len() * size_of::<Slab>() + at_hand) as u64
    }
}
