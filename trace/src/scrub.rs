//! A recording that may be handed on: other addresses, no names, the same allocators.

use std::path::Path;

use crate::batch::EventBatchBuilder;
use crate::error::Error;
use crate::event::{Column, Event, Kind};
use crate::format::{self, TABLES, TableSpec};
use crate::manifest::{End, Manifest};
use crate::privacy;
use crate::reader::Recording;
use crate::snapshot::Stamp;
use crate::table::Cell;
use crate::writer::RecordingWriter;

mod relocation;

use relocation::{Relocation, Survey};

/// The only one whose address space is known here.
const ARCHITECTURE: &str = "x86_64";
/// How a recording ended that was cut off: its copy is whole.
const CUT_OFF: &str = "cut off";

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scrubbed {
    /// Events copied.
    pub events: u64,
    /// Addresses that are another one now.
    pub addresses: u64,
    /// Rows of names left out.
    pub names: u64,
}

/// Writes a copy of a recording, every kernel address relocated and all private names left out;
/// `replace` as in [`RecordingWriter::create`].
///
/// # Errors
/// The recording is damaged or of an architecture whose addresses are not known, the output is
/// there already or is the recording itself, or writing failed.
pub fn scrub(recording: &Recording, output: &Path, replace: bool) -> Result<Scrubbed, Error> {
    let manifest = recording.manifest();
    let refused = |why: String| Error::Scrub { path: recording.path().to_owned(), why };
    let architecture = &manifest.host.architecture;
    if architecture != ARCHITECTURE {
        return Err(refused(format!(
            "it is of {architecture:?}, and only {ARCHITECTURE}'s addresses are known"
        )));
    }
    let is_same = |path: &Path| path.canonicalize().ok();
    if is_same(output).is_some_and(|output| Some(output) == is_same(recording.path())) {
        return Err(refused("the output is the recording itself; give another name".to_owned()));
    }
    // Nothing is written, or replaced, for a recording that cannot be read to its end.
    recording.verify()?;
    let relocation = survey(recording)?;
    let writer = RecordingWriter::create(output, clean(manifest, &relocation), replace)?;
    let mut copy = Copy { writer, relocation, done: Scrubbed::default(), lost: 0, last: 0 };
    match copy.all(recording) {
        Ok(()) => {
            let end = manifest.end.clone().unwrap_or_else(|| copy.cut_off());
            let done = copy.done;
            copy.writer.finish(end).map(|_| done)
        }
        Err(error) => {
            let reason = if error.is_disk_full() { "disk full" } else { "error" };
            let end = End { reason: reason.to_owned(), ..copy.cut_off() };
            let _ = copy.writer.abandon(end);
            Err(error)
        }
    }
}

/// The manifest of the copy.
fn clean(manifest: &Manifest, relocation: &Relocation) -> Manifest {
    let mut clean = manifest.clone();
    clean.leave_names_out();
    clean.privacy = privacy::SCRUBBED.to_owned();
    clean.direct_map_base = manifest.direct_map_base.map(|base| relocation.number(base));
    clean.notes.iter_mut().for_each(|note| *note = relocation.text(note));
    clean.end = None;
    clean
}

/// Goes through the recording once, to know what addresses there are.
fn survey(recording: &Recording) -> Result<Relocation, Error> {
    let mut survey = Survey::default();
    for batch in recording.events()? {
        for event in batch?.iter() {
            addresses(
                &event,
                |address, is_area| {
                    if is_area { survey.area(address) } else { survey.address(address) }
                },
            );
        }
    }
    for spec in TABLES.iter().filter(|spec| is_copied(spec)) {
        let columns: Vec<usize> =
            (0..spec.columns.len()).filter(|column| is_address_column(spec, *column)).collect();
        if columns.is_empty() {
            continue;
        }
        let is_area = spec.file == format::VMALLOCINFO.file;
        for batch in recording.table(spec)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                for column in &columns {
                    let address = batch.number(row, *column);
                    if is_area { survey.area(address) } else { survey.address(address) }
                }
            }
        }
    }
    Ok(survey.relocation())
}

fn is_copied(spec: &TableSpec) -> bool {
    spec.file != format::INDEX && !privacy::is_private(spec)
}

fn is_address_column(spec: &TableSpec, column: usize) -> bool {
    let name = spec.columns[column].name;
    name == "address" || name.ends_with("_address")
}

