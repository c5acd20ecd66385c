//! Record batches back to events.

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Int16Array, Int64Array, RecordBatch, StringArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{UInt8Type, UInt16Type};

use crate::event::{Column, Context, Event, Kind};
use crate::unit::{Cpu, Nanos, Pid};

/// A batch of events, read back. The public columns are for tight loops: a value means something
/// only where its event has the column ([`EventBatch::has`]).
#[derive(Debug)]
pub struct EventBatch {
    rows: usize,
    base: u64,
    deltas: ScalarBuffer<u32>,
    cpus: ScalarBuffer<u16>,
    pids: ScalarBuffer<u32>,
    kind_keys: ScalarBuffer<u8>,
    kinds: Vec<Kind>,
    context: ScalarBuffer<u8>,
    preempt: ScalarBuffer<u8>,
    wide: [ScalarBuffer<u64>; 4],
    small: [ScalarBuffer<u8>; 5],
    medium: [ScalarBuffer<u32>; 2],
    node: ScalarBuffer<i16>,
    words: [ScalarBuffer<u16>; 2],
    names: StringArray,
    args: [ScalarBuffer<i64>; 6],
    valid: Vec<Option<NullBuffer>>,
    /// Columns that no row of the batch has.
    absent: u32,
}

impl EventBatch {
    /// Finds the columns in a batch by name and type.
    pub fn new(batch: &RecordBatch) -> Result<Self, String> {
        let rows = batch.num_rows();
        let kind = fixed::<DictionaryArray<UInt8Type>>(batch, "kind")?;
        let kinds = strings(kind.values())?
            .iter()
            .map(|name| Kind::from_name(name.unwrap_or("")))
            .collect();
        let base = fixed::<UInt64Array>(batch, "time_base_ns")?;
        let name = fixed::<DictionaryArray<UInt16Type>>(batch, Column::Name.name())?;
        let other = fixed::<DictionaryArray<UInt16Type>>(batch, Column::OtherName.name())?;
        let mut valid = Vec::with_capacity(Column::COUNT);
        let mut absent = 0;
        for (column, column_name, ..) in Column::ALL {
            let array = batch.column_by_name(column_name).ok_or_else(|| no_column(column_name))?;
            if array.null_count() == rows {
                absent |= column.bit();
            }
            valid.push(array.nulls().filter(|nulls| nulls.null_count() > 0).cloned());
        }
        let u64s =
            |column: Column| values::<UInt64Array>(batch, column).map(|a| a.values().clone());
        let u8s = |column: Column| values::<UInt8Array>(batch, column).map(|a| a.values().clone());
        let u32s =
            |column: Column| values::<UInt32Array>(batch, column).map(|a| a.values().clone());
        let i64s = |column: Column| values::<Int64Array>(batch, column).map(|a| a.values().clone());
        Ok(Self {
            rows,
            base: if rows > 0 { base.value(0) } else { 0 },
            deltas: fixed::<UInt32Array>(batch, "time_delta_ns")?.values().clone(),
            cpus: fixed::<UInt16Array>(batch, "cpu")?.values().clone(),
            pids: fixed::<UInt32Array>(batch, "pid")?.values().clone(),
            kind_keys: kind.keys().values().clone(),
            kinds,
            context: fixed::<UInt8Array>(batch, "context")?.values().clone(),
            preempt: fixed::<UInt8Array>(batch, "preempt_depth")?.values().clone(),
            wide: [
                u64s(Column::PfnOrAddress)?,
                u64s(Column::End)?,
                u64s(Column::BytesRequested)?,
                u64s(Column::BytesAllocated)?,
            ],
            small: [
                u8s(Column::Order)?,
                u8s(Column::OtherOrder)?,
                u8s(Column::Migrate)?,
                u8s(Column::OtherMigrate)?,
                u8s(Column::Flag)?,
            ],
            medium: [u32s(Column::Gfp)?, u32s(Column::Stack)?],
            node: values::<Int16Array>(batch, Column::Node)?.values().clone(),
            words: [name.keys().values().clone(), other.keys().values().clone()],
            names: strings(name.values())?.clone(),
            args: [
                i64s(Column::Arg0)?,
                i64s(Column::Arg1)?,
                i64s(Column::Arg2)?,
                i64s(Column::Arg3)?,
                i64s(Column::Arg4)?,
                i64s(Column::Arg5)?,
            ],
            valid,
            absent,
        })
    }

    /// Events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// No events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether the event at `row` has the column.
    #[must_use]
    #[inline]
    pub fn has(&self, row: usize, column: Column) -> bool {
        self.absent & column.bit() == 0
            && self.valid[column as usize].as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }

