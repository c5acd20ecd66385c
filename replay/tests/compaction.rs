//! What the mirror makes of compaction's events, of lost events, and of a machine without a page
//! map; each cites the kernel function behind it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

mod bench;

use bench::*;
use kmemlab_replay::mirror::{Effect, Mirror};
use kmemlab_replay::residue::Cause;
use kmemlab_replay::seeding::Seed;
use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::reader::BuddySample;
use kmemlab_trace::snapshot::{BuddyRow, PageRun, PageUse, Stamp};
use kmemlab_trace::unit::{Cpu, Nanos, NodeId, Pfn, Pid};

/// A mirror of 16 pageblocks from page 1024 on, and a clock that ticks with each event.
struct Bench {
    mirror: Mirror,
    time: u64,
}

fn seed(runs: &[(u64, u64)]) -> Seed {
    let machine = machine(16, "6.18.0");
    let mut seed = Seed::new(&machine);
    for (pfn, pages) in runs {
        let (pfn, page_use) = (Pfn(*pfn), PageUse::Free);
        seed.add(&PageRun { stamp: Stamp::default(), pfn, pages: *pages, page_use }, &machine);
    }
    seed
}

impl Bench {
    fn of(mirror: Mirror) -> Self {
        Self { mirror, time: 100 }
    }

    fn with_free(runs: &[(u64, u64)]) -> Self {
        Self::of(Mirror::new(&machine(16, "6.18.0"), seed(runs), None))
    }

    fn step(&mut self, kind: Kind, pfn: u64, fill: impl FnOnce(&mut Event)) -> Vec<Effect> {
        self.time += 1;
        let mut event = Event::new(kind, Nanos(self.time), Cpu(0), Pid(7));
        event.pfn_or_address = pfn;
        event.present = Column::PfnOrAddress.bit() | Column::Order.bit() | Column::Migrate.bit();
        event.migrate = MOVABLE;
        fill(&mut event);
        self.mirror.step(&event);
        self.mirror.memory().check().unwrap();
        self.mirror.effects().to_vec()
    }

    fn of_order(&mut self, kind: Kind, pfn: u64, order: u8) -> Vec<Effect> {
        self.step(kind, pfn, |event| event.order = order)
    }

    fn taken(&mut self, pfn: u64, order: u8) -> Vec<Effect> {
        self.step(Kind::ZoneLocked, pfn, |event| {
            (event.order, event.flag) = (order, 1);
            event.present |= Column::Flag.bit();
        })
    }

    /// The fast search between two pages: what it looked at and took.
    fn search(&mut self, bounds: (u64, u64), seen: (i64, i64)) -> Vec<Effect> {
        self.step(Kind::FastIsolateFree, bounds.0, |event| {
            event.end = bounds.1;
            (event.args[0], event.args[1]) = seen;
        })
    }

    fn counts(&self) -> Vec<u64> {
        self.mirror.memory().free_blocks(0).to_vec()
    }

    fn causes(&self) -> Vec<Cause> {
        self.mirror.misfits().iter().map(|misfit| misfit.cause).collect()
    }
}

/// Three free blocks of order 2.
const THREE: [(u64, u64); 3] = [(2048, 4), (4096, 4), (8192, 4)];

#[test]
fn the_fast_search_takes_the_last_block_in_the_highest_quarter() {
    // fast_isolate_freepages(): from the tail of the list; it turns the list to the block found.
    let mut bench = Bench::with_free(&THREE);
    let isolated = |pfn| [Effect::Isolated { pfn, order: 2 }];
    assert_eq!(bench.search((1024, 9216), (4, 4)), isolated(8192));
    // None is in the highest quarter: the highest one above the bound.
    assert_eq!(bench.search((1024, 9216), (5, 4)), isolated(4096));
    assert_eq!(bench.counts()[..3], [0, 0, 1]);
    assert_eq!(bench.mirror.residue.ambiguous_isolations, 2);
}

#[test]
fn a_search_that_nothing_fits_is_residue() {
    let mut bench = Bench::with_free(&[(2048, 4)]);
    assert!(bench.search((1024, 9216), (8, 8)).is_empty());
    assert_eq!(bench.causes(), [Cause::FastSearch]);
    assert_eq!(bench.counts()[..4], [0, 0, 1, 0]);
}

#[test]
fn a_page_in_use_that_should_be_free_was_what_the_search_took() {
    let mut bench = Bench::with_free(&THREE);
    bench.search((1024, 9216), (4, 4));
    let effects = bench.of_order(Kind::PageFree, 4097, 0);
    assert_eq!(effects, [Effect::Instead { guess: 8192, pfn: 4096, order: 2 }]);
    assert_eq!(bench.counts()[..3], [0, 0, 2]);
    assert_eq!(list(bench.mirror.memory(), 2, MOVABLE).len(), 2);
    assert_eq!(bench.mirror.residue.unmatched_frees, 0);
}

#[test]
fn a_block_that_the_kernel_still_has_was_not_what_the_search_took() {
    let mut bench = Bench::with_free(&THREE);
    bench.search((1024, 9216), (4, 4));
    let effects = bench.taken(8192, 2);
    assert_eq!(effects.len(), 1);
    assert!(matches!(effects[0], Effect::Instead { guess: 8192, order: 2, .. }), "{effects:?}");
    assert_eq!(bench.counts()[..3], [0, 0, 1]);
    assert_eq!(bench.mirror.residue.missing_takes, 0);
}

