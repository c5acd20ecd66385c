//! The slab layer on sequences worked by hand, and every slab policy against a naive allocator.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

use std::collections::BTreeMap;

use kmemlab_replay::policy::slab::{ALL, Host};
use kmemlab_replay::policy::{Params, SlabLayer};
use kmemlab_replay::rules::Rules;
use kmemlab_replay::slab::caches::{CacheId, Caches};
use kmemlab_replay::slab::geometry::Parameters;
use kmemlab_replay::slab::gfp::GfpBits;
use kmemlab_replay::slab::graces::Grace;
use kmemlab_replay::slab::policy::{Ask, NO_TOKEN, PageRequest, SlabPolicy, Token, plenty};
use kmemlab_replay::slab::rules::SlabRules;

fn caches(release: &str, list: &[(&str, u64)]) -> (Caches, Vec<CacheId>) {
    let rules = SlabRules::of(release);
    let host = Parameters::of_host(4096, 2);
    let mut caches = Caches::new(&[], rules, host, GfpBits::default());
    let ids = list.iter().map(|(name, stride)| caches.named(name, *stride)).collect();
    (caches, ids)
}

fn layer(name: &str, release: &str, caches: &Caches) -> Box<dyn SlabPolicy> {
    let entry = ALL.iter().find(|entry| entry.name == name).unwrap();
    let made: std::sync::Arc<dyn SlabLayer> =
        (entry.make)(&Params::default(), &Rules::of(release)).unwrap();
    let host = Host { cpus: 2, rules: SlabRules::of(release), page_bytes: 4096 };
    let mut layer = made.make(&host);
    layer.learn(caches);
    layer
}

fn take(layer: &mut dyn SlabPolicy, cache: CacheId, cpu: usize, count: usize) -> Vec<Token> {
    let ask = Ask { cache, cpu, bytes: 256, may_block: true };
    (0..count).map(|_| layer.alloc(&ask, &mut plenty)).collect()
}

/// Slabs, partial slabs of the node, and objects that slabinfo would call active.
fn seen(layer: &dyn SlabPolicy, cache: CacheId) -> (u64, u64, u64) {
    let counts = layer.counts(cache);
    (counts.slabs, counts.partial, counts.active)
}

#[test]
fn a_freed_slab_serves_the_processor_that_freed_it() {
    // 256 bytes: 16 objects a slab, 7 partial slabs a processor, 5 empty ones kept.
    let (caches, ids) = caches("6.18", &[("probe", 256)]);
    let mut slub = layer("slub", "6.18", &caches);
    let objects = take(&mut *slub, ids[0], 0, 33);
    assert_eq!(seen(&*slub, ids[0]), (3, 0, 48), "the free ones of a processor count as active");
    for object in &objects[..16] {
        slub.free(*object, ids[0], 1);
    }
    assert_eq!(seen(&*slub, ids[0]), (3, 0, 48), "the first slab is on processor 1's stack");
    let again = take(&mut *slub, ids[0], 1, 3);
    assert!(again.iter().all(|token| *token == objects[0]), "taken from that slab");
    assert_eq!(seen(&*slub, ids[0]), (3, 0, 48), "no new slab");
}

#[test]
fn full_stacks_drain_and_empty_slabs_beyond_the_minimum_go_back() {
    let (caches, ids) = caches("6.18", &[("probe", 256)]);
    let mut slub = layer("slub", "6.18", &caches);
    let cache = ids[0];
    let objects = take(&mut *slub, cache, 0, 321);
    // One object of each of the first 20 slabs: the eighth and the fifteenth free drain a stack.
    for slab in 0..20 {
        slub.free(objects[slab * 16], cache, 1);
    }
    assert_eq!(seen(&*slub, cache), (21, 14, 322));
    // The other 300: ten of the fourteen on the node's list go back, the stack's six stay.
    for slab in 0..20 {
        for object in &objects[slab * 16 + 1..slab * 16 + 16] {
            slub.free(*object, cache, 1);
        }
    }
    assert_eq!(seen(&*slub, cache), (11, 4, 112));
    // Fifteen at hand, four slabs of the node, and eight new ones: the stack is out of reach.
    take(&mut *slub, cache, 0, 200);
    assert_eq!(seen(&*slub, cache), (19, 0, 304));
    assert_eq!(slub.counts(cache).new_slabs, 21 + 8);
    slub.shrink(cache);
    let counts = slub.counts(cache);
    assert_eq!((counts.slabs, counts.active), (13, 201), "201 objects in thirteen slabs");
    assert_eq!(counts.objects - counts.active, 7);
}

