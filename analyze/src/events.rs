//! The events as columns for a notebook: absolute times, and a column for each meaning.

use kmemlab_trace::event::Context;
use kmemlab_trace::tracepoint::{self, FieldUse};
use kmemlab_trace::{Column, Event, EventBatch, Kind, Manifest};

use crate::frame::{ColumnType, Frame};

/// Declares the columns once: their places, types, names, units and meaning.
macro_rules! columns {
    ($($variant:ident, $column_type:ident, $name:literal, $unit:literal, $help:literal;)*) => {
        /// Place of a column in `events.parquet`.
        #[derive(Clone, Copy, Debug)]
        enum Place { $($variant),* }

        const TYPES: &[ColumnType] = &[$(ColumnType::$column_type),*];

        /// The columns of `events.parquet` in their order: name, unit (empty where there is none)
        /// and meaning.
        pub const EVENT_COLUMNS: &[(&str, &str, &str)] = &[$(($name, $unit, $help)),*];
    };
}

columns! {
    Time, U64, "time_ns", "ns", "When, on CLOCK_MONOTONIC.";
    Cpu, U32, "cpu", "", "Processor the event fired on.";
    Pid, U32, "pid", "", "Thread that was running; 0 is the idle task.";
    Kind, Word, "kind", "", "Tracepoint, as system:event.";
    Context, Word, "context", "", "Where the processor was: task, softirq, hardirq or nmi.";
    IsRecorder, Bool, "is_recorder", "", "Caused by the recorder itself.";
    PreemptDepth, U32, "preempt_depth", "", "How deep preemption was disabled.";
    Pfn, U64, "pfn", "pages", "Page frame number of a page event, or first page of the range scanned; null also for an allocation that failed.";
    Address, U64, "address", "", "Kernel virtual address of an object, vmap area or per-CPU chunk, as the kernel printed it (0 or an error number when an allocation failed).";
    EndPfn, U64, "end_pfn", "pages", "End of the range that starts at pfn.";
    EndAddress, U64, "end_address", "", "End of the range that starts at address.";
    Order, U32, "order", "", "Allocation order (2^order pages).";
    FallbackOrder, U32, "fallback_order", "", "Order of the block taken by a fallback.";
    Gfp, U32, "gfp_flags", "", "Allocation flags in the recorded kernel's bits.";
    Migrate, Word, "migrate_type", "", "Migrate type as the recorded kernel names it; its number where it has no name.";
    FallbackMigrate, Word, "fallback_migrate_type", "", "Migrate type of the block taken by a fallback.";
    Flag, Bool, "flag", "", "The tracepoint's own yes/no field (percpu_refill, change_ownership, accounted, failed, sync, ...).";
    Node, I32, "node", "", "NUMA node asked for or spoken of; -1 is any.";
    Name, Word, "name", "", "Slab cache or zone.";
    OtherName, Word, "other_name", "", "Second zone.";
    Stack, U32, "stack_id", "", "Call chain in stacks.parquet, or the call site as a chain of one.";
    BytesRequested, U64, "bytes_requested", "bytes", "Bytes the caller asked for.";
    BytesAllocated, U64, "bytes_allocated", "bytes", "Bytes the allocator gave.";
    Arg0, I64, "arg_0", "", "First further number; the file's metadata tells which field of which tracepoint it is.";
    Arg1, I64, "arg_1", "", "Second further number.";
    Arg2, I64, "arg_2", "", "Third further number.";
    Arg3, I64, "arg_3", "", "Fourth further number.";
    Arg4, I64, "arg_4", "", "Fifth further number.";
    Arg5, I64, "arg_5", "", "Sixth further number.";
}

/// The columns with their types.
pub(crate) fn columns() -> Vec<(&'static str, ColumnType)> {
    EVENT_COLUMNS.iter().zip(TYPES).map(|((name, ..), column)| (*name, *column)).collect()
}

/// Whether a field of a tracepoint holds page frame numbers (else kernel addresses). The range of
/// compaction's begin and end is a zone's, told in page frames under a name that does not say so.
fn is_pfn(field: &FieldUse) -> bool {
    matches!(field.field, "pfn" | "start_pfn" | "end_pfn" | "zone_start" | "zone_end")
}

/// Where a tracepoint's two wide numbers go.
#[derive(Clone, Copy, Debug)]
struct Wide {
    start: Place,
    end: Place,
}

