//! Allocations whose events stand later than what they tell: each is made at its moment, and once.
//!
//! An allocation that leaves its processor's slab although another processor just freed an object
//! into it was made before that free. In the copies here it looks so many times: later frees are
//! told of earlier, just before such an allocation. Objects stay as many as they are.

use std::collections::{HashMap, HashSet};

use kmemlab_replay::stack::{Cause, StackOptions, replay_stack};
use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::unit::{Cpu, Pid};
use kmemlab_trace::{Event, Kind, Recording, format};

use crate::support::{Folder, sample_traces};
use crate::untrue::{PageMap, retell};

/// A thread of the other processor, which frees.
const OTHER: Pid = Pid(4_000_000);

/// Pages of a slab, by cache.
fn slab_pages(recording: &Recording) -> HashMap<String, u64> {
    let mut pages = HashMap::new();
    for batch in recording.table(&format::SLABINFO).unwrap() {
        let batch = batch.unwrap();
        for row in 0..batch.rows() {
            let row = SlabRow::of(&batch, row);
            pages.insert(row.cache, row.pages_per_slab);
        }
    }
    pages
}

/// Events of named objects: place, event, cache and slab.
fn objects(recording: &Recording) -> Vec<(usize, Event, String, u64)> {
    let pages = slab_pages(recording);
    let (mut objects, mut at) = (Vec::new(), 0);
    for batch in recording.events().unwrap() {
        let batch = batch.unwrap();
        for event in batch.iter() {
            if matches!(event.kind, Kind::CacheAlloc | Kind::CacheFree) {
                let name = batch.name(event.name).to_owned();
                let bytes = 4096 * pages.get(&name).copied().unwrap_or(1);
                objects.push((at, event, name, event.pfn_or_address / bytes));
            }
            at += 1;
        }
    }
    objects
}

/// Frees that are told of before an allocation, by its place, and the places where they stood.
fn early_frees(recording: &Recording) -> (HashMap<usize, Event>, HashSet<usize>) {
    let objects = objects(recording);
    let mut current: HashMap<(u16, &str), u64> = HashMap::new();
    // Allocations that left a slab into which nothing was freed since.
    let mut waiting: HashMap<(&str, u64), (usize, u16)> = HashMap::new();
    // Where an object was allocated last: it is not freed before.
    let mut born: HashMap<u64, usize> = HashMap::new();
    let (mut early, mut gone) = (HashMap::new(), HashSet::new());
    for (at, event, name, slab) in &objects {
        if event.kind == Kind::CacheAlloc {
            born.insert(event.pfn_or_address, *at);
            let left = current.insert((event.cpu.0, name), *slab);
            if let Some(left) = left.filter(|left| left != slab && event.context.is_task()) {
                waiting.insert((name, left), (*at, event.cpu.0));
            }
            waiting.remove(&(&**name, *slab));
        } else if let Some((before, cpu)) = waiting.remove(&(&**name, *slab)) {
            let birth = born.get(&event.pfn_or_address).copied().unwrap_or(0);
            if birth < before && !early.contains_key(&before) {
                early.insert(before, Event { cpu: Cpu(1 - cpu.min(1)), pid: OTHER, ..*event });
                gone.insert(*at);
            }
        }
    }
    (early, gone)
}

#[test]
fn a_late_allocation_is_made_once() {
    let folder = Folder::new("late");
    let copy = folder.join("late.kmt");
    let options = StackOptions { without_pages: true, ..StackOptions::default() };
    let mut late = 0;
    for trace in sample_traces() {
        let from = Recording::open(&trace, false).unwrap();
        let (early, gone) = early_frees(&from);
        late += early.len();
        let mut at = 0;
        retell(&from, &copy, PageMap::Whole, usize::MAX, &mut |event| {
            let mut told = Vec::new();
            told.extend(early.get(&at).map(|free| Event { time: event.time, ..*free }));
            if !gone.contains(&at) {
                told.push(event);
            }
            at += 1;
            told
        });
        let recording = Recording::open(&copy, false).unwrap();
        let outcome = replay_stack(&recording, &options, &mut |_, _| {}).unwrap();
        for cache in outcome.baseline.slab.caches.iter().filter(|c| c.cause == Cause::Complete) {
            let (held, kernel) = (cache.occupancy.live, cache.occupancy_kernel.live);
            assert_eq!(held, kernel, "{} of {}", cache.name, trace.display());
        }
    }
    assert!(late > 100, "{late} late allocations only");
}
