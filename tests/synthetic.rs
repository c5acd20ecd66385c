//! A small recording of a machine that never was: one zone, two processors, a few thousand events.
//!
//! Every allocation is of an order that no per-CPU list keeps, so that the free pages alone tell
//! the free blocks of every order: aligned, and merged as far as they go. The mirror must be exact.

use std::fs;
use std::path::{Path, PathBuf};

use kmemlab_trace::format;
use kmemlab_trace::manifest::{End, Host, Manifest, TracepointRecord, Zone};
use kmemlab_trace::snapshot::{BuddyRow, PageRun, PageUse, Stamp, ZoneRow};
use kmemlab_trace::table::Cell;
use kmemlab_trace::unit::{Cpu, Nanos, NodeId, Pfn, Pid};
use kmemlab_trace::{Column, Event, EventBatchBuilder, Kind, RecordingWriter};

use crate::support::Random;

pub(crate) const BATCHES: u64 = 12;
pub(crate) const EVENTS_A_BATCH: u64 = 200;
const START_PFN: usize = 4096;
const PAGES: usize = 32 * 512;
const ORDERS: usize = 11;
/// Orders of the allocations: none of a per-CPU list (up to 3, and 9).
const ALLOCATED: [u8; 6] = [4, 4, 5, 6, 8, 10];
const ZONE: &str = "Normal";
const SITE: u64 = 0xffff_ffff_8100_0000;

/// How the recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// In good order.
    Clean,
    /// Not at all: the recorder was killed.
    CutOff,
}

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// The page maps are missing.
    NoPageMap,
    /// Half of the events of the batch of that number are lost.
    Gap(u64),
}

/// A gap in the events, as the recording tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    pub(crate) lost_events: u64,
}

/// A recording, and what is known of it.
#[derive(Debug)]
pub(crate) struct Synthetic {
    pub(crate) path: PathBuf,
    /// Bytes of the events' file after each batch; the first is the schema alone.
    pub(crate) borders: Vec<u64>,
    pub(crate) gap: Option<Gap>,
}

impl Synthetic {
    pub(crate) fn write(path: &Path, ending: Ending) -> Self {
        Maker::new(path, Flaw::None).make(path, ending)
    }

    pub(crate) fn write_flawed(path: &Path, flaw: Flaw) -> Self {
        Maker::new(path, flaw).make(path, Ending::Clean)
    }

    /// Events in all.
    pub(crate) fn events() -> u64 {
        BATCHES * EVENTS_A_BATCH
    }
}

struct Maker {
    writer: RecordingWriter,
    events: EventBatchBuilder,
    random: Random,
    now: u64,
    free: Vec<bool>,
    live: Vec<(usize, u8)>,
    objects: Vec<u64>,
    next_object: u64,
    flaw: Flaw,
    /// Events are being lost.
    is_losing: bool,
    gap: Option<Gap>,
}

impl Maker {
    fn new(path: &Path, flaw: Flaw) -> Self {
        Self {
            flaw,
            is_losing: false,
            gap: None,
            writer: RecordingWriter::create(path, manifest(), false).unwrap(),
            events: EventBatchBuilder::new(),
            random: Random(7),
            now: 1_000_000_000,
            free: vec![true; PAGES],
            live: Vec::new(),
            objects: Vec::new(),
            next_object: 0xffff_8880_0000_0000,
        }
    }

    fn make(mut self, path: &Path, ending: Ending) -> Synthetic {
        let events_file = path.join(format::EVENTS);
        let size = || fs::metadata(&events_file).unwrap().len();
        let mut borders = vec![size()];
        // Before the recording began some pages were the kernel's and some were users'.
        for page in (0..1024).chain(5 * 512..5 * 512 + 64) {
            self.free[page] = false;
        }
        self.page_map(&format::PAGEMAP_FIRST);
        self.tables();
        self.samples();
        for batch in 0..BATCHES {
            for event in 0..EVENTS_A_BATCH {
                self.is_losing = self.flaw == Flaw::Gap(batch) && event >= EVENTS_A_BATCH / 2;
                self.event();
            }
            if self.is_losing {
                self.tell_gap();
            }
            self.writer.append_events(&mut self.events).unwrap();
            borders.push(size());
            self.samples();
            self.writer.commit().unwrap();
        }
        if ending == Ending::Clean {
            self.page_map(&format::PAGEMAP_LAST);
            let lost_events = self.gap.map_or(0, |gap| gap.lost_events);
            let end = End {
                reason: "duration".into(),
                monotonic_ns: self.now,
                events: Synthetic::events() - lost_events,
                lost_events,
                counted_events: Some(Synthetic::events()),
                ..End::default()
            };
            self.writer.finish(end).unwrap();
        }
        Synthetic { path: path.to_owned(), borders, gap: self.gap }
    }

