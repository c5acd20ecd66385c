//! What a slab layer is to the replay: objects asked for and given back, pages asked for and given
//! back. One file and one line in [`ALL`] make a policy.

use super::caches::{CacheId, Caches};
use super::graces::Grace;
use super::learning::Learned;

/// The policy's own name for an object: where it put it.
pub type Token = u32;

/// No object.
pub const NO_TOKEN: Token = u32::MAX;

/// A request for an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// From which cache.
    pub cache: CacheId,
    /// On which processor.
    pub cpu: usize,
    /// Bytes asked for.
    pub bytes: u32,
    /// The caller may sleep.
    pub may_block: bool,
}

/// A request of the slab layer to the page allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageRequest {
    /// Pages for a slab.
    Alloc {
        /// The policy's number of the slab.
        slab: u32,
        /// Its cache.
        cache: CacheId,
        /// Order of the block.
        order: u8,
    },
    /// The slab's pages go back.
    Free {
        /// The policy's number of the slab.
        slab: u32,
        /// Order of the block.
        order: u8,
    },
}

/// Takes a block of that order for a slab of that cache; false when there is none. It is asked
/// before a slab of more than the least order is made; the slab's own request follows.
pub type Pages<'a> = dyn FnMut(CacheId, u8) -> bool + 'a;

/// There are pages for every request.
pub fn plenty(_: CacheId, _: u8) -> bool {
    true
}

/// How what was live at the start stands in a layer that cuts slabs its own way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Begin {
    /// In full slabs.
    #[default]
    Compact,
    /// With as much free room between as the kernel's slabs had.
    Spread,
}

impl Begin {
    /// Places to ask for, where a recorded slab has so many and so many are live in it.
    pub(super) fn places(self, objects: u16, live: u16) -> u16 {
        if self == Self::Spread { objects.max(live) } else { live }
    }

    /// Whether a place of those asked for is a live object's: every other one and the like, so that
    /// the free ones lie between.
    pub(super) fn is_live(place: usize, asked: usize, live: u16) -> bool {
        let until = |places: usize| places * usize::from(live) / asked.max(1);
        until(place + 1) > until(place)
    }

    /// Parts the places of a recorded slab in those of live objects and free ones.
    pub(super) fn part(tokens: Vec<Token>, live: u16, free: &mut Vec<Token>) -> Vec<Token> {
        let asked = tokens.len();
        let mut kept = Vec::with_capacity(usize::from(live));
        for (place, token) in tokens.into_iter().enumerate() {
            let list = if Self::is_live(place, asked, live) { &mut kept } else { &mut *free };
            list.push(token);
        }
        kept
    }
}

/// A cache as `/proc/slabinfo` counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCounts {
    /// Slabs.
    pub slabs: u64,
    /// Objects they have room for.
    pub objects: u64,
    /// Objects that the kernel's way of counting takes for used.
    pub active: u64,
    /// Pages.
    pub pages: u64,
    /// Slabs made since the start.
    pub new_slabs: u64,
    /// Slabs given back since the start.
    pub released_slabs: u64,
    /// Slabs on the lists of partial ones.
    pub partial: u64,
    /// Slabs made soon (1,000 requests) after one was given back.
    pub ping_pong: u64,
    /// Slabs made of the least order, for want of memory.
    pub min_order: u64,
}

/// How full the slabs of a cache are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Occupancy {
    /// Objects really in use.
    pub live: u64,
    /// Room in slabs that are neither empty nor full, unused.
    pub partial_free: u64,
    /// Slabs without an object.
    pub empty_slabs: u64,
    /// Slabs kept by at most a fourth of their objects.
    pub sparse_slabs: u64,
}

impl Occupancy {
    /// Adds a slab.
    pub fn add(&mut self, used: u32, objects: u32) {
        self.live += u64::from(used);
        self.empty_slabs += u64::from(used == 0);
        if used > 0 {
            self.partial_free += u64::from(objects.saturating_sub(used));
            self.sparse_slabs += u64::from(used * 4 <= objects && objects > 1);
        }
    }
}

/// Where a slab of a policy comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It stands for that slab from before.
    Before(u32),
    /// It stands for one from before that no event names.
    Nameless,
    /// The policy made it.
    Made,
}

/// A slab layer.
pub trait SlabPolicy: std::fmt::Debug {
    /// Starts from what the kernel had.
    fn seed(&mut self, caches: &Caches, learned: &Learned);
    /// The token of a live object in a slab from before.
    fn before(&mut self, before: u32, cache: CacheId) -> Token;
    /// Makes room for caches that came to be known since.
    fn learn(&mut self, caches: &Caches);
    /// Serves a request.
    fn alloc(&mut self, ask: &Ask, pages: &mut Pages<'_>) -> Token;
    /// Takes an object back.
    fn free(&mut self, token: Token, cache: CacheId, cpu: usize);
    /// Takes back an object that the kernel freed in a batch (`kmem_cache_free_bulk`).
    fn free_in_batch(&mut self, token: Token, cache: CacheId, cpu: usize) {
        self.free(token, cache, cpu);
    }
    /// Takes back an object that the kernel freed at once with others (`kmem_cache_free_bulk` where
    /// there are sheaves).
    fn free_with_others(&mut self, token: Token, cache: CacheId, cpu: usize) {
        self.free(token, cache, cpu);
    }
    /// Serves a request of a thread that took a sheaf of at least `wanted` objects for itself
    /// (`kmem_cache_alloc_from_sheaf`).
    fn alloc_prefilled(
        &mut self,
        ask: &Ask,
        (_thread, _wanted): (u32, usize),
        pages: &mut Pages<'_>,
    ) -> Token {
        self.alloc(ask, pages)
    }
    /// The thread gives its sheaf back.
    fn return_prefilled(&mut self, _ask: &Ask, _thread: u32, _pages: &mut Pages<'_>) {}
    /// A grace period goes on.
    fn grace(&mut self, _grace: Grace, _cpu: usize) {}
    /// Time goes on, in nanoseconds.
    fn tick(&mut self, _now_ns: u64) {}
    /// Empties all that processors hold and gives empty slabs back (`shrink` in sysfs).
    fn shrink(&mut self, _cache: CacheId) {}
    /// The cache as `/proc/slabinfo` would count it.
    fn counts(&self, cache: CacheId) -> CacheCounts;
    /// Pages of all slabs.
    fn pages(&self) -> u64;
    /// How full the slabs are, by cache.
    fn occupancy(&self) -> Vec<Occupancy>;
    /// Requests to the page allocator since the last call are appended.
    fn take_requests(&mut self, into: &mut Vec<PageRequest>);
    /// Every slab there is: its number, cache and order, and where it comes from.
    fn slabs(&self, visit: &mut dyn FnMut(u32, CacheId, u8, Origin));
    /// Whether what was live at the start stands in full slabs of the layer's own, not where the
    /// kernel had it.
    fn starts_compact(&self) -> bool {
        true
    }
    /// Bytes of state held.
    fn state_bytes(&self) -> u64;
}
