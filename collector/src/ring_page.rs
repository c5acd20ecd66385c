//! One sub-buffer of the kernel's trace ring, taken apart.
//!
//! A sub-buffer is what one read of `trace_pipe_raw` yields: the time of its first event, a commit
//! word (bytes of data, and in the top bits whether events went missing before it), and entries.
//! Each entry starts with 5 bits of type and 27 bits of time since the entry before. The types are
//!
//! * 1 to 28: data of four times as many bytes;
//! * 0: data whose length the next word tells, that word included;
//! * 29: padding. Without a time it is the end of the data; with one it is an event that was taken
//!   back. Its time counts, unless it is the 1 that stands where there was none to tell;
//! * 30: the next word is the upper part of a time difference that 27 bits do not hold;
//! * 31: the same, but of a time: events that interrupt another one may tell theirs so. The top 5
//!   bits of the time do not fit and are those of the time before.
//!
//! Nothing here trusts the bytes: a page that breaks the rules ends early and says so.

use kmemlab_trace::unit::Nanos;

use crate::error::ParseError;
use crate::proc::lines;
use crate::tracefs;

const HEADER_PAGE: &str = "events/header_page";
const HEADER_EVENT: &str = "events/header_event";
const WORD: usize = 4;
/// The commit word's bits. More than 20 bits of length no page has.
const COMMIT_LENGTH: u64 = (1 << 27) - 1;
const COMMIT_MISSED: u64 = 1 << 31;
const COMMIT_MISSED_COUNT: u64 = 1 << 30;
/// A time that is told whole has 59 bits.
const TIME_BITS: u32 = 59;

/// Where things stand in a sub-buffer and in an entry, as this kernel tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageLayout {
    time_at: usize,
    commit_at: usize,
    commit_bytes: usize,
    data_at: usize,
    page_bytes: usize,
    type_bits: u32,
    padding: u32,
    time_extend: u32,
    time_stamp: u32,
    longest: u32,
}

impl PageLayout {
    /// Out of the texts of `events/header_page` and `events/header_event`.
    ///
    /// # Errors
    /// A field is missing, or of a size that no kernel known to us has.
    pub fn parse(page: &str, event: &str) -> Result<Self, ParseError> {
        let absent = |expected| ParseError::Absent { file: HEADER_PAGE, expected };
        let (mut time, mut commit, mut data) = (None, None, None);
        for line in lines(HEADER_PAGE, page) {
            let Some(rest) = line.text.trim().strip_prefix("field") else { continue };
            let field = tracefs::field(&line, rest)?;
            match field.name.as_str() {
                "timestamp" if field.size == 8 => time = Some(field.offset),
                "commit" if matches!(field.size, 4 | 8) => {
                    commit = Some((field.offset, field.size));
                }
                "data" => data = Some((field.offset, field.size)),
                _ => {}
            }
        }
        let (commit_at, commit_bytes) = commit.ok_or_else(|| absent("a field commit"))?;
        let (data_at, data_bytes) = data.ok_or_else(|| absent("a field data"))?;
        let told = |name: &str, or: u32| number_after(event, name).unwrap_or(or);
        let layout = Self {
            time_at: time.ok_or_else(|| absent("a field timestamp of 8 bytes"))?,
            commit_at,
            commit_bytes,
            data_at,
            page_bytes: data_at + data_bytes,
            type_bits: told("type_len", 5),
            padding: told("padding", 29),
            time_extend: told("time_extend", 30),
            time_stamp: told("time_stamp", 31),
            longest: told("data max type_len", 28),
        };
        if layout.type_bits == 0 || layout.type_bits > 16 {
            let expected = "type_len of 1 to 16 bits";
            return Err(ParseError::Absent { file: HEADER_EVENT, expected });
        }
        Ok(layout)
    }

    /// Bytes of a whole sub-buffer.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The parts of one sub-buffer; `None` when not even its header is there.
    #[must_use]
    pub fn page<'a>(&self, bytes: &'a [u8]) -> Option<Page<'a>> {
        let time = word64(bytes, self.time_at)?;
        let commit = if self.commit_bytes == 8 {
            word64(bytes, self.commit_at)?
        } else {
            u64::from(word32(bytes, self.commit_at)?)
        };
        let length = usize::try_from(commit & COMMIT_LENGTH).ok()?;
        let rest = bytes.get(self.data_at..)?;
        let missed = match (commit & COMMIT_MISSED != 0, commit & COMMIT_MISSED_COUNT != 0) {
            (false, _) => Missed::None,
            (true, false) => Missed::Some,
            // A long: as wide as the commit word.
            (true, true) if self.commit_bytes == 8 => {
                word64(rest, length).map_or(Missed::Some, Missed::Events)
            }
            (true, true) => {
                word32(rest, length).map_or(Missed::Some, |events| Missed::Events(events.into()))
            }
        };
        let data = &rest[..length.min(rest.len())];
        let is_torn = length > rest.len();
        Some(Page {
            time: Nanos(time),
            missed,
            entries: Entries { layout: *self, data, at: 0, time, is_torn },
        })
    }
}