fn wide(kind: Kind) -> Wide {
    let fields = tracepoint::of(kind).map_or(&[][..], |row| row.fields);
    let pfn = |column| fields.iter().any(|field| field.column == column && is_pfn(field));
    Wide {
        start: if pfn(Column::PfnOrAddress) { Place::Pfn } else { Place::Address },
        end: if pfn(Column::End) { Place::EndPfn } else { Place::EndAddress },
    }
}

/// Name of a column of the recording in the export.
fn exported(field: &FieldUse) -> &'static str {
    let place = match field.column {
        Column::PfnOrAddress if is_pfn(field) => Place::Pfn,
        Column::PfnOrAddress => Place::Address,
        Column::End if is_pfn(field) => Place::EndPfn,
        Column::End => Place::EndAddress,
        Column::OtherOrder => Place::FallbackOrder,
        Column::OtherMigrate => Place::FallbackMigrate,
        same => return same.name(),
    };
    EVENT_COLUMNS[place as usize].0
}

/// For each tracepoint of the recording, which of its fields is in which column.
pub(crate) fn field_metadata(manifest: &Manifest) -> Vec<(String, String)> {
    let rows = manifest.tracepoints.iter().filter_map(|record| {
        let row = tracepoint::of(Kind::from_name(&record.name))?;
        let fields = row.fields.iter().map(|field| format!("{}={}", exported(field), field.field));
        let fields = fields.collect::<Vec<_>>().join(" ");
        Some((format!("kmemlab.columns.{}", record.name), fields))
    });
    rows.collect()
}

/// Puts events into rows. Words are looked up once, not once an event.
#[derive(Debug)]
pub(crate) struct EventRows {
    kinds: Vec<u32>,
    contexts: [u32; 4],
    migrate: Vec<u32>,
    fallback_migrate: Vec<u32>,
    names: Vec<u32>,
    other_names: Vec<u32>,
    wide: Vec<Wide>,
}

/// Context texts, in the order of [`context_index`].
const CONTEXTS: [&str; 4] = ["task", "softirq", "hardirq", "nmi"];

/// The innermost context: interrupts nest in this order only.
#[inline]
fn context_index(context: Context) -> usize {
    match context.0 {
        bits if bits & Context::NMI != 0 => 3,
        bits if bits & Context::HARDIRQ != 0 => 2,
        bits if bits & Context::SOFTIRQ != 0 => 1,
        _ => 0,
    }
}

impl EventRows {
    pub(crate) fn new(manifest: &Manifest, frame: &mut Frame) -> Self {
        let all = Kind::ALL.iter().map(|(kind, _)| *kind).chain([Kind::Unknown]);
        let mut words = |place: Place, words: &[String]| -> Vec<u32> {
            words.iter().map(|word| frame.word(place as usize, word)).collect()
        };
        let kind_names: Vec<String> = all.clone().map(|kind| kind.name().to_owned()).collect();
        let known = &manifest.host.migrate_types;
        let migrate_names: Vec<String> = (0..=usize::from(u8::MAX))
            .map(|number| known.get(number).cloned().unwrap_or_else(|| number.to_string()))
            .collect();
        let contexts = CONTEXTS.map(|context| words(Place::Context, &[context.to_owned()])[0]);
        Self {
            kinds: words(Place::Kind, &kind_names),
            contexts,
            migrate: words(Place::Migrate, &migrate_names),
            fallback_migrate: words(Place::FallbackMigrate, &migrate_names),
            names: Vec::new(),
            other_names: Vec::new(),
            wide: all.map(wide).collect(),
        }
    }

    /// Looks up the names of a batch: to be called before its events are put.
    pub(crate) fn start_batch(&mut self, batch: &EventBatch, frame: &mut Frame) {
        self.names.clear();
        self.other_names.clear();
        for number in 0..batch.names() {
            let name = batch.name(u16::try_from(number).unwrap_or(u16::MAX));
            self.names.push(frame.word(Place::Name as usize, name));
            self.other_names.push(frame.word(Place::OtherName as usize, name));
        }
    }

