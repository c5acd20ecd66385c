//! Events to record batches and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanBufferBuilder, DictionaryArray, Int16Array, Int64Array, PrimitiveArray,
    RecordBatch, StringArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type, UInt16Type};

use crate::event::{Column, Context, Event, Kind};
use crate::table::Words;
use crate::unit::{Cpu, Nanos, Pid};

/// The columns that every event has, with their Arrow types and meaning.
pub const FIXED_COLUMNS: &[(&str, &str, &str)] = &[
    (
        "time_base_ns",
        "UInt64",
        "CLOCK_MONOTONIC of the batch's first event; the same in all rows of a batch.",
    ),
    (
        "time_delta_ns",
        "UInt32",
        "Time since the event before in the batch: an event's time is time_base_ns plus the running sum.",
    ),
    ("cpu", "UInt16", "Processor the event fired on."),
    ("pid", "UInt32", "Thread that was running; 0 is the idle task."),
    ("kind", "Dictionary(UInt8, Utf8)", "Tracepoint, as system:event."),
    ("context", "UInt8", "Bits: 1 hardware interrupt, 2 softirq, 4 NMI, 8 the recorder itself."),
    ("preempt_depth", "UInt8", "How deep preemption was disabled."),
];

/// Schema of the events stream.
#[must_use]
pub fn schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("time_base_ns", DataType::UInt64, false),
        Field::new("time_delta_ns", DataType::UInt32, false),
        Field::new("cpu", DataType::UInt16, false),
        Field::new("pid", DataType::UInt32, false),
        Field::new("kind", dictionary(DataType::UInt8), false),
        Field::new("context", DataType::UInt8, false),
        Field::new("preempt_depth", DataType::UInt8, false),
    ];
    for (column, name, _, _) in Column::ALL {
        fields.push(Field::new(*name, arrow_type(*column), true));
    }
    Arc::new(Schema::new(fields))
}

fn dictionary(key: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8))
}

fn arrow_type(column: Column) -> DataType {
    use Column as C;
    match column {
        C::PfnOrAddress | C::End | C::BytesRequested | C::BytesAllocated => DataType::UInt64,
        C::Order | C::OtherOrder | C::Migrate | C::OtherMigrate | C::Flag => DataType::UInt8,
        C::Gfp | C::Stack => DataType::UInt32,
        C::Node => DataType::Int16,
        C::Name | C::OtherName => dictionary(DataType::UInt16),
        C::Arg0 | C::Arg1 | C::Arg2 | C::Arg3 | C::Arg4 | C::Arg5 => DataType::Int64,
    }
}

/// A column under construction; rows that do not have it are filled in late, in one go.
struct Sparse<T> {
    values: Vec<T>,
    valid: BooleanBufferBuilder,
}

impl<T> std::fmt::Debug for Sparse<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sparse").field("rows", &self.values.len()).finish_non_exhaustive()
    }
}

impl<T: Copy + Default> Sparse<T> {
    fn new() -> Self {
        Self { values: Vec::new(), valid: BooleanBufferBuilder::new(0) }
    }

    #[inline]
    fn put(&mut self, row: usize, value: T) {
        self.pad(row);
        self.values.push(value);
        self.valid.append(true);
    }

    fn pad(&mut self, rows: usize) {
        let missing = rows - self.values.len();
        if missing > 0 {
            self.values.resize(rows, T::default());
            self.valid.append_n(missing, false);
        }
    }

    fn finish(&mut self, rows: usize) -> (Vec<T>, NullBuffer) {
        self.pad(rows);
        let valid: BooleanBuffer = self.valid.finish();
        (std::mem::take(&mut self.values), NullBuffer::new(valid))
    }
}

/// Collects events into batches.
#[derive(Debug)]
pub struct EventBatchBuilder {
    schema: SchemaRef,
    kinds: Arc<StringArray>,
    names: Words,
    base: u64,
    last: u64,
    deltas: Vec<u32>,
    cpus: Vec<u16>,
    pids: Vec<u32>,
    kind: Vec<u8>,
    context: Vec<u8>,
    preempt: Vec<u8>,
    wide: [Sparse<u64>; 4],
    small: [Sparse<u8>; 5],
    medium: [Sparse<u32>; 2],
    node: Sparse<i16>,
    words: [Sparse<u16>; 2],
    args: [Sparse<i64>; 6],
}