#[test]
fn up_to_5_15_a_stack_is_bounded_by_free_objects() {
    // 13 free objects for 256 bytes: with one each, the fifteenth slab finds fourteen.
    let (caches, ids) = caches("5.10", &[("probe", 256)]);
    let mut slub = layer("slub", "5.10", &caches);
    let objects = take(&mut *slub, ids[0], 0, 321);
    for slab in 0..14 {
        slub.free(objects[slab * 16], ids[0], 1);
    }
    assert_eq!(slub.counts(ids[0]).partial, 0);
    slub.free(objects[14 * 16], ids[0], 1);
    assert_eq!(slub.counts(ids[0]).partial, 14);
}

#[test]
fn sheaves_give_back_what_was_freed_last_and_fill_by_the_sheaf() {
    let (caches, ids) = caches("6.18", &[("maple_node", 256)]);
    let mut slub = layer("slub", "6.18", &caches);
    let first = take(&mut *slub, ids[0], 0, 1);
    assert_eq!(slub.counts(ids[0]).new_slabs, 2, "a sheaf of 32 is two slabs of 16");
    slub.free(first[0], ids[0], 0);
    assert_eq!(take(&mut *slub, ids[0], 0, 1), first, "last in, first out");
    take(&mut *slub, ids[0], 0, 31);
    assert_eq!(slub.counts(ids[0]).new_slabs, 2);
    take(&mut *slub, ids[0], 0, 1);
    assert_eq!(slub.counts(ids[0]).new_slabs, 4, "the next sheaf");
}

/// A layer with sheaves of 32 and slabs of 16.
fn with_sheaves() -> (Box<dyn SlabPolicy>, CacheId) {
    let (caches, ids) = caches("6.18", &[("maple_node", 256)]);
    (layer("slub", "6.18", &caches), ids[0])
}

/// Takes objects from a sheaf that thread 9 has for itself.
fn take_prefilled(layer: &mut dyn SlabPolicy, cache: CacheId, wanted: usize, count: usize) {
    let ask = Ask { cache, cpu: 0, bytes: 256, may_block: false };
    for _ in 0..count {
        layer.alloc_prefilled(&ask, (9, wanted), &mut plenty);
    }
    layer.return_prefilled(&ask, 9, &mut plenty);
}

#[test]
fn a_thread_fills_a_sheaf_of_its_own_when_it_holds_fewer_than_it_wants() {
    let (mut slub, cache) = with_sheaves();
    take_prefilled(&mut *slub, cache, 3, 30);
    assert_eq!(slub.counts(cache).new_slabs, 2, "a sheaf of 32");
    take_prefilled(&mut *slub, cache, 2, 1);
    assert_eq!(slub.counts(cache).new_slabs, 2, "it was kept as the spare one, with two");
    take_prefilled(&mut *slub, cache, 3, 1);
    assert_eq!(slub.counts(cache).new_slabs, 4, "one left: filled up");
    let ask = Ask { cache, cpu: 0, bytes: 256, may_block: false };
    slub.alloc_prefilled(&ask, (9, 3), &mut plenty);
    slub.alloc_prefilled(&ask, (8, 3), &mut plenty);
    assert_eq!(slub.counts(cache).new_slabs, 6, "another thread finds no spare one");
}

