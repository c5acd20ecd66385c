//! Who allocates, followed event by event.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use kmemlab_trace::EventBatch;
use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::unit::Nanos;
use kmemlab_tui::parts::Site;

use super::names::Names;
use super::walk::State;

/// How long a rate remembers.
const MEMORY_NS: f64 = 1e9;
/// A free of something that was not seen allocated.
const UNKNOWN: u32 = u32::MAX;
/// The events of objects.
const KINDS: u64 = Kind::Kmalloc.bit()
    | Kind::KmallocNode.bit()
    | Kind::Kfree.bit()
    | Kind::CacheAlloc.bit()
    | Kind::CacheAllocNode.bit()
    | Kind::CacheFree.bit();
/// Those of pages.
const PAGE_KINDS: u64 = Kind::PageAlloc.bit() | Kind::PageFree.bit();
/// Set in the key of a page: page frames and addresses do not meet.
const PAGE: u64 = 1 << 62;

/// Numbers spread by one multiplication: the keys are addresses, not chosen by an adversary who
/// could know the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A map by number.
pub(super) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// What a free gave back: the allocation it belongs to. One a free, so that frees can be gone
/// through again without knowing what was live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Freed {
    site: u32,
    bytes: u32,
    waste: u32,
    /// When it was allocated, in steps of 65,536 ns.
    born: u32,
}

impl Freed {
    const UNKNOWN: Self = Self { site: UNKNOWN, bytes: 0, waste: 0, born: 0 };
}

/// Where a free learns what it gives back.
#[derive(Debug)]
pub(super) enum Frees<'a> {
    /// The first time through: from what is live; each answer is written down.
    Learn(&'a mut Live, &'a mut Vec<Freed>),
    /// Later times: from what was written down.
    Known(std::slice::Iter<'a, Freed>),
}

/// What is live, by address.
#[derive(Debug, Default)]
pub(super) struct Live(Numbered<u64, Freed>);

/// A rate that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    value: f64,
    at: u64,
}

impl Rate {
    fn add(&mut self, amount: u64, at: u64) {
        self.value = self.now(at) + amount as f64;
        self.at = at;
    }

    fn now(&self, at: u64) -> f64 {
        let gone = at.saturating_sub(self.at);
        if gone == 0 { self.value } else { self.value * (-(gone as f64) / MEMORY_NS).exp() }
    }

    fn per_second(&self, at: u64) -> u64 {
        (self.now(at) * 1e9 / MEMORY_NS) as u64
    }
}

#[derive(Clone, Debug)]
struct Row {
    stack: u32,
    cache: u32,
    live_bytes: u64,
    waste_bytes: u64,
    live_objects: u64,
    allocations: u64,
    frees: u64,
    born_sum: u128,
    orders: u32,
    allocated: Rate,
    freed: Rate,
}

/// All sites at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sites {
    rows: Vec<Row>,
    by_key: Numbered<u64, u32>,
    caches: Vec<Arc<str>>,
    cache_numbers: HashMap<Arc<str>, u32>,
    sizes: Numbered<u64, u32>,
    /// The batch's own numbers of names, as numbers of ours.
    translated: Vec<u32>,
    with_pages: bool,
}

impl State for Sites {
    fn kinds(&self) -> u64 {
        if self.with_pages { KINDS | PAGE_KINDS } else { KINDS }
    }

    /// Names may have other numbers in the next batch.
    fn begin(&mut self, batch: &EventBatch) {
        self.translated.clear();
        for number in 0..batch.names() {
            let number = self.cache(batch.name(number as u16));
            self.translated.push(number);
        }
    }

    #[inline]
    fn step(&mut self, event: &Event, frees: &mut Frees<'_>) {
        match event.kind {
            Kind::Kmalloc | Kind::KmallocNode | Kind::CacheAlloc | Kind::CacheAllocNode => {
                let cache = match self.translated.get(usize::from(event.name)) {
                    Some(cache) if event.has(Column::Name) => *cache,
                    _ => self.kmalloc(event.bytes_allocated),
                };
                let waste = event.bytes_allocated.saturating_sub(event.bytes_requested);
                self.allocated(
                    event,
                    event.pfn_or_address,
                    cache,
                    event.bytes_allocated,
                    waste,
                    frees,
                );
            }
            Kind::Kfree | Kind::CacheFree => self.freed(event, event.pfn_or_address, frees),
            Kind::PageAlloc if self.with_pages && event.has(Column::PfnOrAddress) => {
                let cache = self.cache("page");
                let bytes = 4096u64 << event.order.min(20);
                let key = event.pfn_or_address | PAGE;
                if let Some(row) = self.allocated(event, key, cache, bytes, 0, frees) {
                    row.orders |= 1 << event.order.min(31);
                }
            }
            Kind::PageFree if self.with_pages => {
                self.freed(event, event.pfn_or_address | PAGE, frees);
            }
            _ => {}
        }
    }
}

