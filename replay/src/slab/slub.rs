//! SLUB: the slab layer of every kernel since 6.8 and the default of those before.
//!
//! Objects of a slab are interchangeable here: which one is handed out changes no count. Functions
//! name the kernel function they stand for (`mm/slub.c`, 6.18 unless said).

use super::caches::{CacheId, Caches};
use super::follow::NONE;
use super::graces::Grace;
use super::learning::Learned;
use super::policy::{
    Ask, Begin, CacheCounts, NO_TOKEN, Occupancy, Origin, PageRequest, Pages, SlabPolicy, Token,
};
use super::rules::SlabRules;

mod lists;
mod make;
mod seed;
mod sheaf;

pub(crate) use seed::nameless_used;

use sheaf::{Calls, Sheaves};

/// What may differ from the recorded SLUB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tuning {
    /// Slabs of these orders instead of the recorded ones.
    pub geometry: Option<super::geometry::Parameters>,
    /// Objects that a processor's partial slabs should hold.
    pub cpu_partial: Option<u32>,
    /// Empty slabs kept by a node.
    pub min_partial: Option<u32>,
    /// The fullest partial slab is taken first.
    pub fullest_first: bool,
    /// No sheaves.
    pub no_sheaves: bool,
    /// How slabs that are cut otherwise than the recorded ones begin.
    pub begin: Begin,
}

/// Where a slab stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// On no list: full, or given back.
    Full,
    /// A processor allocates from it.
    Cpu(u16),
    /// In a processor's stack of partial slabs.
    CpuPartial,
    /// On the node's list of partial slabs.
    Node,
    /// Given back.
    Gone,
}

/// A modelled slab.
#[derive(Clone, Copy, Debug)]
struct Slab {
    cache: CacheId,
    objects: u16,
    used: u16,
    place: Place,
    order: u8,
    next: u32,
    previous: u32,
    origin: Origin,
}

/// What one processor holds of a cache (`struct kmem_cache_cpu`).
#[derive(Clone, Copy, Debug)]
struct CpuSlab {
    slab: u32,
    /// Free objects that only this processor sees.
    local: u32,
    stack: u32,
    stack_slabs: u32,
    stack_objects: u32,
}

impl Default for CpuSlab {
    fn default() -> Self {
        Self { slab: NONE, local: 0, stack: NONE, stack_slabs: 0, stack_objects: 0 }
    }
}

/// A modelled cache.
#[derive(Clone, Debug)]
struct CacheState {
    order: u8,
    objects: u16,
    /// What a slab is cut like when there is no block of that order (`kmem_cache.min`).
    least: (u8, u16),
    /// Its slabs are not cut as the recorded ones.
    is_cut_anew: bool,
    cpu_partial_slabs: u32,
    cpu_partial_objects: u32,
    min_partial: u32,
    cpus: Vec<CpuSlab>,
    head: u32,
    tail: u32,
    partial: u32,
    /// Free objects on the node's list.
    node_free: u64,
    slabs: u64,
    room: u64,
    pages: u64,
    /// Slabs made of the least order.
    least_slabs: u64,
    new_slabs: u64,
    released: u64,
    ping_pong: u64,
    last_release: u64,
    sheaves: Option<Box<Sheaves>>,
}

/// The layer.
#[derive(Debug)]
pub struct Slub {
    cpus: usize,
    tuning: Tuning,
    rules: SlabRules,
    caches: Vec<CacheState>,
    slabs: Vec<Slab>,
    free_slabs: Vec<u32>,
    /// Slab that stands for each slab from before.
    before: Vec<Token>,
    /// Where the slabs differ from the recorded ones: tokens of the live objects of each.
    moved: Vec<Vec<Token>>,
    requests: Vec<PageRequest>,
    steps: u64,
    /// What is known of grace periods.
    calls: Calls,
}

/// Steps after a slab was given back within which a new one counts as ping-pong.
pub(crate) const PING_PONG_STEPS: u64 = 1000;