#[test]
fn a_sheaf_freed_by_kfree_rcu_waits_for_its_grace_period() {
    let (mut slub, cache) = with_sheaves();
    slub.grace(Grace::Began, 0);
    let objects = take(&mut *slub, cache, 0, 32);
    objects.iter().for_each(|object| slub.free_in_batch(*object, cache, 0));
    slub.grace(Grace::Began, 1);
    slub.grace(Grace::Began, 0);
    let more = take(&mut *slub, cache, 0, 32);
    assert_eq!(slub.counts(cache).new_slabs, 4, "one period may have begun before");
    slub.grace(Grace::Began, 0);
    take(&mut *slub, cache, 0, 32);
    assert_eq!(slub.counts(cache).new_slabs, 4, "after the second the sheaf is in the barn");
    // Where a later callback is seen to run, the sheaf came back before it, and no sooner.
    more.iter().for_each(|object| slub.free_in_batch(*object, cache, 0));
    slub.grace(Grace::Called, 0);
    slub.grace(Grace::Began, 0);
    slub.grace(Grace::Began, 0);
    take(&mut *slub, cache, 0, 32);
    assert_eq!(slub.counts(cache).new_slabs, 6);
    slub.grace(Grace::Ran, 0);
    take(&mut *slub, cache, 0, 32);
    assert_eq!(slub.counts(cache).new_slabs, 6);
}

#[test]
fn what_is_freed_together_goes_past_the_sheaves_when_no_empty_one_is_at_hand() {
    let run = |is_together: bool| {
        let (mut slub, cache) = with_sheaves();
        for object in take(&mut *slub, cache, 0, 96) {
            if is_together {
                slub.free_with_others(object, cache, 1);
            } else {
                slub.free(object, cache, 1);
            }
        }
        take(&mut *slub, cache, 0, 32);
        slub.counts(cache).new_slabs
    };
    // Six slabs; processor 1 has two full sheaves. A third goes to the barn for processor 0, or its
    // objects go to two slabs: the one on processor 1's stack, the other processor 0's own.
    assert_eq!(run(false), 6);
    assert_eq!(run(true), 7);
}

#[test]
fn without_a_block_of_its_order_a_slab_gets_the_least() {
    // 2048 bytes: order 3 with 16 objects; at least order 0 with two.
    let (caches, ids) = caches("6.18", &[("probe", 2048), ("small", 256)]);
    for (name, least) in [("slub", true), ("slub-fullest-first", true), ("slab", false)] {
        let mut layer = layer(name, "6.18", &caches);
        let mut asked = Vec::new();
        let ask = |cache| Ask { cache, cpu: 0, bytes: 256, may_block: true };
        let mut none = |cache, order| {
            asked.push((cache, order));
            false
        };
        for _ in 0..3 {
            layer.alloc(&ask(ids[0]), &mut none);
        }
        layer.alloc(&ask(ids[1]), &mut none);
        let counts = layer.counts(ids[0]);
        let mut requests = Vec::new();
        layer.take_requests(&mut requests);
        if !least {
            // Classic SLAB has one order a cache, and asks for nothing else.
            assert!(asked.is_empty() && counts.min_order == 0, "{name}");
            continue;
        }
        assert_eq!(asked, [(ids[0], 3); 2], "{name}: a slab of the least order asks for itself");
        assert_eq!((counts.slabs, counts.pages, counts.objects), (2, 2, 4), "{name}");
        assert_eq!(counts.min_order, 2, "{name}");
        let orders = requests.iter().map(|request| match request {
            PageRequest::Alloc { order, .. } => *order,
            PageRequest::Free { .. } => u8::MAX,
        });
        assert_eq!(orders.collect::<Vec<_>>(), [0, 0, 0], "{name}");
        // The fourth object is the second slab's; then there is memory again.
        take(&mut *layer, ids[0], 0, 2);
        let counts = layer.counts(ids[0]);
        assert_eq!((counts.slabs, counts.pages, counts.objects), (3, 10, 20), "{name}");
    }
}

