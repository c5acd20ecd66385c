//! A small machine to try sequences on.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use kmemlab_replay::machine::Machine;
use kmemlab_replay::memory::{End, Memory};
use kmemlab_replay::mirror::Mirror;
use kmemlab_replay::model::{Model, Request, Start};
use kmemlab_replay::policy::PolicySet;
use kmemlab_replay::rules::Rules;
use kmemlab_replay::seeding::Seed;
use kmemlab_trace::Manifest;
use kmemlab_trace::manifest::Zone;
use kmemlab_trace::snapshot::{PageRun, PageUse, Stamp};
use kmemlab_trace::unit::Pfn;

pub const UNMOVABLE: u8 = 0;
pub const MOVABLE: u8 = 1;
pub const RECLAIMABLE: u8 = 2;
/// GFP_KERNEL and GFP_HIGHUSER_MOVABLE.
pub const KERNEL: u32 = 0xcc0;
pub const USER: u32 = 0x14_0cca;

/// One zone `Normal` of so many pageblocks of 512 pages from page 1024 on, two processors.
pub fn machine(blocks: u64, release: &str) -> Machine {
    let mut manifest = Manifest::default();
    manifest.host.orders = 11;
    manifest.host.pageblock_order = 9;
    manifest.host.cpus = vec![0, 1];
    manifest.host.migrate_types = ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate"]
        .map(str::to_owned)
        .to_vec();
    manifest.host.zones = vec![Zone {
        node: 0,
        name: "Normal".to_owned(),
        start_pfn: 1024,
        spanned_pages: blocks * 512,
        present_pages: blocks * 512,
        managed_pages: blocks * 512,
        protection_pages: vec![0; 5],
    }];
    Machine::of(&manifest, Rules::of(release)).unwrap()
}

pub fn memory(blocks: u64) -> Memory {
    Memory::new(&machine(blocks, "6.18.0"))
}

/// A page map in which everything is free.
pub fn all_free(machine: &Machine) -> Seed {
    let mut seed = Seed::new(machine);
    let zone = &machine.zones[0];
    let pages = u64::from(zone.end - zone.start);
    let pfn = Pfn(u64::from(zone.start));
    let page_use = PageUse::Free;
    seed.add(&PageRun { stamp: Stamp::default(), pfn, pages, page_use }, machine);
    seed
}

/// A model of that machine with everything free, under the release's own policies.
pub fn model(blocks: u64, release: &str) -> Model {
    let machine = machine(blocks, release);
    begun(PolicySet::baseline(&machine.rules), &machine, blocks)
}

/// The same under other policies.
pub fn model_under(blocks: u64, release: &str, policies: &str) -> Model {
    let machine = machine(blocks, release);
    begun(PolicySet::parse(policies, &machine.rules).unwrap(), &machine, blocks)
}

pub fn begun(policies: PolicySet, machine: &Machine, blocks: u64) -> Model {
    let seed = all_free(machine);
    let memory = Mirror::new(machine, seed.clone(), None).memory().clone();
    Model::under(policies, memory, &seed, &Start::computed(machine, blocks))
}

pub fn ask(order: u8, migrate: u8) -> Request {
    let gfp = if migrate == MOVABLE { USER } else { KERNEL };
    Request { cpu: 0, order, gfp, migrate }
}

/// Free blocks on a list, head first.
pub fn list(memory: &Memory, order: u8, migrate: u8) -> Vec<u32> {
    memory.list_of(0, order, migrate)
}

pub fn put(memory: &mut Memory, blocks: &[(u32, u8, u8)]) {
    for (pfn, order, migrate) in blocks {
        memory.insert(*pfn, *order, *migrate, End::Tail);
    }
}
