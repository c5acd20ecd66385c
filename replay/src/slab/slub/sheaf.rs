//! Sheaves: arrays of objects that a processor fills and empties, and the barn they wait in (6.18).

use super::Slub;
use crate::slab::caches::CacheId;
use crate::slab::policy::Token;

/// Full sheaves, and empty ones, that a barn keeps (`MAX_FULL_SHEAVES`, `MAX_EMPTY_SHEAVES`).
const BARN: usize = 10;

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
    pub(super) fn sheaf_alloc(&mut self, cache: CacheId, cpu: usize, may_block: bool) -> Token {
        let Some(sheaves) = self.sheaves(cache) else { return self.slab_alloc(cache, cpu) };
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
            let filled = (0..capacity).map(|_| self.slab_alloc(cache, cpu)).collect();
            if let Some(sheaves) = self.sheaves(cache) {
                sheaves.cpus[cpu].main = filled;
            }
        }
        let taken = self.sheaves(cache).and_then(|sheaves| sheaves.cpus[cpu].main.pop());
        taken.unwrap_or_else(|| self.slab_alloc(cache, cpu))
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
        for token in flushed {
            self.slab_free(token, cpu);
        }
    }

    /// `pcs_flush_all`.
    pub(super) fn sheaf_flush(&mut self, cache: CacheId, cpu: usize) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        let holder = std::mem::take(&mut sheaves.cpus[cpu]);
        for token in holder.main.into_iter().chain(holder.spare.into_iter().flatten()) {
            self.slab_free(token, cpu);
        }
    }

    /// `barn_shrink`.
    pub(super) fn barn_shrink(&mut self, cache: CacheId) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        sheaves.empty = 0;
        for token in std::mem::take(&mut sheaves.full).into_iter().flatten() {
            self.slab_free(token, 0);
        }
    }
}