/// The number behind a name in `header_event`: `type_len    :    5 bits`, `padding     : type ==
/// 29`.
fn number_after(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
    let digits = line.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[inline]
fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(WORD)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_ne_bytes)
}

#[inline]
fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    bytes.get(at..end)?.try_into().ok().map(u64::from_ne_bytes)
}

/// What went missing before a sub-buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missed {
    /// Nothing.
    None,
    /// Something, and the page had no room to tell how much.
    Some,
    /// So many events.
    Events(u64),
}

/// A sub-buffer's header, and its entries.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// What its first entry's time counts from.
    pub time: Nanos,
    /// Events that went missing before it.
    pub missed: Missed,
    /// What it holds.
    pub entries: Entries<'a>,
}

/// One event of a sub-buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// When it was written.
    pub time: Nanos,
    /// The tracepoint's record, common fields first.
    pub bytes: &'a [u8],
}

/// The events of a sub-buffer, in the order in which they were written.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    layout: PageLayout,
    data: &'a [u8],
    at: usize,
    time: u64,
    is_torn: bool,
}

impl<'a> Entries<'a> {
    /// Whether the page broke the rules: what is behind that place could not be read.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// Type and time of an entry's first word.
    #[inline]
    fn split(&self, word: u32) -> (u32, u64) {
        let bits = self.layout.type_bits;
        if cfg!(target_endian = "little") {
            (word & ((1 << bits) - 1), u64::from(word >> bits))
        } else {
            (word >> (u32::BITS - bits), u64::from(word << bits >> bits))
        }
    }

    /// The time that two words tell together.
    fn long_time(&self, low: u64, high: u32) -> u64 {
        (u64::from(high) << (u32::BITS - self.layout.type_bits)).wrapping_add(low)
    }

    fn end(&mut self, is_torn: bool) -> Option<Entry<'a>> {
        self.at = self.data.len();
        self.is_torn |= is_torn;
        None
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let Some(word) = word32(self.data, self.at) else {
                let has_rest = self.at < self.data.len();
                return self.end(has_rest);
            };
            let (kind, delta) = self.split(word);
            let body = self.at + WORD;
            if kind != 0 && kind <= self.layout.longest {
                let end = body + kind as usize * WORD;
                let Some(bytes) = self.data.get(body..end) else { return self.end(true) };
                self.at = end;
                self.time = self.time.wrapping_add(delta);
                return Some(Entry { time: Nanos(self.time), bytes });
            }
            if kind == self.layout.padding && delta == 0 {
                return self.end(false);
            }
            let Some(second) = word32(self.data, body) else { return self.end(true) };
            if kind == self.layout.time_extend {
                self.time = self.time.wrapping_add(self.long_time(delta, second));
                self.at = body + WORD;
            } else if kind == self.layout.time_stamp {
                self.time = whole_time(self.time, self.long_time(delta, second));
                self.at = body + WORD;
            } else if kind == 0 || kind == self.layout.padding {
                let length = second as usize;
                let Some(bytes) = body
                    .checked_add(length)
                    .filter(|_| length >= WORD)
                    .and_then(|end| self.data.get(body + WORD..end))
                else {
                    return self.end(true);
                };
                self.at = body + length;
                if kind == 0 {
                    self.time = self.time.wrapping_add(delta);
                    return Some(Entry { time: Nanos(self.time), bytes });
                }
                if delta != 1 {
                    self.time = self.time.wrapping_add(delta);
                }
            } else {
                return self.end(true);
            }
        }
    }
}

/// A time of 59 bits with the top bits of the time before it; one more, if they ran over in
/// between.
fn whole_time(before: u64, told: u64) -> u64 {
    let top = before >> TIME_BITS << TIME_BITS;
    let time = top | (told & ((1 << TIME_BITS) - 1));
    // Only a run over makes it half the range smaller: nested events step back by far less.
    if top != 0 && before.saturating_sub(time) >> (TIME_BITS - 1) != 0 {
        time.wrapping_add(1 << TIME_BITS)
    } else {
        time
    }
}

#[cfg(test)]
#[path = "ring_page_tests.rs"]
mod tests;
