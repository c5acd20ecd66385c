//! A made-up source: memory that falls to pieces second by second.

use std::sync::Arc;

use kmemlab_trace::snapshot::{SlabRow, VmallocRow};
use kmemlab_trace::unit::{Nanos, NodeId};
use kmemlab_tui::parts::{
    Block, BlockMap, Compared, Comparison, Latency, Site, Stall, StallClass, Vmalloc, bucket_of,
};
use kmemlab_tui::source::SourceError;
use kmemlab_tui::{
    About, Action, App, Loss, MarkKind, Marks, MirrorError, Outline, Pressure, SlabSample,
    Snapshot, Source, Told, View, ZoneState,
};

pub(crate) const SECOND: u64 = 1_000_000_000;
const SNAPSHOTS: u64 = 40;

/// Memory that falls to pieces second by second.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) outline: Outline,
    zones: usize,
}

impl Fake {
    pub(crate) fn new(zones: usize) -> Self {
        let about = About {
            version: "1.2.3".to_owned(),
            name: "monday.kmt".to_owned(),
            host: "build7 Linux 6.12.0".to_owned(),
            page_size_bytes: 4096,
            start: Nanos(1000 * SECOND),
            start_realtime_ns: 1_700_000_000 * SECOND,
            notes: vec![
                "the recorder was cut off before it finished".to_owned(),
                "the kernel counted 27 events that it did not deliver".to_owned(),
            ],
        };
        let mut fake = Self { outline: Outline { about, ..Outline::default() }, zones };
        for index in 0..SNAPSHOTS {
            let at = Nanos((1000 + index) * SECOND + 2_000_000);
            fake.outline.times.push(at);
            fake.outline.history.push(at, &blocks(index));
        }
        fake.outline.begin = fake.outline.times[0];
        fake.outline.end = fake.outline.times[39];
        fake.outline.loss = Loss { events: 1_217_347, gaps: 130, cpus: 2 };
        let mut marks = Marks::default();
        marks.push(MarkKind::Loss, moment(12.3));
        marks.push(MarkKind::Fallback, moment(5.0));
        marks.push(MarkKind::Stall, moment(20.25));
        marks.push(MarkKind::Failure, moment(30.5));
        fake.outline.marks = Arc::new(marks);
        fake
    }

    pub(crate) fn app(&mut self, view: View, (width, height): (u16, u16)) -> App {
        let mut app = App::new(self.outline.clone(), view);
        app.update(Action::Resize(width, height));
        self.settle(&mut app);
        app
    }

    pub(crate) fn settle(&mut self, app: &mut App) {
        if let Some((at, view)) = app.wanted_mark() {
            app.show_mark(self.load(at, view).ok());
        }
        if let Some((at, view)) = app.wanted() {
            app.show(self.load(at, view).unwrap());
        }
    }
}

/// So many seconds after the start.
pub(crate) fn moment(seconds: f64) -> Nanos {
    Nanos(1000 * SECOND + (seconds * SECOND as f64) as u64)
}

fn blocks(index: u64) -> Vec<u64> {
    let small = 400 + index * 9000;
    vec![small, small / 3, small / 7, 900, 451, 208, 77, 31, 12, 6, 60u64.saturating_sub(index * 2)]
}

impl Source for Fake {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn load(&mut self, at: Nanos, view: View) -> Result<Snapshot, SourceError> {
        let second = (at.0 - self.outline.begin.0) / SECOND;
        let mut snapshot = Snapshot {
            at,
            zones_at: second.is_multiple_of(2).then_some(at),
            mirror_error: (second > 10).then_some(MirrorError {
                at: moment(10.0),
                wrong_pages: second / 20 * 321,
                free_pages: 10_000,
            }),
            zones: zones(self.zones, second),
            pressure: Some(Pressure { some: 3 * second as u32, full: second as u32 }),
            counters: vec![("allocstall", second * 40), ("compact_stall", 0)],
            slabs: Told::Yes(slabs(at, second)),
            ..Snapshot::default()
        };
        match view {
            View::Overview | View::Slabs => {}
            View::Sites => snapshot.sites = Told::Yes(sites(second)),
            View::Blocks => snapshot.blocks = Told::Yes(Arc::new(map(second))),
            View::Vmalloc => snapshot.vmalloc = Told::Yes(vmalloc(at)),
            View::Compare => snapshot.comparison = Told::Yes(comparison(at, second)),
            View::Latency => snapshot.latency = Told::Yes(Arc::new(latency())),
        }
        Ok(snapshot)
    }
}

