//! The mirror: the kernel's own page allocator state, rebuilt event by event.
//!
//! The kernel decides and the mirror follows: every recorded page frame is taken as said. What no
//! event shows (bulk allocations, frees past the per-CPU lists, pages taken by compaction) is
//! inferred from the lists' order, and handed on as [`Effect`]s. Each event's meaning is in
//! `docs/model.md`; the events fire in `mm/page_alloc.c` and `mm/compaction.c`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kmemlab_trace::event::{Event, Kind};

use crate::learning::{Bits, Learned};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::pages::State;
use crate::residue::{Cause, Misfit};
use crate::seeding::{Phase, Seed};

mod fallback;
mod free;
mod isolation;
mod learn;
mod made_up;
mod resync;
mod search;
mod take;

use search::Guesses;

/// The events that change the mirror.
pub const KINDS: u64 = Kind::PageAlloc.bit()
    | Kind::PageFree.bit()
    | Kind::PageFreeBatched.bit()
    | Kind::ZoneLocked.bit()
    | Kind::PcpDrain.bit()
    | Kind::ExtFrag.bit()
    | Kind::IsolateFree.bit()
    | Kind::FastIsolateFree.bit()
    | Kind::IsolateMigrate.bit()
    | Kind::MigratePages.bit()
    | Kind::CompactionEnd.bit();

/// Something that happened to a page without an event of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A block left a per-CPU list silently: allocated in bulk.
    Bulk {
        /// Processor whose list it left.
        cpu: usize,
        /// The block.
        pfn: u32,
        /// Its order.
        order: u8,
        /// Type of the list.
        migrate: u8,
    },
    /// The allocation just told of was complete before: its block left the list when others behind
    /// it were told of (an interrupt came between the taking and its event).
    Late {
        /// The block.
        pfn: u32,
    },
    /// The free just told of is one of a batch: the block gets to its list later.
    Batched,
    /// A block freed in a batch gets to the head of this processor's list now.
    Moved {
        /// Processor whose list it is on.
        cpu: usize,
        /// The block.
        pfn: u32,
        /// Its order.
        order: u8,
    },
    /// The free just told of goes past the per-CPU lists.
    Direct {
        /// The block.
        pfn: u32,
        /// Its order.
        order: u8,
    },
    /// A block thought allocated in bulk was on the buddy lists all along.
    Returned {
        /// The block.
        pfn: u32,
        /// Its order.
        order: u8,
    },
    /// Compaction took this block, and not the one said before.
    Instead {
        /// The one said before.
        guess: u32,
        /// The block.
        pfn: u32,
        /// Its order.
        order: u8,
    },
    /// The free just told of did not happen: compaction keeps the page for its next move.
    Kept {
        /// The page.
        pfn: u32,
    },
    /// Compaction took a free block for its own.
    Isolated {
        /// The block.
        pfn: u32,
        /// Its order.
        order: u8,
    },
}

/// Largest order of a free that is believed: a gigantic page of 4 GiB.
const LARGEST_FREE: u8 = 20;

/// What the mirror could not take as said, by cause. Counted, never fatal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Residue {
    /// Frees of pages that were already free.
    pub unmatched_frees: u64,
    /// Allocations of pages that were already allocated.
    pub unmatched_allocs: u64,
    /// Frees of pages allocated before the recording began.
    pub frees_from_before: u64,
    /// Pages taken from the buddy lists that no event told of.
    pub hidden_takes: u64,
    /// Pages an event took from the buddy lists that were not there.
    pub missing_takes: u64,
    /// Pages drained that were already on the buddy lists.
    pub double_drains: u64,
    /// Pages allocated in bulk, found by their place in a per-CPU list.
    pub bulk_pages: u64,
    /// Pages freed past the per-CPU lists, found by their reappearance.
    pub direct_frees: u64,
    /// Compaction's ranges that no stride explains exactly.
    pub unsolved_isolations: u64,
    /// Blocks compaction took that cannot be told apart from others.
    pub ambiguous_isolations: u64,
    /// Pages that a compacting task caught for itself as they were freed.
    pub captured_pages: u64,
    /// Frees of pages that compaction kept for its next target.
    pub kept_frees: u64,
    /// Pages taken from blocks whose place was not known, for want of a page map.
    pub made_up_pages: u64,
    /// Events that can not be true of the machine: a page or an order that it has not.
    pub impossible_events: u64,
}

