//! The kernel's own type description, as far as it tells releases apart: which enums, functions and
//! structures there are, and how long an array within a structure is.
//!
//! `/sys/kernel/btf/vmlinux`: a header, type records of a length that their kind gives, and a
//! table of strings (`Documentation/bpf/btf.rst`). Read once, in this machine's byte order.

/// Where the kernel keeps it.
pub const PATH: &str = "sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const ENUM: u32 = 6;
const FUNC: u32 = 12;
const ENUM64: u32 = 19;
const HEAD_BYTES: usize = 12;

/// A type description, with an index of its types.
#[derive(Clone, Debug)]
pub struct Btf<'a> {
    strings: &'a [u8],
    types: Vec<Record<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    name: u32,
    info: u32,
    /// What follows the record's head.
    rest: &'a [u8],
}

impl Record<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 31
    }
}

impl<'a> Btf<'a> {
    /// Reads a description; `None` when it is damaged, or of a kind that is not known.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let at = |offset: usize| word(bytes, offset).map(|value| value as usize);
        let body = bytes.get(at(4)?..)?;
        let section = |start: usize, length: usize| body.get(start..start.checked_add(length)?);
        let mut left = section(at(8)?, at(12)?)?;
        let strings = section(at(16)?, at(20)?)?;
        let mut types = Vec::with_capacity(left.len() / 24);
        while !left.is_empty() {
            let info = word(left, 4)?;
            let length = HEAD_BYTES + rest_bytes(info)?;
            let (record, after) = left.split_at_checked(length)?;
            types.push(Record { name: word(record, 0)?, info, rest: &record[HEAD_BYTES..] });
            left = after;
        }
        Some(Self { strings, types })
    }

    /// Whether there is an enum of that name.
    #[must_use]
    pub fn has_enum(&self, name: &str) -> bool {
        self.find(name, &[ENUM, ENUM64]).is_some()
    }

    /// Whether there is a function of that name that is not inlined everywhere.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.find(name, &[FUNC]).is_some()
    }

    /// Whether there is a structure of that name.
    #[must_use]
    pub fn has_struct(&self, name: &str) -> bool {
        self.find(name, &[STRUCT]).is_some()
    }

    /// Whether an enum of that name has that value's name.
    #[must_use]
    pub fn has_value(&self, enumeration: &str, value: &str) -> bool {
        let Some(record) = self.find(enumeration, &[ENUM, ENUM64]) else { return false };
        let size = if record.kind() == ENUM { 8 } else { 12 };
        record.rest.chunks_exact(size).any(|item| self.is_named(item, value))
    }

    /// Whether a structure has that member.
    #[must_use]
    pub fn has_member(&self, structure: &str, member: &str) -> bool {
        self.member_type(structure, member).is_some()
    }

    /// Elements of an array within a structure.
    #[must_use]
    pub fn array_length(&self, structure: &str, member: &str) -> Option<u32> {
        // Types are numbered from 1; 0 is void.
        let index = (self.member_type(structure, member)? as usize).checked_sub(1)?;
        let array = self.types.get(index).filter(|record| record.kind() == ARRAY)?;
        word(array.rest, 8)
    }

    fn member_type(&self, structure: &str, member: &str) -> Option<u32> {
        let record = self.find(structure, &[STRUCT])?;
        let mut members = record.rest.chunks_exact(12);
        members.find(|item| self.is_named(item, member)).and_then(|item| word(item, 4))
    }

    fn find(&self, name: &str, kinds: &[u32]) -> Option<&Record<'a>> {
        self.types
            .iter()
            .find(|record| kinds.contains(&record.kind()) && self.is_string(record.name, name))
    }

    fn is_named(&self, item: &[u8], name: &str) -> bool {
        word(item, 0).is_some_and(|offset| self.is_string(offset, name))
    }

    fn is_string(&self, offset: u32, wanted: &str) -> bool {
        let Some(text) = self.strings.get(offset as usize..) else { return false };
        text.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

/// Bytes behind a record's head, by kind and number of items.
fn rest_bytes(info: u32) -> Option<usize> {
    let items = (info & 0xffff) as usize;
    Some(match info >> 24 & 31 {
        2 | 7..=12 | 16 | 18 => 0,
        1 | 14 | 17 => 4,
        ARRAY => 12,
        ENUM | 13 => 8 * items,
        STRUCT | 5 | 15 | ENUM64 => 12 * items,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description of `struct per_cpu_pages { int count; int lists[14]; }`,
    /// `enum rmqueue_mode { RMQUEUE_NORMAL }` and the function `decay_pcp_high`.
    fn small() -> Vec<u8> {
        let strings =
            b"\0int\0per_cpu_pages\0count\0lists\0rmqueue_mode\0RMQUEUE_NORMAL\0decay_pcp_high\0";
        let name = |text: &str| {
            let found = strings
                .windows(text.len() + 1)
                .position(|at| at.starts_with(text.as_bytes()) && at.last() == Some(&0));
            found.unwrap() as u32
        };
        let info = |kind: u32, items: u32| kind << 24 | items;
        let types: Vec<u32> = [
            vec![name("int"), info(1, 0), 4, 32],
            vec![0, info(ARRAY, 0), 0, 1, 1, 14],
            vec![name("per_cpu_pages"), info(STRUCT, 2), 60],
            vec![name("count"), 1, 0, name("lists"), 2, 32],
            vec![name("rmqueue_mode"), info(ENUM, 1), 4, name("RMQUEUE_NORMAL"), 0],
            vec![name("decay_pcp_high"), info(FUNC, 1), 1],
        ]
        .concat();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let lengths = [24, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32];
        for word in lengths.into_iter().chain(types) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let bytes = small();
        let btf = Btf::parse(&bytes).unwrap();
        assert!(btf.has_enum("rmqueue_mode") && !btf.has_enum("rmqueue"));
        assert!(btf.has_value("rmqueue_mode", "RMQUEUE_NORMAL"));
        assert!(!btf.has_value("rmqueue_mode", "RMQUEUE_STEAL"));
        assert!(btf.has_function("decay_pcp_high") && !btf.has_function("per_cpu_pages"));
        assert!(btf.has_struct("per_cpu_pages") && !btf.has_struct("rmqueue_mode"));
        assert!(btf.has_member("per_cpu_pages", "count"));
        assert!(!btf.has_member("per_cpu_pages", "high_min"));
        assert_eq!(btf.array_length("per_cpu_pages", "lists"), Some(14));
        assert_eq!(btf.array_length("per_cpu_pages", "count"), None);
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let bytes = small();
        let ask = |bytes: &[u8]| {
            let Some(btf) = Btf::parse(bytes) else { return };
            std::hint::black_box(btf.array_length("per_cpu_pages", "lists"));
            std::hint::black_box(btf.has_value("rmqueue_mode", "RMQUEUE_NORMAL"));
        };
        for end in 0..bytes.len() {
            assert!(Btf::parse(&bytes[..end]).is_none(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                ask(&damaged);
            }
        }
        ask(&[]);
        ask(b"\x9f\xeb");
    }

    #[test]
    fn this_machine_s_own_is_read_where_there_is_one() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let btf = Btf::parse(&bytes).unwrap();
        assert!(btf.has_struct("per_cpu_pages") && btf.has_member("per_cpu_pages", "batch"));
        assert!(btf.array_length("per_cpu_pages", "lists").is_some_and(|lists| lists >= 3));
    }
}
