//! Events to record batches.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBufferBuilder, DictionaryArray, Int16Array, Int64Array, PrimitiveArray,
    RecordBatch, StringArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{SchemaRef, UInt8Type, UInt16Type};

use super::schema;
use crate::event::{Column, Event, Kind};
use crate::table::Words;
use crate::unit::Nanos;

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
