//! A scrubbed copy: no name, no address of before, and the same in all else.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use kmemlab_trace::format::{self, TABLES};
use kmemlab_trace::manifest::{End, Host, Manifest};
use kmemlab_trace::scrub::scrub;
use kmemlab_trace::snapshot::{Stamp, VmallocRow};
use kmemlab_trace::table::Cell;
use kmemlab_trace::unit::{Cpu, Nanos, Pid};
use kmemlab_trace::{Column, Error, Event, EventBatchBuilder, Kind, Recording, RecordingWriter};

const OBJECT: u64 = 0xffff_9a41_2345_6780;
const AREA: u64 = 0xffff_b1c5_c012_3000;
const WINDOW: (u64, u64) = (0xffff_b1c5_c000_0000, 0xffff_d1c5_bfff_ffff);
const SITE: u64 = 0xffff_ffff_a3b1_2345;
const MODULE: u64 = 0xffff_ffff_c045_6789;
const ADDRESSES: [u64; 6] = [OBJECT, AREA, WINDOW.0, WINDOW.1, SITE, MODULE];
const PFN: u64 = 0x12_3456;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("kmemlab-scrub-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn manifest(architecture: &str) -> Manifest {
    let host = Host {
        name: "SECRET-host".to_owned(),
        kernel_command_line: "root=SECRET".to_owned(),
        architecture: architecture.to_owned(),
        ..Host::default()
    };
    Manifest {
        format_version: format::VERSION,
        tool: "kmemlab test".to_owned(),
        host,
        command: vec!["SECRET-program".to_owned(), "--token=SECRET".to_owned()],
        command_line: vec!["SECRET.kmt".to_owned()],
        direct_map_base: Some(OBJECT >> 30 << 30),
        notes: vec![format!("an odd symbol at 0x{SITE:016x}")],
        ..Manifest::default()
    }
}

fn event(kind: Kind, time: u64, number: u64) -> Event {
    let mut event = Event::new(kind, Nanos(time), Cpu(1), Pid(77));
    event.pfn_or_address = number;
    event.present = Column::PfnOrAddress.bit();
    event
}

fn events() -> Vec<Event> {
    let mut page = event(Kind::PageAlloc, 10, PFN);
    page.order = 3;
    page.present |= Column::Order.bit();
    let mut object = event(Kind::CacheAlloc, 20, OBJECT);
    object.stack = 1;
    object.name = 0;
    object.present |= Column::Stack.bit() | Column::Name.bit();
    let mut area = event(Kind::VmapAlloc, 30, AREA);
    area.args[..3].copy_from_slice(&[4096, WINDOW.0.cast_signed(), WINDOW.1.cast_signed()]);
    area.present |= Column::Arg0.bit() | Column::Arg1.bit() | Column::Arg2.bit();
    let failed = event(Kind::VmapAlloc, 31, 12_u64.wrapping_neg());
    let mut purge = event(Kind::VmapPurge, 40, AREA);
    purge.end = AREA + 0x5000;
    purge.present |= Column::End.bit();
    vec![page, object, area, failed, purge]
}

fn write(path: &Path, architecture: &str, ends: bool) {
    let mut writer = RecordingWriter::create(path, manifest(architecture), false).unwrap();
    let mut builder = EventBatchBuilder::new();
    builder.name("dentry").unwrap();
    events().iter().for_each(|event| builder.push(event));
    writer.append_events(&mut builder).unwrap();
    let stamp = Stamp { before: Nanos(5), after: Nanos(6) };
    let number = Cell::U64;
    for (id, address) in [(1, SITE), (2, MODULE)] {
        writer.row(&format::STACKS, &[number(id), number(0), number(address)]).unwrap();
        let symbol = Cell::Str("alloc_inode");
        writer.row(&format::SYMBOLS, &[number(address), symbol, number(5)]).unwrap();
    }
    let task = [number(77), number(77), Cell::Str("SECRET-task")];
    writer.row(&format::TASKS, &task).unwrap();
    for spec in [&format::STACKS, &format::SYMBOLS, &format::TASKS] {
        writer.flush_table(spec, stamp).unwrap();
    }
    let area = VmallocRow {
        start_address: AREA,
        end_address: AREA + 0x5000,
        bytes: 0x5000,
        caller: Some(format!("0x{MODULE:016x}")),
        pages: Some(4),
        flags: "pages=4 vmalloc".to_owned(),
    };
    writer.vmallocinfo(stamp, &[area]).unwrap();
    writer.commit().unwrap();
    if ends {
        let end = End { reason: "duration".to_owned(), events: 5, ..End::default() };
        writer.finish(end).unwrap();
    }
}