impl Sites {
    /// Pages have call sites only where call chains were recorded.
    pub(super) fn new(with_pages: bool) -> Self {
        Self { with_pages, ..Self::default() }
    }

    fn cache(&mut self, name: &str) -> u32 {
        if let Some(number) = self.cache_numbers.get(name) {
            return *number;
        }
        let number = self.caches.len() as u32;
        let name: Arc<str> = Arc::from(name);
        self.caches.push(name.clone());
        self.cache_numbers.insert(name, number);
        number
    }

    /// The cache of a kmalloc, which the event does not name.
    fn kmalloc(&mut self, bytes: u64) -> u32 {
        if let Some(number) = self.sizes.get(&bytes) {
            return *number;
        }
        let name = match bytes {
            0..=1023 => format!("kmalloc-{bytes}"),
            1024..=8192 => format!("kmalloc-{}k", bytes / 1024),
            _ => "kmalloc, pages".to_owned(),
        };
        let number = self.cache(&name);
        self.sizes.insert(bytes, number);
        number
    }

    fn allocated(
        &mut self,
        event: &Event,
        address: u64,
        cache: u32,
        bytes: u64,
        waste: u64,
        frees: &mut Frees<'_>,
    ) -> Option<&mut Row> {
        // Null: the allocation failed.
        if address & !PAGE == 0 {
            return None;
        }
        let stack = if event.has(Column::Stack) { event.stack } else { u32::MAX };
        let key = u64::from(stack) << 32 | u64::from(cache);
        let site = *self.by_key.entry(key).or_insert(self.rows.len() as u32);
        if site as usize == self.rows.len() {
            self.rows.push(Row::new(stack, cache));
        }
        if let Frees::Learn(live, _) = frees {
            let born = (event.time.0 >> 16) as u32;
            let freed = Freed { site, bytes: small(bytes), waste: small(waste), born };
            live.0.insert(address, freed);
        }
        let row = &mut self.rows[site as usize];
        row.live_bytes += u64::from(small(bytes));
        row.waste_bytes += u64::from(small(waste));
        row.live_objects += 1;
        row.allocations += 1;
        row.born_sum += u128::from((event.time.0 >> 16) as u32);
        row.allocated.add(bytes, event.time.0);
        Some(row)
    }

    fn freed(&mut self, event: &Event, address: u64, frees: &mut Frees<'_>) {
        let freed = match frees {
            Frees::Learn(live, written) => {
                let freed = live.0.remove(&address).unwrap_or(Freed::UNKNOWN);
                written.push(freed);
                freed
            }
            Frees::Known(known) => known.next().copied().unwrap_or(Freed::UNKNOWN),
        };
        let Some(row) = self.rows.get_mut(freed.site as usize) else { return };
        row.live_bytes = row.live_bytes.saturating_sub(u64::from(freed.bytes));
        row.waste_bytes = row.waste_bytes.saturating_sub(u64::from(freed.waste));
        row.live_objects = row.live_objects.saturating_sub(1);
        row.frees += 1;
        row.born_sum = row.born_sum.saturating_sub(u128::from(freed.born));
        row.freed.add(u64::from(freed.bytes), event.time.0);
    }

    /// The sites as the screen shows them.
    pub(super) fn shown(&self, names: &Names, at: Nanos) -> Vec<Site> {
        let shown = |row: &Row| {
            let stack = names.chain(row.stack);
            let now = u128::from((at.0 >> 16) as u32);
            let mean = row.born_sum.checked_div(u128::from(row.live_objects));
            Site {
                label: Names::label(&stack),
                cache: self.caches.get(row.cache as usize).cloned().unwrap_or_default(),
                stack,
                live_bytes: row.live_bytes,
                waste_bytes: row.waste_bytes,
                live_objects: row.live_objects,
                allocations: row.allocations,
                frees: row.frees,
                allocated_per_second: row.allocated.per_second(at.0),
                freed_per_second: row.freed.per_second(at.0),
                age_ns: mean.map(|mean| (now.saturating_sub(mean) as u64) << 16),
                orders: row.orders,
                is_bound: false,
            }
        };
        self.rows.iter().map(shown).collect()
    }

    /// The site that holds most of each cache.
    pub(super) fn tops(&self, names: &Names) -> std::collections::BTreeMap<Arc<str>, Arc<str>> {
        let mut most: std::collections::BTreeMap<u32, &Row> = std::collections::BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.live_bytes > 0) {
            let known = most.entry(row.cache).or_insert(row);
            if row.live_bytes > known.live_bytes {
                *known = row;
            }
        }
        let named = most.into_values().filter_map(|row| {
            let cache = self.caches.get(row.cache as usize)?.clone();
            Some((cache, Names::label(&names.chain(row.stack))))
        });
        named.collect()
    }

    /// About how much memory a copy takes.
    pub(super) fn bytes(&self) -> u64 {
        (self.rows.len() * (size_of::<Row>() + 16) + self.caches.len() * 96) as u64
    }
}