    /// The text behind [`Event::name`] and [`Event::other_name`].
    #[must_use]
    pub fn name(&self, number: u16) -> &str {
        let index = usize::from(number);
        if index < self.names.len() { self.names.value(index) } else { "" }
    }

    /// Names known so far.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// The events in time order.
    #[must_use]
    pub fn iter(&self) -> Events<'_> {
        self.iter_only(u64::MAX)
    }

    /// The events of some kinds only, in time order: the others are passed over undecoded. `kinds`
    /// has the bit of each wanted [`Kind`]'s number.
    #[must_use]
    pub fn iter_only(&self, kinds: u64) -> Events<'_> {
        let wanted =
            self.kinds.iter().map(|kind| kinds >> (*kind as u8).min(63) & 1 == 1).collect();
        Events { batch: self, row: 0, time: self.base, wanted }
    }

    #[inline]
    fn event(&self, row: usize, time: u64) -> Event {
        let kind =
            self.kinds.get(usize::from(self.kind_keys[row])).copied().unwrap_or(Kind::Unknown);
        let mut event = Event::new(kind, Nanos(time), Cpu(self.cpus[row]), Pid(self.pids[row]));
        event.context = Context(self.context[row]);
        event.preempt_depth = self.preempt[row];
        // Only the columns that this tracepoint can fill are looked at.
        let mut rest = columns_of(kind) & !self.absent;
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            let index = rest.trailing_zeros() as usize;
            rest ^= bit;
            if self.valid[index].as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                event.present |= bit;
                self.fill(row, index, &mut event);
            }
        }
        event
    }

    #[inline]
    fn fill(&self, row: usize, column: usize, event: &mut Event) {
        match Column::ALL[column].0 {
            Column::PfnOrAddress => event.pfn_or_address = self.wide[0][row],
            Column::End => event.end = self.wide[1][row],
            Column::BytesRequested => event.bytes_requested = self.wide[2][row],
            Column::BytesAllocated => event.bytes_allocated = self.wide[3][row],
            Column::Order => event.order = self.small[0][row],
            Column::OtherOrder => event.other_order = self.small[1][row],
            Column::Migrate => event.migrate = self.small[2][row],
            Column::OtherMigrate => event.other_migrate = self.small[3][row],
            Column::Flag => event.flag = self.small[4][row],
            Column::Gfp => event.gfp = self.medium[0][row],
            Column::Stack => event.stack = self.medium[1][row],
            Column::Node => event.node = self.node[row],
            Column::Name => event.name = self.words[0][row],
            Column::OtherName => event.other_name = self.words[1][row],
            Column::Arg0 => event.args[0] = self.args[0][row],
            Column::Arg1 => event.args[1] = self.args[1][row],
            Column::Arg2 => event.args[2] = self.args[2][row],
            Column::Arg3 => event.args[3] = self.args[3][row],
            Column::Arg4 => event.args[4] = self.args[4][row],
            Column::Arg5 => event.args[5] = self.args[5][row],
        }
    }
}

/// The columns a tracepoint can fill, plus the call chain that any may have.
fn columns_of(kind: Kind) -> u32 {
    static MASKS: std::sync::LazyLock<Vec<u32>> = std::sync::LazyLock::new(|| {
        crate::tracepoint::ALL
            .iter()
            .map(|row| {
                row.fields.iter().map(|field| field.column.bit()).sum::<u32>() | Column::Stack.bit()
            })
            .collect()
    });
    MASKS.get(kind as usize).copied().unwrap_or(0)
}

/// Events of a batch, in order.
#[derive(Debug)]
pub struct Events<'a> {
    batch: &'a EventBatch,
    row: usize,
    time: u64,
    /// By the stream's own number of the kind.
    wanted: Vec<bool>,
}

impl Iterator for Events<'_> {
    type Item = Event;

    #[inline]
    fn next(&mut self) -> Option<Event> {
        loop {
            let row = self.row;
            let delta = self.batch.deltas.get(row)?;
            self.time = self.time.saturating_add(u64::from(*delta));
            self.row += 1;
            let kind = usize::from(self.batch.kind_keys[row]);
            if self.wanted.get(kind).copied().unwrap_or(false) {
                return Some(self.batch.event(row, self.time));
            }
        }
    }
}

fn no_column(name: &str) -> String {
    format!("the events have no column {name} of the expected type")
}

fn fixed<'a, A: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, String> {
    batch
        .column_by_name(name)
        .and_then(|array| array.as_any().downcast_ref::<A>())
        .ok_or_else(|| no_column(name))
}

fn values<A: 'static>(batch: &RecordBatch, column: Column) -> Result<&A, String> {
    fixed::<A>(batch, column.name())
}

fn strings(array: &ArrayRef) -> Result<&StringArray, String> {
    array.as_any().downcast_ref::<StringArray>().ok_or_else(|| no_column("kind or name"))
}
