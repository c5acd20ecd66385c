//! The mirror: the kernel's own page allocator state, rebuilt event by event.
//!
//! The kernel decides and the mirror follows: every recorded page frame is taken as said. What no
//! event shows (bulk allocations, frees past the per-CPU lists, pages taken by compaction) is
//! inferred from the lists' order, and handed on as [`Effect`]s. Each event's meaning is in
//! `docs/model.md`; the events fire in `mm/page_alloc.c` and `mm/compaction.c`.

use kmemlab_trace::event::{Event, Kind};

use crate::learning::Learned;
use crate::machine::Machine;
use crate::memory::{End, Memory};
use crate::pages::State;
use crate::rules::Fallback;
use crate::seeding::{Phase, Seed};

mod isolation;

/// The events that change the mirror.
pub const KINDS: u64 = Kind::PageAlloc.bit()
    | Kind::PageFree.bit()
    | Kind::PageFreeBatched.bit()
    | Kind::ZoneLocked.bit()
    | Kind::PcpDrain.bit()
    | Kind::ExtFrag.bit()
    | Kind::IsolateFree.bit()
    | Kind::FastIsolateFree.bit();

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
    /// A freed block gets to the head of this processor's list only now: since the free was told of
    /// other blocks may have gone there, or the task may have moved to another processor.
    Moved {
        /// Processor whose list it is on.
        cpu: usize,
        /// The block.
        pfn: u32,
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
    /// Compaction took a free block for its own.
    Isolated {
        /// The block.
        pfn: u32,
        /// Its order.
        order: u8,
    },
}

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
    /// The last block taken.
    last: u32,
    order: u8,
    open: bool,
}

