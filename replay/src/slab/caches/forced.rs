//! The recorded caches under the rules of another release.

use super::{ACCOUNTED, Cache, CacheId, Caches, KINDS, MEMDUP, MSG_MSG, NORMAL};
use crate::slab::geometry::{self, Parameters};
use crate::slab::rules::SlabRules;

impl Caches {
    /// The same caches as a kernel of that release would have them on this host.
    ///
    /// Only what the two rows of rules compute differently for a size changes. What the host was
    /// given by hand (boot parameters, sysfs) stays, and so does the geometry of every cache that
    /// both rows cut alike.
    #[must_use]
    pub fn under(&self, rules: &SlabRules) -> Self {
        let mut caches = self.clone();
        for cache in &mut caches.list {
            cache.recut(&self.rules, rules, &self.parameters);
        }
        caches.rules = *rules;
        caches
    }

    /// The cache that serves a recorded kmalloc cache's requests under these rules: kinds that the
    /// release has not are served from those it has.
    #[must_use]
    pub fn kind_under(&self, id: CacheId, rules: &SlabRules) -> CacheId {
        let place = |kind: usize| self.kmalloc[kind].iter().position(|known| *known == id);
        let instead = |class: usize, kind: usize| match self.kmalloc[kind][class] {
            CacheId::UNKNOWN => self.kmalloc[NORMAL][class],
            found => found,
        };
        // Messages are accounted, copies of user memory are not.
        let accounted = if rules.cgroup_kmalloc { ACCOUNTED } else { NORMAL };
        let found = match (place(ACCOUNTED), place(MSG_MSG), place(MEMDUP)) {
            (Some(class), ..) if !rules.cgroup_kmalloc => instead(class, NORMAL),
            (_, Some(class), _) if !rules.bucket_kmalloc => instead(class, accounted),
            (.., Some(class)) if !rules.bucket_kmalloc => instead(class, NORMAL),
            _ => id,
        };
        if found == CacheId::UNKNOWN { id } else { found }
    }

    /// Adds the cache for accounted requests beside a plain kmalloc cache; `None` for another cache
    /// or where there is one.
    pub fn add_accounted(&mut self, id: CacheId) -> Option<CacheId> {
        let class = self.kmalloc[NORMAL].iter().position(|known| *known == id)?;
        if self.kmalloc[ACCOUNTED][class] != CacheId::UNKNOWN {
            return None;
        }
        let name = self.get(id)?.name.replace(KINDS[NORMAL], KINDS[ACCOUNTED]);
        self.add_beside(id, name)
    }

    /// Adds a cache that is like another but for its name; its slabs are its own.
    pub fn add_beside(&mut self, id: CacheId, name: String) -> Option<CacheId> {
        let like = self.get(id)?.clone();
        let (stride, order, objects) = (u64::from(like.stride), like.order, like.objects);
        let added = self.add(&name, stride, order, objects);
        let place = self.list.get_mut(added.index())?;
        *place = Cache { name, recorded: None, ..like };
        Some(added)
    }

    /// Caches whose slabs are cut otherwise than on the recorded host.
    #[must_use]
    pub fn cut_anew(&self) -> u64 {
        self.list.iter().filter(|cache| cache.recorded.is_some()).count() as u64
    }
}

impl Cache {
    fn recut(&mut self, old: &SlabRules, new: &SlabRules, host: &Parameters) {
        let stride = u64::from(self.stride);
        let cut = |rules: &SlabRules| {
            let order = geometry::slab_order(stride, rules, host);
            (order, host.objects(stride, order).clamp(1, 32_767) as u16)
        };
        let (before, after) = (cut(old), cut(new));
        let recorded = (self.order, self.objects);
        let is_cut_anew = before != after && recorded != after;
        if is_cut_anew {
            self.recorded = Some(recorded);
            (self.order, self.objects) = after;
            self.min_order = host.order_of(stride).min(self.order);
            self.min_objects = host.objects(stride, self.min_order).clamp(1, 32_767) as u16;
        }
        let kept = |rules| geometry::cpu_partial(stride, rules, host.page_bytes);
        let is_kept_otherwise = kept(old) != kept(new);
        if is_kept_otherwise {
            self.cpu_partial_objects = kept(new);
        }
        if is_cut_anew || is_kept_otherwise {
            let objects = u32::from(self.objects);
            self.cpu_partial_slabs = geometry::cpu_partial_slabs(self.cpu_partial_objects, objects);
        }
        let sheaf = |rules: &SlabRules| {
            let mut known = rules.sheaf_caches.iter();
            known.find(|(name, _)| *name == self.name).map_or(0, |(_, capacity)| *capacity)
        };
        let (before, after) = (sheaf(old), sheaf(new));
        if before != after {
            self.sheaf = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::gfp::GfpBits;

    fn of_6_18(list: &[(&str, u64)]) -> (Caches, Vec<CacheId>) {
        let host = Parameters::of_host(4096, 2);
        let mut caches = Caches::new(&[], SlabRules::of("6.18"), host, GfpBits::default());
        let ids = list.iter().map(|(name, stride)| caches.named(name, *stride)).collect();
        (caches, ids)
    }

    #[test]
    fn only_what_the_two_releases_compute_differently_changes() {
        let (mut caches, ids) = of_6_18(&[("probe", 256), ("maple_node", 256), ("wide", 5888)]);
        // Set by hand: eight pages where both rows say one.
        caches.list[ids[0].index()].order = 3;
        caches.list[ids[0].index()].objects = 128;
        let old = caches.under(&SlabRules::of("5.10"));
        let of = |place: usize| old.get(ids[place]).unwrap_or(&caches.list[0]);
        assert_eq!((of(0).order, of(0).objects, of(0).recorded), (3, 128, None));
        assert_eq!(of(0).cpu_partial_objects, 13, "52 before 5.16 were 13");
        assert_eq!((of(1).sheaf, caches.list[ids[1].index()].sheaf), (0, 32));
        assert_eq!(caches.under(&SlabRules::of("6.18")).list(), caches.list());
    }

    #[test]
    fn kinds_that_a_release_has_not_are_served_from_those_it_has() {
        let list = [
            ("kmalloc-64", 64),
            ("kmalloc-cg-64", 64),
            ("msg_msg-64", 64),
            ("memdup_user-64", 64),
            ("probe", 64),
        ];
        let (caches, ids) = of_6_18(&list);
        let under = |release: &str| {
            let rules = SlabRules::of(release);
            let place = |id: &CacheId| {
                let served = caches.kind_under(*id, &rules);
                ids.iter().position(|known| *known == served)
            };
            ids.iter().map(place).collect::<Option<Vec<_>>>()
        };
        assert_eq!(under("6.18"), Some(vec![0, 1, 2, 3, 4]));
        assert_eq!(under("6.1"), Some(vec![0, 1, 1, 0, 4]));
        assert_eq!(under("5.10"), Some(vec![0, 0, 0, 0, 4]));
    }

    #[test]
    fn accounted_requests_get_a_cache_where_the_recorded_kernel_had_none() {
        let (mut caches, ids) = of_6_18(&[("kmalloc-64", 64), ("probe", 64)]);
        let added = caches.add_accounted(ids[0]);
        let name = added.and_then(|id| caches.get(id)).map(|cache| cache.name.as_str());
        assert_eq!(name, Some("kmalloc-cg-64"));
        assert_eq!((caches.add_accounted(ids[0]), caches.add_accounted(ids[1])), (None, None));
    }
}
