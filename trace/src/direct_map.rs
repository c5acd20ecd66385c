//! The base of the kernel's direct map, inferred: object addresses minus the page frames that the
//! slab layer asked for just before.

use crate::error::Error;
use crate::event::{Event, Kind};
use crate::format;
use crate::gfp::GfpBits;
use crate::reader::Recording;
use crate::snapshot::PageUse;

/// Allocations of one thread that are waited for after its page event.
const WINDOW: u8 = 8;
/// Votes that settle it, and the share of them that must agree, in percent.
const VOTES: u64 = 20;
const SHARE_PERCENT: u64 = 99;
/// No block is larger.
const MAX_ORDER: u8 = 20;
/// More votes than this tell nothing new.
const ENOUGH: u64 = 2000;

/// Objects whose addresses are looked up in the page map where too few slabs were made.
const MAP_OBJECTS: usize = 4096;

/// Kinds of events that tell something.
const KINDS: u64 = Kind::PageAlloc.bit()
    | Kind::Kmalloc.bit()
    | Kind::KmallocNode.bit()
    | Kind::CacheAlloc.bit()
    | Kind::CacheAllocNode.bit()
    | Kind::CacheFree.bit();

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectMap {
    /// Address of page frame 0.
    pub base: u64,
    /// Page events, or objects, that agree.
    pub votes: u64,
    /// Page events, or objects, that voted.
    pub of: u64,
    /// By what.
    pub found_by: FoundBy,
}

/// What told of the base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundBy {
    /// Pages that became slabs, and the first objects in them.
    SlabPages,
    /// Objects that lie in slabs of the page map.
    PageMap,
}

impl FoundBy {
    /// Its name in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SlabPages => "slab pages",
            Self::PageMap => "page map",
        }
    }
}

/// The base, as the first events of a recording tell it, or the page map: as many events are read
/// as settle it, and at most so many.
pub fn infer(recording: &Recording, most_events: u64) -> Result<Option<DirectMap>, Error> {
    let manifest = recording.manifest();
    let (architecture, page_bytes) =
        (&manifest.host.architecture, manifest.host.page_size_bytes.max(4096));
    let gfp = GfpBits::of(manifest);
    let mut votes = BaseVotes::new(page_bytes, architecture);
    let mut addresses = Vec::new();
    let mut read = 0;
    for batch in recording.events()? {
        let batch = batch?;
        for event in batch.iter_only(KINDS) {
            votes.see(&event, &gfp);
            let is_named = matches!(event.kind, Kind::CacheAlloc | Kind::CacheFree);
            if is_named && addresses.len() < MAP_OBJECTS && event.pfn_or_address > 16 {
                addresses.push(event.pfn_or_address);
            }
        }
        read += batch.len() as u64;
        if votes.is_settled() || read >= most_events {
            break;
        }
    }
    if let Some(found) = votes.result() {
        return Ok(Some(found));
    }
    Ok(base_of_map(&addresses, &slab_runs(recording)?, page_bytes, architecture))
}

/// The pages that the first page map shows in slabs, as runs by rising page frame.
pub fn slab_runs(recording: &Recording) -> Result<Vec<(u32, u32)>, Error> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for run in recording.page_map(&format::PAGEMAP_FIRST)? {
        let run = run?;
        let end = run.pfn.0.saturating_add(run.pages).min(u64::from(u32::MAX)) as u32;
        if run.page_use != PageUse::Slab || run.pfn.0 >= u64::from(end) {
            continue;
        }
        let start = run.pfn.0 as u32;
        match runs.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => runs.push((start, end)),
        }
    }
    Ok(runs)
}

/// Gathers votes.
#[derive(Clone, Debug)]
pub struct BaseVotes {
    page_shift: u32,
    align: u64,
    waiting: Vec<Waiting>,
    tally: Vec<(u64, u64)>,
    votes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    pid: u32,
    pfn: u64,
    order: u8,
    left: u8,
}

