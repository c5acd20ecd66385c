//! Random histories against a naive allocator: a bitmap of pages and a list of live blocks.
//!
//! `SEED=n cargo test --release -p kmemlab-replay --test oracle` repeats a history. The weights of
//! the operations are random too, so that rare regimes (only frees, one order, a full zone) occur.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

mod bench;

use bench::*;
use kmemlab_replay::model::{Model, Request};

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The naive allocator: knows only which pages are out.
struct Naive {
    start: u32,
    out: Vec<bool>,
    live: Vec<(u32, u8)>,
}

impl Naive {
    fn take(&mut self, pfn: u32, order: u8) {
        assert_eq!(pfn & ((1 << order) - 1), 0, "block {pfn:#x} of order {order} is not aligned");
        for page in pfn..pfn + (1 << order) {
            let page = &mut self.out[(page - self.start) as usize];
            assert!(!*page, "a page of block {pfn:#x} of order {order} was given out twice");
            *page = true;
        }
        self.live.push((pfn, order));
    }

    fn give(&mut self, index: usize) -> (u32, u8) {
        let (pfn, order) = self.live.swap_remove(index);
        for page in pfn..pfn + (1 << order) {
            self.out[(page - self.start) as usize] = false;
        }
        (pfn, order)
    }

    fn pages_out(&self) -> u64 {
        self.out.iter().filter(|out| **out).count() as u64
    }
}

fn check(model: &Model, naive: &Naive, blocks: u64) {
    let memory = model.memory();
    memory.check().unwrap();
    let waiting: u64 = (0..2).map(|cpu| memory.pcp_pages(0, cpu)).sum();
    assert_eq!(
        memory.free_pages(0) + waiting + naive.pages_out(),
        blocks * 512,
        "free + waiting on per-CPU lists + given out = all"
    );
}

fn history(seed: u64, release: &str, policies: Option<&str>) -> u64 {
    let mut random = Random(seed);
    let blocks = 4 + random.below(28);
    let mut model = match policies {
        Some(policies) => model_under(blocks, release, policies),
        None => model(blocks, release),
    };
    let mut naive =
        Naive { start: 1024, out: vec![false; blocks as usize * 512], live: Vec::new() };
    let (mut allocs, mut frees) = (1 + random.below(10), 1 + random.below(10));
    let top = random.below(11) as u8;
    for step in 0..3000 {
        if step % 500 == 0 {
            (allocs, frees) = (1 + random.below(10), random.below(10));
        }
        let cpu = random.below(2) as usize;
        if random.below(allocs + frees) < allocs {
            let order = (random.below(u64::from(top) + 1) as u8).min(random.below(11) as u8);
            let migrate = random.below(3) as u8;
            let gfp = if migrate == MOVABLE { USER } else { KERNEL };
            if let Some(pfn) = model.alloc(&Request { cpu, order, gfp, migrate }) {
                naive.take(pfn, order);
            }
        } else if !naive.live.is_empty() {
            let index = random.below(naive.live.len() as u64) as usize;
            let (pfn, order) = naive.give(index);
            model.free(cpu, pfn, order);
        }
        match random.below(400) {
            0 => model.decay(cpu),
            1 => model.drain_all(),
            _ => {}
        }
        if step % 50 == 0 {
            check(&model, &naive, blocks);
        }
    }
    while !naive.live.is_empty() {
        let (pfn, order) = naive.give(0);
        model.free(0, pfn, order);
    }
    model.drain_all();
    check(&model, &naive, blocks);
    assert_eq!(model.memory().free_pages(0), blocks * 512, "all pages come back");
    assert_eq!(model.counts.double_frees, 0);
    assert_eq!(model.counts.illegal_verdicts, 0);
    model.memory().digest()
}

#[test]
fn no_history_breaks_a_law_and_each_ends_the_same_twice() {
    let fixed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = fixed.map_or(0..40, |seed| seed..seed + 1);
    for seed in seeds {
        for release in ["5.10.0", "5.15.0", "6.1.0", "6.8.0", "6.12.0", "6.18.0"] {
            let run = || history(seed, release, None);
            let digest = std::panic::catch_unwind(run)
                .unwrap_or_else(|_| panic!("SEED={seed} breaks the rules of {release}"));
            assert_eq!(digest, history(seed, release, None), "SEED={seed} on {release}");
        }
    }
}

/// A bad policy may fragment memory, never corrupt the model.
#[test]
fn no_policy_breaks_a_law_and_each_ends_the_same_twice() {
    let names = kmemlab_replay::policy::all().into_iter().map(|listed| listed.name.to_owned());
    let more = [
        "never-mix=last-resort+lowest-address+percpu-off",
        "percpu-fixed=batch=7,high=20+fullest-pageblock-first=scan=2",
        "vm.watermark_boost_factor=0+free-to-tail+move-then-count",
    ];
    for policies in names.chain(more.map(str::to_owned)) {
        for (seed, release) in [(1, "6.18.0"), (2, "6.18.0"), (3, "6.1.0"), (4, "5.10.0")] {
            let run = || history(seed, release, Some(&policies));
            let digest = std::panic::catch_unwind(run)
                .unwrap_or_else(|_| panic!("{policies} breaks a law, SEED={seed} on {release}"));
            assert_eq!(digest, history(seed, release, Some(&policies)), "{policies}");
        }
    }
}