/// How well the per-CPU lists were followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PcpHits {
    /// Allocations of a page that was on a per-CPU list.
    pub pops: u64,
    /// Of those, the ones at the list's head.
    pub at_head: u64,
    /// Drains of a page that was on a per-CPU list.
    pub drains: u64,
    /// Of those, the ones at the list's tail.
    pub at_tail: u64,
}

/// A refill under way on a processor.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    pid: u32,
    list: usize,
    /// Blocks on the list before the run.
    before: u32,
    taken: u32,
    /// The first and the last block taken.
    first: u32,
    last: u32,
    migrate: u8,
    order: u8,
    open: bool,
}

/// The kernel's state, followed. A clone goes on from where it was made.
#[derive(Clone, Debug)]
pub struct Mirror {
    memory: Memory,
    seed: Arc<Seed>,
    runs: Vec<Run>,
    effects: Vec<Effect>,
    misfits: Vec<Misfit>,
    /// Frees so far.
    frees: u64,
    /// Where places for blocks were looked for last, by zone.
    cursors: Vec<u32>,
    /// Frees known to go past the per-CPU lists, by their number, still to come.
    direct: std::vec::IntoIter<u64>,
    next_direct: Option<u64>,
    /// Frees that are told of again when they get to their list, or that a drain follows.
    batched: Bits,
    /// Pages known to leave their lists in bulk before a free, by its number, still to come.
    bulk: std::iter::Peekable<std::vec::IntoIter<(u64, u32)>>,
    /// Threads that move pages to the places that compaction took.
    migrating: HashSet<u32>,
    guesses: Guesses,
    /// Blocks that searches and ranges are known to have taken, by their number.
    told_searches: HashMap<u64, Vec<(u32, u8)>>,
    /// The last free to a per-CPU list on each processor, by page and number, if nothing else
    /// happened there since.
    last_free: Vec<Option<(u32, u64)>>,
    learner: Option<Learned>,
    /// What did not fit.
    pub residue: Residue,
    /// How well the per-CPU lists were followed.
    pub pcp_hits: PcpHits,
    /// Page allocations that the kernel failed.
    pub failures: u64,
}

impl Mirror {
    /// A mirror that starts from a page map, and from what a first pass learned, if there was one.
    #[must_use]
    pub fn new(machine: &Machine, seed: Seed, learned: Option<&Learned>) -> Self {
        let mut memory = Memory::new(machine);
        seed.fill(&mut memory, learned);
        let mut direct = learned.map_or_else(Vec::new, |l| l.direct().to_vec()).into_iter();
        let bulk = learned.map_or_else(Vec::new, |l| l.bulk().to_vec()).into_iter().peekable();
        Self {
            frees: 0,
            cursors: machine.zones.iter().map(|zone| zone.end).collect(),
            bulk,
            migrating: HashSet::new(),
            guesses: Guesses::default(),
            told_searches: learned.map_or_else(HashMap::new, |l| l.searches().clone()),
            next_direct: direct.next(),
            batched: learned.map_or_else(Bits::default, |learned| learned.batched().clone()),
            direct,
            last_free: vec![None; machine.cpus],
            memory,
            seed: Arc::new(seed),
            runs: vec![Run::default(); machine.cpus],
            effects: Vec::new(),
            misfits: Vec::new(),
            learner: None,
            residue: Residue::default(),
            pcp_hits: PcpHits::default(),
            failures: 0,
        }
    }