impl BaseVotes {
    /// Votes for a base; `align` is the step that the kernel's randomisation moves it by.
    #[must_use]
    pub fn new(page_bytes: u64, architecture: &str) -> Self {
        let align = if architecture == "x86_64" { 1 << 30 } else { 2 << 20 };
        let page_shift = page_bytes.max(1).trailing_zeros();
        Self { page_shift, align, waiting: Vec::new(), tally: Vec::new(), votes: 0 }
    }

    /// Looks at an event.
    pub fn see(&mut self, event: &Event, gfp: &GfpBits) {
        match event.kind {
            Kind::PageAlloc if is_slab_like(event.gfp, event.order, gfp) => {
                let Some(pfn) = event.pfn() else { return };
                self.waiting.retain(|waiting| waiting.pid != event.pid.0);
                if self.waiting.len() < 64 {
                    let (pid, order) = (event.pid.0, event.order);
                    self.waiting.push(Waiting { pid, pfn: pfn.0, order, left: WINDOW });
                }
            }
            Kind::Kmalloc | Kind::KmallocNode | Kind::CacheAlloc | Kind::CacheAllocNode => {
                let place = self.waiting.iter().position(|waiting| waiting.pid == event.pid.0);
                if let Some(place) = place {
                    self.object(place, event.pfn_or_address);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, place: usize, address: u64) {
        let waiting = self.waiting[place];
        let start = waiting.pfn << self.page_shift;
        let base = address.wrapping_sub(start) & !(self.align - 1);
        let within = address.wrapping_sub(start).wrapping_sub(base);
        let size = 1u64 << (self.page_shift + u32::from(waiting.order.min(MAX_ORDER)));
        if address > u64::from(u32::MAX) && within < size {
            self.votes += 1;
            match self.tally.iter_mut().find(|(known, _)| *known == base) {
                Some((_, votes)) => *votes += 1,
                None => self.tally.push((base, 1)),
            }
            self.waiting.swap_remove(place);
        } else if waiting.left <= 1 {
            self.waiting.swap_remove(place);
        } else {
            self.waiting[place].left -= 1;
        }
    }

    /// Whether more events would only repeat it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.votes >= ENOUGH
    }

    /// The base, when enough votes agree.
    #[must_use]
    pub fn result(&self) -> Option<DirectMap> {
        let (base, votes) = *self.tally.iter().max_by_key(|(base, votes)| (*votes, *base))?;
        let agree = votes >= VOTES && votes * 100 >= self.votes * SHARE_PERCENT;
        let (of, found_by) = (self.votes, FoundBy::SlabPages);
        agree.then_some(DirectMap { base, votes, of, found_by })
    }
}

/// The base under which objects lie in pages that the page map shows in slabs: for recordings in
/// which hardly a slab was made. `None` unless one base fits nearly all and no other fits as well.
#[must_use]
pub fn base_of_map(
    addresses: &[u64],
    slab_runs: &[(u32, u32)],
    page_bytes: u64,
    architecture: &str,
) -> Option<DirectMap> {
    let align: u64 = if architecture == "x86_64" { 1 << 30 } else { 2 << 20 };
    let end = slab_runs.last().map_or(0, |(_, end)| u64::from(*end) * page_bytes);
    let (lowest, highest) = (*addresses.iter().min()?, *addresses.iter().max()?);
    let of = addresses.len() as u64;
    if of < VOTES || highest - lowest > end {
        return None;
    }
    let fits = |base: u64| {
        let in_slab = |address: &&u64| {
            let pfn = address.wrapping_sub(base) / page_bytes;
            let after = slab_runs.partition_point(|(start, _)| u64::from(*start) <= pfn);
            after > 0 && pfn < u64::from(slab_runs[after - 1].1)
        };
        addresses.iter().filter(in_slab).count() as u64
    };
    let mut found: Option<DirectMap> = None;
    let mut base = lowest & !(align - 1);
    while base.wrapping_add(end) >= highest {
        let votes = fits(base);
        if votes * 100 >= of * MAP_PERCENT {
            if found.is_some() {
                return None;
            }
            found = Some(DirectMap { base, votes, of, found_by: FoundBy::PageMap });
        }
        base = base.wrapping_sub(align);
    }
    found
}

/// Share of the objects that must lie in slabs of the page map: some slabs are newer than it.
const MAP_PERCENT: u64 = 80;

/// The flags that `allocate_slab` adds and those that it takes away (section "Slab pages" of
/// `docs/model.md`); compound only where every slab is.
#[must_use]
pub fn is_slab_like(flags: u32, order: u8, gfp: &GfpBits) -> bool {
    let must = gfp.nowarn | gfp.noretry | if order > 0 { gfp.comp } else { 0 };
    let never = gfp.zero | gfp.account | gfp.movable | gfp.highmem | gfp.write;
    flags & must == must && flags & never == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Column;
    use crate::unit::{Cpu, Nanos, Pid};

    fn event(kind: Kind, pid: u32, number: u64) -> Event {
        let mut event = Event::new(kind, Nanos(0), Cpu(0), Pid(pid));
        event.pfn_or_address = number;
        event.present = Column::PfnOrAddress.bit();
        event
    }

    #[test]
    fn a_base_needs_twenty_votes_that_agree() {
        let gfp = GfpBits::default();
        let base = 0xffff_9a40_0000_0000;
        let mut votes = BaseVotes::new(4096, "x86_64");
        for pfn in 0..30u64 {
            assert_eq!(votes.result().is_some(), pfn >= 20, "{pfn}");
            let mut page = event(Kind::PageAlloc, 7, 0x1000 + pfn);
            page.gfp = gfp.comp | gfp.nowarn | gfp.noretry;
            votes.see(&page, &gfp);
            // Another thread's object, and one that is too far off, decide nothing.
            votes.see(&event(Kind::Kmalloc, 8, base + 64), &gfp);
            votes.see(&event(Kind::Kmalloc, 7, base + 0x40_0000_0040), &gfp);
            votes.see(&event(Kind::CacheAlloc, 7, base + ((0x1000 + pfn) << 12) + 192), &gfp);
        }
        let found = votes.result().map(|map| map.base);
        assert_eq!(found, Some(base));
    }

    #[test]
    fn one_base_puts_the_objects_into_slabs_of_the_page_map() {
        let base = 0xffff_9a40_0000_0000;
        let runs = [(0x100, 0x180), (0x4_0000, 0x4_0010), (0x9_0000, 0x9_0040)];
        let of = |pfn: u64| base + (pfn << 12) + 64;
        let addresses: Vec<u64> =
            (0..0x40).map(|n| of([0x100, 0x9_0000][n % 2] + n as u64)).collect();
        let found = base_of_map(&addresses, &runs, 4096, "x86_64").map(|map| (map.base, map.of));
        assert_eq!(found, Some((base, 64)));
        assert_eq!(base_of_map(&addresses[..5], &runs, 4096, "x86_64"), None, "too few");
        assert_eq!(base_of_map(&addresses, &[], 4096, "x86_64"), None);
    }

    #[test]
    fn a_zeroed_or_movable_page_is_no_slab() {
        let gfp = GfpBits::default();
        let slab = gfp.comp | gfp.nowarn | gfp.noretry;
        assert!(is_slab_like(slab, 0, &gfp) && is_slab_like(slab, 3, &gfp));
        for other in [gfp.zero, gfp.account, gfp.movable, gfp.highmem, gfp.write] {
            assert!(!is_slab_like(slab | other, 0, &gfp));
        }
        assert!(!is_slab_like(gfp.nowarn | gfp.noretry, 1, &gfp));
    }
}
