//! One record of a perf ring, taken apart.

use kmemlab_trace::unit::Nanos;

const SAMPLE: u32 = 9;
const LOST: u32 = 2;
const HEADER_BYTES: usize = 8;

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record<'a> {
    /// An event.
    Sample {
        /// When.
        time: Nanos,
        /// The tracepoint's record.
        raw: &'a [u8],
        /// Call chain as 64-bit words, markers included.
        chain: &'a [u8],
    },
    /// The ring had no room.
    Lost {
        /// When it was told.
        time: Nanos,
        /// Records missing since it was last told.
        records: u64,
    },
    /// Nothing that we asked for.
    Other,
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    bytes.get(at..end)?.try_into().ok().map(u64::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Takes a record apart. Samples hold time, call chain (with `has_chain`) and raw bytes, in this
/// order; all other records end with their time.
pub(super) fn parse(bytes: &[u8], has_chain: bool) -> Record<'_> {
    let found = match half(bytes, 0) {
        Some(SAMPLE) => sample(bytes, has_chain),
        Some(LOST) => word(bytes, HEADER_BYTES + 8)
            .zip(word(bytes, bytes.len().saturating_sub(8)))
            .map(|(records, time)| Record::Lost { time: Nanos(time), records }),
        _ => None,
    };
    found.unwrap_or(Record::Other)
}

fn sample(bytes: &[u8], has_chain: bool) -> Option<Record<'_>> {
    let time = Nanos(word(bytes, HEADER_BYTES)?);
    let mut at = HEADER_BYTES + 8;
    let mut chain: &[u8] = &[];
    if has_chain {
        let frames = usize::try_from(word(bytes, at)?).ok()?;
        let end = frames.checked_mul(8)?.checked_add(at + 8)?;
        chain = bytes.get(at + 8..end)?;
        at = end;
    }
    let length = usize::try_from(half(bytes, at)?).ok()?;
    let raw = bytes.get(at + 4..(at + 4).checked_add(length)?)?;
    Some(Record::Sample { time, raw, chain })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, body: &[u64]) -> Vec<u8> {
        let size = u64::try_from(HEADER_BYTES + body.len() * 8).unwrap();
        let header = u64::from(kind) | size << 48;
        std::iter::once(&header).chain(body).flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn a_sample_with_and_without_a_chain() {
        let plain = record(SAMPLE, &[77, 12 | 0xaa << 32, 0xbb]);
        let Record::Sample { time, raw, chain } = parse(&plain, false) else { panic!() };
        assert_eq!((time, raw.len(), chain.len()), (Nanos(77), 12, 0));
        assert_eq!(raw[..4], [0xaa, 0, 0, 0]);
        let chained = record(SAMPLE, &[77, 2, 0x1111, 0x2222, 4 | 0xcc << 32]);
        let Record::Sample { raw, chain, .. } = parse(&chained, true) else { panic!() };
        assert_eq!((raw, chain.len()), (&[0xcc, 0, 0, 0][..], 16));
    }

    #[test]
    fn a_loss_tells_how_many_and_when() {
        assert_eq!(
            parse(&record(LOST, &[5, 1234, 99]), false),
            Record::Lost { time: Nanos(99), records: 1234 }
        );
    }

    #[test]
    fn a_record_cut_anywhere_is_nothing() {
        let whole = record(SAMPLE, &[77, 1, 0x1111, 12 | 0xaa << 32, 0xbb]);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end], true), Record::Other, "{end}");
        }
        assert_eq!(parse(&record(SAMPLE, &[77, u64::MAX, 0]), true), Record::Other);
        assert_eq!(parse(&record(5, &[1, 2, 3]), false), Record::Other);
    }
}
