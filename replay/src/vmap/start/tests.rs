use super::*;
use kmemlab_trace::snapshot::Stamp;
use kmemlab_trace::unit::{Cpu, Nanos, Pid};

const PAGE: u64 = 4096;
const START: u64 = 1 << 32;

/// What the kernel did, on two nodes, after a first sample that names nothing.
#[derive(Clone, Copy, Debug)]
enum Did {
    /// On that processor a pool served five pages at that page.
    FromPool(u16, u64),
    /// Likewise from the free space.
    FromFree(u16, u64),
    /// The object was taken on the first processor, the area told of on the second.
    Moved(u16, u16, u64),
    Purged,
}
use Did::{FromFree, FromPool, Moved, Purged};

fn learn(events: &[Did]) -> VmapStart {
    let stamp = Stamp { before: Nanos(1), after: Nanos(2) };
    let sample = VmapSample { stamp, rows: Vec::new() };
    let mut learning = VmapLearning::new(Some(&sample), 2, true, VmapRules::of("6.18"), PAGE);
    let event =
        |kind, cpu: u16, at: usize| Event::new(kind, Nanos(10 + at as u64), Cpu(cpu), Pid(7));
    for (at, did) in events.iter().enumerate() {
        let (object, cpu, page) = match *did {
            FromPool(cpu, page) => (None, cpu, page),
            FromFree(cpu, page) => (Some(cpu), cpu, page),
            Moved(before, after, page) => (Some(before), after, page),
            Purged => {
                learning.event(&event(Kind::VmapPurge, 0, at));
                continue;
            }
        };
        if let Some(cpu) = object {
            learning.object(&event(Kind::CacheAlloc, cpu, at));
        }
        let mut area = event(Kind::VmapAlloc, cpu, at);
        area.pfn_or_address = START + page * PAGE;
        area.bytes_requested = 5 * PAGE;
        area.args = [1, START as i64, 1 << 36, 0, 0, 0];
        learning.event(&area);
    }
    learning.into_start()
}

/// The pools as (node, page, purges) and what is taken as (page, purges).
type Told = (Vec<(usize, u64, u64)>, Vec<(u64, u64)>);

fn told(start: &VmapStart) -> Told {
    let page = |start: u64| (start - START) / PAGE;
    let pools = start.pools.iter().map(|it| (it.node, page(it.start), it.purges)).collect();
    let taken = start.taken.iter().map(|it| (page(it.start), it.purges)).collect();
    (pools, taken)
}

/// `alloc_vmap_area` (6.9 and later): the pool of the processor's node, then the lowest hole.
#[test]
fn a_hole_that_was_passed_over_is_in_a_pool_that_nobody_found_empty() {
    let start = learn(&[FromFree(1, 5)]);
    assert_eq!(told(&start), (vec![(0, 0, 0)], vec![]));
    // Pool 0 is found empty later, and the hole is passed over again.
    let start = learn(&[FromFree(1, 5), Purged, FromFree(0, 10)]);
    assert_eq!(told(&start), (vec![], vec![(0, 1)]));
}

/// `decay_va_pool_node` (6.9 and later) is what a hole leaves its pool by.
#[test]
fn a_hole_stays_as_long_as_it_is_passed_over() {
    let start = learn(&[
        FromFree(1, 5),
        FromFree(0, 10),
        Purged,
        FromFree(1, 15),
        Purged,
        Purged,
        FromFree(1, 0),
    ]);
    assert_eq!(told(&start), (vec![], vec![(0, 1)]));
    // Nobody came by before the second purge: it may have left with the first.
    let start = learn(&[FromFree(1, 5), FromFree(0, 10), Purged, Purged, FromFree(1, 0)]);
    assert_eq!(told(&start), (vec![], vec![(0, 0)]));
}

/// The event of `alloc_vmap_area` comes after its lock is left.
#[test]
fn a_hole_that_is_given_out_before_the_next_purge_was_free() {
    let start = learn(&[FromFree(1, 5), FromFree(0, 0)]);
    assert_eq!(told(&start), (vec![], vec![]));
}

#[test]
fn a_hole_that_a_pool_gives_out_stood_in_that_pool() {
    let start = learn(&[FromFree(1, 5), Purged, FromPool(0, 0)]);
    assert_eq!(told(&start), (vec![(0, 0, 1)], vec![]));
}

/// `node_alloc` (6.9 and later) asks the pool before the object is allocated.
#[test]
fn the_empty_pool_is_that_of_the_processor_where_the_object_was_taken() {
    let start = learn(&[Moved(1, 0, 5)]);
    assert_eq!(told(&start), (vec![(0, 0, 0)], vec![]));
}

#[test]
fn what_stands_in_a_hole_stands_beside_what_is_given_out_of_it() {
    let start = learn(&[FromFree(1, 5), FromFree(0, 10), FromFree(1, 2)]);
    assert_eq!(told(&start), (vec![], vec![(0, 0)]));
}
