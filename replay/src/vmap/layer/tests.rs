use super::*;
use crate::vmap::start::Taken;

const PAGE: u64 = 4096;
const START: u64 = 1 << 32;
const END: u64 = 1 << 36;

fn layer(lazy_max: u64, tuning: Tuning) -> Vmap {
    let mut layer = Vmap::new(VmapRules::of("6.18"), tuning, 2, lazy_max, PAGE);
    layer.set_window(START, END);
    layer
}

fn ask(layer: &mut Vmap, pages: u64, cpu: usize) -> u64 {
    let request = Request { size: pages * PAGE, align: 1, start: START, end: END };
    (layer.alloc(&request, cpu).unwrap() - START) / PAGE
}

fn free(layer: &mut Vmap, page: u64) -> bool {
    layer.free(START + page * PAGE)
}

#[test]
fn an_area_comes_back_from_the_pool_of_the_processor_that_took_it() {
    let mut layer = layer(1000, Tuning::default());
    assert_eq!([ask(&mut layer, 5, 0), ask(&mut layer, 5, 1), ask(&mut layer, 5, 0)], [0, 5, 10]);
    for page in [10, 5, 0] {
        assert!(!free(&mut layer, page));
    }
    assert_eq!((layer.lazy_areas(), layer.areas(), layer.bytes()), (3, 0, 0));
    assert_eq!(ask(&mut layer, 5, 0), 15, "what waits is not free");
    layer.purge_all(false);
    // Rising addresses go to the front one after the other: the highest comes first.
    assert_eq!([ask(&mut layer, 5, 0), ask(&mut layer, 5, 0)], [10, 0]);
    assert_eq!([ask(&mut layer, 5, 1), ask(&mut layer, 5, 1)], [5, 20]);
    assert_eq!(layer.pool_hits, 3);
    assert_eq!(ask(&mut layer, 4, 1), 25, "another size has another pool");
}

#[test]
fn a_purge_first_gives_a_fourth_of_each_pool_back() {
    let mut layer = layer(1000, Tuning::default());
    let pages: Vec<u64> = (0..9).map(|_| ask(&mut layer, 1, 0)).collect();
    for page in &pages[..8] {
        free(&mut layer, *page);
    }
    layer.purge_all(false);
    assert_eq!(layer.pooled_areas(), 8);
    layer.purge_all(false);
    assert_eq!(layer.pooled_areas(), 6, "8 - 8/4");
    // From the front: pages 7 and 6 are free again, and the lowest hole is taken.
    assert_eq!(ask(&mut layer, 2, 0), 6);
    layer.purge_all(true);
    assert_eq!(layer.pooled_areas(), 0, "a full purge empties them");
}

#[test]
fn one_surprise_is_one_surprise() {
    let mut layer = layer(1000, Tuning::default());
    let at = |page: u64| START + page * PAGE;
    let request = Request { size: 5 * PAGE, align: 1, start: START, end: END };
    // The kernel passes over the first hole: something nobody told of is there.
    assert_eq!(layer.alloc_at(&request, 0, at(8), None), Some(at(0)));
    // Nothing is taken to be there any more, so the kernel surprises once more.
    assert_eq!(layer.alloc_at(&request, 0, at(0), None), Some(at(13)));
    assert_eq!(layer.alloc_at(&request, 0, at(13), None), Some(at(13)), "three pages are too few");
    assert_eq!((layer.areas(), layer.bytes()), (3, 15 * PAGE));
    layer.free(at(8));
    layer.free(at(13));
    layer.purge_all(false);
    assert_eq!(layer.alloc_at(&request, 0, at(8), None), Some(at(13)), "the other of the pool");
    assert_eq!((layer.pooled_areas(), layer.areas()), (1, 2), "the last purge put it there");
}

fn pooled(layer: &Vmap) -> u64 {
    layer.pooled_areas()
}

/// Two areas of five pages in the pool of processor 0 for each of `pages`.
fn with_pool(pages: &[u64]) -> Vmap {
    let mut layer = layer(1000, Tuning::default());
    for page in pages {
        let (start, size) = (START + page * PAGE, 5 * PAGE);
        layer.seed_pool(&Pooled { node: 0, start, size, purges: 0 });
    }
    layer
}

const FIVE: Request = Request { size: 5 * PAGE, align: 1, start: START, end: END };

#[test]
fn what_stands_before_the_kernels_choice_in_a_pool_is_free() {
    let mut layer = with_pool(&[10, 20, 30, 40]);
    let at = |page: u64| START + page * PAGE;
    assert_eq!(layer.alloc_at(&FIVE, 0, at(30), Some(true)), Some(at(10)));
    assert_eq!(layer.alloc_at(&FIVE, 0, at(40), Some(true)), Some(at(40)), "the next of it");
    assert_eq!(pooled(&layer), 0);
}