impl Slub {
    /// A layer for so many processors.
    #[must_use]
    pub fn new(cpus: usize, rules: SlabRules, tuning: Tuning) -> Self {
        Self {
            cpus: cpus.max(1),
            tuning,
            rules,
            caches: Vec::new(),
            slabs: Vec::new(),
            free_slabs: Vec::new(),
            before: Vec::new(),
            moved: Vec::new(),
            requests: Vec::new(),
            steps: 0,
            calls: Calls::default(),
        }
    }

    fn is_cut_anew(&self, cache: CacheId) -> bool {
        self.caches.get(cache.index()).is_some_and(|state| state.is_cut_anew)
    }

    fn cache_mut(&mut self, cache: CacheId) -> &mut CacheState {
        &mut self.caches[cache.index()]
    }

    /// `___slab_alloc`, from the first empty freelist on.
    fn slow_alloc(&mut self, cache: CacheId, cpu: usize, pages: &mut Pages<'_>) -> u32 {
        let current = self.caches[cache.index()].cpus[cpu].slab;
        if current != NONE {
            // Objects that other processors freed into it (`get_freelist`).
            let slab = &mut self.slabs[current as usize];
            let free = u32::from(slab.objects - slab.used);
            if free > 0 {
                self.cache_mut(cache).cpus[cpu].local = free;
                return current;
            }
            slab.place = Place::Full;
            self.cache_mut(cache).cpus[cpu].slab = NONE;
        }
        let taken = self.pop_stack(cache, cpu);
        let taken = if taken == NONE { self.take_partial(cache, cpu) } else { taken };
        let taken = if taken == NONE { self.new_slab(cache, pages) } else { taken };
        let slab = &mut self.slabs[taken as usize];
        slab.place = Place::Cpu(cpu as u16);
        let free = u32::from(slab.objects - slab.used);
        let holder = &mut self.cache_mut(cache).cpus[cpu];
        (holder.slab, holder.local) = (taken, free);
        taken
    }

    /// `get_partial_node`: the first slab of the node's list, and more for the processor's stack.
    fn take_partial(&mut self, cache: CacheId, cpu: usize) -> u32 {
        let first = self.pick(cache);
        if first == NONE {
            return NONE;
        }
        self.unlink(cache, first);
        let (limit_slabs, limit_objects) = {
            let state = &self.caches[cache.index()];
            (state.cpu_partial_slabs, state.cpu_partial_objects)
        };
        if limit_slabs == 0 {
            return first;
        }
        let (mut slabs, mut objects) = (0, 0);
        loop {
            let more = self.pick(cache);
            if more == NONE {
                return first;
            }
            self.unlink(cache, more);
            self.push_stack(cache, cpu, more);
            slabs += 1;
            objects += self.free_of(more);
            let enough = if self.rules.cpu_partial_in_slabs {
                slabs > limit_slabs / 2
            } else {
                objects > limit_objects / 2
            };
            if enough {
                return first;
            }
        }
    }

    fn free_of(&self, slab: u32) -> u32 {
        let slab = &self.slabs[slab as usize];
        u32::from(slab.objects - slab.used)
    }

    /// `discard_slab`.
    fn discard(&mut self, number: u32) {
        let slab = self.slabs[number as usize];
        let steps = self.steps;
        let state = self.cache_mut(slab.cache);
        state.slabs -= 1;
        state.room -= u64::from(slab.objects);
        state.pages -= 1 << slab.order;
        state.released += 1;
        state.last_release = steps;
        self.slabs[number as usize].place = Place::Gone;
        self.requests.push(PageRequest::Free { slab: number, order: slab.order });
        self.free_slabs.push(number);
    }

    /// From the slabs, past any sheaf.
    fn slab_alloc(&mut self, cache: CacheId, cpu: usize, pages: &mut Pages<'_>) -> Token {
        let holder = self.caches[cache.index()].cpus[cpu];
        let number =
            if holder.local > 0 { holder.slab } else { self.slow_alloc(cache, cpu, pages) };
        self.caches[cache.index()].cpus[cpu].local -= 1;
        self.slabs[number as usize].used += 1;
        number
    }

