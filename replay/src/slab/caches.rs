//! The caches of the recorded host: what each is called and how its slabs are cut.

use std::collections::HashMap;

use kmemlab_trace::event::{Column, Event};
use kmemlab_trace::snapshot::{SlabDetailRow, SlabRow};

use super::geometry::{self, Parameters};
use super::gfp::GfpBits;
use super::rules::SlabRules;

mod forced;

/// A cache by its number in [`Caches`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CacheId(pub u16);

impl Default for CacheId {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl CacheId {
    /// A cache that no event named.
    pub const UNKNOWN: Self = Self(u16::MAX);

    /// Its place in a table by cache.
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cache {
    /// Name of its first creator.
    pub name: String,
    /// Bytes from one object to the next.
    pub stride: u32,
    /// Objects of a slab.
    pub objects: u16,
    /// Order of a slab.
    pub order: u8,
    /// Order of a slab when memory of the other is short.
    pub min_order: u8,
    /// Objects of a slab of that order.
    pub min_objects: u16,
    /// Partial slabs of a processor.
    pub cpu_partial_slabs: u32,
    /// Free objects of a processor's partial slabs (5.15 and older).
    pub cpu_partial_objects: u32,
    /// Partial slabs kept although empty.
    pub min_partial: u32,
    /// Objects of a sheaf; 0 without sheaves.
    pub sheaf: u32,
    /// Order and objects on the recorded host, where the slabs are cut otherwise here.
    pub recorded: Option<(u8, u16)>,
}

/// Kinds of kmalloc caches, in the order of [`kind_of`]'s answer.
const KINDS: [&str; 6] =
    ["kmalloc-", "kmalloc-cg-", "kmalloc-rcl-", "dma-kmalloc-", "msg_msg-", "memdup_user-"];
const NORMAL: usize = 0;
const ACCOUNTED: usize = 1;
const RECLAIMABLE: usize = 2;
const DMA: usize = 3;
const MSG_MSG: usize = 4;
const MEMDUP: usize = 5;

/// Sizes of the kmalloc caches.
const CLASSES: [u32; 13] = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];

/// Bytes that an object of a cache can have.
const SIZES: std::ops::RangeInclusive<u64> = 1..=1 << 26;

/// What a call site tells of the cache that its kmalloc comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Site {
    /// Nothing.
    #[default]
    Plain,
    /// `load_msg`, `alloc_msg`: the buckets of System V messages.
    MsgMsg,
    /// The slab layer's own vectors of object owners.
    Vector,
    /// The slab layer's own sheaves.
    Sheaf,
    /// An allocation without a name (6.17 and older) whose caller takes from this cache.
    Of(CacheId),
}

/// Every cache known so far.
#[derive(Clone, Debug)]
pub struct Caches {
    list: Vec<Cache>,
    by_name: HashMap<String, CacheId>,
    kmalloc: [[CacheId; CLASSES.len()]; KINDS.len()],
    rules: SlabRules,
    parameters: Parameters,
    gfp: GfpBits,
}

impl Caches {
    /// The caches that a `/proc/slabinfo` tells of.
    #[must_use]
    pub fn new(rows: &[SlabRow], rules: SlabRules, parameters: Parameters, gfp: GfpBits) -> Self {
        let kmalloc = [[CacheId::UNKNOWN; CLASSES.len()]; KINDS.len()];
        let by_name = HashMap::new();
        let mut caches = Self { list: Vec::new(), by_name, kmalloc, rules, parameters, gfp };
        for row in rows {
            caches.add_row(row);
        }
        caches
    }

    /// Adds what a later `/proc/slabinfo` tells of a cache that is new.
    pub fn add_row(&mut self, row: &SlabRow) {
        if !SIZES.contains(&row.object_size_bytes) || self.by_name.contains_key(&row.cache) {
            return;
        }
        let order = row.pages_per_slab.clamp(1, 1 << 10).next_power_of_two().trailing_zeros() as u8;
        let objects = row.objects_per_slab.clamp(1, 32_767) as u16;
        self.add(&row.cache, row.object_size_bytes, order.min(10), objects);
    }

