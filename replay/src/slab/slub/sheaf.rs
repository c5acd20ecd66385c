//! Sheaves: arrays of objects that a processor fills and empties, and the barn they wait in (6.18).

use super::Slub;
use crate::slab::caches::CacheId;
use crate::slab::graces::Grace;
use crate::slab::policy::{Pages, Token};

/// Full sheaves, and empty ones, that a barn keeps (`MAX_FULL_SHEAVES`, `MAX_EMPTY_SHEAVES`).
const BARN: usize = 10;

/// Ends of grace periods that a callback waits for at most (`rcu_accelerate_cbs`).
const GRACES: u8 = 2;

/// Objects of other slabs after which a search for more of the same ends.
const LOOK_AHEAD: usize = 3;

/// The sheaves of a cache (`struct slub_percpu_sheaves`, `struct node_barn`).
#[derive(Clone, Debug)]
pub(super) struct Sheaves {
    capacity: usize,
    cpus: Vec<CpuSheaves>,
    full: Vec<Vec<Token>>,
    empty: usize,
    /// Sheaves that threads hold (`kmem_cache_prefill_sheaf`), and who.
    lent: Vec<(u32, Vec<Token>)>,
    /// Sheaves freed by `kfree_rcu` that wait for a grace period.
    waiting: Vec<Waiting>,
}

/// A sheaf that waits for a grace period. Where a callback handed over after it was seen to run, it
/// came back before; else after the end of two, for one may have begun before.
#[derive(Clone, Debug)]
struct Waiting {
    cpu: usize,
    /// Callbacks handed over before it.
    after: u64,
    graces: u8,
    sheaf: Vec<Token>,
}

/// Callbacks of each processor that were handed over, and that ran, as far as events tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    cpus: Vec<(u64, u64)>,
    is_told: bool,
}

impl Calls {
    pub(super) fn step(&mut self, grace: Grace, cpu: usize) {
        self.is_told = true;
        if self.cpus.len() <= cpu {
            self.cpus.resize(cpu + 1, (0, 0));
        }
        let (called, ran) = &mut self.cpus[cpu];
        match grace {
            Grace::Began => {}
            Grace::Called => *called += 1,
            Grace::Ran => *ran += 1,
        }
    }

    fn of(&self, cpu: usize) -> (u64, u64) {
        self.cpus.get(cpu).copied().unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default)]
struct CpuSheaves {
    main: Vec<Token>,
    spare: Option<Vec<Token>>,
    /// Objects freed by `kfree_rcu`.
    rcu: Option<Vec<Token>>,
}

impl Sheaves {
    pub(super) fn new(capacity: u32, cpus: usize) -> Self {
        let (capacity, cpus) = (capacity as usize, vec![CpuSheaves::default(); cpus]);
        Self { capacity, cpus, full: Vec::new(), empty: 0, lent: Vec::new(), waiting: Vec::new() }
    }

    /// Every object that rests in one.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Token> {
        let held = self.cpus.iter().flat_map(|it| it.main.iter().chain(it.spare.iter().flatten()));
        let lent = self.lent.iter().flat_map(|(_, sheaf)| sheaf);
        held.chain(self.full.iter().flatten()).chain(lent)
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

    /// How many of its objects each processor had in sheaves, of so many in all: what was asked for
    /// first, a sheaf of each in turn.
    pub(super) fn shares(&self, tokens: &[Vec<Token>], all: Option<u64>) -> Vec<usize> {
        let mut left = all.and_then(|all| usize::try_from(all).ok()).unwrap_or(usize::MAX);
        let mut shares = vec![0; tokens.len()];
        while left > 0 {
            let before = left;
            for (share, tokens) in shares.iter_mut().zip(tokens) {
                let more = self.capacity.min(tokens.len() - *share).min(left);
                *share += more;
                left -= more;
            }
            if left == before {
                break;
            }
        }
        shares
    }

    /// The barn takes another full sheaf.
    fn has_room(&self) -> bool {
        self.full.len() < BARN
    }

    /// A sheaf for a thread: the spare one, else the barn's, else a new one.
    fn lend(&mut self, cpu: usize) -> Vec<Token> {
        if let Some(spare) = self.cpus[cpu].spare.take() {
            return spare;
        }
        if let Some(full) = self.full.pop() {
            return full;
        }
        self.empty = self.empty.saturating_sub(1);
        Vec::new()
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
        let (capacity, has_room) = (sheaves.capacity, sheaves.has_room());
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
            Some(_) if has_room => {
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
        let (is_told, (after, _)) = (self.calls.is_told, self.calls.of(cpu));
        let Some(sheaves) = self.sheaves(cache) else { return };
        let capacity = sheaves.capacity;
        let holder = &mut sheaves.cpus[cpu];
        if holder.rcu.is_none() {
            match holder.spare.take_if(|spare| spare.is_empty()) {
                Some(spare) => holder.rcu = Some(spare),
                None => sheaves.empty = sheaves.empty.saturating_sub(1),
            }
        }
        let sheaf = holder.rcu.get_or_insert_default();
        sheaf.push(token);
        if sheaf.len() < capacity {
            return;
        }
        let sheaf = holder.rcu.take().unwrap_or_default();
        if is_told {
            sheaves.waiting.push(Waiting { cpu, after, graces: GRACES, sheaf });
        } else {
            self.rcu_free_sheaf(cache, cpu, sheaf);
        }
    }

    /// A grace period goes on.
    pub(super) fn sheaf_grace(&mut self, cache: CacheId, grace: Grace, cpu: usize) {
        let (called, ran) = self.calls.of(cpu);
        let Some(sheaves) = self.sheaves(cache) else { return };
        let is_over = |waiting: &mut Waiting| {
            if waiting.cpu != cpu {
                return false;
            }
            let begun = u8::from(grace == Grace::Began);
            waiting.graces = waiting.graces.saturating_sub(begun);
            ran > waiting.after || waiting.graces == 0 && called == waiting.after
        };
        let over: Vec<Waiting> = sheaves.waiting.extract_if(.., is_over).collect();
        for Waiting { sheaf, .. } in over {
            self.rcu_free_sheaf(cache, cpu, sheaf);
        }
    }

    /// `rcu_free_sheaf`: to the barn, or back to the slabs when that has enough.
    fn rcu_free_sheaf(&mut self, cache: CacheId, cpu: usize, mut sheaf: Vec<Token>) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        if sheaves.has_room() {
            sheaves.full.push(sheaf);
        } else {
            sheaves.empty = (sheaves.empty + 1).min(BARN);
            self.free_bulk(&mut sheaf, cpu);
        }
    }

