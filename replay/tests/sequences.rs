//! Short sequences, one behaviour each, with the kernel function that behaves so.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

mod bench;

use bench::*;
use kmemlab_replay::memory::{End, Memory};
use kmemlab_replay::policy::PolicySet;

#[test]
fn a_split_keeps_the_low_half_and_lists_the_upper_ones_at_the_head() {
    // expand(), mm/page_alloc.c: order 3 at 0x1000 asked for order 0.
    let mut memory = memory(16);
    put(&mut memory, &[(0x1000, 3, MOVABLE), (0x1100, 1, MOVABLE)]);
    memory.remove(0x1000);
    memory.expand(0x1000, 0, 3, MOVABLE);
    assert_eq!(list(&memory, 2, MOVABLE), [0x1004]);
    assert_eq!(list(&memory, 1, MOVABLE), [0x1002, 0x1100]);
    assert_eq!(list(&memory, 0, MOVABLE), [0x1001]);
    memory.check().unwrap();
}

#[test]
fn a_freed_buddy_pair_merges_upward() {
    // __free_one_page(): 0x1001 meets 0x1000, the pair meets 0x1002.
    let mut memory = memory(16);
    put(&mut memory, &[(0x1000, 0, MOVABLE), (0x1002, 1, MOVABLE), (0x1004, 1, MOVABLE)]);
    memory.free(0x1001, 0, MOVABLE, false);
    assert_eq!(memory.block_at(0x1003), Some((0x1000, 2)));
    assert_eq!(memory.free_blocks(0)[..4], [0, 1, 1, 0]);
    assert_eq!(memory.work.merges, 2);
    memory.check().unwrap();
}

#[test]
fn merging_stops_at_the_largest_order_and_at_the_zone_s_end() {
    let mut memory = memory(4);
    for pfn in [1024, 1536, 2048, 2560] {
        memory.free(pfn, 9, MOVABLE, false);
    }
    // Zone 1024..3072: two blocks of order 10, whose union would be aligned but too large.
    assert_eq!(memory.free_blocks(0)[9..], [0, 2]);
    memory.check().unwrap();
}

#[test]
fn a_block_whose_parent_s_buddy_is_free_waits_at_the_tail() {
    // buddy_merge_likely(): 0x2001 is busy, 0x2002 is free with order 1.
    let mut memory = memory(32);
    put(&mut memory, &[(0x2002, 1, MOVABLE), (0x2010, 0, MOVABLE)]);
    memory.free(0x2000, 0, MOVABLE, false);
    assert_eq!(list(&memory, 0, MOVABLE), [0x2010, 0x2000]);
    // Nothing free beside its parent: head.
    memory.free(0x2020, 0, MOVABLE, false);
    assert_eq!(list(&memory, 0, MOVABLE), [0x2020, 0x2010, 0x2000]);
}

#[test]
fn special_pageblocks_do_not_merge_with_others_and_plain_ones_retype() {
    // __free_one_page(), 6.12 and later: HIGHATOMIC (3) never merges across the border.
    let mut memory = memory(4);
    memory.set_block_type(1024, 3);
    memory.free(1024, 9, 3, false);
    memory.free(1536, 9, MOVABLE, false);
    assert_eq!(memory.free_blocks(0)[9], 2);
    memory.set_block_type(2048, UNMOVABLE);
    memory.free(2048, 9, UNMOVABLE, false);
    memory.free(2560, 9, MOVABLE, false);
    assert_eq!(memory.free_blocks(0)[9..], [2, 1]);
    assert_eq!(memory.block_type(2048), MOVABLE);
}

#[test]
fn a_claimed_pageblock_s_free_pages_go_to_the_tail_in_rising_order() {
    // move_freepages_block()
    let mut memory = memory(4);
    let blocks = [(1040, 4, MOVABLE), (1100, 2, MOVABLE), (1032, 3, MOVABLE), (2048, 3, UNMOVABLE)];
    put(&mut memory, &blocks);
    assert_eq!(memory.move_block(1500, UNMOVABLE), 16 + 4 + 8);
    assert_eq!(list(&memory, 3, UNMOVABLE), [2048, 1032]);
    assert_eq!(memory.free_of_type(0, 4, MOVABLE), 0);
    assert_eq!(memory.free_in_block(1024), 28);
}