#[test]
fn what_a_purge_took_too_much_comes_back_at_the_first_surprise() {
    let mut layer = with_pool(&[10, 20, 30, 40, 50, 60, 70, 80]);
    let at = |page: u64| START + page * PAGE;
    layer.purge_all(false);
    assert_eq!(pooled(&layer), 6, "10 and 20 are free");
    assert_eq!(layer.alloc_at(&FIVE, 0, at(10), Some(true)), Some(at(30)));
    let kernel = [20, 30, 40].map(at);
    assert_eq!(kernel.map(|it| layer.alloc_at(&FIVE, 0, it, Some(true))), kernel.map(Some));
}

#[test]
fn areas_that_stay_through_a_purge_have_others_before_them() {
    let mut layer = layer(1000, Tuning::default());
    for page in [10, 20, 30, 40] {
        let (start, size) = (START + page * PAGE, 5 * PAGE);
        layer.seed_pool(&Pooled { node: 0, start, size, purges: 1 });
    }
    layer.purge_all(false);
    assert_eq!(pooled(&layer), 4);
    layer.purge_all(false);
    assert_eq!(pooled(&layer), 3);
}

#[test]
fn a_hole_that_the_kernel_passed_over_is_passed_over_until_something_of_it_is_given_out() {
    let mut layer = with_pool(&[10]);
    let at = |page: u64| START + page * PAGE;
    // An object tells that the kernel's pool had nothing, and page 0 is not free.
    assert_eq!(layer.alloc_at(&FIVE, 0, at(40), Some(false)), Some(at(10)));
    assert_eq!(layer.alloc_at(&FIVE, 0, at(45), Some(false)), Some(at(45)));
    assert_eq!(pooled(&layer), 0);
    // A purge gave the pool back: what is above the first of it may be free too.
    layer.purge_all(false);
    assert_eq!(layer.alloc_at(&FIVE, 0, at(0), Some(false)), Some(at(50)));
    assert_eq!(layer.alloc_at(&FIVE, 0, at(5), Some(false)), Some(at(5)));
}

#[test]
fn a_purge_leaves_what_was_freed_after_it_took_its_nodes_list() {
    let mut layer = layer(10_000, Tuning::default());
    let pages: Vec<u64> = (0..6).map(|index| ask(&mut layer, 5, index % 2)).collect();
    for page in &pages {
        free(&mut layer, *page);
    }
    // Node 0's list was taken first: its last area is left though node 1's was freed later.
    let told = Purge { areas: 5, start: 0, end: u64::MAX };
    layer.purge(&told, None);
    assert_eq!((layer.lazy_areas(), pooled(&layer)), (1, 5));
    assert!(layer.is_lazy(START + pages[4] * PAGE));
}

#[test]
fn the_addresses_of_a_purge_and_of_the_next_tell_what_was_left() {
    let mut layer = layer(10_000, Tuning::default());
    let pages: Vec<u64> = (0..6).map(|index| ask(&mut layer, 5, index % 2)).collect();
    for page in &pages {
        free(&mut layer, *page);
    }
    let at = |index: usize| START + pages[index] * PAGE;
    let told = Purge { areas: 5, start: START, end: at(4) + 5 * PAGE };
    let next = Purge { areas: 1, start: at(5), end: at(5) + 5 * PAGE };
    layer.purge(&told, Some(&next));
    assert!(layer.is_lazy(at(5)) && !layer.is_lazy(at(4)));
}

#[test]
fn short_pools_were_emptied_up_to_6_13() {
    let mut layer = Vmap::new(VmapRules::of("6.12"), Tuning::default(), 2, 1000, PAGE);
    layer.set_window(START, END);
    let pages: Vec<u64> = (0..3).map(|_| ask(&mut layer, 1, 0)).collect();
    for page in pages {
        free(&mut layer, page);
    }
    layer.purge_all(false);
    assert_eq!(layer.pooled_areas(), 3);
    layer.purge_all(false);
    assert_eq!(layer.pooled_areas(), 0);
}

#[test]
fn the_worker_is_asked_for_beyond_the_threshold_only() {
    let mut layer = layer(10, Tuning::default());
    let pages: Vec<u64> = (0..3).map(|_| ask(&mut layer, 5, 0)).collect();
    assert!(!free(&mut layer, pages[0]) && !free(&mut layer, pages[1]));
    assert!(!layer.is_pending(), "ten pages are not more than ten");
    assert!(free(&mut layer, pages[2]) && layer.is_pending());
    // Only the first two were on the list when the worker took it.
    layer.purge(&Purge { areas: 2, start: 0, end: u64::MAX }, None);
    assert!(layer.is_pending(), "the third was freed while the worker still counted all");
    assert_eq!((layer.lazy_areas(), layer.lazy_pages()), (1, 5));
}

