//! `kmemlab info`

use std::collections::{BTreeMap, HashMap};

use kmemlab_trace::direct_map::{self, DirectMap};
use kmemlab_trace::event::Kind;
use kmemlab_trace::format::{self, LOSS, STACKS, SYMBOLS, TABLES};
use kmemlab_trace::table::Cell;
use kmemlab_trace::{Column, Recording};

use crate::args::ReadArgs;
use crate::exit::Answer;

mod render;

pub(crate) fn run(args: &ReadArgs) -> anyhow::Result<Answer> {
    let recording = Recording::open(&args.recording, args.salvage)?;
    let facts = gather(&recording, recording.verify()?)?;
    if args.json {
        crate::json::print(&render::json(&recording, &facts))?;
    } else {
        crate::exit::print(&render::text(&recording, &facts))?;
    }
    Ok(Answer::Yes)
}

/// What a pass over the recording found.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) events: u64,
    pub(crate) recorder_events: u64,
    pub(crate) damaged_batches: u64,
    pub(crate) span_ns: u64,
    /// Events by tracepoint, in the order of the tracepoint table.
    pub(crate) kinds: BTreeMap<Kind, u64>,
    pub(crate) sites: Vec<Site>,
    pub(crate) loss: Vec<Loss>,
    pub(crate) event_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) tables: Vec<TableFacts>,
    /// Address of page frame 0, as the manifest says or as the objects tell.
    pub(crate) direct_map: Option<DirectMap>,
}

/// A call site that allocated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    pub(crate) stack: u32,
    pub(crate) address: u64,
    pub(crate) name: String,
    pub(crate) allocations: u64,
    pub(crate) bytes_requested: u64,
    pub(crate) bytes_allocated: u64,
}

/// Events that a ring had no room for.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) cpu: u64,
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    pub(crate) events: u64,
}

/// A table beside the events.
#[derive(Clone, Debug)]
pub(crate) struct TableFacts {
    pub(crate) name: &'static str,
    pub(crate) batches: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Call sites told.
const TOP_SITES: usize = 15;

fn gather(recording: &Recording, damaged_batches: u64) -> anyhow::Result<Facts> {
    let mut facts = Facts { damaged_batches, ..Facts::default() };
    let mut sites: HashMap<u32, Site> = HashMap::new();
    for batch in recording.events()? {
        for event in batch?.iter() {
            facts.events += 1;
            facts.recorder_events += u64::from(event.context.is_recorder());
            *facts.kinds.entry(event.kind).or_default() += 1;
            if let Some(stack) = event.stack()
                && event.has(Column::BytesAllocated)
            {
                let site = sites.entry(stack.0).or_default();
                site.stack = stack.0;
                site.allocations += 1;
                site.bytes_requested += event.bytes_requested;
                site.bytes_allocated += event.bytes_allocated;
            }
        }
    }
    facts.span_ns = recording.span().map_or(0, |(first, last)| last.0.saturating_sub(first.0));
    facts.event_bytes = recording.bytes_of(format::EVENTS);
    facts.disk_bytes = recording.bytes_on_disk();
    facts.sites = top(sites);
    name_sites(recording, &mut facts.sites)?;
    facts.loss = loss(recording)?;
    facts.direct_map = direct_map(recording)?;
    facts.tables = TABLES
        .iter()
        .filter(|table| recording.has(table))
        .map(|table| TableFacts {
            name: table.name,
            batches: recording.batches_of(table.file),
            rows: recording.rows_of(table.file),
            bytes: recording.bytes_of(table.file),
        })
        .collect();
    Ok(facts)
}

/// Objects are looked at where they were recorded; else all events would be read in vain.
fn direct_map(recording: &Recording) -> anyhow::Result<Option<DirectMap>> {
    let manifest = recording.manifest();
    let has_objects = manifest.tracepoints.iter().any(|it| it.name == Kind::CacheAlloc.name());
    match manifest.direct_map() {
        None if has_objects => Ok(direct_map::infer(recording, u64::MAX)?),
        stored => Ok(stored),
    }
}

fn top(sites: HashMap<u32, Site>) -> Vec<Site> {
    let mut sites: Vec<Site> = sites.into_values().collect();
    sites.sort_by_key(|site| (std::cmp::Reverse(site.bytes_allocated), site.stack));
    sites.truncate(TOP_SITES);
    sites
}

fn name_sites(recording: &Recording, sites: &mut [Site]) -> anyhow::Result<()> {
    for batch in recording.table(&STACKS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let (stack, frame) = (batch.number(row, 0), batch.number(row, 1));
            let site = sites.iter_mut().find(|site| u64::from(site.stack) == stack);
            if let Some(site) = site
                && frame == 0
            {
                site.address = batch.number(row, 2);
            }
        }
    }
    for batch in recording.table(&SYMBOLS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let address = batch.number(row, 0);
            for site in sites.iter_mut().filter(|site| site.address == address) {
                if let Cell::Str(symbol) = batch.cell(row, 1) {
                    site.name = format!("{symbol}+{:#x}", batch.number(row, 2));
                }
            }
        }
    }
    for site in sites.iter_mut().filter(|site| site.name.is_empty()) {
        site.name = format!("{:#x}", site.address);
    }
    Ok(())
}

fn loss(recording: &Recording) -> anyhow::Result<Vec<Loss>> {
    let mut loss = Vec::new();
    for batch in recording.table(&LOSS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let number = |column| batch.number(row, column);
            let (from_ns, to_ns) = (number(1), number(2));
            loss.push(Loss { cpu: number(0), from_ns, to_ns, events: number(3) });
        }
    }
    Ok(loss)
}