/// Every cell of every table, events and manifest included; the numbers among them.
fn contents(recording: &Recording) -> (String, BTreeSet<u64>) {
    let mut text = fs::read_to_string(recording.path().join("manifest.json")).unwrap();
    let mut numbers = BTreeSet::new();
    for spec in TABLES.iter().filter(|spec| spec.file != format::INDEX) {
        for batch in recording.table(spec).unwrap() {
            let batch = batch.unwrap();
            for row in 0..batch.rows() {
                for column in 0..spec.columns.len() {
                    let cell = batch.cell(row, column);
                    writeln!(text, "{} {column} {cell:?}", spec.name).unwrap();
                    if let Cell::U64(number) = cell {
                        numbers.insert(number);
                    }
                }
            }
        }
    }
    for batch in recording.events().unwrap() {
        let batch = batch.unwrap();
        for event in batch.iter() {
            writeln!(text, "{event:?} {}", batch.name(event.name)).unwrap();
            numbers.extend([event.pfn_or_address, event.end]);
            numbers.extend(event.args.map(i64::cast_unsigned));
        }
    }
    (text, numbers)
}

#[test]
fn no_name_and_no_address_of_before_is_left() {
    let folder = Folder::new("left");
    let (from, to) = (folder.0.join("from.kmt"), folder.0.join("to.kmt"));
    write(&from, "x86_64", true);
    let recording = Recording::open(&from, false).unwrap();
    let (text, numbers) = contents(&recording);
    // What is looked for below is there to be found.
    assert!(text.contains("SECRET") && ADDRESSES.iter().all(|it| numbers.contains(it)));
    let done = scrub(&recording, &to, false).unwrap();
    assert_eq!((done.events, done.names), (5, 1));
    let copy = Recording::open(&to, false).unwrap();
    assert_eq!(copy.verify().unwrap(), 0);
    assert_eq!(copy.manifest().privacy, "scrubbed");
    let (text, numbers) = contents(&copy);
    assert!(!text.contains("SECRET"), "{text}");
    for address in ADDRESSES.iter().chain(&[AREA + 0x5000, OBJECT >> 30 << 30]) {
        assert!(!numbers.contains(address), "{address:#x}");
        assert!(!text.contains(&format!("{address:x}")), "{address:#x} in {text}");
        assert!(!text.contains(&address.to_string()), "{address} in {text}");
    }
    assert!(text.contains("alloc_inode") && text.contains("dentry"));
    assert!(numbers.contains(&PFN) && numbers.contains(&12_u64.wrapping_neg()));
    for file in ["events.arrows", "stacks.arrows", "snapshots/vmallocinfo.arrows"] {
        let bytes = fs::read(to.join(file)).unwrap();
        assert!(!bytes.windows(6).any(|word| word == b"SECRET"), "{file}");
        for address in ADDRESSES {
            let is_it = |word: &[u8]| word == address.to_le_bytes();
            assert!(!bytes.windows(8).any(is_it), "{address:#x} in {file}");
        }
    }
    assert!(!to.join("tasks.arrows").exists());
}