    /// `do_slab_free`, then `__slab_free`.
    fn slab_free(&mut self, number: u32, cpu: usize) {
        let slab = &mut self.slabs[number as usize];
        if slab.used == 0 || slab.place == Place::Gone {
            return;
        }
        slab.used -= 1;
        let (cache, used, place) = (slab.cache, slab.used, slab.place);
        match place {
            Place::Cpu(owner) => {
                if usize::from(owner) == cpu {
                    self.cache_mut(cache).cpus[cpu].local += 1;
                }
            }
            Place::Full => {
                if self.caches[cache.index()].cpu_partial_objects > 0 {
                    self.put_cpu_partial(cache, cpu, number);
                } else if used == 0 && self.is_enough(cache) {
                    self.discard(number);
                } else {
                    self.link_tail(cache, number);
                }
            }
            Place::Node => {
                self.cache_mut(cache).node_free += 1;
                if used == 0 && self.is_enough(cache) {
                    self.unlink(cache, number);
                    self.discard(number);
                }
            }
            Place::CpuPartial | Place::Gone => {}
        }
    }

    /// The node has as many partial slabs as it keeps for itself.
    fn is_enough(&self, cache: CacheId) -> bool {
        let state = &self.caches[cache.index()];
        state.partial >= state.min_partial
    }

    /// `put_cpu_partial`: a full stack goes to the node first.
    fn put_cpu_partial(&mut self, cache: CacheId, cpu: usize, number: u32) {
        let state = &self.caches[cache.index()];
        let holder = &state.cpus[cpu];
        let is_full = if self.rules.cpu_partial_in_slabs {
            holder.stack_slabs >= state.cpu_partial_slabs
        } else {
            holder.stack_objects > state.cpu_partial_objects
        };
        if holder.stack == NONE || !is_full {
            self.push_stack(cache, cpu, number);
            return;
        }
        let old = holder.stack;
        let holder = &mut self.cache_mut(cache).cpus[cpu];
        (holder.stack, holder.stack_slabs, holder.stack_objects) = (NONE, 0, 0);
        self.push_stack(cache, cpu, number);
        self.put_partials(cache, old);
    }

    /// `__put_partials`: to the node's tail, or back when empty and the node has enough.
    fn put_partials(&mut self, cache: CacheId, mut number: u32) {
        while number != NONE {
            let slab = self.slabs[number as usize];
            if slab.used == 0 && self.is_enough(cache) {
                self.discard(number);
            } else {
                self.link_tail(cache, number);
            }
            number = slab.next;
        }
    }

    /// An object comes back: where there are sheaves, as `to_sheaf` does it.
    #[inline]
    fn give_back(
        &mut self,
        token: Token,
        cache: CacheId,
        cpu: usize,
        to_sheaf: fn(&mut Self, CacheId, usize, Token),
    ) {
        self.steps += 1;
        let cpu = cpu.min(self.cpus - 1);
        if token as usize >= self.slabs.len() {
            return;
        }
        if self.caches[cache.index()].sheaves.is_some() {
            to_sheaf(self, cache, cpu, token);
        } else {
            self.slab_free(token, cpu);
        }
    }

    /// `__flush_cpu_slab`.
    fn flush(&mut self, cache: CacheId, cpu: usize) {
        let holder = std::mem::take(&mut self.cache_mut(cache).cpus[cpu]);
        if holder.slab != NONE {
            self.deactivate(cache, holder);
        }
        self.put_partials(cache, holder.stack);
    }

    /// `deactivate_slab`: to the head of the node's list, to its tail if others freed into it.
    fn deactivate(&mut self, cache: CacheId, holder: CpuSlab) {
        let slab = self.slabs[holder.slab as usize];
        let free = u32::from(slab.objects - slab.used);
        self.slabs[holder.slab as usize].place = Place::Full;
        if slab.used == 0 && self.is_enough(cache) {
            self.discard(holder.slab);
        } else if free > holder.local {
            self.link_tail(cache, holder.slab);
        } else if free > 0 {
            self.link_head(cache, holder.slab);
        }
    }
}

impl SlabPolicy for Slub {
    fn seed(&mut self, caches: &Caches, learned: &Learned) {
        self.seed_all(caches, learned);
    }