/// The kernel's state, followed.
#[derive(Debug)]
pub struct Mirror {
    memory: Memory,
    seed: Seed,
    runs: Vec<Run>,
    effects: Vec<Effect>,
    /// Frees so far.
    frees: u64,
    /// Frees known to go past the per-CPU lists, by their number, still to come.
    direct: std::vec::IntoIter<u64>,
    next_direct: Option<u64>,
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
        Self {
            frees: 0,
            next_direct: direct.next(),
            direct,
            memory,
            seed,
            runs: vec![Run::default(); machine.cpus],
            effects: Vec::new(),
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

    /// What a learning mirror has learned.
    pub fn into_learned(self) -> Option<Learned> {
        self.learner.map(Learned::finish)
    }

    /// The page map is whole: puts the blocks on the per-CPU lists that the first pass saw leave
    /// them, behind those that came since.
    pub fn recall_waiting(&mut self, learned: &Learned) {
        let machine = self.memory.machine();
        let lists = machine.zones.len() * machine.cpus * machine.pcp_lists();
        let first = self.memory.pcp(0, 0, 0);
        for list in first..first + lists {
            for (pfn, order) in learned.waiting(list) {
                let state = self.memory.pages.get(pfn).state();
                if state != State::Pcp && self.memory.block_at(pfn).is_none() {
                    self.memory.pages.push_back(list, pfn, State::Pcp, order);
                }
            }
        }
    }

    fn learn_type(&mut self, pfn: u32, migrate: u8) {
        let block = (pfn >> self.memory.machine().block_order) as usize;
        if let Some(learner) = &mut self.learner {
            learner.block_type(block, migrate);
        }
    }

    /// A block is about to leave its free list from the head.
    fn learn_taken(&mut self, head: u32) {
        if let Some(learner) = &mut self.learner
            && self.memory.pages.get(head).is_seed()
        {
            learner.taken(head);
        }
    }

    /// The per-CPU list on which an unknown page of the start must have waited; once the page map
    /// is whole.
    fn unknown_list(&self, zone: usize, event: &Event) -> Option<usize> {
        self.learner.as_ref()?;
        if event.time.0 <= self.seed.last_read() {
            return None;
        }
        let index = self.memory.machine().pcp_list(event.order, event.migrate)?;
        Some(self.memory.pcp(zone, self.cpu(event), index))
    }

    /// What the last event brought to light besides itself; empty after most events.
    #[must_use]
    #[inline]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Follows one event.
    #[inline]
    pub fn step(&mut self, event: &Event) {
        if !self.effects.is_empty() {
            self.effects.clear();
        }
        match event.kind {
            Kind::PageAlloc => self.page_alloc(event),
            Kind::PageFree => self.page_free(event),
            Kind::PageFreeBatched => self.page_free_batched(event),
            Kind::ZoneLocked => self.zone_locked(event),
            Kind::PcpDrain => self.pcp_drain(event),
            Kind::ExtFrag => self.fallback(event),
            Kind::IsolateFree => self.isolate(event),
            Kind::FastIsolateFree => self.fast_isolate(event),
            _ => {}
        }
    }

    /// The page of an event, if it is one of the machine's, with its zone.
    #[inline]
    fn page(&self, event: &Event) -> Option<(u32, usize)> {
        let pfn = u32::try_from(event.pfn()?.0).ok()?;
        Some((pfn, self.memory.zone_of(pfn)?))
    }

    #[inline]
    fn cpu(&self, event: &Event) -> usize {
        usize::from(event.cpu.0).min(self.runs.len() - 1)
    }

    /// A refill or direct allocation took a block off a buddy list, under the zone lock.
    fn zone_locked(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.page(event) else { return };
        let (order, migrate) = (event.order, event.migrate);
        if !self.take(pfn, order, migrate, event) {
            return;
        }
        let refill = event.flag().unwrap_or(order <= self.memory.machine().rules.pcp_max_order);
        if refill {
            self.refilled(pfn, zone, order, migrate, event);
        } else {
            self.close_run(event);
        }
    }

    /// Takes a block off the buddy lists. `false` when the page map, read later, already knows
    /// better and the page is free in it.
    fn take(&mut self, pfn: u32, order: u8, migrate: u8, event: &Event) -> bool {
        match self.seed.phase(pfn, event.time.0) {
            Phase::Before => return self.memory.block_at(pfn).is_none(),
            Phase::During if self.memory.block_at(pfn).is_none() => return true,
            Phase::During | Phase::After => {}
        }
        if !self.holds(pfn, order) {
            self.recall(pfn, order);
        }
        match self.memory.block_at(pfn) {
            Some((head, have)) if have >= order => {
                self.learn_taken(head);
                self.learn_type(pfn, migrate);
                if head == pfn {
                    self.memory.remove(pfn);
                    self.memory.expand(pfn, order, have, migrate);
                } else {
                    self.memory.carve(head, pfn, order);
                }
                self.memory.set_block_type(pfn, migrate);
            }
            _ => self.take_pieces(pfn, order),
        }
        true
    }

    /// Whether a free block holds all of `[pfn, pfn + 2^order)`.
    fn holds(&self, pfn: u32, order: u8) -> bool {
        self.memory.block_at(pfn).is_some_and(|(_, have)| have >= order)
    }

    /// Pages of the range that were thought to be on a per-CPU list, or allocated in bulk, were in
    /// fact freed straight to the buddy lists: the kernel just took them from there.
    fn recall(&mut self, pfn: u32, order: u8) {
        let mut at = pfn;
        let end = pfn + (1 << order);
        while at < end {
            let node = self.memory.pages.get(at);
            match node.state() {
                State::Pcp => {
                    self.memory.pages.unlink(at);
                }
                State::Limbo => {
                    self.effects.push(Effect::Returned { pfn: at, order: node.order() });
                }
                _ => {
                    at += 1;
                    continue;
                }
            }
            self.residue.direct_frees += 1 << node.order();
            if let Some(learner) = &mut self.learner {
                learner.was_direct(at);
            }
            let migrate = self.memory.block_type(at);
            self.memory.free(at, node.order(), migrate, false);
            at += 1 << node.order();
        }
    }

    /// Takes what is free of a range that is not one free block.
    fn take_pieces(&mut self, pfn: u32, order: u8) {
        let (mut at, end) = (pfn, pfn + (1 << order));
        while at < end {
            match self.memory.block_at(at) {
                Some((head, have)) => {
                    let piece = if head == at && at + (1 << have) <= end { have } else { 0 };
                    self.memory.carve(head, at, piece);
                    at += 1 << piece;
                }
                None => {
                    self.residue.missing_takes += 1;
                    at += 1;
                }
            }
        }
    }

    /// A block taken under the zone lock goes to the tail of a per-CPU list.
    fn refilled(&mut self, pfn: u32, zone: usize, order: u8, migrate: u8, event: &Event) {
        let Some(index) = self.memory.machine().pcp_list(order, migrate) else {
            self.close_run(event);
            return;
        };
        let cpu = self.cpu(event);
        let list = self.memory.pcp(zone, cpu, index);
        let run = self.runs[cpu];
        if run.open && run.pid == event.pid.0 && run.list == list {
            self.runs[cpu].taken += 1;
            self.runs[cpu].last = pfn;
            // A refill of more than one block proves that the list was empty.
            if run.taken == 1 {
                for _ in 0..run.before {
                    self.leave_silently(list, cpu, migrate);
                }
                if let Some(learner) = &mut self.learner {
                    learner.emptied(list);
                }
            }
        } else {
            let before = self.memory.pages.lists[list].len;
            self.runs[cpu] =
                Run { pid: event.pid.0, list, before, taken: 1, last: pfn, order, open: true };
        }
        self.memory.pages.push_back(list, pfn, State::Pcp, order);
    }

    /// The block at the head of a per-CPU list has left it without an event.
    fn leave_silently(&mut self, list: usize, cpu: usize, migrate: u8) {
        let Some(pfn) = self.memory.front(list) else { return };
        let order = self.memory.pages.unlink(pfn).order();
        self.memory.pages.note(pfn, State::Limbo, order);
        self.residue.bulk_pages += 1 << order;
        self.effects.push(Effect::Bulk { cpu, pfn, order, migrate });
    }

    fn close_run(&mut self, event: &Event) {
        let cpu = self.cpu(event);
        self.runs[cpu].open = false;
    }

    /// An allocation is complete: its page left a per-CPU list or the buddy lists before.
    fn page_alloc(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.page(event) else {
            self.failures += u64::from(event.pfn().is_none());
            return;
        };
        let cpu = self.cpu(event);
        let order = event.order;
        let node = self.memory.pages.get(pfn);
        match node.state() {
            State::Pcp => self.pop(pfn, zone, cpu, event),
            State::Limbo if node.order() == order => {
                self.residue.bulk_pages = self.residue.bulk_pages.saturating_sub(1 << order);
                self.effects.push(Effect::Late { pfn });
            }
            State::Live => self.residue.unmatched_allocs += 1,
            _ if self.seed.phase(pfn, event.time.0) == Phase::After => {
                if node.state() == State::Unknown && self.memory.block_at(pfn).is_none() {
                    self.learn_popped(pfn, zone, event);
                }
                self.take_hidden(pfn, order);
            }
            // The page map, read later, knows whether the page is free again.
            _ if self.memory.block_at(pfn).is_some() => return,
            _ => {}
        }
        self.runs[cpu].open = false;
        self.memory.pages.note(pfn, State::Live, order);
    }

    fn learn_popped(&mut self, pfn: u32, zone: usize, event: &Event) {
        let list = self.unknown_list(zone, event);
        if let (Some(list), Some(learner)) = (list, &mut self.learner) {
            learner.popped(list, pfn, event.order);
        }
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
            at += 1 << piece;
        }
    }