impl Default for EventBatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl EventBatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        let kinds = Kind::ALL.iter().map(|(_, name)| *name).collect::<Vec<_>>();
        Self {
            schema: schema(),
            kinds: Arc::new(StringArray::from(kinds)),
            names: Words::default(),
            base: 0,
            last: 0,
            deltas: Vec::new(),
            cpus: Vec::new(),
            pids: Vec::new(),
            kind: Vec::new(),
            context: Vec::new(),
            preempt: Vec::new(),
            wide: std::array::from_fn(|_| Sparse::new()),
            small: std::array::from_fn(|_| Sparse::new()),
            medium: std::array::from_fn(|_| Sparse::new()),
            node: Sparse::new(),
            words: std::array::from_fn(|_| Sparse::new()),
            args: std::array::from_fn(|_| Sparse::new()),
        }
    }

    /// Events collected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    /// Nothing collected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// The number of a slab cache's or zone's name; the same for the whole recording. `None` when
    /// there are more than 65,535 names, which no kernel has.
    pub fn name(&mut self, name: &str) -> Option<u16> {
        u16::try_from(self.names.number(name)).ok()
    }

    /// Time of the last event collected.
    #[must_use]
    pub fn last_time(&self) -> Nanos {
        Nanos(self.last)
    }

    /// Whether an event at that time still fits: times do not go back, and a gap of more than
    /// 4.29 s starts a new batch.
    #[must_use]
    pub fn takes(&self, time: Nanos) -> bool {
        self.is_empty() || time.0.saturating_sub(self.last) <= u64::from(u32::MAX)
    }

    /// Adds an event. Its time must not be before the last one's; an earlier time is recorded as
    /// the last one's.
    #[inline]
    pub fn push(&mut self, event: &Event) {
        let row = self.deltas.len();
        if row == 0 {
            self.base = event.time.0;
            self.last = event.time.0;
        }
        let delta = event.time.0.saturating_sub(self.last);
        self.last += delta;
        self.deltas.push(u32::try_from(delta).unwrap_or(u32::MAX));
        self.cpus.push(event.cpu.0);
        self.pids.push(event.pid.0);
        self.kind.push(event.kind as u8);
        self.context.push(event.context.0);
        self.preempt.push(event.preempt_depth);
        let mut rest = event.present;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            self.put(row, bit as u8, event);
        }
    }

    #[inline]
    fn put(&mut self, row: usize, column: u8, event: &Event) {
        let Some((column, ..)) = Column::ALL.get(usize::from(column)) else { return };
        match column {
            Column::PfnOrAddress => self.wide[0].put(row, event.pfn_or_address),
            Column::End => self.wide[1].put(row, event.end),
            Column::BytesRequested => self.wide[2].put(row, event.bytes_requested),
            Column::BytesAllocated => self.wide[3].put(row, event.bytes_allocated),
            Column::Order => self.small[0].put(row, event.order),
            Column::OtherOrder => self.small[1].put(row, event.other_order),
            Column::Migrate => self.small[2].put(row, event.migrate),
            Column::OtherMigrate => self.small[3].put(row, event.other_migrate),
            Column::Flag => self.small[4].put(row, event.flag),
            Column::Gfp => self.medium[0].put(row, event.gfp),
            Column::Stack => self.medium[1].put(row, event.stack),
            Column::Node => self.node.put(row, event.node),
            Column::Name => self.words[0].put(row, event.name),
            Column::OtherName => self.words[1].put(row, event.other_name),
            Column::Arg0 => self.args[0].put(row, event.args[0]),
            Column::Arg1 => self.args[1].put(row, event.args[1]),
            Column::Arg2 => self.args[2].put(row, event.args[2]),
            Column::Arg3 => self.args[3].put(row, event.args[3]),
            Column::Arg4 => self.args[4].put(row, event.args[4]),
            Column::Arg5 => self.args[5].put(row, event.args[5]),
        }
    }

    /// The batch, its first and last time, and whether the names grew since the batch before.
    pub fn finish(&mut self) -> Result<FinishedBatch, String> {
        let rows = self.len();
        let (names, has_dictionary) = self.names.array();
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(vec![self.base; rows])),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.deltas))),
            Arc::new(UInt16Array::from(std::mem::take(&mut self.cpus))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.pids))),
            Arc::new(DictionaryArray::<UInt8Type>::new(
                UInt8Array::from(std::mem::take(&mut self.kind)),
                Arc::clone(&self.kinds) as ArrayRef,
            )),
            Arc::new(UInt8Array::from(std::mem::take(&mut self.context))),
            Arc::new(UInt8Array::from(std::mem::take(&mut self.preempt))),
        ];
        for (column, ..) in Column::ALL {
            arrays.push(self.finish_column(*column, rows, &names));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| error.to_string())?;
        Ok(FinishedBatch {
            batch,
            first_time_ns: self.base,
            last_time_ns: self.last,
            has_dictionary,
        })
    }

    fn finish_column(&mut self, column: Column, rows: usize, names: &Arc<StringArray>) -> ArrayRef {
        let words = |sparse: &mut Sparse<u16>| -> ArrayRef {
            let (values, valid) = sparse.finish(rows);
            // Absent rows must still point into the dictionary.
            let keys = UInt16Array::new(ScalarBuffer::from(values), Some(valid));
            Arc::new(DictionaryArray::<UInt16Type>::new(keys, Arc::clone(names) as ArrayRef))
        };
        match column {
            Column::PfnOrAddress => finish_one::<UInt64Array, _>(&mut self.wide[0], rows),
            Column::End => finish_one::<UInt64Array, _>(&mut self.wide[1], rows),
            Column::BytesRequested => finish_one::<UInt64Array, _>(&mut self.wide[2], rows),
            Column::BytesAllocated => finish_one::<UInt64Array, _>(&mut self.wide[3], rows),
            Column::Order => finish_one::<UInt8Array, _>(&mut self.small[0], rows),
            Column::OtherOrder => finish_one::<UInt8Array, _>(&mut self.small[1], rows),
            Column::Migrate => finish_one::<UInt8Array, _>(&mut self.small[2], rows),
            Column::OtherMigrate => finish_one::<UInt8Array, _>(&mut self.small[3], rows),
            Column::Flag => finish_one::<UInt8Array, _>(&mut self.small[4], rows),
            Column::Gfp => finish_one::<UInt32Array, _>(&mut self.medium[0], rows),
            Column::Stack => finish_one::<UInt32Array, _>(&mut self.medium[1], rows),
            Column::Node => finish_one::<Int16Array, _>(&mut self.node, rows),
            Column::Name => words(&mut self.words[0]),
            Column::OtherName => words(&mut self.words[1]),
            Column::Arg0 => finish_one::<Int64Array, _>(&mut self.args[0], rows),
            Column::Arg1 => finish_one::<Int64Array, _>(&mut self.args[1], rows),
            Column::Arg2 => finish_one::<Int64Array, _>(&mut self.args[2], rows),
            Column::Arg3 => finish_one::<Int64Array, _>(&mut self.args[3], rows),
            Column::Arg4 => finish_one::<Int64Array, _>(&mut self.args[4], rows),
            Column::Arg5 => finish_one::<Int64Array, _>(&mut self.args[5], rows),
        }
    }
}

/// A batch ready to be written.
#[derive(Debug)]
pub struct FinishedBatch {
    /// The rows.
    pub batch: RecordBatch,
    /// Time of the first event.
    pub first_time_ns: u64,
    /// Time of the last event.
    pub last_time_ns: u64,
    /// The names grew: the dictionary is written again before this batch.
    pub has_dictionary: bool,
}

/// Builds the Arrow array of a sparse column.
trait FromParts<T> {
    fn from_parts(values: Vec<T>, valid: NullBuffer) -> ArrayRef;
}

impl<P: arrow::array::ArrowPrimitiveType> FromParts<P::Native> for PrimitiveArray<P> {
    fn from_parts(values: Vec<P::Native>, valid: NullBuffer) -> ArrayRef {
        Arc::new(Self::new(ScalarBuffer::from(values), Some(valid)))
    }
}

fn finish_one<A: FromParts<T>, T: Copy + Default>(column: &mut Sparse<T>, rows: usize) -> ArrayRef {
    let (values, valid) = column.finish(rows);
    A::from_parts(values, valid)
}

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