    /// Takes over what `/sys/kernel/slab` says of a cache.
    pub fn correct(&mut self, row: &SlabDetailRow) {
        let Some(id) = self.find(&row.cache) else { return };
        let cache = &mut self.list[id.index()];
        let value = u32::try_from(row.value).unwrap_or(0);
        match row.key.as_str() {
            "min_partial" => cache.min_partial = value,
            "sheaf_capacity" => cache.sheaf = value,
            "cpu_partial" => {
                let objects = u32::from(cache.objects);
                cache.cpu_partial_objects = value;
                cache.cpu_partial_slabs = geometry::cpu_partial_slabs(value, objects);
            }
            _ => {}
        }
    }

    fn add(&mut self, name: &str, stride: u64, order: u8, objects: u16) -> CacheId {
        if self.list.len() >= usize::from(u16::MAX) {
            return CacheId::UNKNOWN;
        }
        let id = CacheId(self.list.len() as u16);
        let page_bytes = self.parameters.page_bytes;
        let cpu_partial = geometry::cpu_partial(stride, &self.rules, page_bytes);
        let min_order = self.parameters.order_of(stride).min(order);
        let sheaf = self.rules.sheaf_caches.iter().find(|(known, _)| *known == name);
        self.list.push(Cache {
            name: name.to_owned(),
            stride: stride as u32,
            objects,
            order,
            min_order,
            min_objects: self.parameters.objects(stride, min_order).clamp(1, 32_767) as u16,
            cpu_partial_slabs: geometry::cpu_partial_slabs(cpu_partial, u32::from(objects)),
            cpu_partial_objects: cpu_partial,
            min_partial: geometry::min_partial(stride),
            sheaf: sheaf.map_or(0, |(_, capacity)| *capacity),
            recorded: None,
        });
        self.by_name.insert(name.to_owned(), id);
        for (kind, prefix) in KINDS.iter().enumerate() {
            let Some(class) = name.strip_prefix(prefix) else { continue };
            let known =
                CLASSES.iter().position(|bytes| class == geometry::class_name(u64::from(*bytes)));
            if let Some(known) = known {
                self.kmalloc[kind][known] = id;
            }
        }
        id
    }

    /// All caches.
    #[must_use]
    pub fn list(&self) -> &[Cache] {
        &self.list
    }

    /// A cache.
    #[must_use]
    #[inline]
    pub fn get(&self, id: CacheId) -> Option<&Cache> {
        self.list.get(id.index())
    }

    /// The cache of that name, which `/proc/slabinfo` may not know yet.
    pub fn named(&mut self, name: &str, stride: u64) -> CacheId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        if !SIZES.contains(&stride) {
            return CacheId::UNKNOWN;
        }
        let order = geometry::slab_order(stride, &self.rules, &self.parameters);
        let objects = self.parameters.objects(stride, order).max(1);
        self.add(name, stride, order, objects as u16)
    }

    /// The cache of that name, if it is known.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<CacheId> {
        self.by_name.get(name).copied()
    }

    /// The cache that a `kmalloc` event most probably took from (`kmalloc_type`).
    #[must_use]
    pub fn of_kmalloc(&self, event: &Event, site: Site) -> CacheId {
        let given = event.bytes_allocated;
        let Some(class) = CLASSES.iter().position(|bytes| u64::from(*bytes) == given) else {
            return CacheId::UNKNOWN;
        };
        let mut kind = kind_of(event.gfp, site, &self.gfp);
        if matches!(kind, MSG_MSG | MEMDUP) && self.kmalloc[kind][class] == CacheId::UNKNOWN {
            // No buckets of their own (6.10 and older): by the flags alone.
            let gfp = event.gfp & !self.gfp.hardwall;
            kind = kind_of(gfp, Site::Plain, &self.gfp);
        }
        let id = self.kmalloc[kind][class];
        if id != CacheId::UNKNOWN {
            return id;
        }
        // A kernel without that kind serves it from the plain one.
        self.kmalloc[NORMAL][class]
    }

    /// The caches of that stride that are no kmalloc caches.
    pub fn of_stride(&self, stride: u64) -> impl Iterator<Item = CacheId> {
        let is_kmalloc = |name: &str| KINDS.iter().any(|kind| name.starts_with(kind));
        let fitting = self.list.iter().enumerate().filter(move |(_, cache)| {
            u64::from(cache.stride) == stride && !is_kmalloc(&cache.name)
        });
        fitting.map(|(index, _)| CacheId(index as u16))
    }

    /// The recorded kernel's flags.
    #[must_use]
    pub fn gfp(&self) -> &GfpBits {
        &self.gfp
    }

    /// The rules that caches unknown to `/proc/slabinfo` are cut by.
    #[must_use]
    pub fn rules(&self) -> &SlabRules {
        &self.rules
    }

    /// Of an object allocation without a name: the size tells it from others on the same page.
    #[must_use]
    pub fn fits(&self, id: CacheId, event: &Event) -> bool {
        !event.has(Column::BytesAllocated)
            || self.get(id).is_some_and(|cache| u64::from(cache.stride) == event.bytes_allocated)
    }
}