    /// The state.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A mirror that learns what no file tells of the start.
    #[must_use]
    pub fn learning(machine: &Machine, seed: Seed) -> Self {
        let mut mirror = Self::new(machine, seed, None);
        mirror.learner = Some(Learned::new(machine));
        mirror
    }

    /// What the last event brought to light besides itself; empty after most events.
    #[must_use]
    #[inline]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// What of the last event did not fit; empty after most events.
    #[must_use]
    #[inline]
    pub fn misfits(&self) -> &[Misfit] {
        &self.misfits
    }

    fn misfit(&mut self, cause: Cause, pfn: u32, order: u8, blocks: i64) {
        self.misfits.push(Misfit { cause, pfn, order, blocks });
    }

    /// Follows one event.
    #[inline]
    pub fn step(&mut self, event: &Event) {
        if !self.effects.is_empty() {
            self.effects.clear();
        }
        if !self.misfits.is_empty() {
            self.misfits.clear();
        }
        if self.learner.is_some() {
            self.watch(event);
        }
        if self.seed.is_made_up() {
            self.make_room(event);
        }
        self.settle_free(event);
        match event.kind {
            Kind::PageAlloc => self.page_alloc(event),
            Kind::PageFree => self.page_free(event),
            Kind::PageFreeBatched => self.page_free_batched(event),
            Kind::ZoneLocked => self.zone_locked(event),
            Kind::PcpDrain => self.pcp_drain(event),
            Kind::ExtFrag => self.fallback(event),
            Kind::IsolateFree => self.isolate(event),
            Kind::FastIsolateFree => self.fast_isolate(event),
            Kind::IsolateMigrate => {
                self.migrating.insert(event.pid.0);
            }
            Kind::MigratePages | Kind::CompactionEnd => {
                self.migrating.remove(&event.pid.0);
            }
            _ => {}
        }
    }

    /// The page of an event and its zone, if the event can be true of this machine: its block is
    /// aligned, of an order that the kernel has, and within the machine.
    #[inline]
    pub(crate) fn page(&self, event: &Event) -> Option<(u32, usize)> {
        let pfn = u32::try_from(event.pfn()?.0).ok()?;
        let machine = self.memory.machine();
        let top = if event.kind == Kind::PageFree { LARGEST_FREE } else { machine.orders - 1 };
        if event.order > top || event.other_order >= machine.orders {
            return None;
        }
        let pages = 1u32 << event.order;
        let is_aligned = pfn & (pages - 1) == 0;
        let fits = u64::from(pfn) + u64::from(pages) <= u64::from(machine.end);
        if !is_aligned || !fits {
            return None;
        }
        Some((pfn, self.memory.zone_of(pfn)?))
    }

    /// The same, where an event that can not be true is counted.
    #[inline]
    fn possible_page(&mut self, event: &Event) -> Option<(u32, usize)> {
        let page = self.page(event);
        self.residue.impossible_events += u64::from(page.is_none());
        page
    }

    /// Nothing so far contradicted the state: no page can be both free and in use.
    #[inline]
    fn is_exact(&self) -> bool {
        let residue = &self.residue;
        residue.unmatched_frees
            | residue.unmatched_allocs
            | residue.hidden_takes
            | residue.missing_takes
            | residue.double_drains
            | residue.unsolved_isolations
            == 0
    }

    /// Before a block changes hands: after lost events some of its pages may still stand on the
    /// buddy lists.
    #[inline]
    fn make_sure_taken(&mut self, pfn: u32, order: u8) {
        if !self.is_exact() {
            self.take_hidden(pfn, order);
        }
    }

    #[inline]
    fn cpu(&self, event: &Event) -> usize {
        usize::from(event.cpu.0).min(self.runs.len() - 1)
    }

