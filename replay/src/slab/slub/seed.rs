//! The state that SLUB starts from.

use super::sheaf::Sheaves;
use super::{CacheState, CpuSlab, Place, Slub};
use crate::slab::caches::{Cache, CacheId, Caches};
use crate::slab::follow::NONE;
use crate::slab::geometry;
use crate::slab::learning::{CacheStart, Learned};
use crate::slab::policy::{Begin, NO_TOKEN, Origin, plenty};

impl Slub {
    pub(super) fn state_of(&self, cache: &Cache) -> CacheState {
        let (mut order, mut objects) = (cache.order, cache.objects);
        let mut least = (cache.min_order, cache.min_objects);
        if let Some(parameters) = &self.tuning.geometry {
            order = geometry::slab_order(u64::from(cache.stride), &self.rules, parameters);
            let fit = parameters.objects(u64::from(cache.stride), order);
            objects = fit.clamp(1, 32_767) as u16;
            if least.0 >= order {
                least = (order, objects);
            }
        }
        let (mut slabs, mut free) = (cache.cpu_partial_slabs, cache.cpu_partial_objects);
        if let Some(wanted) = self.tuning.cpu_partial {
            free = wanted;
            slabs = geometry::cpu_partial_slabs(wanted, u32::from(objects));
        } else if self.tuning.geometry.is_some() {
            slabs = geometry::cpu_partial_slabs(free, u32::from(objects));
        }
        let with_sheaves = cache.sheaf > 0 && !self.tuning.no_sheaves;
        let recorded = cache.recorded.unwrap_or((cache.order, cache.objects));
        CacheState {
            order,
            objects,
            least,
            is_cut_anew: (order, objects) != recorded,
            cpu_partial_slabs: slabs,
            cpu_partial_objects: free,
            min_partial: self.tuning.min_partial.unwrap_or(cache.min_partial),
            cpus: vec![CpuSlab::default(); self.cpus],
            head: NONE,
            tail: NONE,
            partial: 0,
            node_free: 0,
            slabs: 0,
            room: 0,
            pages: 0,
            least_slabs: 0,
            new_slabs: 0,
            released: 0,
            ping_pong: 0,
            last_release: 0,
            sheaves: with_sheaves.then(|| Box::new(Sheaves::new(cache.sheaf, self.cpus))),
        }
    }

    pub(super) fn seed_all(&mut self, caches: &Caches, learned: &Learned) {
        use crate::slab::policy::SlabPolicy;
        self.learn(caches);
        let is_recorded = !self.caches.iter().any(|state| state.is_cut_anew);
        let places = learned.before.len();
        self.before = vec![NO_TOKEN; places];
        self.moved = vec![Vec::new(); if is_recorded { 0 } else { places }];
        for (index, recorded) in caches.list().iter().enumerate() {
            let cache = CacheId(index as u16);
            let start = learned.cache(cache);
            if self.is_cut_anew(cache) {
                let objects = recorded.recorded.map_or(recorded.objects, |(_, objects)| objects);
                self.seed_compact(cache, objects, learned, &start);
            } else {
                self.seed_as_recorded(cache, learned, &start);
            }
        }
        self.requests.clear();
    }

    /// Slab by slab as the kernel had them.
    fn seed_as_recorded(&mut self, cache: CacheId, learned: &Learned, start: &CacheStart) {
        let objects = self.caches[cache.index()].objects;
        for number in &start.slabs {
            let slab = learned.before[*number as usize];
            let held = slab.objects.max(1);
            let token =
                self.place_slab(cache, held, held - slab.free.min(held), Origin::Before(*number));
            self.before[*number as usize] = token;
        }
        self.seed_sheaves(cache, start);
        self.seed_lists(cache, learned, start);
        for used in nameless_used(start, objects) {
            // Those that are partly free stand behind all that events name.
            let number = self.place_slab(cache, objects, used, Origin::Nameless);
            if used < objects {
                self.link_tail(cache, number);
            }
        }
    }

    /// Objects that the processors held in sheaves.
    fn seed_sheaves(&mut self, cache: CacheId, start: &CacheStart) {
        let Some(mut sheaves) = self.caches[cache.index()].sheaves.take() else { return };
        let of_cpu = |cpu: usize| {
            let mine = start.objects.iter().filter(move |(on, _)| usize::from(*on) == cpu);
            mine.map(|(_, before)| self.before[*before as usize]).collect::<Vec<u32>>()
        };
        let tokens: Vec<Vec<u32>> = (0..self.cpus).map(of_cpu).collect();
        let limit = start.in_sheaves.filter(|_| start.lends);
        let shares = sheaves.shares(&tokens, limit);
        for (cpu, (tokens, share)) in tokens.iter().zip(shares).enumerate() {
            let placed = sheaves.seed(cpu, &tokens[..share]);
            for token in &tokens[..placed] {
                self.slabs[*token as usize].used += 1;
            }
        }
        self.caches[cache.index()].sheaves = Some(sheaves);
    }

