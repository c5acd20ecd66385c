//! Maple trees: which nodes belong together, so that the end of a tree dates the end of its nodes.

use std::collections::HashMap;

use kmemlab_trace::event::Event;

use super::follow::NONE;
use super::role::Role;

/// An address space of a thread.
#[derive(Clone, Copy, Debug)]
struct Thread {
    /// The copy that it makes or made last.
    copy: u32,
    /// The tree that it changes.
    own: u32,
    /// It has freed the areas of an address space.
    is_leaving: bool,
    /// The areas that it allocates are those of a copy.
    is_copying: bool,
}

impl Default for Thread {
    fn default() -> Self {
        Self { copy: NONE, own: NONE, is_leaving: false, is_copying: false }
    }
}

/// A node that was freed together with its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its address.
    pub address: u64,
    /// When.
    pub at_ns: u64,
    /// Where.
    pub cpu: u16,
}

/// How a node went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Went {
    /// Not known, or not at all.
    Unknown,
    /// An event told.
    Told,
    /// With its tree.
    Ended,
}

/// A node that was taken.
#[derive(Clone, Copy, Debug)]
struct Node {
    tree: u32,
    address: u64,
    at_ns: u64,
    /// When it was taken again, or its slab's pages went back.
    until_ns: u64,
    /// Areas that its tree held more than at its start.
    areas: i32,
    cpu: u16,
    /// The sheaf that it was taken from, for one of several that a change took; else `NONE`.
    sheaf: u32,
    went: Went,
}

/// A thread that holds a sheaf.
#[derive(Clone, Copy, Debug)]
struct Holder {
    thread: u32,
    cpu: usize,
    /// The sheaf's number.
    number: usize,
    /// Nodes taken from it.
    taken: u8,
}

/// Whether a thread that held a sheaf, and took from it on that processor, has given it back by
/// that event, which takes nothing from it: its own, or another thread's on its processor.
#[must_use]
pub fn has_given_back((thread, cpu): (u32, usize), event: &Event) -> bool {
    event.pid.0 == thread || event.context.is_task() && usize::from(event.cpu.0) == cpu
}

/// The trees of a recording.
#[derive(Clone, Debug, Default)]
pub struct Trees {
    threads: HashMap<u32, Thread>,
    /// By object row: the node that stands there, by its number.
    rows: Vec<u32>,
    nodes: Vec<Node>,
    /// By tree: its nodes, some of which went since.
    trees: Vec<Vec<u32>>,
    /// Whether a tree is a copy.
    is_copy: Vec<bool>,
    /// By tree: areas more than at its start.
    areas: Vec<i32>,
    /// Areas copied, and nodes.
    copied: (u64, u64),
    /// Nodes found to have ended with their tree.
    pub ended: Vec<Ended>,
    /// By sheaf that a thread took for itself: how many nodes it wanted.
    pub wanted: Vec<u8>,
    /// Threads that hold one.
    holders: Vec<Holder>,
}

/// Nodes that the root of a copy has below it, and other nodes with many.
const FANOUT: usize = 10;

impl Trees {
    fn tree(&mut self, is_copy: bool) -> u32 {
        self.trees.push(Vec::new());
        self.is_copy.push(is_copy);
        self.areas.push(0);
        self.trees.len() as u32 - 1
    }

    /// A thread takes a node from a sheaf of its own (`mas_alloc_nodes`). A change asks for an odd
    /// number of nodes, at least three (`mas_prealloc_calc`); a copy asks for each node's children.
    fn want(&mut self, thread: u32, cpu: u16, role: Role) {
        let cpu = usize::from(cpu);
        let Some(held) = self.holders.iter_mut().find(|held| held.thread == thread) else {
            self.holders.push(Holder { thread, cpu, number: self.wanted.len(), taken: 1 });
            self.wanted.push(if role == Role::Copy { 2 } else { 3 });
            return;
        };
        held.cpu = cpu;
        if role == Role::Store {
            let wanted = &mut self.wanted[held.number];
            held.taken = held.taken.saturating_add(1);
            *wanted = (*wanted).max(held.taken | 1);
        }
    }