    /// `kmem_cache_alloc_from_sheaf`: from the sheaf that the thread holds. Its first allocation
    /// gets it one with at least as many as it wants (`kmem_cache_prefill_sheaf`).
    pub(super) fn sheaf_alloc_prefilled(
        &mut self,
        cache: CacheId,
        cpu: usize,
        (thread, wanted): (u32, usize),
        pages: &mut Pages<'_>,
    ) -> Token {
        let Some(sheaves) = self.sheaves(cache) else {
            return self.slab_alloc(cache, cpu, pages);
        };
        let lent = sheaves.lent.iter().position(|(holder, _)| *holder == thread);
        let mut sheaf = match lent {
            Some(place) => sheaves.lent.swap_remove(place).1,
            None => sheaves.lend(cpu),
        };
        if sheaf.len() < wanted.max(1) {
            self.sheaf_fill(cache, cpu, &mut sheaf, pages);
        }
        let token = sheaf.pop();
        if let Some(sheaves) = self.sheaves(cache) {
            sheaves.lent.push((thread, sheaf));
        }
        token.unwrap_or_else(|| self.slab_alloc(cache, cpu, pages))
    }

    /// `refill_sheaf`.
    fn sheaf_fill(
        &mut self,
        cache: CacheId,
        cpu: usize,
        sheaf: &mut Vec<Token>,
        pages: &mut Pages<'_>,
    ) {
        let capacity = self.sheaves(cache).map_or(0, |sheaves| sheaves.capacity);
        for _ in sheaf.len()..capacity {
            let token = self.slab_alloc(cache, cpu, pages);
            sheaf.push(token);
        }
    }

    /// `kmem_cache_return_sheaf`.
    pub(super) fn sheaf_return(
        &mut self,
        cache: CacheId,
        cpu: usize,
        thread: u32,
        pages: &mut Pages<'_>,
    ) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        let Some(place) = sheaves.lent.iter().position(|(holder, _)| *holder == thread) else {
            return;
        };
        let (_, mut sheaf) = sheaves.lent.swap_remove(place);
        let has_room = sheaves.has_room();
        let spare = &mut sheaves.cpus[cpu].spare;
        if spare.is_none() {
            *spare = Some(sheaf);
        } else if !has_room {
            self.free_bulk(&mut sheaf, cpu);
        } else {
            self.sheaf_fill(cache, cpu, &mut sheaf, pages);
            if let Some(sheaves) = self.sheaves(cache) {
                sheaves.full.push(sheaf);
            }
        }
    }

    /// `free_to_pcs_bulk`: past the sheaves when there is no empty one at hand.
    pub(super) fn sheaf_free_many(&mut self, cache: CacheId, cpu: usize, token: Token) {
        let Some(sheaves) = self.sheaves(cache) else { return };
        let (capacity, has_room) = (sheaves.capacity, sheaves.has_room());
        let holder = &mut sheaves.cpus[cpu];
        if holder.main.len() >= capacity {
            match &mut holder.spare {
                Some(spare) if spare.len() < capacity => std::mem::swap(&mut holder.main, spare),
                spare if sheaves.empty > 0 && (spare.is_none() || has_room) => {
                    sheaves.empty -= 1;
                    let main = std::mem::take(&mut holder.main);
                    match spare {
                        None => *spare = Some(main),
                        Some(_) => sheaves.full.push(main),
                    }
                }
                _ => return self.slab_free(token, cpu),
            }
        }
        holder.main.push(token);
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
        for sheaf in [Some(holder.main), holder.spare, holder.rcu].into_iter().flatten() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_first_was_in_sheaves() {
        let sheaves = Sheaves::new(4, 2);
        let tokens = [vec![7; 10], vec![8; 3]];
        assert_eq!(sheaves.shares(&tokens, None), [10, 3]);
        // A sheaf of each processor, then the first one's second, as far as the number goes.
        assert_eq!(sheaves.shares(&tokens, Some(9)), [6, 3]);
        assert_eq!(sheaves.shares(&tokens, Some(2)), [2, 0]);
        assert_eq!(sheaves.shares(&tokens, Some(0)), [0, 0]);
    }
}