    fn before(&mut self, before: u32, cache: CacheId) -> Token {
        if self.is_cut_anew(cache) {
            let tokens = self.moved.get_mut(before as usize);
            return tokens.and_then(Vec::pop).unwrap_or(NO_TOKEN);
        }
        self.before.get(before as usize).copied().unwrap_or(NO_TOKEN)
    }

    fn starts_compact(&self) -> bool {
        !self.moved.is_empty() && self.tuning.begin == Begin::Compact
    }

    fn learn(&mut self, caches: &Caches) {
        for cache in caches.list().iter().skip(self.caches.len()) {
            let state = self.state_of(cache);
            self.caches.push(state);
        }
    }

    #[inline]
    fn alloc(&mut self, ask: &Ask, pages: &mut Pages<'_>) -> Token {
        self.steps += 1;
        let cpu = ask.cpu.min(self.cpus - 1);
        if self.caches[ask.cache.index()].sheaves.is_some() {
            return self.sheaf_alloc(ask.cache, cpu, ask.may_block, pages);
        }
        self.slab_alloc(ask.cache, cpu, pages)
    }

    #[inline]
    fn free(&mut self, token: Token, cache: CacheId, cpu: usize) {
        self.give_back(token, cache, cpu, Self::sheaf_free);
    }

    fn free_in_batch(&mut self, token: Token, cache: CacheId, cpu: usize) {
        self.give_back(token, cache, cpu, Self::sheaf_free_rcu);
    }

    fn free_with_others(&mut self, token: Token, cache: CacheId, cpu: usize) {
        self.give_back(token, cache, cpu, Self::sheaf_free_many);
    }

    fn alloc_prefilled(&mut self, ask: &Ask, held: (u32, usize), pages: &mut Pages<'_>) -> Token {
        if self.caches[ask.cache.index()].sheaves.is_none() {
            return self.alloc(ask, pages);
        }
        self.steps += 1;
        self.sheaf_alloc_prefilled(ask.cache, ask.cpu.min(self.cpus - 1), held, pages)
    }

    fn return_prefilled(&mut self, ask: &Ask, thread: u32, pages: &mut Pages<'_>) {
        self.sheaf_return(ask.cache, ask.cpu.min(self.cpus - 1), thread, pages);
    }

    fn grace(&mut self, grace: Grace, cpu: usize) {
        let cpu = cpu.min(self.cpus - 1);
        self.calls.step(grace, cpu);
        if grace != Grace::Called {
            for index in 0..self.caches.len() {
                self.sheaf_grace(CacheId(index as u16), grace, cpu);
            }
        }
    }

    fn shrink(&mut self, cache: CacheId) {
        for cpu in 0..self.cpus {
            self.sheaf_flush(cache, cpu);
            self.flush(cache, cpu);
        }
        self.barn_shrink(cache);
        self.sort_partial(cache);
    }

    fn counts(&self, cache: CacheId) -> CacheCounts {
        let Some(state) = self.caches.get(cache.index()) else { return CacheCounts::default() };
        CacheCounts {
            slabs: state.slabs,
            objects: state.room,
            active: state.room - state.node_free,
            pages: state.pages,
            new_slabs: state.new_slabs,
            released_slabs: state.released,
            partial: u64::from(state.partial),
            ping_pong: state.ping_pong,
            min_order: state.least_slabs,
        }
    }

    fn pages(&self) -> u64 {
        self.caches.iter().map(|state| state.pages).sum()
    }

    fn slabs(&self, visit: &mut dyn FnMut(u32, CacheId, u8, Origin)) {
        for (number, slab) in self.slabs.iter().enumerate() {
            if slab.place != Place::Gone {
                visit(number as u32, slab.cache, slab.order, slab.origin);
            }
        }
    }

    fn occupancy(&self) -> Vec<Occupancy> {
        self.walk_occupancy()
    }

    fn take_requests(&mut self, into: &mut Vec<PageRequest>) {
        into.append(&mut self.requests);
    }

    fn state_bytes(&self) -> u64 {
        let per_cache = size_of::<CacheState>() + self.cpus * size_of::<CpuSlab>();
        (self.slabs.len() * size_of::<Slab>() + self.caches.len() * per_cache) as u64
    }
}
