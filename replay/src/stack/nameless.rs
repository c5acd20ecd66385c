//! The caches of allocations that the recorded kernel does not name (6.17 and older).
//!
//! The event of a free has the name (5.12 and later) and the address: an object that is freed tells
//! what its allocation's call site takes from. An object may be freed without an event and its
//! address serve another cache, so the frees of a call site vote. A call site none of whose objects
//! is freed by name takes from the cache of its objects' size, where there is one only, or one only
//! whose counts in `/proc/slabinfo` changed; else a few are known by the function.

use std::collections::HashMap;

use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::reader::Recording;

use super::names::Names;
use super::sites;
use crate::engine::ReplayError;
use crate::slab::caches::{CacheId, Caches};
use crate::slab::samples::SlabSample;

/// Events that are looked at.
const KINDS: u64 = Kind::CacheAlloc.bit() | Kind::CacheAllocNode.bit() | Kind::CacheFree.bit();
/// Share of a call site's votes that must agree, in percent.
const SHARE_PERCENT: u64 = 99;

/// Functions whose objects are often freed without an event or by `kfree`, and their caches.
const FUNCTIONS: [(&str, &str); 2] =
    [("alloc_vmap_area", "vmap_area"), ("kmalloc_reserve", "skbuff_small_head")];

/// Objects of one size that a call site took.
#[derive(Clone, Debug)]
struct Taken {
    stride: u64,
    votes: Vec<(CacheId, u64)>,
    cache: CacheId,
}

/// What is known of the allocations without a name, by call site and size.
#[derive(Clone, Debug, Default)]
pub(super) struct Nameless {
    sites: Vec<Vec<Taken>>,
}

impl Nameless {
    /// Reads the whole recording, or nothing of it where allocations are named.
    pub(super) fn read(
        recording: &Recording,
        caches: &mut Caches,
        samples: &[SlabSample],
    ) -> Result<Self, ReplayError> {
        let mut found = Self::default();
        let mut live: HashMap<u64, (u32, u64)> = HashMap::new();
        let mut names = Names::default();
        for batch in recording.events()? {
            let batch = batch?;
            names.read(&batch, caches);
            for event in batch.iter_only(KINDS) {
                if event.kind == Kind::CacheFree {
                    let cache = names.cache_of(&event, caches);
                    if let Some((stack, stride)) = live.remove(&event.pfn_or_address) {
                        found.vote(stack, stride, cache, caches);
                    }
                } else if event.has(Column::Name) {
                    return Ok(found);
                } else {
                    live.insert(event.pfn_or_address, (event.stack, event.bytes_allocated));
                    found.taken(event.stack, event.bytes_allocated);
                }
            }
        }
        let functions = sites::of_functions(recording, &FUNCTIONS)?;
        let is_busy = busy(caches, samples);
        for (stack, list) in found.sites.iter_mut().enumerate() {
            let function = functions.iter().find(|(known, _)| *known as usize == stack);
            let told = function.and_then(|(_, cache)| caches.find(cache));
            for taken in list {
                taken.decide(caches, &is_busy, told);
            }
        }
        Ok(found)
    }

    fn taken(&mut self, stack: u32, stride: u64) -> Option<&mut Taken> {
        let place = stack as usize;
        if place >= MAX_SITES {
            return None;
        }
        if self.sites.len() <= place {
            self.sites.resize(place + 1, Vec::new());
        }
        let list = &mut self.sites[place];
        let known = list.iter().position(|taken| taken.stride == stride).unwrap_or_else(|| {
            list.push(Taken { stride, votes: Vec::new(), cache: CacheId::UNKNOWN });
            list.len() - 1
        });
        list.get_mut(known)
    }

    fn vote(&mut self, stack: u32, stride: u64, cache: CacheId, caches: &Caches) {
        let fits = caches.get(cache).is_some_and(|cache| u64::from(cache.stride) == stride);
        let Some(taken) = self.taken(stack, stride).filter(|_| fits) else { return };
        match taken.votes.iter_mut().find(|(known, _)| *known == cache) {
            Some((_, votes)) => *votes += 1,
            None => taken.votes.push((cache, 1)),
        }
    }

    /// The cache of an allocation, as far as its call site or its size tells it.
    #[inline]
    pub(super) fn of(&self, event: &Event) -> CacheId {
        let site = self.sites.get(event.stack as usize);
        let taken = site.and_then(|list| list.iter().find(|it| it.stride == event.bytes_allocated));
        taken.map_or(CacheId::UNKNOWN, |taken| taken.cache)
    }
}

impl Taken {
    /// What the frees agree on; without any, what the size or the function tells.
    fn decide(&mut self, caches: &Caches, is_busy: &[bool], told: Option<CacheId>) {
        let all: u64 = self.votes.iter().map(|(_, votes)| votes).sum();
        self.cache = match self.votes.iter().max_by_key(|(_, votes)| *votes) {
            Some((cache, votes)) if votes * 100 >= all * SHARE_PERCENT => *cache,
            Some(_) => CacheId::UNKNOWN,
            None => {
                let fitting: Vec<CacheId> = caches.of_stride(self.stride).collect();
                let busy = fitting.iter().filter(|cache| is_busy[cache.index()]);
                let busy: Vec<CacheId> = busy.copied().collect();
                match (&*fitting, &*busy) {
                    ([only], _) | (_, [only]) => *only,
                    _ => told.filter(|it| fitting.contains(it)).unwrap_or(CacheId::UNKNOWN),
                }
            }
        };
    }
}

/// By cache: its counts changed from one `/proc/slabinfo` to another.
fn busy(caches: &Caches, samples: &[SlabSample]) -> Vec<bool> {
    let mut is_busy = vec![false; caches.list().len()];
    let mut first: Vec<Option<(u64, u64)>> = vec![None; is_busy.len()];
    for row in samples.iter().flat_map(|sample| &sample.rows) {
        let Some(cache) = caches.find(&row.cache) else { continue };
        let counts = (row.slabs, row.active_objects);
        let known = first[cache.index()].get_or_insert(counts);
        is_busy[cache.index()] |= *known != counts;
    }
    is_busy
}

/// More call sites than any recording has.
const MAX_SITES: usize = 1 << 26;
