//! Sheaves: arrays of objects that a processor fills and empties, and the barn they wait in (6.18).

use super::Slub;
use crate::slab::caches::CacheId;
use crate::slab::policy::{Pages, Token};

/// Full sheaves, and empty ones, that a barn keeps (`MAX_FULL_SHEAVES`, `MAX_EMPTY_SHEAVES`).
const BARN: usize = 10;

/// Objects of other slabs after which a search for more of the same ends.
const LOOK_AHEAD: usize = 3;

/// The sheaves of a cache (`struct slub_percpu_sheaves`, `struct node_barn`).
#[derive(Clone, Debug)]
pub(super) struct Sheaves {
    capacity: usize,
    cpus: Vec<CpuSheaves>,
    full: Vec<Vec<Token>>,
    empty: usize,
}

#[derive(Clone, Debug, Default)]
struct CpuSheaves {
    main: Vec<Token>,
    spare: Option<Vec<Token>>,
    /// Objects freed by `kfree_rcu`.
    rcu: Vec<Token>,
}

impl Sheaves {
    pub(super) fn new(capacity: u32, cpus: usize) -> Self {
        let (capacity, cpus) = (capacity as usize, vec![CpuSheaves::default(); cpus]);
        Self { capacity, cpus, full: Vec::new(), empty: 0 }
    }

    /// Every object that rests in one.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Token> {
        let held = self.cpus.iter().flat_map(|it| it.main.iter().chain(it.spare.iter().flatten()));
        held.chain(self.full.iter().flatten())
    }

    /// Puts an object where the next allocations of the processor take from, as long as there is
    /// room: the first asked for last.
    pub(super) fn seed(&mut self, cpu: usize, tokens: &[Token]) -> usize {
        let mut chunks = tokens.chunks(self.capacity);
        let mut placed = 0;
        let mut place = |tokens: &[Token]| {
            placed += tokens.len();
            tokens.iter().rev().copied().collect::<Vec<_>>()
        };
        let Some(holder) = self.cpus.get_mut(cpu) else { return 0 };
        if let Some(first) = chunks.next() {
            holder.main = place(first);
        }
        if let Some(second) = chunks.next() {
            holder.spare = Some(place(second));
        }
        while self.full.len() < BARN
            && let Some(more) = chunks.next()
            && more.len() == self.capacity
        {
            self.full.insert(0, place(more));
        }
        placed
    }
}

impl Slub {
    fn sheaves(&mut self, cache: CacheId) -> Option<&mut Sheaves> {
        self.caches[cache.index()].sheaves.as_deref_mut()
    }

    /// `alloc_from_pcs`, `__pcs_replace_empty_main`; past the sheaves when there is nothing.
    pub(super) fn sheaf_alloc(
        &mut self,
        cache: CacheId,
        cpu: usize,
        may_block: bool,
        pages: &mut Pages<'_>,
    ) -> Token {
        let Some(sheaves) = self.sheaves(cache) else {
            return self.slab_alloc(cache, cpu, pages);
        };
        let capacity = sheaves.capacity;
        let holder = &mut sheaves.cpus[cpu];
        if let Some(token) = holder.main.pop() {
            return token;
        }
        if let Some(spare) = holder.spare.as_mut().filter(|spare| !spare.is_empty()) {
            std::mem::swap(&mut holder.main, spare);
        } else if let Some(full) = sheaves.full.pop() {
            holder.main = full;
            sheaves.empty += 1;
        } else if may_block {
            if holder.spare.take().is_none() {
                sheaves.empty = sheaves.empty.saturating_sub(1);
            }
            sheaves.empty += 1;
            let filled = (0..capacity).map(|_| self.slab_alloc(cache, cpu, pages)).collect();
            if let Some(sheaves) = self.sheaves(cache) {
                sheaves.cpus[cpu].main = filled;
            }
        }
        let taken = self.sheaves(cache).and_then(|sheaves| sheaves.cpus[cpu].main.pop());
        taken.unwrap_or_else(|| self.slab_alloc(cache, cpu, pages))
    }

    /// `free_to_pcs`, `__pcs_replace_full_main`.
    pub(super) fn sheaf_free(&mut self, cache: CacheId, cpu: usize, token: Token) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        let capacity = sheaves.capacity;
        let holder = &mut sheaves.cpus[cpu];
        if holder.main.len() < capacity {
            holder.main.push(token);
            return;
        }
        let mut flushed = Vec::new();
        match &mut holder.spare {
            None => {
                sheaves.empty = sheaves.empty.saturating_sub(1);
                holder.spare = Some(std::mem::take(&mut holder.main));
            }
            Some(spare) if spare.len() < capacity => std::mem::swap(&mut holder.main, spare),
            Some(_) if sheaves.full.len() < BARN => {
                sheaves.empty = sheaves.empty.saturating_sub(1);
                sheaves.full.push(std::mem::take(&mut holder.main));
            }
            Some(spare) => {
                flushed = std::mem::replace(spare, std::mem::take(&mut holder.main));
            }
        }
        holder.main.push(token);
        self.free_bulk(&mut flushed, cpu);
    }

    /// `__kfree_rcu_sheaf`, and `rcu_free_sheaf` when the sheaf is full: it goes to the barn, or
    /// back to the slabs when that has enough. The grace period is over: that is how the free is
    /// known.
    pub(super) fn sheaf_free_rcu(&mut self, cache: CacheId, cpu: usize, token: Token) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        let capacity = sheaves.capacity;
        let holder = &mut sheaves.cpus[cpu];
        holder.rcu.push(token);
        if holder.rcu.len() < capacity {
            return;
        }
        let mut sheaf = std::mem::take(&mut holder.rcu);
        if sheaves.full.len() < BARN {
            sheaves.full.push(sheaf);
        } else {
            self.free_bulk(&mut sheaf, cpu);
        }
    }

    /// `__kmem_cache_free_bulk`, `build_detached_freelist`: from the last object on; those of the
    /// same slab go with it, as long as no third object of another slab has come between.
    fn free_bulk(&mut self, tokens: &mut Vec<Token>, cpu: usize) {
        while let Some(slab) = tokens.pop() {
            self.slab_free(slab, cpu);
            let (mut left, mut others) = (tokens.len(), 0);
            for at in (0..tokens.len()).rev() {
                if tokens[at] == slab {
                    self.slab_free(slab, cpu);
                    left -= 1;
                    tokens.swap(at, left);
                } else {
                    others += 1;
                    if others == LOOK_AHEAD {
                        break;
                    }
                }
            }
            tokens.truncate(left);
        }
    }

    /// `pcs_flush_all`.
    pub(super) fn sheaf_flush(&mut self, cache: CacheId, cpu: usize) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        let holder = std::mem::take(&mut sheaves.cpus[cpu]);
        for sheaf in [Some(holder.main), holder.spare, Some(holder.rcu)].into_iter().flatten() {
            self.free_bulk(&mut { sheaf }, cpu);
        }
    }

    /// `barn_shrink`.
    pub(super) fn barn_shrink(&mut self, cache: CacheId) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        sheaves.empty = 0;
        for mut sheaf in std::mem::take(&mut sheaves.full) {
            self.free_bulk(&mut sheaf, 0);
        }
    }
}
