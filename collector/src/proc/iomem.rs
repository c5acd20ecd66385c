//! `/proc/iomem`: which pages are memory. Zones span holes, and since 6.18 `/proc/kpageflags` shows
//! a hole like a page without flags, so that only this file tells them apart.

use std::ops::Range;

use kmemlab_trace::unit::Pfn;

use super::whole_lines;
use crate::error::ParseError;

/// Where it stands below the root.
pub const PATH: &str = "proc/iomem";

const FILE: &str = "/proc/iomem";
const ROW: &str = "`START-END : NAME` in hexadecimal";

/// The whole pages of system memory in ascending order; empty when the kernel hid the addresses.
///
/// # Errors
/// A line is no range with a name.
pub fn parse(text: &str, page_size_bytes: u64) -> Result<Vec<Range<Pfn>>, ParseError> {
    let page = page_size_bytes.max(1);
    let mut ranges = Vec::new();
    for line in whole_lines(FILE, text)? {
        let split = line.text.split_once(" : ").and_then(|(range, name)| {
            let (start, end) = range.trim().split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            Some((start, end, name))
        });
        let (start, end, name) = split.ok_or_else(|| line.wrong(ROW))?;
        // Memory of a device that is used as RAM is `System RAM (kmem)`, below the device's line.
        if name.trim().starts_with("System RAM") && end > start {
            let pages = Pfn(start.div_ceil(page))..Pfn(end.saturating_add(1) / page);
            if pages.start < pages.end {
                ranges.push(pages);
            }
        }
    }
    ranges.sort_unstable_by_key(|range| range.start);
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_of_memory_only() {
        let text = "00000000-00000fff : Reserved\n\
                    00001000-0009fbff : System RAM\n\
                    100000000-13fffffff : System RAM\n  \
                      101000000-101ffffff : Kernel code\n\
                    00100000-bfffffff : System RAM\n\
                    200000000-2ffffffff : Persistent Memory\n  \
                      200000000-20fffffff : System RAM (kmem)\n";
        assert_eq!(
            parse(text, 4096).unwrap(),
            [
                Pfn(1)..Pfn(0x9f),
                Pfn(0x100)..Pfn(0xc0000),
                Pfn(0x10_0000)..Pfn(0x14_0000),
                Pfn(0x20_0000)..Pfn(0x21_0000),
            ]
        );
    }

    #[test]
    fn hidden_addresses_are_no_memory_and_garbage_is_an_error() {
        assert!(parse("00000000-00000000 : System RAM\n", 4096).unwrap().is_empty());
        for text in ["", "x\n", "0-1\n", "0-x : System RAM\n", "0 : System RAM\n", "0-1 : Syst"] {
            assert!(parse(text, 4096).is_err(), "{text:?}");
        }
    }
}
