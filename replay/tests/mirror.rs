//! What the mirror makes of short sequences of events; each cites the kernel function behind it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

mod bench;

use bench::*;
use kmemlab_replay::mirror::{Effect, Mirror};
use kmemlab_replay::seeding::Seed;
use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::snapshot::{PageRun, PageUse, Stamp};
use kmemlab_trace::unit::{Cpu, Nanos, Pfn, Pid};

/// A mirror and a clock that ticks with each event.
struct Bench {
    mirror: Mirror,
    time: u64,
    pid: u32,
    cpu: u16,
}

impl Bench {
    /// Pages 1024.. of 16 pageblocks, of which these runs are free.
    fn with_free(runs: &[(u64, u64)]) -> Self {
        let machine = machine(16, "6.18.0");
        let mut seed = Seed::new(&machine);
        for (pfn, pages) in runs {
            let (pfn, page_use) = (Pfn(*pfn), PageUse::Free);
            seed.add(&PageRun { stamp: Stamp::default(), pfn, pages: *pages, page_use }, &machine);
        }
        Self { mirror: Mirror::new(&machine, seed, None), time: 1, pid: 7, cpu: 0 }
    }

    fn event(&mut self, kind: Kind, pfn: u64) -> Event {
        self.time += 1;
        let mut event = Event::new(kind, Nanos(self.time), Cpu(self.cpu), Pid(self.pid));
        event.pfn_or_address = pfn;
        event.present = Column::PfnOrAddress.bit() | Column::Order.bit() | Column::Migrate.bit();
        event
    }

    fn step(&mut self, event: &Event) -> Vec<Effect> {
        self.mirror.step(event);
        self.mirror.memory().check().unwrap();
        self.mirror.effects().to_vec()
    }

    fn zone_locked(&mut self, pfn: u64, order: u8, migrate: u8) -> Vec<Effect> {
        let mut event = self.event(Kind::ZoneLocked, pfn);
        (event.order, event.migrate, event.flag) = (order, migrate, 1);
        event.present |= Column::Flag.bit();
        self.step(&event)
    }

    fn alloc(&mut self, pfn: u64, order: u8, migrate: u8) -> Vec<Effect> {
        let mut event = self.event(Kind::PageAlloc, pfn);
        (event.order, event.migrate) = (order, migrate);
        self.step(&event)
    }

    fn free(&mut self, pfn: u64, order: u8) -> Vec<Effect> {
        let mut event = self.event(Kind::PageFree, pfn);
        event.order = order;
        self.step(&event)
    }

    fn drain(&mut self, pfn: u64, order: u8, migrate: u8) -> Vec<Effect> {
        let mut event = self.event(Kind::PcpDrain, pfn);
        (event.order, event.migrate) = (order, migrate);
        self.step(&event)
    }

    fn fallback(&mut self, pfn: u64, orders: (u8, u8), types: (u8, u8)) -> Vec<Effect> {
        let mut event = self.event(Kind::ExtFrag, pfn);
        (event.order, event.other_order) = orders;
        (event.migrate, event.other_migrate) = types;
        self.step(&event)
    }

    fn isolate(&mut self, range: (u64, u64), scanned: i64, taken: i64) -> Vec<Effect> {
        let mut event = self.event(Kind::IsolateFree, range.0);
        event.end = range.1;
        (event.args[0], event.args[1]) = (scanned, taken);
        self.step(&event)
    }

    fn counts(&self) -> Vec<u64> {
        self.mirror.memory().free_blocks(0).to_vec()
    }
}