fn zones(count: usize, second: u64) -> Vec<ZoneState> {
    let told = ["DMA", "DMA32", "Normal", "Movable"].into_iter().cycle();
    let zones = told.take(count).enumerate().map(|(number, zone)| {
        let is_dma = number % 4 == 0;
        let small = vec![0, 1, 0, 2, 1, 1, 1, 0, 1, 1, 3];
        ZoneState {
            node: NodeId(number as u16 / 4),
            zone: zone.to_owned(),
            free_blocks: if is_dma { small } else { blocks(second) },
            managed: Some([3840, 2_000_000, 6_000_000, 90_000_000][number % 4]),
            // Not told; above, between and below the watermarks.
            free: [None, Some(824_000), Some(15_000), Some(12_000)][number % 4],
            min: Some(if is_dma { 60 } else { 11_310 }),
            low: Some(if is_dma { 75 } else { 14_137 }),
            high: Some(if is_dma { 90 } else { 16_964 }),
            percpu: (number > 0).then_some(1234),
        }
    });
    zones.collect()
}

fn slabs(at: Nanos, second: u64) -> SlabSample {
    let row = |number: u64, second: u64| SlabRow {
        cache: format!("{}-{number}", ["dentry", "kmalloc", "Acpi-State"][number as usize % 3]),
        active_objects: number * 3700 * (1 + second) % 90_001,
        objects: 90_001,
        object_size_bytes: 8 << (number % 10),
        objects_per_slab: 4096 >> (number % 10),
        pages_per_slab: 1 << (number % 4),
        active_slabs: number * 91,
        slabs: number * 97,
    };
    let rows = |second| (0..60).map(|number| row(number, second)).collect();
    let mut sample = SlabSample { rows: rows(second), ..SlabSample::default() };
    sample.at = Nanos(at.0 + 11_000_000);
    let before = SlabSample { rows: rows(second.wrapping_sub(1) % 40), ..SlabSample::default() };
    sample.before = Some((Nanos(at.0 - SECOND), Arc::new(before.active())));
    let tops = [("dentry-3", "__d_alloc+0x3a"), ("kmalloc-58", "seq_read_iter+0x11c")];
    sample.top_sites =
        Arc::new(tops.map(|(cache, site)| (cache.into(), site.into())).into_iter().collect());
    sample
}

fn sites(second: u64) -> Vec<Site> {
    let names = ["__d_alloc+0x3a", "seq_read_iter+0x11c", "alloc_buffer_head+0x1f", "vm_area_dup"];
    let site = |number: u64| Site {
        label: names[number as usize % 4].into(),
        cache: format!("cache-{}", number / 4).into(),
        stack: [names[number as usize % 4], "vfs_open+0x30", "do_sys_open+0x99", "entry+0x6e"]
            .map(Arc::from)
            .to_vec()
            .into(),
        live_bytes: number * number * 1000 * (second + 1),
        waste_bytes: number * 321,
        live_objects: number * 10,
        allocations: number * 1000,
        frees: number * 990,
        allocated_per_second: number * 5_000,
        freed_per_second: number * 4_000,
        age_ns: (number > 0).then_some(number * 123_456_789),
        orders: (number % 3 == 1).into(),
        is_bound: number == 28,
    };
    (0..30).map(site).collect()
}