    /// An allocation is complete: its page left a per-CPU list or the buddy lists before.
    fn page_alloc(&mut self, event: &Event) {
        if event.pfn().is_none() {
            self.failures += 1;
            return;
        }
        let Some((pfn, zone)) = self.possible_page(event) else { return };
        let cpu = self.cpu(event);
        let order = event.order;
        let node = self.memory.pages.get(pfn);
        if let Some(learner) = &mut self.learner {
            learner.was_listed(pfn, zone);
        }
        match node.state() {
            State::Pcp => self.pop(pfn, zone, cpu, event),
            State::Limbo if node.order() == order => {
                self.residue.bulk_pages = self.residue.bulk_pages.saturating_sub(1 << order);
                if !self.memory.machine().rules.lists_follow_blocks() {
                    self.left_type(pfn, node, event.migrate);
                }
                self.effects.push(Effect::Late { pfn });
            }
            State::Live => {
                self.residue.unmatched_allocs += 1;
                self.misfit(Cause::UnseenFree, pfn, order, 0);
                self.take_hidden(pfn, order);
            }
            _ if self.seed.phase(pfn, event.time.0) == Phase::After => {
                if node.state() == State::Unknown && self.memory.block_at(pfn).is_none() {
                    self.learn_popped(pfn, zone, event);
                }
                self.capture(pfn, order);
                self.take_hidden(pfn, order);
            }
            // The page map, read later, knows whether the page is free again.
            _ if self.memory.block_at(pfn).is_some() => return,
            _ => {}
        }
        self.end_run(cpu, pfn, event);
        self.make_sure_taken(pfn, order);
        self.memory.note(pfn, State::Live, order);
    }

    /// Takes a page off its per-CPU list; those in front of it left silently before it.
    fn pop(&mut self, pfn: u32, zone: usize, cpu: usize, event: &Event) {
        let list = self.memory.pages.get(pfn).list();
        self.pcp_hits.pops += 1;
        let at_head = self.memory.front(list) == Some(pfn);
        self.pcp_hits.at_head += u64::from(at_head);
        let expected = self.memory.machine().pcp_list(event.order, event.migrate);
        let expected = expected.map(|index| self.memory.pcp(zone, cpu, index));
        let run = self.runs[cpu];
        let is_direct = run.open
            && run.pid == event.pid.0
            && run.taken == 1
            && run.last == pfn
            && run.before > 0;
        if expected == Some(list) && !at_head && !is_direct {
            while self.memory.front(list).is_some_and(|head| head != pfn) {
                self.leave_silently(list, cpu, event.migrate);
            }
        }
        if expected != Some(list) && self.memory.block_type(pfn) != event.migrate {
            // It was freed to the list of this type: that is its pageblock's type.
            self.learn_type(pfn, event.migrate);
            self.memory.set_block_type(pfn, event.migrate);
        }
        self.memory.pages.unlink(pfn);
    }

    /// A compacting task caught the block that it wanted as it was freed (`compaction_capture`): it
    /// never got to the lists.
    fn capture(&mut self, pfn: u32, order: u8) {
        if order > 0
            && self.holds(pfn, order)
            && let Some((head, _)) = self.memory.block_at(pfn)
        {
            self.memory.carve(head, pfn, order);
            self.residue.captured_pages += 1 << order;
        }
    }

    /// A page that the mirror holds free was allocated: no event told of its taking.
    fn take_hidden(&mut self, pfn: u32, order: u8) {
        let (mut at, end) = (pfn, pfn.saturating_add(1 << order));
        while at < end {
            let Some((head, have)) = self.memory.block_at(at) else {
                at += 1;
                continue;
            };
            let piece = if head == at && at + (1 << have) <= end { have } else { 0 };
            self.memory.carve(head, at, piece);
            self.residue.hidden_takes += 1 << piece;
            self.misfit(Cause::UnseenAllocation, at, piece, 1);
            at += 1 << piece;
        }
    }
}