    /// Who has given a sheaf back by this event, but a thread that takes from its own.
    #[inline]
    pub fn give_back(&mut self, event: &Event, taker: Option<u32>) {
        if !self.holders.is_empty() {
            self.holders.retain(|held| {
                Some(held.thread) == taker || !has_given_back((held.thread, held.cpu), event)
            });
        }
    }

    /// A thread takes a node.
    pub fn take(
        &mut self,
        row: u32,
        (address, at_ns, cpu): (u64, u64, u16),
        thread: u32,
        role: Role,
        is_prefilled: bool,
    ) {
        if is_prefilled {
            self.want(thread, cpu, role);
        }
        if self.rows.len() <= row as usize {
            self.rows.resize(row as usize + 1, NONE);
        }
        if let Some(before) = self.nodes.get_mut(self.rows[row as usize] as usize) {
            before.until_ns = before.until_ns.min(at_ns);
        }
        let mut of = self.threads.get(&thread).copied().unwrap_or_default();
        of.is_leaving = false;
        let tree = match role {
            Role::Root => {
                of.copy = self.tree(true);
                of.is_copying = true;
                of.copy
            }
            Role::Copy if of.copy != NONE => of.copy,
            _ => {
                of.is_copying = false;
                if of.own == NONE {
                    of.own = self.tree(false);
                }
                of.own
            }
        };
        self.threads.insert(thread, of);
        if self.is_copy[tree as usize] {
            self.copied.1 += 1;
        }
        let areas = self.areas[tree as usize];
        let number = self.nodes.len() as u32;
        let holder = self.holders.iter().find(|held| is_prefilled && held.thread == thread);
        let (sheaf, went) = (holder.map_or(NONE, |held| held.number as u32), Went::Unknown);
        self.nodes.push(Node { tree, address, at_ns, until_ns: u64::MAX, areas, cpu, sheaf, went });
        self.rows[row as usize] = number;
        self.trees[tree as usize].push(number);
    }

    /// The pages of a slab went back: none of its nodes is there any more.
    pub fn gone(&mut self, rows: std::ops::Range<u32>, at_ns: u64) {
        for row in rows {
            let Some(number) = self.rows.get_mut(row as usize) else { continue };
            let number = std::mem::replace(number, NONE);
            if let Some(node) = self.nodes.get_mut(number as usize) {
                node.until_ns = node.until_ns.min(at_ns);
            }
        }
    }

    /// A thread allocates an area, for a copy or for its own address space.
    pub fn area(&mut self, thread: u32) {
        match self.threads.get(&thread) {
            Some(of) if of.is_copying => self.copied.0 += 1,
            Some(of) if of.own != NONE => self.areas[of.own as usize] += 1,
            _ => {}
        }
    }

    /// A thread frees an area that it is done with.
    pub fn area_gone(&mut self, thread: u32) {
        if let Some(of) = self.threads.get(&thread).filter(|of| of.own != NONE) {
            self.areas[of.own as usize] -= 1;
        }
    }

    /// A thread frees areas of its address space, for good.
    pub fn leaves(&mut self, thread: u32) {
        self.threads.entry(thread).or_default().is_leaving = true;
    }

    /// A thread frees a node that an event tells of; the root of a tree goes last.
    pub fn free(&mut self, row: u32, thread: u32, at_ns: u64, cpu: u16, role: Role) {
        let number = self.rows.get(row as usize).copied().unwrap_or(NONE);
        let Some(node) = self.nodes.get_mut(number as usize) else { return };
        if node.went != Went::Unknown {
            return;
        }
        node.went = Went::Told;
        let tree = node.tree;
        if role != Role::Destroy {
            return;
        }
        let of = self.threads.entry(thread).or_default();
        if self.is_copy[tree as usize] || of.is_leaving {
            of.is_leaving = false;
            let own = std::mem::replace(&mut of.own, NONE);
            self.end(tree, at_ns, cpu);
            if own != NONE && own != tree {
                self.end(own, at_ns, cpu);
            }
        }
    }

    fn end(&mut self, tree: u32, at_ns: u64, cpu: u16) {
        let mut nodes = std::mem::take(&mut self.trees[tree as usize]);
        if self.is_copy[tree as usize] {
            leaves_first(&mut nodes);
        }
        for number in nodes {
            let node = &mut self.nodes[number as usize];
            if node.went == Went::Unknown && node.until_ns == u64::MAX {
                node.went = Went::Ended;
                self.ended.push(Ended { address: node.address, at_ns, cpu });
            }
        }
    }