#[test]
fn a_sheaf_is_filled_from_slabs_of_the_least_order_too() {
    let host = Parameters { min_objects: 32, ..Parameters::of_host(4096, 2) };
    let mut caches = Caches::new(&[], SlabRules::of("6.18"), host, GfpBits::default());
    let cache = caches.named("maple_node", 256);
    assert_eq!(caches.get(cache).map(|cache| (cache.order, cache.objects)), Some((1, 32)));
    let mut slub = layer("slub", "6.18", &caches);
    let ask = Ask { cache, cpu: 0, bytes: 256, may_block: true };
    let mut answers = [false, true].into_iter();
    slub.alloc(&ask, &mut |_, _| answers.next().unwrap());
    let counts = slub.counts(cache);
    assert_eq!((counts.slabs, counts.pages, counts.objects), (2, 3, 16 + 32));
}

#[test]
fn the_fullest_slab_first_lets_the_others_empty() {
    let (caches, ids) = caches("6.18", &[("probe", 256)]);
    let run = |name: &str| {
        let mut layer = layer(name, "6.18", &caches);
        let objects = take(&mut *layer, ids[0], 0, 16 * 40);
        // Slab n keeps n % 8 + 1 of its objects; then the lists go to the node.
        for (index, object) in objects.iter().enumerate() {
            if index % 16 > index / 16 % 8 {
                layer.free(*object, ids[0], 1);
            }
        }
        layer.shrink(ids[0]);
        take(&mut *layer, ids[0], 0, 100);
        layer.occupancy()[ids[0].index()].sparse_slabs
    };
    assert!(run("slub-fullest-first") <= run("slub"), "fewer slabs kept by few objects");
}

#[test]
fn a_cold_array_takes_sixteen_objects_and_a_warm_one_a_batch() {
    let (caches, ids) = caches("6.1", &[("probe", 256)]);
    let mut slab = layer("slab", "6.1", &caches);
    take(&mut *slab, ids[0], 0, 1);
    assert_eq!(seen(&*slab, ids[0]), (1, 0, 16), "all sixteen of the slab are at hand");
    take(&mut *slab, ids[0], 0, 16);
    assert_eq!(slab.counts(ids[0]).slabs, 2);
}

#[test]
fn objects_freed_on_another_processor_come_back_through_the_shared_array() {
    // 256 bytes: sixteen objects a slab, arrays of 120, batches of 60, 480 in the shared array.
    let (caches, ids) = caches("6.1", &[("probe", 256)]);
    let mut slab = layer("slab", "6.1", &caches);
    let cache = ids[0];
    let objects = take(&mut *slab, cache, 0, 600);
    assert_eq!(seen(&*slab, cache), (38, 0, 608), "eight left on processor 0");
    for object in objects {
        slab.free(object, cache, 1);
    }
    // Eight times sixty went to the shared array, processor 1 keeps 120; no slab saw one of them.
    assert_eq!(seen(&*slab, cache), (38, 0, 608));
    let objects = take(&mut *slab, cache, 0, 8 + 480);
    assert_eq!(slab.counts(cache).new_slabs, 38, "eight of its own and what all share");
    let more = take(&mut *slab, cache, 0, 1);
    assert_eq!(seen(&*slab, cache), (39, 0, 624), "what processor 1 keeps is out of reach");
    for object in objects.into_iter().chain(more) {
        slab.free(object, cache, 1);
    }
    // Nine batches: eight fill the shared array, the ninth goes back to its slabs. Kept are 69 of
    // processor 1, 480 of all and 15 of processor 0.
    let counts = slab.counts(cache);
    assert_eq!((counts.slabs, counts.active), (39, 69 + 480 + 15));
    assert_eq!((counts.released_slabs, counts.ping_pong), (0, 0), "60 free ones may stay");
}

