//! Every page's place on a list, sparsely: two links and a tag in 12 bytes.
//!
//! Whole free pageblocks need one node for their head only, so heads of pageblocks have an array of
//! their own and the other pages' nodes are made a pageblock at a time, when first needed.

/// No page: the end of a list.
pub(crate) const NIL: u32 = u32::MAX;

/// What is known of a page, or of the block that starts at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// Nothing, or inside a block whose head knows.
    Unknown = 0,
    /// Head of a free block on a buddy list.
    Free = 1,
    /// Head of a block on a per-CPU list.
    Pcp = 2,
    /// Head of an allocated block that was seen allocated.
    Live = 3,
    /// Left a per-CPU list without an event: allocated in bulk, or freed past the list.
    Limbo = 4,
    /// Taken from the buddy lists by compaction or isolation.
    Isolated = 5,
}

/// A page's node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) next: u32,
    pub(crate) prev: u32,
    /// State in the low 3 bits, then the seed's mark, order in the next 4, list number above.
    tag: u32,
}

impl Node {
    const EMPTY: Self = Self { next: NIL, prev: NIL, tag: 0 };

    pub(crate) fn state(self) -> State {
        match self.tag & 7 {
            1 => State::Free,
            2 => State::Pcp,
            3 => State::Live,
            4 => State::Limbo,
            5 => State::Isolated,
            _ => State::Unknown,
        }
    }

    pub(crate) fn order(self) -> u8 {
        (self.tag >> 4 & 15) as u8
    }

    /// A free block of the start, on no other list since.
    pub(crate) fn is_seed(self) -> bool {
        self.tag & SEED != 0
    }

    /// A block on a per-CPU list that was not seen to be freed to it: it came from the buddy lists,
    /// or waits since the start.
    pub(crate) fn is_fresh(self) -> bool {
        self.tag & SEED != 0
    }

    pub(crate) fn list(self) -> usize {
        (self.tag >> 8) as usize
    }
}

/// The mark of a free block of the start, and of a block on a per-CPU list that nobody had yet.
const SEED: u32 = 8;

fn tag(state: State, order: u8, list: usize) -> u32 {
    debug_assert!(order < 16 && list < 1 << 24);
    (list as u32) << 8 | u32::from(order) << 4 | state as u32
}

/// A doubly linked list through the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct List {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: u32,
}

/// The nodes of all pages and the heads of all lists.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    mask: u32,
    shift: u32,
    heads: Vec<Node>,
    blocks: Vec<Option<Box<[Node]>>>,
    pub(crate) lists: Vec<List>,
}

impl Pages {
    /// Room for pages below `end_pfn`, in pageblocks of 2^`block_order` pages, and that many lists.
    pub(crate) fn new(end_pfn: u32, block_order: u8, lists: usize) -> Self {
        let shift = u32::from(block_order);
        let blocks = (end_pfn as usize).div_ceil(1 << shift);
        Self {
            mask: (1 << shift) - 1,
            shift,
            heads: vec![Node::EMPTY; blocks],
            blocks: vec![None; blocks],
            lists: vec![List { head: NIL, tail: NIL, len: 0 }; lists],
        }
    }

    /// Bytes held by nodes.
    pub(crate) fn bytes(&self) -> u64 {
        let made = self.blocks.iter().filter(|block| block.is_some()).count();
        let nodes = self.heads.len() + (made << self.shift);
        (nodes * size_of::<Node>() + self.blocks.len() * size_of::<Option<Box<[Node]>>>()) as u64
    }

    #[inline]
    pub(crate) fn get(&self, pfn: u32) -> Node {
        let block = (pfn >> self.shift) as usize;
        if pfn & self.mask == 0 {
            return self.heads.get(block).copied().unwrap_or(Node::EMPTY);
        }
        match self.blocks.get(block) {
            Some(Some(nodes)) => nodes[(pfn & self.mask) as usize],
            _ => Node::EMPTY,
        }
    }

    /// Whether any page of a page's pageblock but its head has ever been on a list.
    pub(crate) fn is_touched(&self, pfn: u32) -> bool {
        self.blocks.get((pfn >> self.shift) as usize).is_some_and(Option::is_some)
    }

    #[inline]
    fn at(&mut self, pfn: u32) -> &mut Node {
        let block = (pfn >> self.shift) as usize;
        if pfn & self.mask == 0 {
            return &mut self.heads[block];
        }
        let size = 1usize << self.shift;
        let nodes =
            self.blocks[block].get_or_insert_with(|| vec![Node::EMPTY; size].into_boxed_slice());
        &mut nodes[(pfn & self.mask) as usize]
    }

    /// Notes a state that is on no list.
    #[inline]
    pub(crate) fn note(&mut self, pfn: u32, state: State, order: u8) {
        debug_assert!(!matches!(state, State::Free | State::Pcp));
        let known = self.get(pfn);
        if state == State::Unknown && known.tag == 0 {
            return;
        }
        self.forget(pfn, known);
        *self.at(pfn) = Node { next: NIL, prev: NIL, tag: tag(state, order, 0) };
    }