    /// Nodes that changes of trees gave back (`mas_replace_node`, `mas_wmb_replace`): a tree keeps
    /// as many more as it has more areas, by what copies of trees have, and a change may be
    /// anywhere in it.
    #[must_use]
    pub fn replaced(&self) -> Vec<Ended> {
        let mut held: Vec<Vec<u32>> = vec![Vec::new(); self.trees.len()];
        // By tree: the last change's sheaf, and what it took.
        let mut last: Vec<(u32, Vec<u32>)> = vec![(NONE, Vec::new()); self.trees.len()];
        let (mut found, mut anywhere) = (Vec::new(), Anywhere(1));
        for (number, node) in (0u32..).zip(&self.nodes) {
            let tree = node.tree as usize;
            if self.is_copy[tree] || node.went == Went::Told {
                continue;
            }
            let (sheaf, taken) = &mut last[tree];
            if node.sheaf == NONE || node.sheaf != *sheaf {
                held[tree].append(taken);
            }
            *sheaf = node.sheaf;
            if node.went == Went::Unknown {
                taken.push(number);
            }
            let kept = self.more(node.areas);
            while held[tree].len() > kept {
                let at = anywhere.below(held[tree].len());
                let old = self.nodes.get(held[tree].swap_remove(at) as usize);
                if let Some(old) = old.filter(|old| old.until_ns > node.at_ns) {
                    let (at_ns, cpu) = (node.at_ns, node.cpu);
                    found.push(Ended { address: old.address, at_ns, cpu });
                }
            }
        }
        found
    }

    /// Nodes that so many more areas need.
    fn more(&self, areas: i32) -> usize {
        let (copied, nodes) = self.copied;
        let more = i64::from(areas) * nodes as i64 / (copied as i64).max(1);
        usize::try_from(more).unwrap_or(0)
    }
}

/// Numbers that are the same in every run.
struct Anywhere(u64);

