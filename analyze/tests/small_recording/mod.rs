//! A small recording whose every value is known, and a folder that vanishes.

use std::path::{Path, PathBuf};

use kmemlab_analyze::{ComparisonRow, MisfitRow, Replayed, SlabComparisonRow};
use kmemlab_trace::batch::EventBatchBuilder;
use kmemlab_trace::event::Context;
use kmemlab_trace::format;
use kmemlab_trace::manifest::{End, Host, Manifest, TracepointRecord};
use kmemlab_trace::snapshot::{BuddyRow, PageRun, PageTypeRow, PageUse, Stamp};
use kmemlab_trace::table::Cell;
use kmemlab_trace::unit::{Cpu, Nanos, NodeId, Order, Pfn, Pid};
use kmemlab_trace::{Column, Event, Kind, Recording, RecordingWriter};

/// A folder of its own for each test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kmemlab-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn event(kind: Kind, time: u64, columns: &[Column]) -> Event {
    let mut event = Event::new(kind, Nanos(time), Cpu(1), Pid(42));
    event.present = columns.iter().map(|column| column.bit()).sum();
    event
}

/// An allocation of order 3 in a softirq, the same that failed, and a fallback of order 9.
fn page_events(events: &mut EventBatchBuilder) {
    use Column as C;
    let mut alloc = event(Kind::PageAlloc, 1_000, &[C::PfnOrAddress, C::Order, C::Gfp, C::Migrate]);
    alloc.pfn_or_address = 4096;
    alloc.order = 3;
    alloc.gfp = 0xcc0;
    alloc.migrate = 1;
    alloc.context = Context(Context::SOFTIRQ);
    alloc.preempt_depth = 2;
    events.push(&alloc);
    let mut failed = event(Kind::PageAlloc, 1_007, &[C::Order, C::Gfp, C::Migrate]);
    failed.order = 3;
    failed.gfp = 0x800;
    failed.migrate = 7;
    events.push(&failed);
    let mut fallback = event(
        Kind::ExtFrag,
        1_500,
        &[C::PfnOrAddress, C::Order, C::OtherOrder, C::Migrate, C::OtherMigrate, C::Flag],
    );
    fallback.pfn_or_address = 8192;
    fallback.other_order = 9;
    fallback.other_migrate = 1;
    fallback.flag = 1;
    events.push(&fallback);
}

/// An object, an area with its end, a range of pages with its end and its further numbers.
fn other_events(events: &mut EventBatchBuilder) {
    use Column as C;
    let mut object = event(
        Kind::CacheAlloc,
        5_000_000_000,
        &[
            C::PfnOrAddress,
            C::Name,
            C::Stack,
            C::BytesRequested,
            C::BytesAllocated,
            C::Node,
            C::Flag,
        ],
    );
    object.pfn_or_address = 0xffff_8881_0000_1000;
    object.name = events.name("dentry").unwrap();
    object.stack = 3;
    object.bytes_requested = 190;
    object.bytes_allocated = 192;
    object.node = -1;
    object.context = Context(Context::RECORDER | Context::HARDIRQ);
    events.push(&object);
    let mut purge = event(Kind::VmapPurge, 5_000_000_100, &[C::PfnOrAddress, C::End, C::Arg0]);
    purge.pfn_or_address = 0xffff_c900_0000_0000;
    purge.end = 0xffff_c900_0000_3000;
    purge.args[0] = -5;
    events.push(&purge);
    let mut begin = event(
        Kind::CompactionBegin,
        5_000_000_100,
        &[C::PfnOrAddress, C::End, C::Arg0, C::Arg1, C::Flag],
    );
    begin.pfn_or_address = 1_048_576;
    begin.end = 2_097_152;
    begin.args[..2].copy_from_slice(&[1_049_000, 2_097_000]);
    begin.cpu = Cpu(0);
    events.push(&begin);
    let mut reserve =
        event(Kind::LowmemReserve, 5_000_000_101, &[C::Node, C::Name, C::OtherName, C::Arg0]);
    reserve.name = events.name("DMA32").unwrap();
    reserve.other_name = events.name("Normal").unwrap();
    events.push(&reserve);
}