    /// The slab that each processor allocated from, its stack, then the node's list: in the order
    /// in which the kernel came to them.
    fn seed_lists(&mut self, cache: CacheId, learned: &Learned, start: &CacheStart) {
        for (cpu, before) in start.first_slab.iter().enumerate() {
            let number = self.before.get(*before as usize).copied().unwrap_or(NO_TOKEN);
            let Some(slab) = self.slabs.get_mut(number as usize) else { continue };
            if cpu < self.cpus && slab.place == Place::Full {
                slab.place = Place::Cpu(cpu as u16);
                let local = u32::from(slab.objects - slab.used);
                let holder = &mut self.caches[cache.index()].cpus[cpu];
                (holder.slab, holder.local) = (number, local);
            }
        }
        let limit = self.caches[cache.index()].cpu_partial_slabs as usize;
        let mut queues: Vec<Vec<u32>> = vec![Vec::new(); self.cpus];
        let mut order = Vec::new();
        for (cpu, before) in &start.taken {
            let number = self.before[*before as usize];
            let is_partial =
                self.slabs[number as usize].place == Place::Full && self.free_of(number) > 0;
            if is_partial && let Some(queue) = queues.get_mut(usize::from(*cpu)) {
                queue.push(number);
                if queue.len() > limit && (queue.len() - limit - 1).is_multiple_of(limit / 2 + 2) {
                    order.push((usize::from(*cpu), queue.len() - 1));
                }
            }
        }
        for (cpu, queue) in queues.iter().enumerate() {
            for number in queue.iter().take(limit).rev() {
                self.push_stack(cache, cpu, *number);
            }
        }
        for (cpu, first) in order {
            // What one visit to the node's list takes: the first, then the others from the last on.
            let batch = &queues[cpu][first..];
            let batch = &batch[..batch.len().min(limit / 2 + 2)];
            self.link_tail(cache, batch[0]);
            for number in batch[1..].iter().rev() {
                self.link_tail(cache, *number);
            }
        }
        for number in &start.slabs {
            let token = self.before[*number as usize];
            let was_free = learned.before[*number as usize].free > 0;
            if was_free
                && self.slabs[token as usize].place == Place::Full
                && self.free_of(token) > 0
            {
                self.link_tail(cache, token);
            }
        }
    }

    /// Objects that were live at the start, one after the other in slabs of this policy's own, with
    /// the free places of the recorded slabs between them where that is asked for.
    fn seed_compact(
        &mut self,
        cache: CacheId,
        recorded: u16,
        learned: &Learned,
        start: &CacheStart,
    ) {
        let begin = self.tuning.begin;
        let mut free = Vec::new();
        for number in &start.slabs {
            let slab = learned.before[*number as usize];
            let live = slab.objects.saturating_sub(slab.free);
            let places = begin.places(slab.objects, live);
            let tokens = (0..places).map(|_| self.slab_alloc(cache, 0, &mut plenty)).collect();
            self.moved[*number as usize] = Begin::part(tokens, live, &mut free);
        }
        if begin == Begin::Spread {
            free.into_iter().for_each(|token| self.slab_free(token, 0));
            self.flush(cache, 0);
        }
        let room = start.nameless_slabs * u64::from(recorded);
        let live = room.saturating_sub(start.nameless_free);
        let objects = self.caches[cache.index()].objects;
        let held = if begin == Begin::Spread { room } else { live };
        let slabs = held.div_ceil(u64::from(objects));
        for slab in 0..slabs {
            let used = if begin == Begin::Spread {
                (live * (slab + 1) / slabs - live * slab / slabs) as u16
            } else {
                objects
            };
            let number = self.place_slab(cache, objects, used, Origin::Nameless);
            if used < objects {
                self.link_tail(cache, number);
            }
        }
        let state = &mut self.caches[cache.index()];
        (state.released, state.last_release) = (0, 0);
        self.caches[cache.index()].new_slabs = 0;
    }
}

/// Objects used in each slab that no event names.
pub(crate) fn nameless_used(start: &CacheStart, objects: u16) -> impl Iterator<Item = u16> {
    let partial = nameless_partial(start, objects);
    let free = start.nameless_free;
    (0..start.nameless_slabs).map(move |slab| {
        let share = free.checked_div(partial).map_or(0, |share| {
            if slab < partial { share + u64::from(slab < free % partial) } else { 0 }
        });
        u64::from(objects).saturating_sub(share) as u16
    })
}

/// How many of the slabs that no event names are partly free: half of their objects each.
fn nameless_partial(start: &CacheStart, objects: u16) -> u64 {
    let half = u64::from(objects / 2).max(1);
    start.nameless_free.div_ceil(half).min(start.nameless_slabs)
}