#[test]
fn a_free_above_the_pageblock_order_is_cut_into_pageblocks_first() {
    // split_large_buddy(), 6.10 and later; before, one block.
    let mut memory = memory(8);
    memory.free(2048, 10, MOVABLE, false);
    assert_eq!((memory.free_blocks(0)[10], memory.work.merges), (1, 1));
    let mut older = Memory::new(&machine(8, "6.6.0"));
    older.free(2048, 10, MOVABLE, false);
    assert_eq!((older.free_blocks(0)[10], older.work.merges), (1, 0));
}

#[test]
fn carving_gives_back_everything_around_the_page() {
    let mut memory = memory(4);
    memory.insert(1024, 4, MOVABLE, End::Tail);
    memory.carve(1024, 1029, 0);
    assert_eq!(memory.free_pages(0), 15);
    assert_eq!(memory.block_at(1029), None);
    assert_eq!(memory.free_blocks(0)[..4], [1, 1, 1, 1]);
    memory.check().unwrap();
    memory.free(1029, 0, MOVABLE, false);
    assert_eq!(memory.block_at(1029), Some((1024, 4)));
}

#[test]
fn a_refill_delivers_rising_pages_and_frees_come_back_last_in_first_out() {
    // rmqueue_bulk() fills the tail, rmqueue_pcplist() pops the head, frees push the head.
    let mut model = model(512, "6.18.0");
    let first = model.alloc(&ask(0, MOVABLE)).unwrap();
    let second = model.alloc(&ask(0, MOVABLE)).unwrap();
    assert_eq!(second, first + 1);
    model.free(0, first, 0);
    model.free(0, second, 0);
    assert_eq!(model.alloc(&ask(0, MOVABLE)), Some(second));
    assert_eq!(model.alloc(&ask(0, MOVABLE)), Some(first));
    assert_eq!(model.memory().work.refills, 1);
    model.memory().check().unwrap();
}

#[test]
fn orders_four_to_eight_go_past_the_per_cpu_lists() {
    // pcp_allowed_order()
    let mut model = model(16, "6.18.0");
    let pfn = model.alloc(&ask(5, MOVABLE)).unwrap();
    assert_eq!(model.memory().work.refills, 0);
    let free = model.memory().free_pages(0);
    model.free(0, pfn, 5);
    assert_eq!(model.memory().free_pages(0), free + 32);
}

#[test]
fn an_unmovable_request_takes_over_a_whole_movable_pageblock() {
    // try_to_claim_block(): everything is MOVABLE, so the largest block changes hands.
    let mut model = model(16, "6.18.0");
    let pfn = model.alloc(&ask(5, UNMOVABLE)).unwrap();
    assert_eq!(model.fallbacks.whole_claims, 1);
    assert_eq!(model.memory().block_type(pfn), UNMOVABLE);
    let next = model.alloc(&ask(5, UNMOVABLE)).unwrap();
    assert_eq!(model.fallbacks.whole_claims, 1);
    assert_eq!(next >> 10, pfn >> 10);
    model.memory().check().unwrap();
}

#[test]
fn a_request_that_fits_nowhere_fails_and_leaves_the_state_whole() {
    let mut model = model(4, "6.18.0");
    let mut taken = Vec::new();
    while let Some(pfn) = model.alloc(&ask(9, MOVABLE)) {
        taken.push(pfn);
    }
    assert_eq!(taken.len(), 4);
    assert_eq!(model.counts.failures, 1);
    assert_eq!(model.memory().free_pages(0), 0);
    for pfn in taken {
        model.free(0, pfn, 9);
    }
    model.drain_all();
    assert_eq!(model.memory().free_pages(0), 2048);
    model.memory().check().unwrap();
}

#[test]
fn a_zone_smaller_than_its_reserve_never_serves() {
    // __zone_watermark_ok(): lowmem_reserve keeps ZONE_DMA from requests that may use higher
    // zones, after reclaim and compaction too; what they made room for is in another zone.
    let served_of = |reserve: u64| {
        let mut machine = machine(4, "6.18.0");
        machine.zones[0].protection = vec![reserve; 5];
        let mut model = begun(PolicySet::baseline(&machine.rules), &machine, 4);
        let served = model.alloc(&ask(3, UNMOVABLE)).is_some();
        (served, model.counts.below_watermark, model.counts.failures)
    };
    assert_eq!(served_of(0), (true, 0, 0));
    // No room above the reserve: the kernel made some first, and did serve.
    assert_eq!(served_of(4 * 512 - 1), (true, 1, 0));
    assert_eq!(served_of(4 * 512), (false, 0, 1));
}
