//! Which cache of the model serves a request that the recorded kernel served from another: under
//! the rules of another release, or with merged caches apart.

use std::collections::{BTreeMap, BTreeSet};

use kmemlab_trace::Recording;
use kmemlab_trace::event::{Event, Kind};

use super::sites::Functions;
use crate::engine::ReplayError;
use crate::slab::aliases::alias_of;
use crate::slab::caches::{CacheId, Caches};
use crate::slab::rules::SlabRules;

/// The model's caches beside the recorded ones. The recorded caches come first, under the numbers
/// that they have in the recording.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    caches: Caches,
    recorded: usize,
    /// By recorded cache: which one serves it.
    whole: Vec<CacheId>,
    /// By recorded cache: which one serves its accounted kmallocs.
    accounted: Vec<CacheId>,
    /// By cache of the model: the recorded one that it is like.
    like: Vec<CacheId>,
    account: u32,
    /// By recorded cache and function: whose objects they are.
    owners: BTreeMap<(CacheId, u32), Owner>,
    is_plain: bool,
}

/// The cache that a caller's objects have where merged caches are apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    cache: CacheId,
    is_told: bool,
}

impl Routes {
    /// Requests go where they went, in caches that the rules cut.
    pub(super) fn new(recorded: &Caches, rules: &SlabRules, callers: Option<&Callers>) -> Self {
        let mut caches = recorded.under(rules);
        let ids = || (0..recorded.list().len()).map(|index| CacheId(index as u16));
        let whole: Vec<CacheId> = ids().map(|id| recorded.kind_under(id, rules)).collect();
        let mut accounted: Vec<CacheId> = whole.clone();
        if rules.cgroup_kmalloc && !recorded.rules().cgroup_kmalloc {
            for id in ids() {
                accounted[id.index()] = caches.add_accounted(id).unwrap_or(whole[id.index()]);
            }
        }
        let mut like: Vec<CacheId> = ids().collect();
        for (index, added) in accounted.iter().enumerate() {
            if added.index() == like.len() {
                like.push(CacheId(index as u16));
            }
        }
        let owners =
            callers.map_or_else(BTreeMap::new, |callers| owners(&mut caches, &mut like, callers));
        let is_plain = owners.is_empty()
            && ids().all(|id| whole[id.index()] == id && accounted[id.index()] == id);
        let (recorded, account) = (recorded.list().len(), recorded.gfp().account);
        Self { caches, recorded, whole, accounted, like, account, owners, is_plain }
    }

    /// The model's caches.
    pub(super) fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Every request goes to the cache that the kernel served it from.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The recorded cache that a cache of the model is like.
    pub(super) fn like(&self, cache: CacheId) -> CacheId {
        self.like.get(cache.index()).copied().unwrap_or(cache)
    }

    /// Caches that the recorded kernel has not.
    pub(super) fn added(&self) -> impl Iterator<Item = CacheId> + use<> {
        (self.recorded..self.caches.list().len()).map(|index| CacheId(index as u16))
    }

    /// The cache that serves a request of a function, and whether it is known whose it is.
    #[inline]
    pub(super) fn of(&self, cache: CacheId, event: &Event, function: u32) -> (CacheId, bool) {
        if self.is_plain {
            return (cache, true);
        }
        let is_kmalloc = matches!(event.kind, Kind::Kmalloc | Kind::KmallocNode);
        if !is_kmalloc && let Some(owner) = self.owners.get(&(cache, function)) {
            return (owner.cache, owner.is_told);
        }
        let is_accounted = is_kmalloc && event.gfp & self.account != 0;
        let table = if is_accounted { &self.accounted } else { &self.whole };
        (table.get(cache.index()).copied().unwrap_or(cache), true)
    }

    /// Merged caches that were taken apart, and caches made for names and for mere functions.
    pub(super) fn apart(&self) -> Option<[u64; 3]> {
        if self.owners.is_empty() {
            return None;
        }
        let mut merged: Vec<CacheId> = self.owners.keys().map(|(cache, _)| *cache).collect();
        merged.dedup();
        let made = |is_told: bool| {
            let of = self
                .owners
                .iter()
                .filter(|((cache, _), owner)| owner.is_told == is_told && owner.cache != *cache);
            let mut caches: Vec<CacheId> = of.map(|(_, owner)| owner.cache).collect();
            caches.sort_unstable();
            caches.dedup();
            caches.len() as u64
        };
        Some([merged.len() as u64, made(true), made(false)])
    }
}

/// A cache for each name that a function tells, and for each function that tells none. The name of
/// the merged cache itself keeps its slabs.
fn owners(
    caches: &mut Caches,
    like: &mut Vec<CacheId>,
    callers: &Callers,
) -> BTreeMap<(CacheId, u32), Owner> {
    let mut owners = BTreeMap::new();
    for (merged, function) in &callers.seen {
        let Some(name) = caches.get(*merged).map(|cache| cache.name.clone()) else { continue };
        let Some(names) = callers.groups.iter().find(|names| names.contains(&name)) else {
            continue;
        };
        let function_name = callers.functions.name(*function);
        let alias = alias_of(function_name, names);
        let own = alias.map_or_else(|| format!("{name}:{function_name}"), str::to_owned);
        let cache = match caches.find(&own) {
            Some(known) => Some(known),
            None => caches.add_beside(*merged, own),
        };
        let Some(cache) = cache else { continue };
        if cache.index() == like.len() {
            like.push(*merged);
        }
        owners.insert((*merged, *function), Owner { cache, is_told: alias.is_some() });
    }
    owners
}

/// Who asked which cache, where merged caches are to be apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers {
    /// Names of merged caches.
    groups: Vec<Vec<String>>,
    /// The callers.
    pub(super) functions: Functions,
    /// Cache and function of every request by name.
    seen: BTreeSet<(CacheId, u32)>,
}

impl Callers {
    /// What the recording tells; an error says what it lacks.
    pub(super) fn read(recording: &Recording) -> Result<Self, ReplayError> {
        let lacks = |what: &str| {
            ReplayError::Missing(format!(
                "merging=no cannot be replayed over this recording: {what}; record again with this \
                 version, as root"
            ))
        };
        let Some(groups) = &recording.manifest().host.slab_aliases else {
            return Err(lacks("it does not tell which slab caches are merged"));
        };
        let functions = Functions::read(recording)?;
        if functions.is_empty() && !groups.is_empty() {
            return Err(lacks("it has no names of the functions that allocate"));
        }
        let groups = groups.values().cloned().collect();
        Ok(Self { groups, functions, seen: BTreeSet::new() })
    }

    /// A request.
    pub(super) fn see(&mut self, cache: CacheId, event: &Event) {
        if matches!(event.kind, Kind::CacheAlloc | Kind::CacheAllocNode) {
            self.seen.insert((cache, self.functions.of(event)));
        }
    }
}