    /// A free begins: the page goes to a per-CPU list, or straight to the buddy lists.
    fn page_free(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.page(event) else { return };
        let order = event.order;
        self.close_run(event);
        let is_direct = self.count_free(pfn, event);
        let phase = self.seed.phase(pfn, event.time.0);
        match self.memory.pages.get(pfn).state() {
            State::Pcp => {
                self.residue.unmatched_frees += 1;
                self.memory.pages.unlink(pfn);
            }
            State::Live | State::Limbo | State::Isolated => {}
            State::Free | State::Unknown if phase != Phase::After => {
                if self.memory.block_at(pfn).is_some() {
                    return;
                }
            }
            State::Free => {
                self.residue.unmatched_frees += 1;
                self.take_hidden(pfn, order);
            }
            State::Unknown if self.memory.block_at(pfn).is_some() => {
                self.residue.unmatched_frees += 1;
                self.take_hidden(pfn, order);
            }
            State::Unknown if self.split_taken(pfn, order) => {}
            State::Unknown => self.residue.frees_from_before += 1,
        }
        let migrate = self.memory.block_type(pfn);
        match self.memory.machine().pcp_list(order, migrate) {
            Some(_) if is_direct => {
                self.residue.direct_frees += 1 << order;
                self.memory.free(pfn, order, migrate, false);
            }
            Some(index) => {
                let list = self.memory.pcp(zone, self.cpu(event), index);
                self.memory.pages.push_front(list, pfn, State::Pcp, order);
            }
            None if phase == Phase::Before => self.memory.pages.note(pfn, State::Unknown, 0),
            None => {
                self.forget_inner(pfn, order);
                self.memory.free(pfn, order, migrate, false);
            }
        }
    }