#[test]
fn the_page_map_decomposes_into_maximal_aligned_blocks() {
    let bench = Bench::with_free(&[(1025, 7), (2048, 1024)]);
    // 1025, 1026-1027, 1028-1031; then one block of order 10.
    assert_eq!(bench.counts(), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_refill_fills_the_list_and_allocations_pop_its_head() {
    // rmqueue_bulk(), then rmqueue_pcplist()
    let mut bench = Bench::with_free(&[(2048, 4)]);
    for pfn in 2048..2051 {
        bench.zone_locked(pfn, 0, MOVABLE);
    }
    assert_eq!(bench.counts()[..3], [1, 0, 0]);
    assert!(bench.alloc(2048, 0, MOVABLE).is_empty());
    assert!(bench.alloc(2049, 0, MOVABLE).is_empty());
    assert_eq!(bench.mirror.pcp_hits.at_head, 2);
}

#[test]
fn pages_in_front_of_the_popped_one_were_allocated_in_bulk() {
    // alloc_pages_bulk(): a fork takes four pages for the kernel stack without an event.
    let mut bench = Bench::with_free(&[(2048, 8)]);
    for pfn in 2048..2056 {
        bench.zone_locked(pfn, 0, UNMOVABLE);
    }
    let effects = bench.alloc(2052, 0, UNMOVABLE);
    let bulk = |pfn| Effect::Bulk { cpu: 0, pfn, order: 0, migrate: UNMOVABLE };
    assert_eq!(effects, [bulk(2048), bulk(2049), bulk(2050), bulk(2051)]);
    assert_eq!(bench.mirror.residue.bulk_pages, 4);
    // Their frees are no surprise.
    bench.free(2048, 0);
    assert_eq!(bench.mirror.residue.unmatched_frees, 0);
    assert_eq!(bench.mirror.residue.frees_from_before, 0);
}

#[test]
fn a_refill_of_more_than_one_block_proves_that_the_list_was_empty() {
    let mut bench = Bench::with_free(&[(2048, 8)]);
    bench.free(1100, 0);
    assert!(bench.zone_locked(2048, 0, MOVABLE).is_empty());
    let effects = bench.zone_locked(2049, 0, MOVABLE);
    assert_eq!(effects, [Effect::Bulk { cpu: 0, pfn: 1100, order: 0, migrate: MOVABLE }]);
}

#[test]
fn a_single_block_taken_and_allocated_at_once_never_was_on_the_list() {
    // rmqueue_buddy() after a failed trylock: the list keeps its pages.
    let mut bench = Bench::with_free(&[(2048, 8)]);
    bench.free(1100, 0);
    bench.zone_locked(2048, 0, MOVABLE);
    assert!(bench.alloc(2048, 0, MOVABLE).is_empty());
    assert!(bench.alloc(1100, 0, MOVABLE).is_empty());
    assert_eq!(bench.mirror.residue.bulk_pages, 0);
}

#[test]
fn a_drain_merges_the_page_into_the_buddy_lists() {
    // free_pcppages_bulk()
    let mut bench = Bench::with_free(&[(2049, 1)]);
    bench.free(2048, 0);
    assert_eq!(bench.counts()[..2], [1, 0]);
    bench.drain(2048, 0, MOVABLE);
    assert_eq!(bench.counts()[..2], [0, 1]);
    assert_eq!(bench.mirror.pcp_hits.at_tail, 1);
}

#[test]
fn a_waiting_page_inside_a_taken_block_was_freed_past_the_list() {
    // free_one_page() after a failed trylock: both halves of an order-1 block are found free.
    let mut bench = Bench::with_free(&[(2049, 1)]);
    bench.free(2048, 0);
    bench.zone_locked(2048, 1, MOVABLE);
    assert_eq!(bench.mirror.residue.direct_frees, 1);
    assert_eq!(bench.mirror.residue.missing_takes, 0);
    assert_eq!(bench.counts()[..2], [0, 0]);
}

#[test]
fn a_claim_told_after_its_taking_moves_the_rest_of_the_pageblock() {
    // __rmqueue_claim(): zone_locked, then mm_page_alloc_extfrag of the same page.
    let mut bench = Bench::with_free(&[(2048, 16), (2080, 16)]);
    bench.zone_locked(2048, 3, UNMOVABLE);
    bench.fallback(2048, (3, 4), (UNMOVABLE, MOVABLE));
    let memory = bench.mirror.memory();
    assert_eq!(memory.block_type(2048), UNMOVABLE);
    assert_eq!(list(memory, 3, UNMOVABLE), [2056]);
    assert_eq!(list(memory, 4, UNMOVABLE), [2080]);
}

#[test]
fn a_steal_leaves_the_rest_with_its_own_type() {
    // __rmqueue_steal(): mm_page_alloc_extfrag alone.
    let mut bench = Bench::with_free(&[(2048, 4)]);
    bench.fallback(2048, (0, 2), (UNMOVABLE, MOVABLE));
    let memory = bench.mirror.memory();
    assert_eq!(list(memory, 1, MOVABLE), [2050]);
    assert_eq!(list(memory, 0, MOVABLE), [2049]);
    assert!(bench.alloc(2048, 0, UNMOVABLE).is_empty());
    assert_eq!(bench.mirror.pcp_hits.at_head, 1);
}

#[test]
fn a_whole_pageblock_changes_hands_with_the_block_taken_from_it() {
    let mut bench = Bench::with_free(&[(2048, 1024)]);
    bench.fallback(2048, (3, 10), (UNMOVABLE, MOVABLE));
    let memory = bench.mirror.memory();
    assert_eq!((memory.block_type(2048), memory.block_type(2560)), (UNMOVABLE, UNMOVABLE));
    assert_eq!(list(memory, 9, UNMOVABLE), [2560]);
    assert_eq!(list(memory, 3, UNMOVABLE), [2056]);
}

#[test]
fn a_huge_page_may_be_freed_in_pieces() {
    // split_page(), folio split: one allocation, many frees.
    let mut bench = Bench::with_free(&[(2048, 512)]);
    bench.zone_locked(2048, 9, MOVABLE);
    bench.alloc(2048, 9, MOVABLE);
    for pfn in [2300, 2048, 2559] {
        bench.free(pfn, 0);
    }
    assert_eq!(bench.mirror.residue.frees_from_before, 0);
    bench.free(4000, 0);
    assert_eq!(bench.mirror.residue.frees_from_before, 1);
}

#[test]
fn isolation_is_solved_by_the_stride_that_gives_both_totals() {
    // isolate_freepages_block(): 8 busy pages and 88 free ones, every page visited.
    let mut bench = Bench::with_free(&[(2080, 16), (2096, 8), (2112, 64)]);
    let effects = bench.isolate((2080, 2176), 96, 88);
    let of = |pfn, order| Effect::Isolated { pfn, order };
    assert_eq!(effects, [of(2080, 4), of(2096, 3), of(2112, 6)]);
    assert_eq!(bench.mirror.residue.unsolved_isolations, 0);
    // Every second page visited: 128 steps, then a block of order 8 at an even page.
    let mut bench = Bench::with_free(&[(2049, 1), (2304, 256)]);
    let effects = bench.isolate((2048, 2560), 384, 256);
    assert_eq!(effects, [of(2304, 8)]);
    assert_eq!(bench.mirror.residue.unsolved_isolations, 0);
}

#[test]
fn a_page_taken_unseen_is_counted_when_it_is_named() {
    let mut bench = Bench::with_free(&[(2048, 4)]);
    bench.alloc(2050, 0, MOVABLE);
    assert_eq!(bench.mirror.residue.hidden_takes, 1);
    assert_eq!(bench.counts()[..3], [1, 1, 0]);
    bench.free(2048, 0);
    assert_eq!(bench.mirror.residue.unmatched_frees, 1);
}

#[test]
fn events_older_than_the_page_map_change_nothing_in_it() {
    let machine = machine(16, "6.18.0");
    let mut seed = Seed::new(&machine);
    let stamp = Stamp { before: Nanos(100), after: Nanos(200) };
    seed.add(&PageRun { stamp, pfn: Pfn(2048), pages: 4, page_use: PageUse::Free }, &machine);
    let mut bench = Bench { mirror: Mirror::new(&machine, seed, None), time: 1, pid: 7, cpu: 0 };
    bench.zone_locked(2048, 0, MOVABLE);
    bench.alloc(2048, 0, MOVABLE);
    bench.drain(2049, 0, MOVABLE);
    assert_eq!(bench.counts()[..3], [0, 0, 1]);
    // Within the read: applied only where it still changes something.
    bench.time = 150;
    bench.drain(2048, 0, MOVABLE);
    assert_eq!(bench.counts()[..3], [0, 0, 1]);
    bench.zone_locked(2048, 1, MOVABLE);
    assert_eq!(bench.counts()[..3], [0, 1, 0]);
    assert_eq!(bench.mirror.residue.double_drains, 0);
}

#[test]
fn strict_isolation_cuts_larger_blocks_at_the_borders_of_pageblocks() {
    // alloc_contig_range(): each pageblock is isolated and taken whole; later one free of all.
    let mut bench = Bench::with_free(&[(2048, 2048)]);
    for start in [2048, 2560] {
        bench.isolate((start, start + 512), 512, 512);
    }
    // Two isolated pageblocks have merged: more was taken than the range that is told.
    bench.isolate((3072, 3584), 1024, 1024);
    assert_eq!(bench.counts(), [0; 11]);
    assert_eq!(bench.mirror.residue.unsolved_isolations, 0);
    bench.free(2048, 11);
    assert_eq!(bench.counts()[9..], [0, 2]);
    assert_eq!(bench.mirror.residue.unmatched_frees, 0);
}

#[test]
fn pages_freed_from_a_list_had_left_it_in_bulk() {
    // copy_splice_read(): sixteen pages at a time, without an event until they are freed.
    let mut bench = Bench::with_free(&[(2048, 8)]);
    for pfn in 2048..2056 {
        bench.zone_locked(pfn, 0, MOVABLE);
    }
    let bulk = |pfn| Effect::Bulk { cpu: 0, pfn, order: 0, migrate: MOVABLE };
    for pfn in 2048..2052 {
        assert_eq!(bench.free(pfn.into(), 0), [bulk(pfn)]);
    }
    assert_eq!(bench.mirror.residue.unmatched_frees, 0);
    assert_eq!(bench.mirror.residue.bulk_pages, 4);
}

#[test]
fn a_second_pass_lets_pages_leave_in_bulk_together() {
    let machine = machine(16, "6.18.0");
    let bench = Bench::with_free(&[(2048, 8)]);
    let seed = Seed::new(&machine);
    let mut first = Bench { mirror: Mirror::learning(&machine, seed.clone()), ..bench };
    let rounds = |bench: &mut Bench| {
        for pfn in 2048..2052 {
            bench.free(pfn, 0);
        }
        (2048..2052).rev().map(|pfn| bench.free(pfn, 0)).collect::<Vec<_>>()
    };
    rounds(&mut first);
    let learned = first.mirror.into_learned();
    let mirror = Mirror::new(&machine, seed, Some(&learned));
    let mut second = Bench { mirror, time: 1, pid: 7, cpu: 0 };
    let effects = rounds(&mut second);
    let bulk = |pfn| Effect::Bulk { cpu: 0, pfn, order: 0, migrate: MOVABLE };
    assert_eq!(effects[0], [bulk(2051), bulk(2050), bulk(2049), bulk(2048)]);
    assert!(effects[1..].iter().all(Vec::is_empty));
}

#[test]
fn a_block_that_a_fallback_took_stood_at_the_head_of_its_list() {
    // __rmqueue_fallback() up to 6.9: mm_page_alloc_extfrag, then zone_locked, of the list's head.
    let machine = machine(16, "6.1.192");
    let mut seed = Seed::new(&machine);
    for pfn in [2048, 4096, 6144] {
        let (stamp, page_use) = (Stamp::default(), PageUse::Free);
        seed.add(&PageRun { stamp, pfn: Pfn(pfn), pages: 1024, page_use }, &machine);
    }
    let mirror = Mirror::learning(&machine, seed.clone());
    let mut first = Bench { mirror, time: 1, pid: 7, cpu: 0 };
    for pfn in [4096, 6144] {
        first.fallback(pfn, (0, 10), (UNMOVABLE, MOVABLE));
        first.zone_locked(pfn, 0, UNMOVABLE);
    }
    let learned = first.mirror.into_learned();
    let second = Mirror::new(&machine, seed, Some(&learned));
    assert_eq!(list(second.memory(), 10, MOVABLE), [4096, 6144, 2048]);
}

#[test]
fn one_free_past_the_lists_tells_for_all_of_its_interrupt() {
    // free_one_page(): the interrupted section holds the lists' lock for the whole interrupt.
    let machine = machine(16, "6.18.0");
    let seed = Seed::new(&machine);
    let interrupt = |bench: &mut Bench| {
        for pfn in [2048, 3000, 4000] {
            let mut event = bench.event(Kind::PageFree, pfn);
            event.context.0 = 2;
            bench.step(&event);
        }
    };
    let first = Mirror::learning(&machine, seed.clone());
    let mut bench = Bench { mirror: first, time: 1, pid: 7, cpu: 0 };
    interrupt(&mut bench);
    assert_eq!(bench.counts()[0], 0);
    bench.zone_locked(3000, 0, MOVABLE);
    let learned = bench.mirror.into_learned();
    let second = Mirror::new(&machine, seed, Some(&learned));
    let mut bench = Bench { mirror: second, time: 1, pid: 7, cpu: 0 };
    interrupt(&mut bench);
    assert_eq!(bench.counts()[0], 3);
    bench.zone_locked(3000, 0, MOVABLE);
    assert_eq!(bench.counts()[0], 2);
    assert_eq!(bench.mirror.residue.missing_takes, 0);
}

#[test]
fn what_the_machine_has_not_is_passed_over_and_counted() {
    let mut bench = Bench::with_free(&[(2048, 4)]);
    // Beyond the machine's end, not aligned, of an order that no kernel has.
    bench.alloc(1 << 30, 0, MOVABLE);
    bench.free(2049, 1);
    bench.drain(2048, 40, MOVABLE);
    assert_eq!(bench.mirror.residue.impossible_events, 3);
    assert_eq!(bench.counts()[2], 1);
}
