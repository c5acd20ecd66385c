//! What the recording does becomes the policy's: objects asked for and given back.

use kmemlab_trace::event::Event;

use super::Drive;
use crate::model::Request;
use crate::slab::caches::CacheId;
use crate::slab::follow::{KernelSlab, NONE, Object, State, Watch};
use crate::slab::gfp::GfpBits;
use crate::slab::policy::{Ask, NO_TOKEN, Pages, SlabPolicy, Token};
use crate::slab::trees::has_given_back;

/// The listener, and who has pages for it.
pub(in crate::stack) struct Asking<'a, 'b, 'c> {
    pub(in crate::stack) drive: &'a mut Drive<'c>,
    pub(in crate::stack) pages: &'a mut Served<'b>,
}

/// Whether a request for pages is served.
pub(in crate::stack) type Served<'a> = dyn FnMut(Request) -> bool + 'a;

impl Asking<'_, '_, '_> {
    /// The policy decides; its requests for pages that it can do without are asked at once.
    #[inline]
    fn ask<T>(
        &mut self,
        (cpu, gfp): (usize, u32),
        decide: impl FnOnce(&mut dyn SlabPolicy, &mut Pages<'_>) -> T,
    ) -> T {
        let Drive { policy, routes, migrates, bits, .. } = &mut *self.drive;
        let pages = &mut *self.pages;
        decide(&mut **policy, &mut |cache, order| {
            let migrate = migrates.get(routes.like(cache).index()).copied().unwrap_or(0);
            pages(Request { cpu, order, gfp: flags_above_least(gfp, bits), migrate })
        })
    }
}

impl Asking<'_, '_, '_> {
    /// Objects that no event ever names are allocated.
    pub(in crate::stack) fn arrive(&mut self, cache: CacheId, objects: u64, cpu: usize) {
        for _ in 0..objects {
            self.alloc_unseen(cache, cpu);
        }
        self.drive.live += objects;
    }

    /// The next event comes; allocations that took effect before it.
    #[inline]
    pub(in crate::stack) fn begin_event(&mut self) {
        self.drive.ahead.begin_event();
        while let Some(due) = self.drive.ahead.next_due() {
            let drive = &mut *self.drive;
            drive.gfp = if due.gfp == 0 { drive.gfp } else { due.gfp };
            let may_block = due.gfp & drive.bits.direct_reclaim != 0;
            let (cache, cpu, gfp) = (due.cache, usize::from(due.cpu), drive.gfp);
            let bytes = if due.bytes > 0 { due.bytes } else { drive.strides[cache.index()] };
            let ask = Ask { cache, cpu, bytes, may_block };
            let token = self.ask((cpu, gfp), |policy, pages| policy.alloc(&ask, pages));
            self.drive.ahead.park(&due, token);
        }
    }

    /// Frees that take effect after this event only.
    #[inline]
    pub(in crate::stack) fn end_event(&mut self) {
        while let Some(held) = self.drive.ahead.release() {
            self.drive.policy.free(held.token, held.cache, held.cpu);
        }
    }

    /// The thread, and how many it wants, if it takes the object from a sheaf of its own.
    #[inline]
    fn prefilled(&mut self, object: Object, event: &Event) -> Option<(u32, usize)> {
        let drive = &mut *self.drive;
        let role = drive.roles.get(event.stack as usize).copied().unwrap_or_default();
        let is_prefilled = role.is_prefilled()
            && drive.nodes == object.cache
            && event.gfp & drive.bits.direct_reclaim == 0;
        if !is_prefilled {
            return None;
        }
        let (thread, cpu) = (event.pid.0, usize::from(event.cpu.0));
        if let Some(lent) = drive.lent.iter_mut().find(|(holder, ..)| *holder == thread) {
            lent.2 = cpu;
            return Some((thread, 1));
        }
        drive.lent.push((thread, object.cache, cpu));
        let Some((wanted, rest)) = drive.wanted.split_first() else { return Some((thread, 1)) };
        drive.wanted = rest;
        Some((thread, usize::from(*wanted)))
    }

    /// A thread that does something else has given its sheaf back, and so has one whose processor
    /// runs another.
    #[inline]
    fn give_back(&mut self, event: &Event, held: Option<u32>) {
        if self.drive.lent.is_empty() {
            return;
        }
        let is_over = |(holder, _, cpu): &(u32, CacheId, usize)| {
            Some(*holder) != held && has_given_back((*holder, *cpu), event)
        };
        while let Some(place) = self.drive.lent.iter().position(is_over) {
            let (thread, cache, cpu) = self.drive.lent.swap_remove(place);
            let gfp = self.drive.gfp;
            let ask = Ask { cache, cpu, bytes: 0, may_block: false };
            self.ask((cpu, gfp), |policy, pages| policy.return_prefilled(&ask, thread, pages));
        }
    }

    fn alloc_unseen(&mut self, cache: CacheId, cpu: usize) -> Token {
        let drive = &mut *self.drive;
        drive.recorded[cache.index()].hidden_allocs += 1;
        let (bytes, gfp) = (drive.strides[cache.index()], drive.gfp);
        let ask = Ask { cache, cpu, bytes, may_block: true };
        self.ask((cpu, gfp), |policy, pages| policy.alloc(&ask, pages))
    }
}