fn manifest() -> Manifest {
    let tracepoints = ["kmem:mm_page_alloc", "compaction:mm_compaction_begin"];
    let tracepoints =
        tracepoints.map(|name| TracepointRecord { name: name.into(), ..Default::default() });
    Manifest {
        format_version: format::VERSION,
        tool: "kmemlab 0.0.0".into(),
        origin: "kernel".into(),
        clock: "CLOCK_MONOTONIC".into(),
        started_realtime_ns: 1_700_000_000_000_000_000,
        started_monotonic_ns: 900,
        tracepoints: tracepoints.into(),
        host: Host {
            kernel_release: "6.18.0".into(),
            page_size_bytes: 4096,
            migrate_types: ["Unmovable", "Movable", "Reclaimable"].map(str::to_owned).into(),
            ..Host::default()
        },
        ..Manifest::default()
    }
}

fn tables(writer: &mut RecordingWriter) {
    for time in [900, 2_000] {
        let stamp = Stamp { before: Nanos(time), after: Nanos(time + 50) };
        let free_blocks = vec![time, 3];
        let row = BuddyRow { node: NodeId(0), zone: "Normal".into(), free_blocks };
        writer.buddyinfo(stamp, &[row]).unwrap();
    }
    let stamp = Stamp { before: Nanos(950), after: Nanos(960) };
    let mut row = PageTypeRow {
        node: NodeId(0),
        zone: "Normal".into(),
        migrate_type: "Movable".into(),
        order: Some(Order(10)),
        blocks: 100_000,
        is_lower_bound: true,
    };
    let counted = row.clone();
    row.order = None;
    row.is_lower_bound = false;
    writer.pagetypeinfo(stamp, &[counted, row]).unwrap();
    let run = PageRun { stamp, pfn: Pfn(0), pages: 512, page_use: PageUse::PageTable };
    writer.page_runs(&format::PAGEMAP_FIRST, &[run]).unwrap();
    for (address, symbol) in [(0x1000, Cell::Str("__alloc_pages")), (0x2000, Cell::Null)] {
        writer.row(&format::SYMBOLS, &[Cell::U64(address), symbol, Cell::U64(16)]).unwrap();
    }
}

/// Writes the recording: seven events in two batches, and four tables.
pub(crate) fn write(path: &Path) -> Recording {
    let mut writer = RecordingWriter::create(path, manifest(), false).unwrap();
    let mut events = EventBatchBuilder::new();
    page_events(&mut events);
    writer.append_events(&mut events).unwrap();
    tables(&mut writer);
    other_events(&mut events);
    writer.append_events(&mut events).unwrap();
    let end = End { reason: "duration".into(), events: 7, lost_events: 2, ..End::default() };
    writer.finish(end).unwrap();
    Recording::open(path, false).unwrap()
}

/// Two rows of a comparison, one of residue and one of slabs.
pub(crate) fn replayed() -> Replayed {
    let row = |source: &str, free_blocks| ComparisonRow {
        source: source.into(),
        time_ns: 2_000,
        node: 0,
        zone: "Normal".into(),
        order: 1,
        free_blocks,
    };
    let residue = MisfitRow {
        evidence: "sample",
        time_ns: 2_000,
        zone: "Normal".into(),
        order: 2,
        cause: "hidden_refill",
        blocks: -15,
        ..MisfitRow::default()
    };
    let slab = SlabComparisonRow {
        source: "model",
        time_ns: 2_000,
        cache: "dentry".into(),
        slabs: 2,
        pages: 4,
        active_objects: 90,
        waste_bytes: -896,
        utilisation_ppm: 1_054_687,
    };
    let comparison = vec![row("kernel", 3), row("model", 4)];
    Replayed { comparison, residue: vec![residue], slabs: vec![slab] }
}
