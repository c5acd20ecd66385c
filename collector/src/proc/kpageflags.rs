//! `/proc/kpageflags`: what each page of memory is, as runs of pages of one use.
//!
//! The scan costs the kernel about 85 ns a page and is not atomic: each chunk has its own moments.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use kmemlab_trace::snapshot::{PageRun, PageUse, Stamp};
use kmemlab_trace::unit::Pfn;

use crate::clock;
use crate::error::Error;
use crate::root::Root;

/// Where it stands below the root.
pub const PATH: &str = "proc/kpageflags";
/// Pages read at once; a run never crosses a multiple of it.
pub const CHUNK_PAGES: u64 = 8192;

/// No machine has as many pages; beyond, an offset in the file would be no number.
const END_PFN: Pfn = Pfn(1 << 52);
const ENTRY_BYTES: usize = size_of::<u64>();

const LRU: u64 = 1 << 5;
const SLAB: u64 = 1 << 7;
const BUDDY: u64 = 1 << 10;
const MMAP: u64 = 1 << 11;
const ANON: u64 = 1 << 12;
const COMPOUND_HEAD: u64 = 1 << 15;
const COMPOUND_TAIL: u64 = 1 << 16;
const HUGE: u64 = 1 << 17;
const NOPAGE: u64 = 1 << 20;
const OFFLINE: u64 = 1 << 23;
const PGTABLE: u64 = 1 << 26;
const RESERVED: u64 = 1 << 32;

/// The use of a page with these flags: the first that fits.
///
/// The order matters: a slab page of newer kernels also has the bits of an anonymous page.
#[must_use]
pub fn classify(flags: u64) -> PageUse {
    let any = |bits: u64| flags & bits != 0;
    if any(BUDDY) {
        PageUse::Free
    } else if any(NOPAGE | OFFLINE | RESERVED) {
        PageUse::Absent
    } else if any(HUGE) {
        PageUse::Hugetlb
    } else if any(SLAB) {
        PageUse::Slab
    } else if any(PGTABLE) {
        PageUse::PageTable
    } else if any(LRU | ANON | MMAP) {
        // Mapped pages still in a CPU's batch for the LRU have neither of the other two bits.
        PageUse::Lru
    } else if any(COMPOUND_HEAD | COMPOUND_TAIL) {
        PageUse::Compound
    } else if flags == 0 {
        PageUse::Untold
    } else {
        PageUse::Other
    }
}

/// Reads the page map over these ranges and hands over the runs of one chunk after the other, in
/// ascending order. Ranges may overlap and come in any order: each page is read once. Pages beyond
/// the file's end are not told. Returns the number of pages told.
///
/// # Errors
/// The file is missing (the kernel lacks an option) or not permitted, or `each` failed.
pub fn scan<E: From<Error>>(
    root: &Root,
    ranges: &[Range<Pfn>],
    mut each: impl FnMut(&[PageRun]) -> Result<(), E>,
) -> Result<u64, E> {
    let file = root.open(PATH)?;
    let mut bytes = vec![0u8; usize::try_from(CHUNK_PAGES).unwrap_or(0) * ENTRY_BYTES];
    let mut runs = Vec::new();
    let mut told = 0;
    for range in merged(ranges) {
        let mut pfn = range.start.0;
        while pfn < range.end.0 {
            let chunk_end = ((pfn / CHUNK_PAGES + 1) * CHUNK_PAGES).min(range.end.0);
            let wanted = usize::try_from(chunk_end - pfn).unwrap_or(0) * ENTRY_BYTES;
            let before = clock::now();
            let read = read_at(&file, &mut bytes[..wanted], pfn)
                .map_err(|source| root.error(PATH, source))?;
            let stamp = Stamp { before, after: clock::now() };
            cut_runs(&bytes[..read], Pfn(pfn), stamp, &mut runs);
            told += (read / ENTRY_BYTES) as u64;
            if !runs.is_empty() {
                each(&runs)?;
            }
            if read < wanted {
                break;
            }
            pfn = chunk_end;
        }
    }
    Ok(told)
}

/// Fills the buffer from the entry of `pfn` on; less at the file's end, always whole entries.
fn read_at(file: &File, bytes: &mut [u8], pfn: u64) -> std::io::Result<usize> {
    let start = pfn * ENTRY_BYTES as u64;
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], start + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read - read % ENTRY_BYTES)
}