/// Flags of a slab's pages (`allocate_slab`, `alloc_slab_page`; `kmem_getpages`).
pub(in crate::stack) fn slab_flags(gfp: u32, bits: &GfpBits) -> u32 {
    (gfp & !(bits.zero | bits.account | bits.movable | bits.highmem | bits.write)) | bits.comp
}

/// The same where a lower order would do: nobody is to work for it.
fn flags_above_least(gfp: u32, bits: &GfpBits) -> u32 {
    let flags = slab_flags(gfp, bits) | bits.nowarn | bits.noretry;
    if flags & bits.direct_reclaim == 0 {
        return flags;
    }
    (flags & !(bits.direct_reclaim | bits.kswapd_reclaim)) | bits.nomemalloc
}

impl Drive<'_> {
    /// An object is allocated whose first event that is: free at the start, or freed unseen.
    fn untouched(&mut self, number: u32, slab: &KernelSlab, cache: CacheId, cpu: usize) {
        match self.left_free.get_mut(slab.before as usize) {
            Some(left) if *left > 0 => {
                *left -= 1;
                self.kernel.step(number, 1);
            }
            Some(_) => {
                self.kernel.step(number, 0);
                self.recorded[cache.index()].hidden_frees += 1;
                let token = self.policy.before(slab.before, cache);
                if token != NO_TOKEN {
                    self.policy.free(token, cache, cpu);
                }
            }
            None => {}
        }
    }

    /// The model's cache that serves a request, where it may be another than the kernel's.
    fn route(&mut self, object: Object, event: &Event) -> CacheId {
        let function = self.functions.of(event);
        let (cache, is_told) = self.routes.of(object.cache, event, function);
        self.apart.objects_by_name += u64::from(is_told && cache != object.cache);
        self.apart.objects_by_function += u64::from(!is_told);
        if let Some(served_by) = self.served_by.get_mut(object.number as usize) {
            *served_by = cache;
        }
        cache
    }

    /// The model's cache of the object in a row, which came from the kernel's cache `cache`.
    #[inline]
    fn served_by(&self, place: usize, cache: CacheId) -> CacheId {
        self.served_by.get(place).copied().unwrap_or(cache)
    }
}