    fn stamp(&mut self) -> Stamp {
        let before = Nanos(self.now + 100);
        self.now += 1000;
        Stamp { before, after: Nanos(before.0 + 100) }
    }

    fn event(&mut self) {
        self.now += 1000;
        match self.random.below(10) {
            0..4 => self.allocate(),
            4..7 => self.release(),
            7..9 => self.object(),
            _ => self.object_freed(),
        }
    }

    fn tell_gap(&mut self) {
        self.is_losing = false;
        let lost_events = EVENTS_A_BATCH / 2;
        let from_ns = self.now - lost_events * 1000;
        let gap = Gap { from_ns, to_ns: self.now, lost_events };
        self.gap = Some(gap);
        let cells = [0, gap.from_ns, gap.to_ns, gap.lost_events].map(Cell::U64);
        self.writer.row(&format::LOSS, &cells).unwrap();
        let stamp = self.stamp();
        self.writer.flush_table(&format::LOSS, stamp).unwrap();
    }

    fn push(&mut self, kind: Kind, columns: &[Column], fill: impl FnOnce(&mut Event)) {
        let cpu = Cpu(self.random.below(2) as u16);
        if self.is_losing {
            return;
        }
        let mut event = Event::new(kind, Nanos(self.now), cpu, Pid(40 + u32::from(cpu.0)));
        event.present = columns.iter().map(|column| column.bit()).sum();
        fill(&mut event);
        self.events.push(&event);
    }

    fn allocate(&mut self) {
        use Column as C;
        let order = ALLOCATED[self.random.below(ALLOCATED.len() as u64) as usize];
        let size = 1 << order;
        let blocks = PAGES / size;
        let from = self.random.below(blocks as u64) as usize;
        let is_free = |page: &usize| self.free[*page..*page + size].iter().all(|free| *free);
        let Some(page) = (0..blocks).map(|n| (from + n) % blocks * size).find(is_free) else {
            return self.object();
        };
        self.free[page..page + size].fill(false);
        self.live.push((page, order));
        self.push(Kind::PageAlloc, &[C::PfnOrAddress, C::Order, C::Gfp, C::Migrate], |event| {
            event.pfn_or_address = (START_PFN + page) as u64;
            event.order = order;
            event.gfp = 0x0014_0cca;
            event.migrate = 1;
        });
    }

    fn release(&mut self) {
        if self.live.is_empty() {
            return self.object();
        }
        let index = self.random.below(self.live.len() as u64) as usize;
        let (page, order) = self.live.swap_remove(index);
        self.free[page..page + (1 << order)].fill(true);
        self.push(Kind::PageFree, &[Column::PfnOrAddress, Column::Order], |event| {
            event.pfn_or_address = (START_PFN + page) as u64;
            event.order = order;
        });
    }

    fn object(&mut self) {
        use Column as C;
        // A new name now and then, so that the dictionary grows in the midst of the stream.
        let name = format!("cache-{}", self.next_object / 64 % 64 / 12);
        let name = self.events.name(&name).unwrap();
        let address = self.next_object;
        self.next_object += 64;
        self.objects.push(address);
        let stack = self.random.below(3) as u32;
        let columns = [
            C::PfnOrAddress,
            C::Name,
            C::Stack,
            C::BytesRequested,
            C::BytesAllocated,
            C::Gfp,
            C::Node,
            C::Flag,
        ];
        self.push(Kind::CacheAlloc, &columns, |event| {
            event.pfn_or_address = address;
            event.name = name;
            event.stack = stack;
            event.bytes_requested = 60;
            event.bytes_allocated = 64;
            event.gfp = 0xcc0;
            event.node = -1;
        });
    }

    fn object_freed(&mut self) {
        let Some(address) = self.objects.pop() else { return self.object() };
        self.push(Kind::CacheFree, &[Column::PfnOrAddress, Column::Stack], |event| {
            event.pfn_or_address = address;
            event.stack = 1;
        });
    }

    fn page_map(&mut self, spec: &'static format::TableSpec) {
        if self.flaw == Flaw::NoPageMap {
            return;
        }
        let stamp = self.stamp();
        let mut runs: Vec<PageRun> = Vec::new();
        for (page, free) in self.free.iter().enumerate() {
            let page_use = if *free { PageUse::Free } else { PageUse::Lru };
            match runs.last_mut() {
                Some(run) if run.page_use == page_use => run.pages += 1,
                _ => {
                    let pfn = Pfn((START_PFN + page) as u64);
                    runs.push(PageRun { stamp, pfn, pages: 1, page_use });
                }
            }
        }
        // In several batches, as a large machine's.
        for runs in runs.chunks(8) {
            self.writer.page_runs(spec, runs).unwrap();
            self.writer.flush_table(spec, stamp).unwrap();
        }
    }

