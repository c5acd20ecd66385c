//! What each policy does differently, on sequences short enough to work out by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

mod bench;

use bench::*;
use kmemlab_replay::model::Model;

/// Takes everything as single movable pages and gives back those that are wanted free.
fn with_free(policies: &str, free: &[u32]) -> Model {
    let mut model = model_under(4, "6.18.0", &format!("{policies}percpu-off"));
    let pages: Vec<u32> = (0..2048).filter_map(|_| model.alloc(&ask(0, MOVABLE))).collect();
    assert_eq!(pages.len(), 2048, "all of it");
    for pfn in free {
        model.free(0, *pfn, 0);
    }
    model
}

#[test]
fn the_kernel_takes_the_last_freed_block_and_lowest_address_the_lowest() {
    let free = [1030, 1024, 1500, 1200];
    assert_eq!(with_free("", &free).alloc(&ask(0, MOVABLE)), Some(1200));
    let mut lowest = with_free("lowest-address+", &free);
    let taken: Vec<_> = (0..4).map(|_| lowest.alloc(&ask(0, MOVABLE)).unwrap()).collect();
    assert_eq!(taken, [1024, 1030, 1200, 1500]);
    assert_eq!(lowest.memory().work.blocks_looked_at, 2048 + 4);
}

#[test]
fn fullest_first_takes_from_the_pageblock_with_least_free() {
    // Pageblock 1024 has three free pages, 1536 one, 2048 two.
    let free = [1536, 1024, 1030, 1040, 2048, 2052];
    let mut fullest = with_free("fullest-pageblock-first+", &free);
    let taken: Vec<_> = (0..3).map(|_| fullest.alloc(&ask(0, MOVABLE)).unwrap()).collect();
    assert_eq!(taken, [1536, 2052, 2048]);
    // Looking at one block only is taking the head.
    let mut head = with_free("fullest-pageblock-first=scan=1+", &free);
    assert_eq!(head.alloc(&ask(0, MOVABLE)), Some(2052));
}

#[test]
fn freed_blocks_go_to_the_end_that_was_chosen() {
    let free = [1030, 1024, 1500, 1200];
    assert_eq!(with_free("free-to-tail+", &free).alloc(&ask(0, MOVABLE)), Some(1030));
    assert_eq!(with_free("free-to-head+", &free).alloc(&ask(0, MOVABLE)), Some(1200));
}

/// All but one pageblock of pages in use as movable ones; an unmovable request comes.
#[test]
fn never_mix_takes_over_whole_pageblocks_and_else_fails() {
    let free = [1030, 1040, 1050];
    let mut kernel = with_free("", &free);
    assert!(kernel.alloc(&ask(0, UNMOVABLE)).is_some());
    assert_eq!(kernel.fallbacks.steals, 1);
    let mut never = with_free("never-mix+", &free);
    assert_eq!(never.alloc(&ask(0, UNMOVABLE)), None);
    assert_eq!(never.counts.failures, 1);
    let mut last = with_free("never-mix=last-resort+", &free);
    assert!(last.alloc(&ask(0, UNMOVABLE)).is_some());
    assert_eq!(last.fallbacks.steals, 1);
    let whole: Vec<u32> = (1536..2048).collect();
    let mut never = with_free("never-mix+", &whole);
    assert_eq!(never.alloc(&ask(0, UNMOVABLE)), Some(1536));
    assert_eq!(never.fallbacks.whole_claims, 1);
    assert_eq!(never.memory().block_type(1536), UNMOVABLE);
}

/// Regimes A, B and C of one fallback: a pageblock with a free block of order 3 and one of order 0,
/// all else movable and in use, and an unmovable request of order 0.
#[test]
fn the_three_regimes_leave_the_rest_of_a_pageblock_where_they_say() {
    let free: Vec<u32> = (1032..1040).chain([1100]).collect();
    let run = |policy: &str| {
        let mut model = with_free(policy, &free);
        let pfn = model.alloc(&ask(0, UNMOVABLE)).unwrap();
        let memory = model.memory();
        let of = |migrate| (0..4).map(|order| memory.free_of_type(0, order, migrate)).sum::<u64>();
        (pfn, of(UNMOVABLE), of(MOVABLE))
    };
    // A moves all free blocks of the pageblock to the request's lists and takes the smallest.
    assert_eq!(run("move-then-count+"), (1100, 1, 0));
    // B steals the largest block and leaves the rest to its type.
    assert_eq!(run("count-then-move+"), (1032, 0, 4));
    // C steals the smallest.
    assert_eq!(run("claim-then-steal+"), (1100, 0, 1));
}

#[test]
fn per_cpu_lists_are_off_fixed_or_tuned() {
    let refilled = |policies: &str| {
        let mut model = model_under(512, "6.18.0", policies);
        for _ in 0..64 {
            model.alloc(&ask(0, MOVABLE)).unwrap();
        }
        (model.memory().pcp_pages(0, 0), model.moved.refills())
    };
    assert_eq!(refilled("percpu-off"), (0, 0));
    assert_eq!(refilled("percpu-fixed=batch=10,high=40"), (6, 7));
    let (waiting, refills) = refilled("percpu-auto");
    assert_eq!(refills, 2, "63 and twice that");
    assert_eq!(waiting, 63 + 126 - 64);
    let mut fixed = model_under(512, "6.18.0", "percpu-fixed=batch=10,high=40");
    let pages: Vec<u32> = (0..100).map(|_| fixed.alloc(&ask(0, MOVABLE)).unwrap()).collect();
    for pfn in pages {
        fixed.free(0, pfn, 0);
        assert!(fixed.memory().pcp_pages(0, 0) < 40);
    }
}

#[test]
fn watermarks_follow_the_sysctls() {
    // 64 pageblocks; min_free_kbytes 65536 keeps half of them back from ordinary requests.
    let taken = |policies: &str| {
        let mut model = model_under(64, "6.18.0", policies);
        while model.counts.below_watermark == 0 && model.alloc(&ask(0, MOVABLE)).is_some() {}
        model.counts.allocs
    };
    let low = taken("vm.min_free_kbytes=1024+percpu-off");
    let high = taken("vm.min_free_kbytes=65536+percpu-off");
    assert_eq!(low, 64 * 512 - 256 + 1);
    assert_eq!(high, 64 * 512 - 16_384 + 1);
}
