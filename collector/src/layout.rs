//! From a tracepoint's raw record to an event, by the kernel's own description of the record.
//!
//! A [`Layout`] is made once for each recording: for every tracepoint the offsets and sizes of the
//! fields that fill a column. No offset stands in this source.

use kmemlab_trace::event::{Column, Context, Event, Kind};
use kmemlab_trace::tracepoint::{Need, Tracepoint};
use kmemlab_trace::unit::{Cpu, Nanos, Pid};

use crate::record_error::RecordError;
use crate::tracefs::{Field, Format};

const FLAG_HARDIRQ: u64 = 0x08;
const FLAG_SOFTIRQ: u64 = 0x10;
const FLAG_NMI: u64 = 0x40;
/// Newer kernels keep another depth in the upper half.
const PREEMPT_MASK: u64 = 0x0f;

/// Where a number stands in the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    offset: u16,
    size: u8,
    is_signed: bool,
}

impl Place {
    fn of(field: &Field) -> Option<Self> {
        let size = u8::try_from(field.size).ok().filter(|size| matches!(size, 1 | 2 | 4 | 8))?;
        let offset = u16::try_from(field.offset).ok()?;
        Some(Self { offset, size, is_signed: field.is_signed })
    }

    /// The number, widened by its sign; `None` when the record ends before it.
    #[inline]
    fn read(self, raw: &[u8]) -> Option<u64> {
        let at = usize::from(self.offset);
        let bytes = raw.get(at..at + usize::from(self.size))?;
        Some(match (self.size, self.is_signed) {
            (1, false) => u64::from(bytes[0]),
            (1, true) => i64::from(bytes[0].cast_signed()).cast_unsigned(),
            (2, false) => u64::from(u16::from_ne_bytes(bytes.try_into().ok()?)),
            (2, true) => i64::from(i16::from_ne_bytes(bytes.try_into().ok()?)).cast_unsigned(),
            (4, false) => u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)),
            (4, true) => i64::from(i32::from_ne_bytes(bytes.try_into().ok()?)).cast_unsigned(),
            _ => u64::from_ne_bytes(bytes.try_into().ok()?),
        })
    }
}

/// What a field's bytes mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meaning {
    Number,
    /// A page frame: all ones is an allocation that failed, which has none.
    Pfn,
    /// Where a text stands: low half the offset, high half the length. Relative ones count from the
    /// end of the field.
    Text {
        is_relative: bool,
    },
    /// A text in the record itself.
    Letters {
        length: u16,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    column: Column,
    place: Place,
    meaning: Meaning,
}

/// How to decode one tracepoint.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    kind: Kind,
    flags: Place,
    preempt: Place,
    pid: Place,
    steps: Vec<Step>,
}

/// What a layout asks for numbers while it decodes.
pub trait Numbers {
    /// The number of a cache's or zone's name; `None` when there is no room for more.
    fn name(&mut self, name: &[u8]) -> Option<u16>;
    /// The number of the stack that is this one call site.
    fn call_site(&mut self, address: u64) -> Option<u32>;
}

/// Plans for every tracepoint of a recording, by the kernel's number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    plans: Vec<Option<Plan>>,
    recorder: Vec<u32>,
}

impl Layout {
    /// Says which threads are the recorder's: their events are tagged.
    pub fn set_recorder(&mut self, threads: Vec<u32>) {
        self.recorder = threads;
    }

    /// Learns a tracepoint from the kernel's description; returns the kernel's number of it.
    ///
    /// # Errors
    /// A field that the tracepoint means nothing without is missing or of no known size.
    pub fn add(
        &mut self,
        tracepoint: &Tracepoint,
        format: &Format,
        release: &str,
    ) -> Result<u16, RecordError> {
        let wrong = |field: &str, detail: &'static str| RecordError::NoField {
            tracepoint: tracepoint.kind.name().to_owned(),
            field: field.to_owned(),
            detail,
            group: tracepoint.group.name(),
            release: release.to_owned(),
        };
        let common = |name: &str| {
            let field = format.field(name).ok_or_else(|| wrong(name, ""))?;
            Place::of(field).ok_or_else(|| wrong(name, " of 1, 2, 4 or 8 bytes"))
        };
        let mut plan = Plan {
            kind: tracepoint.kind,
            flags: common("common_flags")?,
            preempt: common("common_preempt_count")?,
            pid: common("common_pid")?,
            steps: Vec::with_capacity(tracepoint.fields.len()),
        };
        for used in tracepoint.fields {
            match format.field(used.field).map(|field| step(used.column, field)) {
                Some(Some(step)) => plan.steps.push(step),
                Some(None) if used.need == Need::Required => {
                    return Err(wrong(used.field, " of a type that this tool knows"));
                }
                None if used.need == Need::Required => return Err(wrong(used.field, "")),
                _ => {}
            }
        }
        let id =
            u16::try_from(format.id).map_err(|_| wrong("common_type", " that holds its ID"))?;
        if self.plans.len() <= usize::from(id) {
            self.plans.resize(usize::from(id) + 1, None);
        }
        self.plans[usize::from(id)] = Some(plan);
        Ok(id)
    }

    /// Decodes a record; `None` when it is of no known tracepoint or cut.
    #[inline]
    pub fn decode(
        &self,
        raw: &[u8],
        time: Nanos,
        cpu: Cpu,
        numbers: &mut impl Numbers,
    ) -> Option<Event> {
        // common_type stands first in every release: perf itself relies on it.
        let id = u16::from_ne_bytes(raw.get(..2)?.try_into().ok()?);
        let plan = self.plans.get(usize::from(id))?.as_ref()?;
        let pid = low_32(plan.pid.read(raw)?);
        let mut event = Event::new(plan.kind, time, cpu, Pid(pid));
        event.context = context(plan.flags.read(raw)?);
        if self.recorder.contains(&pid) {
            event.context.0 |= Context::RECORDER;
        }
        event.preempt_depth = low_8(plan.preempt.read(raw)? & PREEMPT_MASK);
        for step in &plan.steps {
            let value = step.place.read(raw)?;
            let is_told = match step.meaning {
                Meaning::Number => set(&mut event, step.column, value, numbers),
                Meaning::Pfn => value != u64::MAX && set(&mut event, step.column, value, numbers),
                Meaning::Text { is_relative } => {
                    let text = text_at(raw, step.place, value, is_relative)?;
                    set_name(&mut event, step.column, text, numbers)
                }
                Meaning::Letters { length } => {
                    let at = usize::from(step.place.offset);
                    let text = raw.get(at..at + usize::from(length))?;
                    set_name(&mut event, step.column, text, numbers)
                }
            };
            if is_told {
                event.present |= step.column.bit();
            }
        }
        Some(event)
    }
}