    fn samples(&mut self) {
        let stamp = self.stamp();
        let free_blocks = free_blocks(&self.free);
        let row = BuddyRow { node: NodeId(0), zone: ZONE.into(), free_blocks };
        self.writer.buddyinfo(stamp, &[row]).unwrap();
        let stamp = self.stamp();
        let of_zone = [("min", 64), ("low", 80), ("high", 96), ("boost", 0)];
        let of_list = [("pcp_count", 0), ("pcp_high", 100), ("pcp_batch", 16)];
        let row = |cpu: Option<u16>, (key, value): (&str, i64)| ZoneRow {
            node: NodeId(0),
            zone: ZONE.into(),
            cpu: cpu.map(Cpu),
            key: key.into(),
            value,
        };
        let mut rows: Vec<ZoneRow> = of_zone.into_iter().map(|pair| row(None, pair)).collect();
        for cpu in 0..2 {
            rows.extend(of_list.into_iter().map(|pair| row(Some(cpu), pair)));
        }
        self.writer.zoneinfo(stamp, &rows).unwrap();
    }

    fn tables(&mut self) {
        for stack in 0..3 {
            let address = SITE + stack * 0x100;
            let cells = [Cell::U64(stack), Cell::U64(0), Cell::U64(address)];
            self.writer.row(&format::STACKS, &cells).unwrap();
            let symbol = format!("site_{stack}");
            let cells = [Cell::U64(address), Cell::Str(&symbol), Cell::U64(16)];
            self.writer.row(&format::SYMBOLS, &cells).unwrap();
            let cells = [Cell::U64(40 + stack), Cell::U64(40), Cell::Str("worker")];
            self.writer.row(&format::TASKS, &cells).unwrap();
        }
        let stamp = self.stamp();
        for spec in [&format::STACKS, &format::SYMBOLS, &format::TASKS] {
            self.writer.flush_table(spec, stamp).unwrap();
        }
    }
}

/// Free blocks by order: the largest aligned ones that the free pages make.
fn free_blocks(free: &[bool]) -> Vec<u64> {
    let mut blocks = vec![0; ORDERS];
    let mut page = 0;
    while page < free.len() {
        if !free[page] {
            page += 1;
            continue;
        }
        let fits = |order: &usize| {
            let size = 1 << order;
            page % size == 0 && free[page..page + size].iter().all(|free| *free)
        };
        let order = (0..ORDERS).rev().find(fits).unwrap();
        blocks[order] += 1;
        page += 1 << order;
    }
    blocks
}

fn manifest() -> Manifest {
    let kinds = [Kind::PageAlloc, Kind::PageFree, Kind::CacheAlloc, Kind::CacheFree];
    let tracepoints =
        kinds.map(|kind| TracepointRecord { name: kind.name().into(), ..Default::default() });
    let zone = Zone {
        name: ZONE.into(),
        start_pfn: START_PFN as u64,
        spanned_pages: PAGES as u64,
        present_pages: PAGES as u64,
        managed_pages: PAGES as u64,
        ..Zone::default()
    };
    let types = ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate"];
    Manifest {
        format_version: format::VERSION,
        tool: "kmemlab 0.0.0".into(),
        origin: "kernel".into(),
        backend: "synthetic".into(),
        clock: "CLOCK_MONOTONIC".into(),
        stacks: "none".into(),
        started_realtime_ns: 1_700_000_000_000_000_000,
        started_monotonic_ns: 999_999_000,
        tracepoints: tracepoints.into(),
        host: Host {
            name: "nowhere".into(),
            kernel_release: "6.18.0".into(),
            architecture: "x86_64".into(),
            page_size_bytes: 4096,
            orders: ORDERS as u8,
            pageblock_order: 9,
            migrate_types: types.map(str::to_owned).into(),
            cpus: vec![0, 1],
            zones: vec![zone],
            ..Host::default()
        },
        ..Manifest::default()
    }
}

/// Copies a recording, to be harmed.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(&file), target).unwrap();
    }
}

/// The files of a recording, relative to it, sorted; without the room that is kept.
pub(crate) fn files(recording: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["", "snapshots"] {
        for entry in fs::read_dir(recording.join(folder)).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_file() && entry.file_name() != format::RESERVE {
                files.push(Path::new(folder).join(entry.file_name()));
            }
        }
    }
    files.sort();
    files
}

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, offset: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset as usize] ^= 1 << (offset % 8);
    fs::write(path, bytes).unwrap();
}

/// Cuts a file.
pub(crate) fn cut(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}
