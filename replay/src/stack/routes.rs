//! Which cache of the model serves a request that the recorded kernel served from another: under
//! the rules of another release.

use kmemlab_trace::event::{Event, Kind};

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
    is_plain: bool,
}

impl Routes {
    /// Requests go where they went, in caches that the rules cut.
    pub(super) fn new(recorded: &Caches, rules: &SlabRules) -> Self {
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
        let is_plain = ids().all(|id| whole[id.index()] == id && accounted[id.index()] == id);
        let (recorded, account) = (recorded.list().len(), recorded.gfp().account);
        Self { caches, recorded, whole, accounted, like, account, is_plain }
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

    /// The cache that serves a request.
    #[inline]
    pub(super) fn of(&self, cache: CacheId, event: &Event) -> CacheId {
        if self.is_plain {
            return cache;
        }
        let is_kmalloc = matches!(event.kind, Kind::Kmalloc | Kind::KmallocNode);
        let is_accounted = is_kmalloc && event.gfp & self.account != 0;
        let table = if is_accounted { &self.accounted } else { &self.whole };
        table.get(cache.index()).copied().unwrap_or(cache)
    }
}
