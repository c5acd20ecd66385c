//! Rows to record batches and back, for the tables beside the events.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBuilder, DictionaryArray, Int64Array, Int64Builder,
    PrimitiveArray, RecordBatch, StringArray, StringBuilder, UInt16Array, UInt16Builder,
    UInt32Array, UInt32Builder, UInt64Array, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};

use crate::format::{CellType, TableSpec};

/// One value of a row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cell<'a> {
    /// Not told.
    Null,
    /// For unsigned columns of any width; a value too wide for its column is an error.
    U64(u64),
    /// For signed columns.
    I64(i64),
    /// For yes/no columns.
    Bool(bool),
    /// For text columns.
    Str(&'a str),
}

/// The Arrow schema of a table.
#[must_use]
pub fn schema(spec: &TableSpec) -> SchemaRef {
    let fields: Vec<Field> = spec
        .columns
        .iter()
        .map(|column| Field::new(column.name, arrow_type(column.cell), column.nullable))
        .collect();
    Arc::new(Schema::new(fields))
}

fn arrow_type(cell: CellType) -> DataType {
    match cell {
        CellType::U64 => DataType::UInt64,
        CellType::U32 => DataType::UInt32,
        CellType::U16 => DataType::UInt16,
        CellType::I64 => DataType::Int64,
        CellType::Bool => DataType::Boolean,
        CellType::Word => {
            DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8))
        }
        CellType::Text => DataType::Utf8,
    }
}

/// Words of a dictionary column; kept from batch to batch, so that it is written once.
#[derive(Debug, Default)]
pub(crate) struct Words {
    numbers: HashMap<String, u32>,
    list: Vec<String>,
    array: Option<Arc<StringArray>>,
}

impl Words {
    pub(crate) fn number(&mut self, word: &str) -> u32 {
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.numbers.insert(word.to_owned(), number);
        self.list.push(word.to_owned());
        self.array = None;
        number
    }

    /// The dictionary, and whether it grew since it was last asked for.
    pub(crate) fn array(&mut self) -> (Arc<StringArray>, bool) {
        match &self.array {
            Some(array) => (Arc::clone(array), false),
            None => {
                let array = Arc::new(StringArray::from(self.list.clone()));
                self.array = Some(Arc::clone(&array));
                (array, true)
            }
        }
    }
}

#[derive(Debug)]
enum Builder {
    U64(UInt64Builder),
    U32(UInt32Builder),
    U16(UInt16Builder),
    I64(Int64Builder),
    Bool(BooleanBuilder),
    Word(UInt32Builder, Words),
    Text(StringBuilder),
}

/// Collects rows of one table.
#[derive(Debug)]
pub struct TableBuilder {
    spec: TableSpec,
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
}

impl TableBuilder {
    /// An empty table.
    #[must_use]
    pub fn new(spec: TableSpec) -> Self {
        let columns = spec
            .columns
            .iter()
            .map(|column| match column.cell {
                CellType::U64 => Builder::U64(UInt64Builder::new()),
                CellType::U32 => Builder::U32(UInt32Builder::new()),
                CellType::U16 => Builder::U16(UInt16Builder::new()),
                CellType::I64 => Builder::I64(Int64Builder::new()),
                CellType::Bool => Builder::Bool(BooleanBuilder::new()),
                CellType::Word => Builder::Word(UInt32Builder::new(), Words::default()),
                CellType::Text => Builder::Text(StringBuilder::new()),
            })
            .collect();
        Self { spec, schema: schema(&spec), columns, rows: 0 }
    }

    /// The table being built.
    #[must_use]
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// Rows collected since the last [`Self::finish`].
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When the cells do not fit the table: a bug of the caller.
    pub fn row(&mut self, cells: &[Cell<'_>]) {
        assert_eq!(cells.len(), self.columns.len(), "cells of a row of {}", self.spec.name);
        for (index, (builder, cell)) in self.columns.iter_mut().zip(cells).enumerate() {
            assert!(
                append(builder, *cell),
                "{}.{} does not take {cell:?}",
                self.spec.name,
                self.spec.columns[index].name
            );
        }
        self.rows += 1;
    }

    /// The rows as a batch, and whether a dictionary grew; the builder is empty again after.
    pub fn finish(&mut self) -> Result<(RecordBatch, bool), String> {
        let mut grew = false;
        let arrays: Vec<ArrayRef> =
            self.columns.iter_mut().map(|builder| finish_column(builder, &mut grew)).collect();
        self.rows = 0;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| error.to_string())?;
        Ok((batch, grew))
    }
}