    /// Puts one event; the caller ends the row.
    pub(crate) fn put(&self, event: &Event, frame: &mut Frame) {
        frame.put_u64(Place::Time as usize, event.time.0);
        frame.put_u64(Place::Cpu as usize, u64::from(event.cpu.0));
        frame.put_u64(Place::Pid as usize, u64::from(event.pid.0));
        frame.put_word(Place::Kind as usize, self.kinds[event.kind as usize]);
        frame.put_word(Place::Context as usize, self.contexts[context_index(event.context)]);
        frame.put_bool(Place::IsRecorder as usize, event.context.is_recorder());
        frame.put_u64(Place::PreemptDepth as usize, u64::from(event.preempt_depth));
        let mut rest = event.present;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            self.put_column(Column::ALL[index].0, event, frame);
        }
    }

    #[inline]
    fn put_column(&self, column: Column, event: &Event, frame: &mut Frame) {
        let wide = self.wide[event.kind as usize];
        let mut number = |place: Place, value: u64| frame.put_u64(place as usize, value);
        match column {
            Column::PfnOrAddress => number(wide.start, event.pfn_or_address),
            Column::End => number(wide.end, event.end),
            Column::Order => number(Place::Order, u64::from(event.order)),
            Column::OtherOrder => number(Place::FallbackOrder, u64::from(event.other_order)),
            Column::Gfp => number(Place::Gfp, u64::from(event.gfp)),
            Column::Stack => number(Place::Stack, u64::from(event.stack)),
            Column::BytesRequested => number(Place::BytesRequested, event.bytes_requested),
            Column::BytesAllocated => number(Place::BytesAllocated, event.bytes_allocated),
            Column::Flag => frame.put_bool(Place::Flag as usize, event.flag != 0),
            Column::Node => frame.put_i64(Place::Node as usize, i64::from(event.node)),
            Column::Migrate => word(frame, Place::Migrate, &self.migrate, event.migrate.into()),
            Column::OtherMigrate => {
                word(
                    frame,
                    Place::FallbackMigrate,
                    &self.fallback_migrate,
                    event.other_migrate.into(),
                );
            }
            Column::Name => word(frame, Place::Name, &self.names, event.name),
            Column::OtherName => word(frame, Place::OtherName, &self.other_names, event.other_name),
            Column::Arg0 => frame.put_i64(Place::Arg0 as usize, event.args[0]),
            Column::Arg1 => frame.put_i64(Place::Arg1 as usize, event.args[1]),
            Column::Arg2 => frame.put_i64(Place::Arg2 as usize, event.args[2]),
            Column::Arg3 => frame.put_i64(Place::Arg3 as usize, event.args[3]),
            Column::Arg4 => frame.put_i64(Place::Arg4 as usize, event.args[4]),
            Column::Arg5 => frame.put_i64(Place::Arg5 as usize, event.args[5]),
        }
    }
}

/// A number that is in no list stays null: nothing is known of it.
#[inline]
fn word(frame: &mut Frame, place: Place, words: &[u32], number: u16) {
    if let Some(word) = words.get(usize::from(number)) {
        frame.put_word(place as usize, *word);
    }
}

#[cfg(test)]
mod tests {
    use kmemlab_trace::tracepoint::Group;

    use super::*;

    #[test]
    fn wide_numbers_are_page_frames_in_the_page_groups_and_addresses_in_the_others() {
        for row in tracepoint::ALL {
            for field in row.fields {
                if matches!(field.column, Column::PfnOrAddress | Column::End) {
                    let pages = matches!(row.group, Group::Page | Group::Compaction);
                    assert_eq!(is_pfn(field), pages, "{} {}", row.kind.name(), field.field);
                }
            }
        }
    }

    #[test]
    fn every_column_of_the_recording_is_in_the_export() {
        for row in tracepoint::ALL {
            for field in row.fields {
                let name = exported(field);
                assert!(EVENT_COLUMNS.iter().any(|(known, ..)| *known == name), "{name}");
            }
        }
    }

    #[test]
    fn names_are_unique_and_end_in_their_unit() {
        for (place, (name, unit, help)) in EVENT_COLUMNS.iter().enumerate() {
            assert!(EVENT_COLUMNS[..place].iter().all(|(other, ..)| other != name), "{name}");
            assert!(*unit != "ns" || name.ends_with("_ns"), "{name}");
            assert!(help.ends_with('.'), "{name}: {help}");
        }
        assert_eq!(EVENT_COLUMNS[Place::Arg5 as usize].0, "arg_5");
        assert_eq!(EVENT_COLUMNS.len(), TYPES.len());
    }

    #[test]
    fn the_innermost_context_counts() {
        let name = |bits| CONTEXTS[context_index(Context(bits))];
        assert_eq!(name(0), "task");
        assert_eq!(name(Context::RECORDER), "task");
        assert_eq!(name(Context::SOFTIRQ), "softirq");
        assert_eq!(name(Context::SOFTIRQ | Context::HARDIRQ), "hardirq");
        assert_eq!(name(Context::SOFTIRQ | Context::HARDIRQ | Context::NMI), "nmi");
    }
}