/// The runs of one chunk.
fn cut_runs(bytes: &[u8], first: Pfn, stamp: Stamp, runs: &mut Vec<PageRun>) {
    runs.clear();
    let mut last_flags = 0;
    let mut last_use = PageUse::Untold;
    for (entry, pfn) in bytes.chunks_exact(ENTRY_BYTES).zip(first.0..) {
        let flags = entry.try_into().map_or(0, u64::from_ne_bytes);
        // Neighbours mostly have the very same flags.
        if flags != last_flags {
            last_flags = flags;
            last_use = classify(flags);
        }
        match runs.last_mut() {
            Some(run) if run.page_use == last_use => run.pages += 1,
            _ => runs.push(PageRun { stamp, pfn: Pfn(pfn), pages: 1, page_use: last_use }),
        }
    }
}

/// The same pages as ascending ranges that do not touch: zones of different nodes may interleave.
fn merged(ranges: &[Range<Pfn>]) -> Vec<Range<Pfn>> {
    let mut sorted: Vec<_> = ranges
        .iter()
        .map(|range| range.start..range.end.min(END_PFN))
        .filter(|range| range.start < range.end)
        .collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<Pfn>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    fn map(flags: &[u64]) -> Scratch {
        let scratch = Scratch::new();
        let bytes: Vec<u8> = flags.iter().flat_map(|flags| flags.to_ne_bytes()).collect();
        scratch.write(PATH, bytes);
        scratch
    }

    fn runs(root: &Root, ranges: &[Range<Pfn>]) -> (u64, Vec<(u64, u64, PageUse)>) {
        let mut found = Vec::new();
        let told = scan::<Error>(root, ranges, |runs| {
            assert!(runs.iter().all(|run| run.stamp.before <= run.stamp.after));
            found.extend(runs.iter().map(|run| (run.pfn.0, run.pages, run.page_use)));
            Ok(())
        });
        (told.unwrap(), found)
    }

    #[test]
    fn the_first_use_that_fits() {
        for (flags, expected) in [
            (0, PageUse::Untold),
            (BUDDY | 1 << 3, PageUse::Free),
            (RESERVED | MMAP, PageUse::Absent),
            (NOPAGE, PageUse::Absent),
            (OFFLINE, PageUse::Absent),
            (HUGE | COMPOUND_HEAD | LRU, PageUse::Hugetlb),
            (SLAB | ANON | COMPOUND_TAIL, PageUse::Slab),
            (PGTABLE | 1 << 2, PageUse::PageTable),
            (LRU | COMPOUND_HEAD, PageUse::Lru),
            (ANON | COMPOUND_TAIL, PageUse::Lru),
            (MMAP, PageUse::Lru),
            (COMPOUND_TAIL, PageUse::Compound),
            (1 << 3, PageUse::Other),
        ] {
            assert_eq!(classify(flags), expected, "{flags:#x}");
        }
    }

    #[test]
    fn runs_by_use_within_the_ranges() {
        let scratch = map(&[SLAB, BUDDY, BUDDY, LRU, LRU | MMAP, 0, SLAB]);
        let (told, found) = runs(&scratch.0, &[Pfn(4)..Pfn(6), Pfn(1)..Pfn(4), Pfn(2)..Pfn(3)]);
        assert_eq!(told, 5);
        assert_eq!(found, [(1, 2, PageUse::Free), (3, 2, PageUse::Lru), (5, 1, PageUse::Untold)]);
    }

    #[test]
    fn a_chunk_ends_a_run_and_the_file_ends_the_scan() {
        let scratch = map(&vec![BUDDY; 8192 + 5]);
        assert_eq!(runs(&scratch.0, &[Pfn(u64::MAX - 1)..Pfn(u64::MAX)]), (0, vec![]));
        let (told, found) = runs(&scratch.0, &[Pfn(8000)..Pfn(20_000)]);
        assert_eq!(told, 192 + 5);
        assert_eq!(found, [(8000, 192, PageUse::Free), (8192, 5, PageUse::Free)]);
        assert_eq!(runs(&scratch.0, &[Pfn(30_000)..Pfn(u64::MAX), Pfn(5)..Pfn(5)]), (0, vec![]));
    }

    #[test]
    fn an_error_of_the_taker_ends_the_scan_and_a_missing_file_says_the_option() {
        #[derive(Debug)]
        struct Full;
        impl From<Error> for Full {
            fn from(_: Error) -> Self {
                Full
            }
        }
        let scratch = map(&vec![0; 20_000]);
        let mut calls = 0;
        let end = scan(&scratch.0, &[Pfn(0)..Pfn(20_000)], |_| {
            calls += 1;
            Err(Full)
        });
        assert!(matches!(end, Err(Full)));
        assert_eq!(calls, 1);
        let error = scan::<Error>(&Root::new("/nowhere"), &[], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("CONFIG_PROC_PAGE_MONITOR"), "{error}");
    }
}