/// Which kind of kmalloc cache serves these flags.
fn kind_of(flags: u32, site: Site, gfp: &GfpBits) -> usize {
    if site == Site::MsgMsg {
        MSG_MSG
    } else if flags & gfp.dma != 0 {
        DMA
    } else if flags & gfp.reclaimable != 0 {
        RECLAIMABLE
    } else if flags & gfp.account != 0 {
        ACCOUNTED
    } else if flags & gfp.hardwall != 0 && flags & gfp.nowarn != 0 {
        MEMDUP
    } else {
        NORMAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmemlab_trace::event::Kind;
    use kmemlab_trace::unit::{Cpu, Nanos, Pid};

    fn row(cache: &str, size: u64, per_slab: u64, pages: u64) -> SlabRow {
        SlabRow {
            cache: cache.into(),
            active_objects: 0,
            objects: 0,
            object_size_bytes: size,
            objects_per_slab: per_slab,
            pages_per_slab: pages,
            active_slabs: 0,
            slabs: 0,
        }
    }

    #[test]
    fn a_kmalloc_goes_to_the_cache_of_its_flags_and_size() {
        let rows = [
            row("kmalloc-64", 64, 64, 1),
            row("kmalloc-cg-64", 64, 64, 1),
            row("msg_msg-64", 64, 64, 1),
            row("kmalloc-1k", 1024, 16, 4),
        ];
        let rules = SlabRules::of("6.18");
        let gfp = GfpBits::default();
        let host = || Parameters::of_host(4096, 2);
        let caches = Caches::new(&rows, rules, host(), gfp);
        let mut event = Event::new(Kind::Kmalloc, Nanos(0), Cpu(0), Pid(0));
        event.bytes_allocated = 64;
        let name = |event: &Event, site| {
            caches.get(caches.of_kmalloc(event, site)).map_or("", |cache| cache.name.as_str())
        };
        assert_eq!(name(&event, Site::Plain), "kmalloc-64");
        assert_eq!(name(&event, Site::MsgMsg), "msg_msg-64");
        event.gfp = gfp.account;
        assert_eq!(name(&event, Site::Plain), "kmalloc-cg-64");
        event.gfp = gfp.reclaimable;
        assert_eq!(name(&event, Site::Plain), "kmalloc-64", "there is no kmalloc-rcl-64 here");
        event.bytes_allocated = 1024;
        assert_eq!(name(&event, Site::Plain), "kmalloc-1k");
        event.gfp = gfp.account;
        let rows = [row("kmalloc-64", 64, 64, 1), row("kmalloc-cg-64", 64, 64, 1)];
        let before_buckets = Caches::new(&rows, SlabRules::of("6.1"), host(), gfp);
        event.bytes_allocated = 64;
        let id = before_buckets.of_kmalloc(&event, Site::MsgMsg);
        assert_eq!(before_buckets.get(id).unwrap().name, "kmalloc-cg-64", "`load_msg` before 6.11");
        event.bytes_allocated = 16_384;
        assert_eq!(caches.of_kmalloc(&event, Site::Plain), CacheId::UNKNOWN);
    }
}