/// Whether numbers of these events are of the vmalloc space.
fn is_of_areas(kind: Kind) -> bool {
    use Kind::{PercpuChunkCreate, PercpuChunkDestroy, VmapAlloc, VmapFree, VmapPurge};
    matches!(kind, VmapAlloc | VmapFree | VmapPurge | PercpuChunkCreate | PercpuChunkDestroy)
}

/// Every number of an event that may be an address; page frames are far smaller.
fn addresses(event: &Event, mut each: impl FnMut(u64, bool)) {
    let is_area = is_of_areas(event.kind);
    for (column, number) in [(Column::PfnOrAddress, event.pfn_or_address), (Column::End, event.end)]
    {
        if event.has(column) {
            each(number, is_area);
        }
    }
    // The window that an area was looked for in.
    if event.kind == Kind::VmapAlloc {
        each(event.args[1].cast_unsigned(), true);
        each(event.args[2].cast_unsigned(), true);
    }
}

/// A copy under way.
#[derive(Debug)]
struct Copy {
    writer: RecordingWriter,
    relocation: Relocation,
    done: Scrubbed,
    lost: u64,
    last: u64,
}

impl Copy {
    fn all(&mut self, recording: &Recording) -> Result<(), Error> {
        for spec in TABLES {
            if is_copied(spec) {
                self.table(recording, spec)?;
            } else if spec.file != format::INDEX {
                self.done.names += recording.rows_of(spec.file);
            }
        }
        self.events(recording)
    }

    fn number(&mut self, number: u64) -> u64 {
        let new = self.relocation.number(number);
        self.done.addresses += u64::from(new != number);
        new
    }

    fn table(&mut self, recording: &Recording, spec: &'static TableSpec) -> Result<(), Error> {
        let mut times = recording.batch_times(spec.file);
        for batch in recording.table(spec)? {
            let batch = batch?;
            let (before, after, _) = times.next().unwrap_or_default();
            for row in 0..batch.rows() {
                let columns = 0..spec.columns.len();
                let texts: Vec<Option<String>> = columns
                    .clone()
                    .map(|column| match batch.cell(row, column) {
                        Cell::Str(text) => Some(self.relocation.text(text)),
                        _ => None,
                    })
                    .collect();
                let cells: Vec<Cell<'_>> = columns
                    .map(|column| match (batch.cell(row, column), &texts[column]) {
                        (Cell::U64(number), _) if is_address_column(spec, column) => {
                            Cell::U64(self.number(number))
                        }
                        (_, Some(text)) => Cell::Str(text),
                        (cell, None) => cell,
                    })
                    .collect();
                self.writer.row(spec, &cells)?;
                if spec.file == format::LOSS.file {
                    self.lost += batch.number(row, 3);
                }
            }
            self.writer.flush_table(spec, Stamp { before, after })?;
            self.writer.commit()?;
        }
        Ok(())
    }

    fn events(&mut self, recording: &Recording) -> Result<(), Error> {
        let mut builder = EventBatchBuilder::new();
        for batch in recording.events()? {
            let batch = batch?;
            for number in 0..batch.names() {
                builder.name(batch.name(u16::try_from(number).unwrap_or(u16::MAX)));
            }
            for mut event in batch.iter() {
                if event.kind == Kind::Unknown {
                    let why = "it has events that this kmemlab does not know".to_owned();
                    return Err(Error::Scrub { path: recording.path().to_owned(), why });
                }
                self.event(&mut event);
                self.last = event.time.0;
                builder.push(&event);
            }
            self.done.events += batch.len() as u64;
            self.writer.append_events(&mut builder)?;
            self.writer.commit()?;
        }
        Ok(())
    }

    /// The same numbers as [`addresses`] has.
    fn event(&mut self, event: &mut Event) {
        if event.has(Column::PfnOrAddress) {
            event.pfn_or_address = self.number(event.pfn_or_address);
        }
        if event.has(Column::End) {
            event.end = self.number(event.end);
        }
        if event.kind == Kind::VmapAlloc {
            for arg in [1, 2] {
                event.args[arg] = self.number(event.args[arg].cast_unsigned()).cast_signed();
            }
        }
    }

    fn cut_off(&self) -> End {
        End {
            reason: CUT_OFF.to_owned(),
            monotonic_ns: self.last,
            events: self.done.events,
            lost_events: self.lost,
            ..End::default()
        }
    }
}