impl Watch for Asking<'_, '_, '_> {
    fn created(&mut self, number: u32, slab: &KernelSlab, _: usize) {
        let drive = &mut *self.drive;
        let before = drive.learned.get(slab.before as usize);
        let live = before.map_or(0, |before| before.objects.saturating_sub(before.free));
        drive.kernel.created(number, slab, live);
        let (first, count) = (slab.first as usize, usize::from(slab.objects));
        if drive.tokens.len() < first + count {
            drive.tokens.resize(first + count, NO_TOKEN);
        }
        drive.tokens[first..first + count].fill(NO_TOKEN);
        if !drive.routes.is_plain() {
            drive.served_by.resize(drive.tokens.len(), CacheId::UNKNOWN);
            drive.served_by[first..first + count].fill(slab.cache);
        }
        let is_new = slab.before == NONE;
        let Some(recorded) = drive.recorded.get_mut(slab.cache.index()) else { return };
        recorded.slabs += 1;
        recorded.made += u64::from(is_new);
        recorded.least_slabs += u64::from(is_new && !slab.is_whole);
        recorded.unseen_slabs += u64::from(slab.is_unseen);
        if is_new && !slab.is_unseen {
            drive.migrates[slab.cache.index()] = slab.migrate;
        }
    }

    fn destroyed(&mut self, number: u32, slab: &KernelSlab, states: &[State], cpu: usize) {
        self.drive.kernel.destroyed(number, slab.cache);
        for (index, state) in states.iter().enumerate() {
            let place = slab.first as usize + index;
            let token = self.drive.tokens[place];
            if *state == State::Live && token != NO_TOKEN {
                let cache = self.drive.served_by(place, slab.cache);
                self.drive.policy.free_in_batch(token, cache, cpu);
                self.drive.live = self.drive.live.saturating_sub(1);
                self.drive.recorded[slab.cache.index()].hidden_frees += 1;
            }
        }
        if let Some(recorded) = self.drive.recorded.get_mut(slab.cache.index()) {
            recorded.slabs = recorded.slabs.saturating_sub(1);
            recorded.released += 1;
        }
    }

    #[inline]
    fn alloc(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let held = self.prefilled(object, event);
        self.give_back(event, held.map(|(thread, _)| thread));
        let drive = &mut *self.drive;
        let (cpu, place) = (usize::from(event.cpu.0), object.number as usize);
        let recorded = &mut drive.recorded[object.cache.index()];
        recorded.events += 1;
        recorded.asked_bytes = recorded.asked_bytes.saturating_add(event.bytes_requested);
        recorded.given_bytes = recorded.given_bytes.saturating_add(event.bytes_allocated);
        if let Some(site) = drive.sites.get_mut(event.stack as usize) {
            site.0 += 1;
            site.1 = site.1.saturating_add(event.bytes_requested);
            site.2 = site.2.saturating_add(event.bytes_allocated);
        }
        if object.was == State::Live {
            recorded.hidden_frees += 1;
            drive.policy.free(drive.tokens[place], drive.served_by(place, object.cache), cpu);
            drive.kernel.step(object.slab, 0);
        } else {
            drive.live += 1;
            drive.peak_live = drive.peak_live.max(drive.live);
            if object.was == State::Untouched {
                drive.untouched(object.slab, slab, object.cache, cpu);
            } else {
                drive.kernel.step(object.slab, 1);
            }
        }
        if let Some(token) = drive.ahead.take() {
            drive.tokens[place] = token;
            return;
        }
        let mut cache = object.cache;
        if !drive.routes.is_plain() {
            cache = drive.route(object, event);
        }
        drive.gfp = event.gfp;
        let may_block = event.gfp & drive.bits.direct_reclaim != 0;
        let bytes = event.bytes_requested.min(u64::from(u32::MAX)) as u32;
        let ask = Ask { cache, cpu, bytes, may_block };
        let token = self.ask((cpu, event.gfp), |policy, pages| match held {
            Some(held) => policy.alloc_prefilled(&ask, held, pages),
            None => policy.alloc(&ask, pages),
        });
        self.drive.tokens[place] = token;
    }

    #[inline]
    fn free(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        self.give_back(event, None);
        let drive = &mut *self.drive;
        let (cpu, place) = (usize::from(event.cpu.0), object.number as usize);
        let recorded = &mut drive.recorded[object.cache.index()];
        recorded.events += 1;
        drive.kernel.step(object.slab, if object.was == State::Free { 0 } else { -1 });
        let mut cache = object.cache;
        let token = match object.was {
            State::Untouched => {
                drive.live = drive.live.saturating_sub(1);
                drive.policy.before(slab.before, cache)
            }
            State::Free => match drive.ahead.take() {
                Some(token) => {
                    recorded.hidden_allocs += 1;
                    token
                }
                None => self.alloc_unseen(cache, cpu),
            },
            State::Live | State::Owed => {
                drive.live = drive.live.saturating_sub(1);
                cache = drive.served_by(place, cache);
                drive.tokens[place]
            }
        };
        self.drive.tokens[place] = NO_TOKEN;
        if token != NO_TOKEN && !self.drive.ahead.hold(token, cache, cpu) {
            self.drive.policy.free(token, cache, cpu);
        }
    }

    fn unseen_free(&mut self, object: Object, cpu: usize, is_together: bool) {
        let (drive, place) = (&mut *self.drive, object.number as usize);
        drive.live = drive.live.saturating_sub(1);
        drive.kernel.step(object.slab, -1);
        drive.recorded[object.cache.index()].hidden_frees += 1;
        let token = std::mem::replace(&mut drive.tokens[place], NO_TOKEN);
        if token != NO_TOKEN {
            let cache = drive.served_by(place, object.cache);
            if is_together {
                drive.policy.free_with_others(token, cache, cpu);
            } else {
                drive.policy.free_in_batch(token, cache, cpu);
            }
        }
    }

    fn unseen_alloc(&mut self, object: Object, cpu: usize) {
        let (drive, place) = (&mut *self.drive, object.number as usize);
        drive.live += 1;
        drive.peak_live = drive.peak_live.max(drive.live);
        drive.kernel.step(object.slab, 1);
        if let Some(served_by) = drive.served_by.get_mut(place) {
            *served_by = object.cache;
        }
        self.drive.tokens[place] = self.alloc_unseen(object.cache, cpu);
    }
}
