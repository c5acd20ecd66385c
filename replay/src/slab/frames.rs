//! What is known of each page frame: nothing, a recorded allocation, or the slab it belongs to.

/// Pages of one piece of the table.
const PIECE: usize = 512;

/// A note about a page frame, in 32 bits: two of kind, thirty of number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// No event named it.
    None,
    /// In that slab.
    Slab(u32),
    /// First page of that recorded allocation.
    Block(u32),
    /// Some event named it; it is in no slab.
    Seen,
}

const KIND: u32 = 3 << 30;
const SLAB: u32 = 1 << 30;
const BLOCK: u32 = 2 << 30;

impl Note {
    fn pack(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Slab(number) => SLAB | (number & !KIND),
            Self::Block(number) => BLOCK | (number & !KIND),
            Self::Seen => KIND,
        }
    }

    #[inline]
    fn unpack(word: u32) -> Self {
        match word & KIND {
            0 => Self::None,
            SLAB => Self::Slab(word & !KIND),
            BLOCK => Self::Block(word & !KIND),
            _ => Self::Seen,
        }
    }
}

/// Notes by page frame, in pieces that are made when they are needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    pieces: Vec<Option<Box<[u32; PIECE]>>>,
    made: usize,
}

impl Frames {
    /// A table up to that page frame.
    pub(crate) fn new(end: u32) -> Self {
        Self { pieces: vec![None; (end as usize).div_ceil(PIECE)], made: 0 }
    }

    /// Whether the page frame is in the table.
    #[inline]
    pub(crate) fn holds(&self, pfn: u64) -> bool {
        pfn < (self.pieces.len() * PIECE) as u64
    }

    #[inline]
    pub(crate) fn get(&self, pfn: u32) -> Note {
        let Some(Some(piece)) = self.pieces.get(pfn as usize / PIECE) else { return Note::None };
        Note::unpack(piece[pfn as usize % PIECE])
    }

    #[inline]
    pub(crate) fn set(&mut self, pfn: u32, note: Note) {
        let Some(piece) = self.pieces.get_mut(pfn as usize / PIECE) else { return };
        let made = &mut self.made;
        let piece = piece.get_or_insert_with(|| {
            *made += 1;
            Box::new([0; PIECE])
        });
        piece[pfn as usize % PIECE] = note.pack();
    }

    /// Sets the note of every page of a block.
    pub(crate) fn set_block(&mut self, pfn: u32, order: u8, note: Note) {
        for page in pfn..pfn.saturating_add(1 << order) {
            self.set(page, note);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.pieces.len() * 8 + self.made * PIECE * 4) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_as_it_was_set() {
        let mut frames = Frames::new(1030);
        assert!(frames.holds(1029) && !frames.holds(2000));
        for note in [Note::Slab(7), Note::Block((1 << 30) - 1), Note::Seen, Note::None] {
            frames.set(1029, note);
            assert_eq!(frames.get(1029), note);
        }
        frames.set_block(510, 2, Note::Slab(1));
        assert_eq!(
            [509, 510, 513, 514].map(|pfn| frames.get(pfn)),
            [Note::None, Note::Slab(1), Note::Slab(1), Note::None]
        );
        frames.set(5000, Note::Seen);
        assert_eq!(frames.get(5000), Note::None, "outside there is nothing");
    }
}
