//! Sub-buffers made by hand and of a real kernel.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
";
const EVENT: &str = "# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
";

fn layout() -> PageLayout {
    PageLayout::parse(PAGE, EVENT).unwrap()
}

/// An entry's first word.
fn word(kind: u32, delta: u32) -> u32 {
    if cfg!(target_endian = "little") { delta << 5 | kind } else { kind << 27 | delta }
}

fn page_of(time: u64, flags: u64, words: &[u32], tail: &[u8]) -> Vec<u8> {
    let mut bytes = time.to_ne_bytes().to_vec();
    bytes.extend(((words.len() as u64 * 4) | flags).to_ne_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(tail);
    bytes
}

/// Times and lengths of a page's events, and whether it was torn.
fn read(bytes: &[u8]) -> (Vec<(u64, usize)>, bool) {
    let mut entries = layout().page(bytes).unwrap().entries;
    let events = entries.by_ref().map(|entry| (entry.time.0, entry.bytes.len())).collect();
    (events, entries.is_torn())
}

#[test]
fn the_layout_is_what_the_kernel_tells() {
    let four = PageLayout::parse(PAGE, EVENT).unwrap();
    assert_eq!(four.page_bytes(), 4096);
    let large = PageLayout::parse(&PAGE.replace("4080", "16368"), EVENT).unwrap();
    assert_eq!(large.page_bytes(), 16384);
    for name in ["timestamp", "commit", "data"] {
        let text: Vec<&str> = PAGE.lines().filter(|line| !line.contains(name)).collect();
        assert!(PageLayout::parse(&text.join("\n"), EVENT).is_err(), "{name}");
    }
    assert!(PageLayout::parse(PAGE, "type_len : 0 bits").is_err());
}

#[test]
fn times_add_up() {
    let words = [
        // The first event has the page's time.
        word(2, 0),
        1,
        2,
        word(1, 7),
        3,
        // An event that interrupted another one has no time of its own.
        word(1, 0),
        4,
        // Upper and lower part of 2^27 + 5, then 1 more.
        word(30, 5),
        1,
        word(1, 1),
        5,
        // 12 bytes of data and the length itself.
        word(0, 10),
        16,
        6,
        7,
        8,
    ];
    let start = 1_000_000;
    let later = start + 7 + (1 << 27) + 6;
    let expected = vec![(start, 8), (start + 7, 4), (start + 7, 4), (later, 4), (later + 10, 12)];
    assert_eq!(read(&page_of(start, 0, &words, &[])), (expected, false));
}

#[test]
fn a_whole_time_replaces_what_was_added_up() {
    let told: u64 = 0x1234_5678_9abc;
    let parts = [word(31, (told & 0x7ff_ffff) as u32), (told >> 27) as u32, word(1, 0), 9];
    assert_eq!(read(&page_of(5, 0, &parts, &[])), (vec![(told, 4)], false));
    // The top bits are those of the page's time, or one more once the rest ran over.
    let top = 3 << 59;
    assert_eq!(read(&page_of(top | (told - 100), 0, &parts, &[])).0, [(top | told, 4)]);
    assert_eq!(read(&page_of(top | (told + 100), 0, &parts, &[])).0, [(top | told, 4)]);
    let last = top | ((1 << 59) - 100);
    assert_eq!(read(&page_of(last, 0, &parts, &[])).0, [(4 << 59 | told, 4)]);
}

#[test]
fn padding_ends_the_data_or_was_an_event() {
    let words = [
        word(29, 3),
        8,
        0,
        word(1, 4),
        1,
        // The 1 stands for no time at all.
        word(29, 1),
        8,
        0,
        word(1, 5),
        2,
        word(29, 0),
        0,
        0,
    ];
    assert_eq!(read(&page_of(100, 0, &words, &[])), (vec![(107, 4), (112, 4)], false));
}

#[test]
fn a_page_tells_what_went_missing_before_it() {
    let words = [word(1, 0), 1];
    let missed =
        |flags, tail: &[u8]| layout().page(&page_of(1, flags, &words, tail)).unwrap().missed;
    assert_eq!(missed(0, &[]), Missed::None);
    assert_eq!(missed(1 << 31, &[]), Missed::Some);
    let both = 3 << 30;
    assert_eq!(missed(both, &77u64.to_ne_bytes()), Missed::Events(77));
    assert_eq!(missed(both, &[1, 2]), Missed::Some);
    assert_eq!(read(&page_of(1, both, &words, &77u64.to_ne_bytes())).0, [(1, 4)]);
}

#[test]
fn what_breaks_the_rules_ends_the_page() {
    let whole = [word(1, 0), 1];
    for broken in [
        vec![word(28, 0), 1],
        vec![word(0, 1)],
        vec![word(0, 1), 0],
        vec![word(0, 1), 3, 0],
        vec![word(0, 1), 400, 0],
        vec![word(0, 1), u32::MAX, 0],
        vec![word(29, 2), u32::MAX],
        vec![word(30, 2)],
        vec![word(31, 2)],
    ] {
        let words = [&whole[..], &broken].concat();
        assert_eq!(read(&page_of(9, 0, &words, &[])), (vec![(9, 4)], true), "{broken:x?}");
    }
    // A commit word that tells of more than there is.
    let mut long = page_of(9, 0, &whole, &[]);
    long[8..16].copy_from_slice(&(1u64 << 20).to_ne_bytes());
    assert_eq!(read(&long), (vec![(9, 4)], true));
    for end in 0..16 {
        assert!(layout().page(&long[..end]).is_none());
    }
}

fn ring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/6.18/ring")
}