#[test]
fn a_second_pass_knows_what_the_search_took() {
    let machine = machine(16, "6.18.0");
    let mut first = Bench::of(Mirror::learning(&machine, seed(&THREE)));
    first.search((1024, 9216), (4, 4));
    first.of_order(Kind::PageFree, 4096, 2);
    let learned = first.mirror.into_learned();
    let mut second = Bench::of(Mirror::new(&machine, seed(&THREE), Some(&learned)));
    let effects = second.search((1024, 9216), (4, 4));
    assert_eq!(effects, [Effect::Isolated { pfn: 4096, order: 2 }]);
    assert_eq!(second.mirror.residue.ambiguous_isolations, 0);
}

#[test]
fn a_page_that_compaction_keeps_is_not_free() {
    // compaction_free(): mm_page_free, and the page goes back to compaction's own list.
    let mut bench = Bench::with_free(&[(2048, 8)]);
    bench.step(Kind::IsolateFree, 2048, |event| {
        event.end = 2056;
        (event.args[0], event.args[1]) = (8, 8);
    });
    bench.step(Kind::IsolateMigrate, 4096, |_| {});
    assert_eq!(bench.of_order(Kind::PageFree, 2050, 0), [Effect::Kept { pfn: 2050 }]);
    assert_eq!(bench.of_order(Kind::PageFree, 2050, 0), [Effect::Kept { pfn: 2050 }]);
    // What it moved away from is free.
    assert!(bench.of_order(Kind::PageFree, 4096, 4).is_empty());
    bench.step(Kind::MigratePages, 0, |_| {});
    // release_free_list()
    assert!(bench.of_order(Kind::PageFree, 2050, 0).is_empty());
    assert_eq!(bench.mirror.memory().pcp_pages(0, 0), 1);
    assert_eq!((bench.mirror.residue.kept_frees, bench.mirror.residue.bulk_pages), (2, 0));
}

#[test]
fn a_block_caught_as_it_was_freed_never_got_to_the_lists() {
    // compaction_capture(): a free of order 4 completes an order 5 that the compactor waits for.
    let mut bench = Bench::with_free(&[(2048, 16)]);
    bench.of_order(Kind::PageFree, 2064, 4);
    assert_eq!(bench.counts()[5], 1);
    bench.of_order(Kind::PageAlloc, 2048, 5);
    assert_eq!(bench.counts(), [0; 11]);
    assert!(bench.causes().is_empty());
    assert_eq!(bench.mirror.residue.captured_pages, 32);
}

#[test]
fn isolated_pageblocks_are_freed_past_the_lists() {
    // free_frozen_pages() of a page in an isolated pageblock: mm_page_free alone, no drain.
    let mut bench = Bench::with_free(&[(2049, 1)]);
    bench.of_order(Kind::PageFree, 2048, 0);
    bench.step(Kind::IsolateFree, 2048, |event| {
        event.end = 2050;
        (event.args[0], event.args[1]) = (2, 2);
    });
    assert_eq!(bench.counts(), [0; 11]);
    assert_eq!(bench.mirror.residue.direct_frees, 1);
    assert_eq!(bench.mirror.residue.unsolved_isolations, 0);
}

fn sample(free_blocks: Vec<u64>) -> BuddySample {
    let stamp = Stamp { before: Nanos(1), after: Nanos(2) };
    let row = BuddyRow { node: NodeId(0), zone: "Normal".to_owned(), free_blocks };
    BuddySample { stamp, zones: vec![row] }
}

#[test]
fn blocks_without_a_known_place_keep_their_number() {
    let machine = machine(16, "6.18.0");
    let counts = vec![40, 30, 20, 10, 5, 4, 3, 2, 1, 1, 2];
    let (seed, homeless) = Seed::made_up(&machine, &sample(counts.clone()));
    assert_eq!(homeless, 0);
    let mut bench = Bench::of(Mirror::new(&machine, seed, None));
    assert_eq!(bench.counts(), counts);
    // Pages of which one is in a made-up block for certain: its block moves, its number stays.
    for pfn in 1024..1536 {
        bench.of_order(Kind::PageFree, pfn, 0);
        bench.of_order(Kind::PageAlloc, pfn, 0);
    }
    assert_eq!(bench.counts(), counts);
    // The kernel takes a page from somewhere: the smallest block that is large enough is used up.
    bench.taken(1030, 0);
    assert_eq!(bench.counts()[0], 39);
    bench.taken(1040, 4);
    assert_eq!(bench.counts()[4], 4);
    assert_eq!(bench.mirror.residue.made_up_pages, 17);
}

#[test]
fn what_a_made_up_block_had_merged_with_is_taken_with_it() {
    // __free_one_page() merges a freed block with a buddy whose place nobody knows; the taking of
    // the whole then uses up both.
    let machine = machine(16, "6.18.0");
    let (seed, _) = Seed::made_up(&machine, &sample(vec![0, 0, 0, 0, 3]));
    let mut bench = Bench::of(Mirror::new(&machine, seed, None));
    // No per-CPU list keeps order 4: the block is free, and its buddy is one of the three.
    bench.of_order(Kind::PageFree, 2048, 4);
    bench.of_order(Kind::PageAlloc, 2048, 4);
    bench.of_order(Kind::PageFree, 2048, 4);
    assert_eq!(bench.counts()[4], 4);
    bench.taken(2048, 5);
    assert_eq!((bench.counts()[4], bench.counts()[5]), (2, 0));
    assert_eq!(bench.mirror.residue.made_up_pages, 16);
    bench.mirror.memory().check().unwrap();
}

#[test]
fn more_blocks_than_there_is_room_for_are_told() {
    let machine = machine(16, "6.18.0");
    let (_, homeless) = Seed::made_up(&machine, &sample(vec![5000]));
    // 8192 pages hold 4096 blocks of one page without a free buddy.
    assert_eq!(homeless, 5000 - 4096);
}