/// An address is the same one everywhere, and keeps its place within its region.
#[test]
fn what_belonged_together_still_does() {
    let folder = Folder::new("together");
    let (from, to) = (folder.0.join("from.kmt"), folder.0.join("to.kmt"));
    write(&from, "x86_64", true);
    scrub(&Recording::open(&from, false).unwrap(), &to, false).unwrap();
    let copy = Recording::open(&to, false).unwrap();
    let batches: Vec<_> = copy.events().unwrap().map(Result::unwrap).collect();
    let copied: Vec<Event> = batches.iter().flat_map(|batch| batch.iter()).collect();
    let [page, object, area, failed, purge] = &copied[..] else { panic!("{copied:?}") };
    assert_eq!((*page, *failed), (events()[0], events()[3]));
    assert_eq!((object.stack, object.present), (1, events()[1].present));
    assert_eq!(object.pfn_or_address % (1 << 30), OBJECT % (1 << 30));
    let base = copy.manifest().direct_map_base.unwrap();
    assert_eq!(object.pfn_or_address - base, OBJECT - (OBJECT >> 30 << 30));
    assert_eq!(
        area.pfn_or_address.wrapping_sub(AREA),
        area.args[1].cast_unsigned().wrapping_sub(WINDOW.0)
    );
    assert_eq!(area.args[2] - area.args[1], WINDOW.1.cast_signed() - WINDOW.0.cast_signed());
    assert_eq!((area.args[0], area.pfn_or_address), (4096, purge.pfn_or_address));
    assert_eq!(purge.end - purge.pfn_or_address, 0x5000);
    let cells = |spec, column| -> Vec<u64> {
        let batch = copy.table(spec).unwrap().next().unwrap().unwrap();
        (0..batch.rows()).map(|row| batch.number(row, column)).collect()
    };
    assert_eq!(cells(&format::STACKS, 2), cells(&format::SYMBOLS, 0));
    assert_eq!(cells(&format::VMALLOCINFO, 2), [area.pfn_or_address]);
    // Scrubbing twice is scrubbing once, but for the places that are taken.
    let again = folder.0.join("again.kmt");
    scrub(&copy, &again, false).unwrap();
    let again = Recording::open(&again, false).unwrap();
    assert_eq!(again.manifest().privacy, "scrubbed");
}

#[test]
fn what_cannot_be_scrubbed_is_told_and_nothing_is_written() {
    let folder = Folder::new("refused");
    let (from, to) = (folder.0.join("from.kmt"), folder.0.join("to.kmt"));
    write(&from, "aarch64", true);
    let recording = Recording::open(&from, false).unwrap();
    let error = scrub(&recording, &to, false).unwrap_err();
    assert!(error.to_string().contains("aarch64"), "{error}");
    assert!(!to.exists());
    let good = folder.0.join("good.kmt");
    write(&good, "x86_64", true);
    let recording = Recording::open(&good, false).unwrap();
    for force in [false, true] {
        let error = scrub(&recording, &good, force).unwrap_err();
        assert!(error.to_string().contains("another name"), "{error}");
    }
    assert!(matches!(scrub(&recording, &from, false), Err(Error::Exists { .. })));
    scrub(&recording, &from, true).unwrap();
    assert_eq!(Recording::open(&from, false).unwrap().manifest().privacy, "scrubbed");
    let events = good.join("events.arrows");
    let mut bytes = fs::read(&events).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&events, bytes).unwrap();
    let recording = Recording::open(&good, false).unwrap();
    assert!(matches!(scrub(&recording, &to, false), Err(Error::Damaged { .. })));
    assert!(!to.exists());
}

#[test]
fn of_what_was_cut_off_the_copy_is_whole_and_says_so() {
    let folder = Folder::new("cut");
    let (from, to) = (folder.0.join("from.kmt"), folder.0.join("to.kmt"));
    write(&from, "x86_64", false);
    scrub(&Recording::open(&from, false).unwrap(), &to, false).unwrap();
    let copy = Recording::open(&to, false).unwrap();
    let end = copy.manifest().end.clone().unwrap();
    assert_eq!((end.reason.as_str(), end.events, end.monotonic_ns), ("cut off", 5, 40));
    assert!(!copy.manifest().ended_cleanly());
}