fn step(column: Column, field: &Field) -> Option<Step> {
    let is_name = matches!(column, Column::Name | Column::OtherName);
    let is_located = field.is_data_loc || field.is_rel_loc;
    if is_name && field.is_array && !is_located {
        let length = u16::try_from(field.size).ok()?;
        let place = Place { offset: u16::try_from(field.offset).ok()?, size: 1, is_signed: false };
        return Some(Step { column, place, meaning: Meaning::Letters { length } });
    }
    let meaning = match (is_name, is_located) {
        (true, true) => Meaning::Text { is_relative: field.is_rel_loc },
        (false, false) if field.name == "pfn" => Meaning::Pfn,
        (false, false) if !field.is_array => Meaning::Number,
        // A number where a text should be, or the other way round.
        _ => return None,
    };
    Some(Step { column, place: Place::of(field)?, meaning })
}

fn text_at(raw: &[u8], place: Place, located: u64, is_relative: bool) -> Option<&[u8]> {
    let length = usize::from((located >> 16) as u16);
    let mut at = usize::from(located as u16);
    if is_relative {
        at += usize::from(place.offset) + usize::from(place.size);
    }
    raw.get(at..at + length)
}

fn set_name(event: &mut Event, column: Column, text: &[u8], numbers: &mut impl Numbers) -> bool {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let Some(number) = numbers.name(&text[..end]) else { return false };
    if column == Column::Name {
        event.name = number;
    } else {
        event.other_name = number;
    }
    true
}

/// Puts a number into its column; false where it says that there is none.
#[inline]
fn set(event: &mut Event, column: Column, value: u64, numbers: &mut impl Numbers) -> bool {
    match column {
        Column::PfnOrAddress => event.pfn_or_address = value,
        Column::End => event.end = value,
        Column::BytesRequested => event.bytes_requested = value,
        Column::BytesAllocated => event.bytes_allocated = value,
        // The upper bits are none of the kernel's flags: it has used fewer than 32 so far.
        Column::Gfp => event.gfp = low_32(value),
        Column::Node => event.node = low_32(value).cast_signed().try_into().unwrap_or(-1),
        Column::Flag => event.flag = low_8(value),
        Column::Stack => match numbers.call_site(value) {
            Some(stack) => event.stack = stack,
            None => return false,
        },
        // Order and migrate type are -1 where the kernel means none.
        Column::Order => return u8::try_from(value).map(|order| event.order = order).is_ok(),
        Column::OtherOrder => return u8::try_from(value).map(|it| event.other_order = it).is_ok(),
        Column::Migrate => return u8::try_from(value).map(|it| event.migrate = it).is_ok(),
        Column::OtherMigrate => {
            return u8::try_from(value).map(|it| event.other_migrate = it).is_ok();
        }
        Column::Arg0 => event.args[0] = value.cast_signed(),
        Column::Arg1 => event.args[1] = value.cast_signed(),
        Column::Arg2 => event.args[2] = value.cast_signed(),
        Column::Arg3 => event.args[3] = value.cast_signed(),
        Column::Arg4 => event.args[4] = value.cast_signed(),
        Column::Arg5 => event.args[5] = value.cast_signed(),
        Column::Name | Column::OtherName => return false,
    }
    true
}

fn context(flags: u64) -> Context {
    let mut context = 0;
    for (flag, bit) in [
        (FLAG_HARDIRQ, Context::HARDIRQ),
        (FLAG_SOFTIRQ, Context::SOFTIRQ),
        (FLAG_NMI, Context::NMI),
    ] {
        if flags & flag != 0 {
            context |= bit;
        }
    }
    Context(context)
}

#[inline]
fn low_32(value: u64) -> u32 {
    (value & u64::from(u32::MAX)) as u32
}

#[inline]
fn low_8(value: u64) -> u8 {
    (value & 0xff) as u8
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