    /// A page that moves on while a per-CPU list still holds it has left that list unseen.
    #[inline]
    fn forget(&mut self, pfn: u32, known: Node) {
        match known.state() {
            State::Pcp => {
                self.unlink(pfn);
            }
            State::Free => panic!("page {pfn:#x} is the head of a free block and was given away"),
            _ => {}
        }
    }

    /// Links a block in front of a list.
    #[inline]
    pub(crate) fn push_front(&mut self, list: usize, pfn: u32, state: State, order: u8) {
        self.forget(pfn, self.get(pfn));
        let old = self.lists[list].head;
        *self.at(pfn) = Node { next: old, prev: NIL, tag: tag(state, order, list) };
        if old == NIL {
            self.lists[list].tail = pfn;
        } else {
            self.at(old).prev = pfn;
        }
        self.lists[list].head = pfn;
        self.lists[list].len += 1;
    }

    /// Links a block behind a list.
    #[inline]
    pub(crate) fn push_back(&mut self, list: usize, pfn: u32, state: State, order: u8) {
        self.forget(pfn, self.get(pfn));
        let old = self.lists[list].tail;
        *self.at(pfn) = Node { next: NIL, prev: old, tag: tag(state, order, list) };
        if old == NIL {
            self.lists[list].head = pfn;
        } else {
            self.at(old).next = pfn;
        }
        self.lists[list].tail = pfn;
        self.lists[list].len += 1;
    }

    /// Takes a block off its list; its state is unknown after.
    #[inline]
    pub(crate) fn unlink(&mut self, pfn: u32) -> Node {
        let node = *self.at(pfn);
        debug_assert!(matches!(node.state(), State::Free | State::Pcp));
        let list = node.list();
        if node.prev == NIL {
            self.lists[list].head = node.next;
        } else {
            self.at(node.prev).next = node.next;
        }
        if node.next == NIL {
            self.lists[list].tail = node.prev;
        } else {
            self.at(node.next).prev = node.prev;
        }
        self.lists[list].len -= 1;
        *self.at(pfn) = Node::EMPTY;
        node
    }

    /// Turns a list so that one of its blocks is its head.
    pub(crate) fn turn(&mut self, list: usize, pfn: u32) {
        let List { head, tail, .. } = self.lists[list];
        if head == pfn {
            return;
        }
        self.at(tail).next = head;
        self.at(head).prev = tail;
        let last = self.get(pfn).prev;
        self.at(pfn).prev = NIL;
        self.at(last).next = NIL;
        self.lists[list].head = pfn;
        self.lists[list].tail = last;
    }

    /// Marks a free block as one of the start's.
    pub(crate) fn mark_seed(&mut self, pfn: u32) {
        self.at(pfn).tag |= SEED;
    }

    /// Marks a block on a per-CPU list as one that was not seen to be freed to it.
    pub(crate) fn mark_fresh(&mut self, pfn: u32) {
        self.at(pfn).tag |= SEED;
    }

    /// The blocks of a list, last to first.
    pub(crate) fn iter_back(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.lists[list].tail;
        std::iter::from_fn(move || {
            (at != NIL).then(|| {
                let pfn = at;
                at = self.get(pfn).prev;
                pfn
            })
        })
    }

    /// The blocks of a list, first to last.
    pub(crate) fn iter(&self, list: usize) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.lists[list].head;
        std::iter::from_fn(move || {
            (at != NIL).then(|| {
                let pfn = at;
                at = self.get(pfn).next;
                pfn
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_leave_a_list_from_both_ends_and_the_middle() {
        let mut pages = Pages::new(4096, 9, 2);
        for pfn in [512, 3, 7, 1024] {
            pages.push_back(1, pfn, State::Pcp, 0);
        }
        pages.push_front(1, 9, State::Pcp, 0);
        assert_eq!(pages.iter(1).collect::<Vec<_>>(), [9, 512, 3, 7, 1024]);
        for (gone, rest) in
            [(3, vec![9, 512, 7, 1024]), (9, vec![512, 7, 1024]), (1024, vec![512, 7])]
        {
            pages.unlink(gone);
            assert_eq!(pages.iter(1).collect::<Vec<_>>(), rest);
            assert_eq!(pages.get(gone).state(), State::Unknown);
        }
        assert_eq!(pages.lists[1].len, 2);
    }

    #[test]
    fn a_list_is_turned_without_losing_a_block() {
        let mut pages = Pages::new(4096, 9, 1);
        for pfn in [10, 20, 30, 40] {
            pages.push_back(0, pfn, State::Free, 0);
        }
        pages.turn(0, 30);
        assert_eq!(pages.iter(0).collect::<Vec<_>>(), [30, 40, 10, 20]);
        assert_eq!(pages.iter_back(0).collect::<Vec<_>>(), [20, 10, 40, 30]);
        pages.turn(0, 30);
        pages.turn(0, 20);
        assert_eq!(pages.iter(0).collect::<Vec<_>>(), [20, 30, 40, 10]);
    }

    #[test]
    fn a_free_pageblock_needs_no_node_but_its_heads() {
        let mut pages = Pages::new(1 << 20, 9, 1);
        let before = pages.bytes();
        pages.push_back(0, 512, State::Free, 9);
        assert_eq!(pages.bytes(), before);
        pages.push_back(0, 513, State::Free, 0);
        assert_eq!(pages.bytes(), before + 512 * 12);
    }
}