    /// Numbers the free. `true` when the first pass found that it goes past the per-CPU lists.
    fn count_free(&mut self, pfn: u32, event: &Event) -> bool {
        self.frees += 1;
        if !event.context.is_task()
            && let Some(learner) = &mut self.learner
        {
            learner.freed(pfn, self.frees);
        }
        let is_direct = self.next_direct == Some(self.frees);
        if is_direct {
            self.next_direct = self.direct.next();
            self.effects.push(Effect::Direct { pfn, order: event.order });
        }
        is_direct
    }

    /// Splits the allocated block that holds `[pfn, pfn + 2^order)`, so that the piece can be freed
    /// alone (a huge page that was split, a compaction target). `false` when none holds it.
    fn split_taken(&mut self, pfn: u32, order: u8) -> bool {
        for above in order + 1..self.memory.machine().orders {
            let head = pfn >> above << above;
            let node = self.memory.pages.get(head);
            let is_taken = matches!(node.state(), State::Live | State::Limbo | State::Isolated);
            if !is_taken || node.order() < above {
                continue;
            }
            let (mut at, mut have) = (head, node.order());
            while have > order {
                have -= 1;
                let upper = at + (1 << have);
                let (kept, other) = if pfn >= upper { (upper, at) } else { (at, upper) };
                self.memory.pages.note(other, node.state(), have);
                at = kept;
            }
            return true;
        }
        false
    }

    /// A large block is freed whole: what was known of its inner pages is stale.
    fn forget_inner(&mut self, pfn: u32, order: u8) {
        let span = 1u32.checked_shl(u32::from(order)).unwrap_or(u32::MAX);
        let end = pfn.saturating_add(span).min(self.memory.machine().end);
        for inner in pfn..end {
            match self.memory.pages.get(inner).state() {
                State::Pcp => {
                    self.memory.pages.unlink(inner);
                }
                State::Live | State::Limbo | State::Isolated => {
                    self.memory.pages.note(inner, State::Unknown, 0);
                }
                State::Free => {
                    self.memory.remove(inner);
                }
                State::Unknown => {}
            }
        }
    }

    /// The page goes to this processor's list now: its place in the list is known from here.
    fn page_free_batched(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.page(event) else { return };
        let node = self.memory.pages.get(pfn);
        if node.state() != State::Pcp {
            return;
        }
        self.memory.pages.unlink(pfn);
        let migrate = self.memory.block_type(pfn);
        if let Some(index) = self.memory.machine().pcp_list(node.order(), migrate) {
            let cpu = self.cpu(event);
            let list = self.memory.pcp(zone, cpu, index);
            self.effects.push(Effect::Moved { cpu, pfn });
            self.memory.pages.push_front(list, pfn, State::Pcp, node.order());
        }
    }