fn map(second: u64) -> BlockMap {
    let mut blocks = vec![Block { zone: u8::MAX, ..Block::default() }; 3000];
    for (index, block) in
        blocks.iter_mut().enumerate().filter(|(index, _)| !(8..32).contains(index))
    {
        let index = index as u32;
        block.zone = u8::from(index >= 32);
        block.migrate = [1, 1, 1, 0, 1, 2, 1][index as usize % 7];
        block.free = (index * 37 + second as u32 * 11) % 513;
        block.foreign = u32::from(index.is_multiple_of(41)) * 17;
        block.orders[3] = 7;
    }
    BlockMap {
        pages_per_block: 512,
        zones: vec![("Node 0 DMA".to_owned(), 0, 8), ("Node 0 Normal".to_owned(), 32, 3000)],
        types: ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate"]
            .map(str::to_owned)
            .to_vec(),
        blocks,
        uses: Arc::new(vec![[1, 200, 30, 281, 0, 0, 0, 0, 0]; 3000]),
        uses_at: moment(0.4),
    }
}

fn vmalloc(at: Nanos) -> Vmalloc {
    let area = |number: u64| VmallocRow {
        start_address: 0xffff_c900_0000_0000 + number * 0x10_0000,
        end_address: 0xffff_c900_0000_0000 + number * 0x10_0000 + number * 0x1000,
        bytes: number * 0x1000,
        caller: (!number.is_multiple_of(5)).then(|| format!("bpf_prog_alloc+{number:#x}/0x200")),
        pages: (!number.is_multiple_of(3)).then_some(number),
        flags: "vmalloc".to_owned(),
    };
    Vmalloc {
        at,
        areas: (1..50).map(area).collect(),
        lazy_pages: Some(320),
        lazy_limit_pages: Some(16_384),
        made: 1234,
        freed: 1200,
    }
}

fn comparison(at: Nanos, second: u64) -> Comparison {
    let row = |order: u64| Compared {
        group: "free blocks".into(),
        name: format!("Node 0 Normal order {order}").into(),
        values: vec![Some(1000 >> order), Some(1000 >> order), Some((1000 >> order) + second)],
        weight: 1 << order,
    };
    let fallbacks = Compared {
        group: "fallbacks".into(),
        name: "pages stolen, in all".into(),
        values: vec![Some(500), None, Some(400)],
        weight: 1,
    };
    Comparison {
        tellers: ["kernel", "mirror", "model"].map(str::to_owned).to_vec(),
        at,
        rows: (0..11).map(row).chain([fallbacks]).collect(),
        verdicts: vec!["mirror equals the kernel at every zone and order".to_owned()],
    }
}

fn latency() -> Latency {
    let class = |cause, order, scale: u64| {
        let spans: Vec<u64> = (1..=60).map(|number| number * number * scale).collect();
        let mut class = StallClass {
            cause,
            order,
            count: 60,
            total_ns: spans.iter().sum(),
            p50_ns: spans[29],
            p99_ns: spans[59],
            max_ns: spans[59],
            ..StallClass::default()
        };
        spans.iter().for_each(|nanos| class.histogram[bucket_of(*nanos)] += 1);
        class
    };
    let stall = |number: u64| Stall {
        at: moment(39.0 - number as f64 / 7.0),
        nanos: number * number * 12_345,
        cause: if number.is_multiple_of(3) { "direct compaction" } else { "direct reclaim" },
        order: Some((number % 3 * 3) as u8),
        pid: 4000 + number as u32,
        command: "postgres".into(),
        stack: ["__alloc_pages+0x1", "alloc_skb+0x22", "tcp_sendmsg+0x333"]
            .map(Arc::from)
            .to_vec()
            .into(),
    };
    Latency {
        classes: vec![
            class("direct reclaim", Some(3), 9_000),
            class("direct compaction", Some(0), 80_000),
            class("kswapd wake", None, 700),
        ],
        stalls: (0..40).map(stall).collect(),
    }
}
