//! Which modelled block stands for which recorded one.
//!
//! The kernel frees what it allocated by its own page frame; the model allocated another. Blocks
//! may be freed in pieces (a split huge page), so a binding can be split.

/// A binding of one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bound {
    /// The model's page frame.
    pub(crate) pfn: u32,
    /// Order of the block.
    pub(crate) order: u8,
}

/// A binding in four bytes. A block of order `o` is aligned, so the lowest bit set of
/// `pfn << 1 | 1 << o` tells the order; zero is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Packed(u32);

impl Packed {
    const NONE: Self = Self(0);

    fn of(bound: Bound) -> Self {
        Self(bound.pfn << 1 | 1 << bound.order)
    }

    fn bound(self) -> Option<Bound> {
        let order = self.0.trailing_zeros();
        (self != Self::NONE).then(|| Bound { pfn: (self.0 ^ 1 << order) >> 1, order: order as u8 })
    }
}

/// Bindings by the kernel's page frame, a pageblock's worth at a time.
#[derive(Clone, Debug)]
pub(crate) struct Bindings {
    shift: u32,
    top: u8,
    blocks: Vec<Option<Box<[Packed]>>>,
}

impl Bindings {
    pub(crate) fn new(end: u32, block_order: u8, orders: u8) -> Self {
        let shift = u32::from(block_order);
        let blocks = (end as usize).div_ceil(1 << shift);
        Self { shift, top: orders - 1, blocks: vec![None; blocks] }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let made = self.blocks.iter().filter(|block| block.is_some()).count();
        let entry = size_of::<Option<Box<[Packed]>>>();
        ((made << self.shift) * size_of::<Packed>() + self.blocks.len() * entry) as u64
    }

    #[inline]
    fn place(&self, pfn: u32) -> (usize, usize) {
        ((pfn >> self.shift) as usize, (pfn & ((1 << self.shift) - 1)) as usize)
    }

    /// What a block of the kernel's starting there is bound to.
    #[inline]
    pub(crate) fn at(&self, pfn: u32) -> Option<Bound> {
        let (block, index) = self.place(pfn);
        self.blocks.get(block)?.as_ref()?[index].bound()
    }

    /// Binds the kernel's block to the model's.
    #[inline]
    pub(crate) fn bind(&mut self, kernel: u32, bound: Bound) {
        let (block, index) = self.place(kernel);
        let size = 1usize << self.shift;
        let block =
            self.blocks[block].get_or_insert_with(|| vec![Packed::NONE; size].into_boxed_slice());
        block[index] = Packed::of(bound);
    }

    #[inline]
    fn unbind(&mut self, kernel: u32) {
        let (block, index) = self.place(kernel);
        if let Some(Some(block)) = self.blocks.get_mut(block) {
            block[index] = Packed::NONE;
        }
    }

    /// Takes the binding of exactly `[kernel, kernel + 2^order)`, splitting a larger one that
    /// holds it. `None` when that block was never bound.
    #[inline]
    pub(crate) fn take(&mut self, kernel: u32, order: u8) -> Option<Bound> {
        if let Some(bound) = self.at(kernel)
            && bound.order == order
        {
            self.unbind(kernel);
            return Some(bound);
        }
        self.take_split(kernel, order)
    }

    /// Takes the bindings of all smaller blocks in `[kernel, kernel + 2^order)`: blocks that were
    /// taken one by one (by compaction, for a huge page) may be freed as one.
    pub(crate) fn take_within(&mut self, kernel: u32, order: u8) -> Vec<Bound> {
        let pages = 1u64.checked_shl(u32::from(order)).unwrap_or(0);
        let end = (u64::from(kernel) + pages).min((self.blocks.len() as u64) << self.shift) as u32;
        let mut found = Vec::new();
        let mut at = kernel;
        while at < end {
            if let Some(bound) = self.at(at) {
                self.unbind(at);
                found.push(bound);
            }
            let (block, index) = self.place(at);
            let is_bare = index == 0 && self.blocks[block].is_none();
            at += if is_bare { 1 << self.shift } else { 1 };
        }
        found
    }

    fn take_split(&mut self, kernel: u32, order: u8) -> Option<Bound> {
        for above in order..=self.top {
            let head = kernel >> above << above;
            let Some(bound) = self.at(head) else { continue };
            if bound.order < above || bound.order <= order {
                continue;
            }
            self.unbind(head);
            let (mut at, mut model, mut have) = (head, bound.pfn, bound.order);
            while have > order {
                have -= 1;
                let half = 1u32 << have;
                let (other, other_model);
                if kernel >= at + half {
                    (other, other_model) = (at, model);
                    (at, model) = (at + half, model + half);
                } else {
                    (other, other_model) = (at + half, model + half);
                }
                self.bind(other, Bound { pfn: other_model, order: have });
            }
            return Some(Bound { pfn: model, order });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_taken_one_by_one_are_found_when_freed_as_one() {
        let mut bindings = Bindings::new(4096, 9, 11);
        bindings.bind(1024, Bound { pfn: 2048, order: 9 });
        bindings.bind(1540, Bound { pfn: 7, order: 0 });
        bindings.bind(3000, Bound { pfn: 9, order: 0 });
        let found = bindings.take_within(1024, 10);
        assert_eq!(found, [Bound { pfn: 2048, order: 9 }, Bound { pfn: 7, order: 0 }]);
        assert_eq!(bindings.take_within(0, 18), [Bound { pfn: 9, order: 0 }]);
    }

    #[test]
    fn every_block_fits_four_bytes() {
        for order in 0..15u8 {
            for pfn in [0, 1 << order, 3 << order, (1u32 << 31) - (1 << order)] {
                let bound = Bound { pfn, order };
                assert_eq!(Packed::of(bound).bound(), Some(bound));
            }
        }
        assert_eq!(Packed::NONE.bound(), None);
    }

    #[test]
    fn a_block_freed_in_pieces_gives_each_piece_once() {
        let mut bindings = Bindings::new(4096, 9, 11);
        bindings.bind(512, Bound { pfn: 1024, order: 9 });
        assert_eq!(bindings.take(515, 0), Some(Bound { pfn: 1027, order: 0 }));
        assert_eq!(bindings.take(515, 0), None);
        assert_eq!(bindings.take(768, 8), Some(Bound { pfn: 1280, order: 8 }));
        assert_eq!(bindings.take(512, 1), Some(Bound { pfn: 1024, order: 1 }));
        assert_eq!(bindings.take(514, 0), Some(Bound { pfn: 1026, order: 0 }));
        assert_eq!(bindings.take(512, 0), None);
    }
}