/// A small generator: the same sequence on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Random requests and frees: what is live is what was asked for and not given back, there is room
/// for it, and every block of pages goes back at most once and only if it was taken.
#[test]
fn every_policy_keeps_the_laws_of_a_naive_allocator() {
    let sizes = [
        ("probe-8", 8),
        ("kmalloc-96", 96),
        ("maple_node", 256),
        ("probe-3k", 3000),
        ("kmalloc-8k", 8192),
    ];
    for entry in ALL {
        for seed in 1..=6u64 {
            let (caches, ids) = caches("6.18", &sizes);
            let mut layer = layer(entry.name, "6.18", &caches);
            let mut random = Random(seed * 0x9e37_79b9);
            let mut live: Vec<(CacheId, Token)> = Vec::new();
            let mut blocks: BTreeMap<u32, u8> = BTreeMap::new();
            let mut requests = Vec::new();
            for step in 0..6000 {
                // The number of live objects swings.
                let grows = random.below(100) < if step / 500 % 2 == 0 { 65 } else { 35 };
                let cpu = random.below(2);
                if grows || live.is_empty() {
                    let which = random.below(ids.len());
                    let bytes = sizes[which].1 as u32;
                    let ask = Ask { cache: ids[which], cpu, bytes, may_block: random.below(4) > 0 };
                    // Every third block of more than the least order is not to be had.
                    let mut pages = |_, _| random.below(3) > 0;
                    let token = layer.alloc(&ask, &mut pages);
                    assert_ne!(token, NO_TOKEN, "{}: no object", entry.name);
                    live.push((ids[which], token));
                } else {
                    let (cache, token) = live.swap_remove(random.below(live.len()));
                    layer.free(token, cache, cpu);
                }
                layer.tick(step as u64 * 10_000_000);
                if step % 1999 == 0 {
                    layer.shrink(ids[random.below(ids.len())]);
                }
                layer.take_requests(&mut requests);
                for request in requests.drain(..) {
                    match request {
                        PageRequest::Alloc { slab, order, .. } => {
                            let old = blocks.insert(slab, order);
                            assert_eq!(old, None, "{}: a block taken twice", entry.name);
                        }
                        PageRequest::Free { slab, order } => {
                            let old = blocks.remove(&slab);
                            assert_eq!(old, Some(order), "{}: given back once", entry.name);
                        }
                    }
                }
            }
            let pages: u64 = blocks.values().map(|order| 1u64 << order).sum();
            assert_eq!(layer.pages(), pages, "{}", entry.name);
            let occupancy = layer.occupancy();
            for (index, id) in ids.iter().enumerate() {
                let mine = live.iter().filter(|(cache, _)| cache == id).count() as u64;
                let counts = layer.counts(*id);
                assert!(counts.objects >= mine, "{}: room", entry.name);
                assert!(counts.active >= mine, "{}: active", entry.name);
                let held = occupancy[index].live;
                // Objects in sheaves are out of their slabs; all others are somebody's.
                let is_sheaf = sizes[index].0 == "maple_node";
                assert!(held == mine || is_sheaf && held > mine, "{}: {held} {mine}", entry.name);
            }
        }
    }
}

#[test]
fn one_page_slabs_hold_what_larger_ones_held() {
    let (caches, ids) = caches("6.18", &[("probe", 1024)]);
    let mut flat = layer("slub-order0", "6.18", &caches);
    let mut usual = layer("slub", "6.18", &caches);
    for layer in [&mut flat, &mut usual] {
        take(&mut **layer, ids[0], 0, 64);
    }
    assert_eq!(flat.counts(ids[0]).slabs, 16, "four in a page");
    assert_eq!(usual.counts(ids[0]).slabs, 4, "sixteen in four pages");
    assert_eq!(flat.pages(), usual.pages());
}