    /// A block left a per-CPU list and is on the buddy lists, merged.
    fn pcp_drain(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.page(event) else { return };
        let order = event.order;
        self.close_run(event);
        let node = self.memory.pages.get(pfn);
        if node.state() == State::Pcp {
            self.pcp_hits.drains += 1;
            self.pcp_hits.at_tail += u64::from(self.memory.back(node.list()) == Some(pfn));
            self.memory.pages.unlink(pfn);
        }
        let phase = self.seed.phase(pfn, event.time.0);
        if phase == Phase::Before {
            return;
        }
        if node.state() != State::Pcp && self.memory.block_at(pfn).is_some() {
            self.residue.double_drains += u64::from(phase == Phase::After);
            return;
        }
        match node.state() {
            State::Limbo => self.effects.push(Effect::Returned { pfn, order }),
            State::Unknown => {
                let list = self.unknown_list(zone, event);
                if let (Some(list), Some(learner)) = (list, &mut self.learner) {
                    learner.drained(list, pfn, order);
                }
            }
            _ => {}
        }
        self.learn_type(pfn, event.migrate);
        self.memory.set_block_type(pfn, event.migrate);
        self.memory.free(pfn, order, event.migrate, false);
    }

    /// A request took from another migrate type.
    fn fallback(&mut self, event: &Event) {
        let Some((pfn, zone)) = self.page(event) else { return };
        if self.memory.machine().rules.fallback == Fallback::MoveThenCount {
            self.fallback_before_taking(pfn, event);
            return;
        }
        let cpu = self.cpu(event);
        let run = self.runs[cpu];
        let is_small_claim =
            run.open && run.pid == event.pid.0 && run.last == pfn && run.order == event.order;
        if is_small_claim {
            // The taking was told first, under the new type.
            self.claim_block(pfn, event.migrate);
            return;
        }
        let phase = self.seed.phase(pfn, event.time.0);
        if phase == Phase::Before {
            return;
        }
        let (wanted, taken) = (event.order, event.other_order);
        if !self.holds(pfn, taken) {
            self.recall(pfn, taken.min(self.memory.machine().orders - 1));
        }
        // A capture names a block that never reached the lists.
        let Some((head, have)) = self.memory.block_at(pfn) else { return };
        if head != pfn || have < wanted {
            return;
        }
        self.learn_taken(pfn);
        self.learn_type(pfn, event.other_migrate);
        self.memory.remove(pfn);
        let is_claim = taken >= self.memory.machine().block_order;
        let rest = if is_claim { event.migrate } else { event.other_migrate };
        if is_claim {
            self.memory.set_range_type(pfn, have, event.migrate);
        }
        self.memory.expand(pfn, wanted, have, rest);
        self.refilled(pfn, zone, wanted, event.migrate, event);
    }

    /// Regime of 6.9 and older: the block changes lists first, and is taken by the next event.
    fn fallback_before_taking(&mut self, pfn: u32, event: &Event) {
        if self.seed.phase(pfn, event.time.0) == Phase::Before {
            return;
        }
        let machine = self.memory.machine();
        let (block_order, taken) = (machine.block_order, event.other_order);
        let may_claim = taken >= block_order / 2 || event.migrate != 1;
        if taken >= block_order {
            self.memory.set_range_type(pfn, taken, event.migrate);
        } else if may_claim {
            self.memory.move_block(pfn, event.migrate);
            if event.flag != 0 {
                self.memory.set_block_type(pfn, event.migrate);
            }
            return;
        }
        if let Some((head, _)) = self.memory.block_at(pfn) {
            let (order, _) = self.memory.remove(head);
            self.memory.insert(head, order, event.migrate, End::Tail);
        }
    }

    /// The free blocks of a pageblock that are not yet on the claiming type's lists move to them.
    fn claim_block(&mut self, pfn: u32, migrate: u8) {
        let size = 1u32 << self.memory.machine().block_order;
        let start = pfn & !(size - 1);
        let mut at = start;
        while at < start + size {
            let node = self.memory.pages.get(at);
            if node.state() == State::Free {
                let zone = self.memory.zone_of(at).unwrap_or(0);
                if node.list() != self.memory.list(zone, node.order(), migrate) {
                    let (order, _) = self.memory.remove(at);
                    self.memory.insert(at, order, migrate, End::Tail);
                }
                at += 1 << node.order();
            } else {
                at += 1;
            }
        }
        self.memory.set_block_type(pfn, migrate);
    }
}