fn append(builder: &mut Builder, cell: Cell<'_>) -> bool {
    match (builder, cell) {
        (Builder::U64(b), Cell::U64(value)) => b.append_value(value),
        (Builder::U64(b), Cell::Null) => b.append_null(),
        (Builder::U32(b), Cell::U64(value)) => match u32::try_from(value) {
            Ok(value) => b.append_value(value),
            Err(_) => return false,
        },
        (Builder::U32(b), Cell::Null) => b.append_null(),
        (Builder::U16(b), Cell::U64(value)) => match u16::try_from(value) {
            Ok(value) => b.append_value(value),
            Err(_) => return false,
        },
        (Builder::U16(b), Cell::Null) => b.append_null(),
        (Builder::I64(b), Cell::I64(value)) => b.append_value(value),
        (Builder::I64(b), Cell::Null) => b.append_null(),
        (Builder::Bool(b), Cell::Bool(value)) => b.append_value(value),
        (Builder::Bool(b), Cell::Null) => b.append_null(),
        (Builder::Word(b, words), Cell::Str(word)) => b.append_value(words.number(word)),
        (Builder::Word(b, _), Cell::Null) => b.append_null(),
        (Builder::Text(b), Cell::Str(text)) => b.append_value(text),
        (Builder::Text(b), Cell::Null) => b.append_null(),
        _ => return false,
    }
    true
}

fn finish_column(builder: &mut Builder, grew: &mut bool) -> ArrayRef {
    match builder {
        Builder::U64(b) => Arc::new(b.finish()),
        Builder::U32(b) => Arc::new(b.finish()),
        Builder::U16(b) => Arc::new(b.finish()),
        Builder::I64(b) => Arc::new(b.finish()),
        Builder::Bool(b) => Arc::new(b.finish()),
        Builder::Word(b, words) => {
            let keys: PrimitiveArray<UInt32Type> = b.finish();
            let (array, new) = words.array();
            *grew |= new;
            Arc::new(DictionaryArray::new(keys, array))
        }
        Builder::Text(b) => Arc::new(b.finish()),
    }
}

/// A batch of a table, read back.
#[derive(Debug)]
pub struct TableBatch {
    columns: Vec<ReadColumn>,
    rows: usize,
}

#[derive(Debug)]
enum ReadColumn {
    U64(UInt64Array),
    U32(UInt32Array),
    U16(UInt16Array),
    I64(Int64Array),
    Bool(BooleanArray),
    Word(UInt32Array, StringArray),
    Text(StringArray),
}

impl TableBatch {
    /// Finds the table's columns in a batch by name and type.
    pub fn new(spec: &TableSpec, batch: &RecordBatch) -> Result<Self, String> {
        let columns = spec
            .columns
            .iter()
            .map(|column| {
                let array = batch
                    .column_by_name(column.name)
                    .ok_or_else(|| format!("no column {} in {}", column.name, spec.name))?;
                if !column.nullable && array.null_count() > 0 {
                    return Err(format!("{}.{} has nulls", spec.name, column.name));
                }
                read_column(column.cell, array).ok_or_else(|| {
                    format!("{}.{} is {}", spec.name, column.name, array.data_type())
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { columns, rows: batch.num_rows() })
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The value at a row and column.
    #[must_use]
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        match &self.columns[column] {
            ReadColumn::U64(a) if a.is_valid(row) => Cell::U64(a.value(row)),
            ReadColumn::U32(a) if a.is_valid(row) => Cell::U64(u64::from(a.value(row))),
            ReadColumn::U16(a) if a.is_valid(row) => Cell::U64(u64::from(a.value(row))),
            ReadColumn::I64(a) if a.is_valid(row) => Cell::I64(a.value(row)),
            ReadColumn::Bool(a) if a.is_valid(row) => Cell::Bool(a.value(row)),
            ReadColumn::Word(keys, words) if keys.is_valid(row) => {
                Cell::Str(words.value(keys.value(row) as usize))
            }
            ReadColumn::Text(a) if a.is_valid(row) => Cell::Str(a.value(row)),
            _ => Cell::Null,
        }
    }

    /// The unsigned number at a row and column; 0 where there is none.
    #[must_use]
    pub fn number(&self, row: usize, column: usize) -> u64 {
        match self.cell(row, column) {
            Cell::U64(value) => value,
            _ => 0,
        }
    }

    /// The text at a row and column; empty where there is none.
    #[must_use]
    pub fn text(&self, row: usize, column: usize) -> &str {
        match self.cell(row, column) {
            Cell::Str(text) => text,
            _ => "",
        }
    }
}

fn read_column(cell: CellType, array: &ArrayRef) -> Option<ReadColumn> {
    let any = array.as_any();
    Some(match cell {
        CellType::U64 => ReadColumn::U64(any.downcast_ref::<UInt64Array>()?.clone()),
        CellType::U32 => ReadColumn::U32(any.downcast_ref::<UInt32Array>()?.clone()),
        CellType::U16 => ReadColumn::U16(any.downcast_ref::<UInt16Array>()?.clone()),
        CellType::I64 => ReadColumn::I64(any.downcast_ref::<Int64Array>()?.clone()),
        CellType::Bool => ReadColumn::Bool(any.downcast_ref::<BooleanArray>()?.clone()),
        CellType::Word => {
            let array = any.downcast_ref::<DictionaryArray<UInt32Type>>()?;
            let words = array.values().as_any().downcast_ref::<StringArray>()?.clone();
            ReadColumn::Word(array.keys().clone(), words)
        }
        CellType::Text => ReadColumn::Text(any.downcast_ref::<StringArray>()?.clone()),
    })
}