fn real_pages() -> (PageLayout, Vec<u8>) {
    let text = |name| fs::read_to_string(ring().join(name)).unwrap();
    let layout = PageLayout::parse(&text("header_page"), &text("header_event")).unwrap();
    (layout, fs::read(ring().join("cpu0.raw")).unwrap())
}

/// `cpu0.events` is what the kernel itself printed of these pages, with times in microseconds.
#[test]
fn pages_of_a_real_kernel_read_as_it_prints_them() {
    let (layout, bytes) = real_pages();
    let ids = fs::read_to_string(ring().join("ids")).unwrap();
    let name_of = |id: u16| {
        let line = ids.lines().find(|line| line.ends_with(&format!(" {id}")));
        line.unwrap().split_once(' ').unwrap().0.to_owned()
    };
    let mut found = Vec::new();
    for page in bytes.chunks(layout.page_bytes()) {
        let page = layout.page(page).unwrap();
        assert_eq!(page.missed, Missed::None);
        let mut entries = page.entries;
        for entry in entries.by_ref() {
            let id = u16::from_ne_bytes(*entry.bytes.first_chunk().unwrap());
            // The kernel rounds to the nearest one.
            found.push(format!("{} {}", name_of(id), (entry.time.0 + 500) / 1000));
        }
        assert!(!entries.is_torn());
    }
    let expected = fs::read_to_string(ring().join("cpu0.events")).unwrap();
    assert_eq!(found, expected.lines().collect::<Vec<_>>());
}

/// Every byte changed in every page, and pages of nothing but noise: no panic, and no more data
/// than there is.
#[test]
fn noise_is_read_to_some_end() {
    let (layout, bytes) = real_pages();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let check = |page: &[u8]| {
        let Some(page) = layout.page(page) else { return };
        let read: usize = page.entries.map(|entry| entry.bytes.len() + 4).sum();
        assert!(read <= 4080);
    };
    for page in bytes.chunks(layout.page_bytes()) {
        for _ in 0..20_000 {
            let mut page = page.to_vec();
            for _ in 0..=next() % 4 {
                let at = usize::try_from(next() % 4096).unwrap();
                page[at] = next() as u8;
            }
            let end = usize::try_from(next() % 8192).unwrap().min(4096);
            check(&page[..end]);
        }
    }
    for _ in 0..20_000 {
        let mut page: Vec<u8> = (0..512).flat_map(|_| next().to_ne_bytes()).collect();
        page[8..16].copy_from_slice(&(next() % 4200).to_ne_bytes());
        check(&page);
    }
}