#[test]
fn a_lower_threshold_purges_at_once_and_no_pools_means_none() {
    let tuning = Tuning { lazy_max_pages: Some(4), no_pools: true, ..Tuning::default() };
    let mut layer = layer(1000, tuning);
    let page = ask(&mut layer, 5, 0);
    assert!(free(&mut layer, page));
    assert_eq!((layer.purges, layer.lazy_areas(), layer.pooled_areas()), (1, 0, 0));
    assert_eq!(ask(&mut layer, 5, 1), 0);
}

#[test]
fn without_a_hole_everything_that_waits_is_purged() {
    let mut layer = layer(1000, Tuning::default());
    let request = Request { size: 4 * PAGE, align: 1, start: START, end: START + 4 * PAGE };
    let first = layer.alloc(&request, 0).unwrap();
    assert_eq!(layer.alloc(&request, 0), None);
    layer.free(first);
    assert_eq!(layer.alloc(&request, 0), Some(first));
    assert_eq!(layer.failures, 1);
}

/// Three areas of processor 0, freed and purged: the pool has the highest in front.
fn with_purged(layer: &mut Vmap) -> [u64; 3] {
    let pages = [0; 3].map(|_| ask(layer, 5, 0));
    for page in pages {
        free(layer, page);
    }
    layer.purge_all(false);
    pages.map(|page| START + page * PAGE)
}

/// `__purge_vmap_area_lazy` (6.9 and later) shrinks the pools before it fills them.
#[test]
fn what_the_last_purge_put_into_a_pool_stays_when_the_kernel_finds_an_older_one_free() {
    let mut layer = with_pool(&[100, 200, 300, 400]);
    let [_, _, highest] = with_purged(&mut layer);
    assert_eq!((pooled(&layer), highest), (4, START + 300 * PAGE));
    // Processor 1 is given from the free space what stands last in the pool of processor 0.
    layer.alloc_at(&FIVE, 1, START + 400 * PAGE, Some(false));
    assert_eq!(layer.alloc_at(&FIVE, 0, highest, Some(true)), Some(highest));
}

/// `node_pool_add_va` (6.9 and later): a purge puts what it frees in front.
#[test]
fn one_area_of_another_purge_does_not_empty_a_pool_but_two_in_a_row_do() {
    let mut layer = layer(1000, Tuning::default());
    let [lowest, middle, highest] = with_purged(&mut layer);
    assert_eq!(layer.alloc_at(&FIVE, 0, middle, Some(true)), Some(highest));
    assert_eq!(layer.alloc_at(&FIVE, 0, highest, Some(true)), Some(highest), "it was there");
    assert_eq!(pooled(&layer), 1);
    layer.free(middle);
    layer.free(highest);
    layer.purge_all(false);
    let top = START + 50 * PAGE;
    for start in [START + 40 * PAGE, top] {
        layer.seed_pool(&Pooled { node: 0, start, size: FIVE.size, purges: 0 });
    }
    layer.alloc_at(&FIVE, 0, lowest, Some(true));
    assert_eq!(pooled(&layer), 4);
    layer.alloc_at(&FIVE, 0, top, Some(true));
    assert_eq!(pooled(&layer), 0, "neither was there");
}

/// `decay_va_pool_node` (6.9 and later) takes a pool off its node while it shrinks it, and what is
/// asked for meanwhile comes from the free space.
#[test]
fn a_pool_that_has_nothing_while_the_worker_is_asked_for_is_just_shrinking() {
    let mut layer = layer(40, Tuning::default());
    let pages: Vec<u64> = (0..17).map(|_| ask(&mut layer, 5, 0)).collect();
    for page in &pages[..8] {
        free(&mut layer, *page);
    }
    layer.purge_all(false);
    for page in &pages[8..] {
        free(&mut layer, *page);
    }
    assert!(layer.is_pending() && pooled(&layer) == 8);
    let at = |index: usize| START + pages[index] * PAGE;
    layer.alloc_at(&FIVE, 0, START + 85 * PAGE, Some(false));
    // A fourth of the pool went back, and its rest is there again.
    assert_eq!(pooled(&layer), 6);
    assert_eq!(layer.alloc_at(&FIVE, 0, at(5), Some(true)), Some(at(5)));
    layer.purge(&Purge { areas: 9, start: 0, end: u64::MAX }, None);
    assert_eq!(pooled(&layer), 14, "the purge does not shrink them once more");
}

/// What waits in a pool of another size goes back by `decay_va_pool_node`, at some purge.
#[test]
fn what_stood_at_the_start_leaves_with_the_first_purge_that_it_may_have_left_with() {
    let mut layer = layer(1000, Tuning::default());
    layer.seed_taken(&Taken { start: START, size: 5 * PAGE, purges: 1 });
    assert_eq!(ask(&mut layer, 5, 0), 5);
    layer.purge_all(false);
    assert_eq!(ask(&mut layer, 5, 0), 10, "it stayed through the first");
    layer.purge_all(false);
    assert_eq!(ask(&mut layer, 5, 0), 0);
}