/// Marks the sites of caches in which the kernel counts fewer objects than were seen live: bulk
/// frees and frees through RCU sheaves have no event.
pub(super) fn mark_bounds(sites: &mut [Site], slabs: &[SlabRow]) {
    let mut seen: std::collections::BTreeMap<Arc<str>, u64> = std::collections::BTreeMap::new();
    for site in sites.iter() {
        *seen.entry(site.cache.clone()).or_default() += site.live_objects;
    }
    for site in sites {
        let is_kmalloc = site.cache.starts_with("kmalloc-");
        let size = site.cache.rsplit('-').next().unwrap_or_default();
        // The event of a kmalloc tells the size, not which of the caches of that size it was.
        let counts = slabs.iter().filter(|row| {
            let same_size = || row.cache.rsplit('-').next() == Some(size);
            *row.cache == *site.cache
                || is_kmalloc && row.cache.starts_with("kmalloc") && same_size()
        });
        let counts: Vec<u64> = counts.map(|row| row.active_objects).collect();
        let counted: u64 = counts.iter().sum();
        site.is_bound = !counts.is_empty() && seen[&site.cache] > counted;
    }
}

impl Row {
    fn new(stack: u32, cache: u32) -> Self {
        Self {
            stack,
            cache,
            live_bytes: 0,
            waste_bytes: 0,
            live_objects: 0,
            allocations: 0,
            frees: 0,
            born_sum: 0,
            orders: 0,
            allocated: Rate::default(),
            freed: Rate::default(),
        }
    }
}

fn small(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmemlab_trace::unit::{Cpu, Pid};

    fn event(kind: Kind, at: u64, address: u64, bytes: u64) -> Event {
        let mut event = Event::new(kind, Nanos(at), Cpu(0), Pid(1));
        event.pfn_or_address = address;
        event.bytes_allocated = bytes;
        event.bytes_requested = bytes - bytes / 4;
        event.stack = 7;
        event.present = Column::Stack.bit() | Column::PfnOrAddress.bit();
        event
    }

    #[test]
    fn the_second_time_through_says_the_same() {
        let events = [
            event(Kind::Kmalloc, 1 << 20, 0x100, 64),
            event(Kind::Kmalloc, 2 << 20, 0x200, 64),
            event(Kind::Kfree, 3 << 20, 0x900, 0),
            event(Kind::Kfree, 4 << 20, 0x100, 0),
            event(Kind::Kmalloc, 5 << 20, 0x100, 128),
            event(Kind::Kfree, 6 << 20, 0x200, 0),
        ];
        let (mut live, mut written) = (Live::default(), Vec::new());
        let mut first = Sites::new(false);
        for event in &events {
            first.step(event, &mut Frees::Learn(&mut live, &mut written));
        }
        let mut second = Sites::new(false);
        let mut known = Frees::Known(written.iter());
        events.iter().for_each(|event| second.step(event, &mut known));
        let shown = |sites: &Sites| sites.shown(&Names::default(), Nanos(7 << 20));
        assert_eq!(shown(&first), shown(&second));
        let sites = shown(&first);
        assert_eq!(sites.len(), 2);
        assert_eq!((sites[0].live_bytes, sites[0].allocations, sites[0].frees), (0, 2, 2));
        assert_eq!((&*sites[1].cache, sites[1].live_bytes), ("kmalloc-128", 128));
        assert_eq!((sites[1].waste_bytes, sites[1].age_ns), (32, Some(2 << 20)));
    }

    #[test]
    fn more_live_objects_than_the_kernel_counts_are_a_bound() {
        let site = |cache: &str, live_objects| Site {
            cache: cache.into(),
            live_objects,
            ..Site::default()
        };
        let slab = |cache: &str, active_objects| SlabRow {
            cache: cache.to_owned(),
            active_objects,
            objects: 0,
            object_size_bytes: 0,
            objects_per_slab: 0,
            pages_per_slab: 0,
            active_slabs: 0,
            slabs: 0,
        };
        let mut sites = [
            site("maple_node", 60),
            site("maple_node", 50),
            site("dentry", 90),
            site("kmalloc-96", 30),
            site("page", 1000),
        ];
        let slabs = [
            slab("maple_node", 100),
            slab("dentry", 100),
            slab("kmalloc-96", 20),
            slab("kmalloc-cg-96", 20),
        ];
        mark_bounds(&mut sites, &slabs);
        let bounds = sites.map(|site| site.is_bound);
        assert_eq!(bounds, [true, true, false, false, false]);
    }

    #[test]
    fn rates_fade() {
        let mut rate = Rate::default();
        rate.add(1000, 1_000_000_000);
        assert_eq!(rate.per_second(1_000_000_000), 1000);
        assert_eq!(rate.per_second(2_000_000_000), 367);
    }
}