impl Anywhere {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// The nodes of a copy, which are taken from the root down, in the order in which they are freed
/// (`mt_destroy_walk`): the leaves, then what stands above them, then the root.
fn leaves_first(nodes: &mut [u32]) {
    let below = nodes.len().saturating_sub(1);
    let above = if below > FANOUT { below.div_ceil(FANOUT + 1) } else { 0 };
    nodes.rotate_left((above + 1).min(nodes.len()));
    if let Some(first) = nodes.len().checked_sub(above + 1) {
        nodes[first..].rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use kmemlab_trace::event::{Context, Kind};
    use kmemlab_trace::unit::{Cpu, Nanos, Pid};

    use super::*;

    /// Takes a node at `row`, whose address is 1000 more, at the time `at_ns`.
    fn take(trees: &mut Trees, row: u32, at_ns: u64, thread: u32, role: Role) {
        let is_prefilled = role.is_prefilled();
        let mut event = Event::new(Kind::CacheAlloc, Nanos(at_ns), Cpu(0), Pid(thread));
        event.context = Context(0);
        trees.give_back(&event, is_prefilled.then_some(thread));
        trees.take(row, (u64::from(row) + 1000, at_ns, 0), thread, role, is_prefilled);
    }

    /// A copy by thread 1 of a tree with a root and `below` more nodes.
    fn copy(trees: &mut Trees, below: u32) {
        take(trees, 0, 1, 1, Role::Root);
        for row in 1..=below {
            take(trees, row, 1, 1, Role::Copy);
        }
    }

    fn addresses(ended: &[Ended]) -> Vec<u64> {
        ended.iter().map(|node| node.address - 1000).collect()
    }

    #[test]
    fn nodes_of_a_copy_end_before_its_root_leaves_first() {
        let mut trees = Trees::default();
        copy(&mut trees, 12);
        trees.free(0, 2, 50, 1, Role::Destroy);
        assert_eq!(addresses(&trees.ended), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2]);
        assert!(trees.ended.iter().all(|node| (node.at_ns, node.cpu) == (50, 1)));
    }

    #[test]
    fn what_was_taken_again_or_went_with_its_slab_does_not_end_with_its_tree() {
        let mut trees = Trees::default();
        copy(&mut trees, 4);
        take(&mut trees, 2, 20, 3, Role::Plain);
        trees.gone(3..4, 30);
        trees.free(0, 2, 50, 0, Role::Destroy);
        assert_eq!(addresses(&trees.ended), [1, 4]);
    }

    #[test]
    fn a_thread_that_frees_its_areas_ends_its_own_tree() {
        let mut trees = Trees::default();
        for row in 0..3 {
            take(&mut trees, row, 1, 7, Role::Plain);
        }
        trees.free(0, 7, 10, 0, Role::Destroy);
        assert!(trees.ended.is_empty(), "a tree of its own beside that of its areas");
        trees.leaves(7);
        trees.free(1, 7, 20, 0, Role::Destroy);
        assert_eq!(addresses(&trees.ended), [2]);
    }

    #[test]
    fn a_tree_gives_back_what_its_areas_do_not_need() {
        // Copies have two areas a node.
        let mut trees = Trees::default();
        copy(&mut trees, 1);
        (0..4).for_each(|_| trees.area(1));
        let round = |trees: &mut Trees, at_ns: u64| {
            for row in 10..14 {
                take(trees, row, at_ns + u64::from(row), 5, Role::Plain);
            }
        };
        let found = |trees: &Trees| {
            trees.replaced().iter().map(|node| (node.at_ns, node.address)).collect::<Vec<_>>()
        };
        round(&mut trees, 100);
        assert_eq!(found(&trees), [(111, 1010), (112, 1011), (113, 1012)], "one for each");
        (0..4).for_each(|_| trees.area(5));
        round(&mut trees, 200);
        let kept: Vec<u64> = found(&trees).iter().map(|(at_ns, _)| *at_ns).collect();
        assert_eq!(kept, [111, 112, 113, 212, 213], "four areas more need two nodes more");
        (0..4).for_each(|_| trees.area_gone(5));
        take(&mut trees, 30, 300, 5, Role::Plain);
        let at_300 = found(&trees).iter().filter(|(at_ns, _)| *at_ns == 300).count();
        assert_eq!(at_300, 3, "without them they go back");
    }

    #[test]
    fn a_change_wants_an_odd_number_of_nodes() {
        let mut trees = Trees::default();
        for taken in [1, 4, 6] {
            for row in 0..taken {
                take(&mut trees, row, 1, 7, Role::Store);
            }
            take(&mut trees, 20, 1, 7, Role::Plain);
        }
        take(&mut trees, 21, 1, 8, Role::Copy);
        assert_eq!(trees.wanted, [3, 5, 7, 2]);
    }

    #[test]
    fn each_sheaf_that_a_thread_takes_is_a_change() {
        // kmem_cache_return_sheaf() comes at the end of a change, without an event.
        let mut trees = Trees::default();
        for round in 0..2 {
            for row in 10 * round..10 * round + 3 {
                take(&mut trees, row, 100 + u64::from(row), 5, Role::Store);
            }
            // Another thread runs on that processor.
            trees.give_back(&Event::new(Kind::CacheFree, Nanos(109), Cpu(0), Pid(6)), None);
        }
        assert_eq!(trees.wanted, [3, 3]);
        let gone: Vec<u64> = trees.replaced().iter().map(|node| node.address - 1000).collect();
        assert_eq!(gone.len(), 3, "the second change gives back what the first took");
        assert!(gone.iter().all(|row| *row < 3), "{gone:?}");
    }

    #[test]
    fn a_sheaf_is_held_while_another_processor_works() {
        let mut trees = Trees::default();
        take(&mut trees, 1, 100, 5, Role::Store);
        trees.give_back(&Event::new(Kind::CacheFree, Nanos(101), Cpu(1), Pid(6)), None);
        take(&mut trees, 2, 102, 5, Role::Store);
        assert_eq!(trees.wanted.len(), 1);
        trees.give_back(&Event::new(Kind::CacheFree, Nanos(103), Cpu(1), Pid(5)), None);
        take(&mut trees, 3, 104, 5, Role::Store);
        assert_eq!(trees.wanted.len(), 2);
    }
}
