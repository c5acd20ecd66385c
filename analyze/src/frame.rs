//! Rows collected column by column, until there are enough of them for a row group.

use std::collections::HashMap;

use polars::prelude::{
    BooleanChunked, ChunkFullNull, ChunkTake, ChunkedArray, DataFrame, DataType, Field, IdxCa,
    Int32Type, Int64Type, IntoColumn, IntoSeries, NewChunkedArray, PolarsNumericType, PolarsResult,
    Schema, Series, StringChunked, UInt32Type, UInt64Type,
};

/// Type of a column in Parquet. Narrower numbers are 32 bits wide there in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ColumnType {
    U64,
    U32,
    I32,
    I64,
    Bool,
    /// One of few texts: their numbers stay valid for the whole file.
    Word,
    /// Any text: forgotten after each row group, so that memory stays bounded.
    Text,
}

impl ColumnType {
    fn data_type(self) -> DataType {
        match self {
            Self::U64 => DataType::UInt64,
            Self::U32 => DataType::UInt32,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::Bool => DataType::Boolean,
            Self::Word | Self::Text => DataType::String,
        }
    }

    /// The same for readers that go by Arrow's types.
    pub(crate) fn arrow_type(self) -> arrow::datatypes::DataType {
        use arrow::datatypes::DataType as Arrow;
        match self {
            Self::U64 => Arrow::UInt64,
            Self::U32 => Arrow::UInt32,
            Self::I32 => Arrow::Int32,
            Self::I64 => Arrow::Int64,
            Self::Bool => Arrow::Boolean,
            Self::Word | Self::Text => Arrow::Utf8,
        }
    }
}

/// A column under construction. Rows that have no value are filled in late, in one go: most of an
/// event's columns are null.
#[derive(Debug)]
struct Sparse<T> {
    values: Vec<T>,
    valid: Vec<bool>,
}

impl<T: Copy + Default> Sparse<T> {
    fn new() -> Self {
        Self { values: Vec::new(), valid: Vec::new() }
    }

    #[inline]
    fn put(&mut self, row: usize, value: T) {
        if self.values.len() < row {
            self.pad(row);
        }
        self.values.push(value);
        self.valid.push(true);
    }

    fn pad(&mut self, rows: usize) {
        self.values.resize(rows, T::default());
        self.valid.resize(rows, false);
    }

    fn clear(&mut self) {
        self.values.clear();
        self.valid.clear();
    }

    fn options(&self) -> impl Iterator<Item = Option<T>> {
        self.values.iter().zip(&self.valid).map(|(value, valid)| valid.then_some(*value))
    }
}

/// Texts, each once.
#[derive(Debug, Default)]
struct Words {
    numbers: HashMap<String, u32>,
    list: Vec<String>,
}

impl Words {
    fn number(&mut self, word: &str) -> u32 {
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.numbers.insert(word.to_owned(), number);
        self.list.push(word.to_owned());
        number
    }

    fn clear(&mut self) {
        self.numbers.clear();
        self.list.clear();
    }
}

#[derive(Debug)]
enum Builder {
    U64(Sparse<u64>),
    U32(Sparse<u32>),
    I32(Sparse<i32>),
    I64(Sparse<i64>),
    Bool(Sparse<bool>),
    Text { keys: Sparse<u32>, words: Words, forget: bool },
}

impl Builder {
    fn new(column: ColumnType) -> Self {
        let text = |forget| Self::Text { keys: Sparse::new(), words: Words::default(), forget };
        match column {
            ColumnType::U64 => Self::U64(Sparse::new()),
            ColumnType::U32 => Self::U32(Sparse::new()),
            ColumnType::I32 => Self::I32(Sparse::new()),
            ColumnType::I64 => Self::I64(Sparse::new()),
            ColumnType::Bool => Self::Bool(Sparse::new()),
            ColumnType::Word => text(false),
            ColumnType::Text => text(true),
        }
    }

    fn finish(&mut self, name: &str, rows: usize) -> PolarsResult<Series> {
        Ok(match self {
            Self::U64(sparse) => numbers::<UInt64Type>(name, sparse, rows).into_series(),
            Self::U32(sparse) => numbers::<UInt32Type>(name, sparse, rows).into_series(),
            Self::I32(sparse) => numbers::<Int32Type>(name, sparse, rows).into_series(),
            Self::I64(sparse) => numbers::<Int64Type>(name, sparse, rows).into_series(),
            Self::Bool(sparse) => {
                sparse.pad(rows);
                let array = BooleanChunked::from_iter_options(name.into(), sparse.options());
                sparse.clear();
                array.into_series()
            }
            Self::Text { keys, .. } if keys.values.is_empty() => {
                StringChunked::full_null(name.into(), rows).into_series()
            }
            Self::Text { keys, words, forget } => {
                keys.pad(rows);
                let keys_array = IdxCa::from_iter_options(name.into(), keys.options());
                keys.clear();
                let texts = words.list.iter().map(String::as_str);
                let texts = StringChunked::from_iter_values(name.into(), texts);
                let array = texts.take(&keys_array)?;
                if *forget {
                    words.clear();
                }
                array.into_series()
            }
        })
    }
}

fn numbers<T: PolarsNumericType>(
    name: &str,
    sparse: &mut Sparse<T::Native>,
    rows: usize,
) -> ChunkedArray<T>
where
    T::Native: Copy + Default,
{
    if sparse.values.is_empty() {
        return ChunkedArray::full_null(name.into(), rows);
    }
    sparse.pad(rows);
    let array = if sparse.valid.iter().all(|valid| *valid) {
        ChunkedArray::from_vec(name.into(), std::mem::take(&mut sparse.values))
    } else {
        ChunkedArray::from_iter_options(name.into(), sparse.options())
    };
    sparse.clear();
    array
}

/// Rows of a Parquet file under construction. A column that a row does not put is null there.
#[derive(Debug)]
pub(crate) struct Frame {
    names: Vec<&'static str>,
    types: Vec<ColumnType>,
    builders: Vec<Builder>,
    rows: usize,
}

impl Frame {
    pub(crate) fn new(columns: &[(&'static str, ColumnType)]) -> Self {
        Self {
            names: columns.iter().map(|(name, _)| *name).collect(),
            types: columns.iter().map(|(_, column)| *column).collect(),
            builders: columns.iter().map(|(_, column)| Builder::new(*column)).collect(),
            rows: 0,
        }
    }

    pub(crate) fn schema(&self) -> Schema {
        let fields = self.names.iter().zip(&self.types);
        fields.map(|(name, column)| Field::new((*name).into(), column.data_type())).collect()
    }

    /// Rows that are complete.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Completes the row whose values were put.
    #[inline]
    pub(crate) fn end_row(&mut self) {
        self.rows += 1;
    }

    #[inline]
    pub(crate) fn put_u64(&mut self, column: usize, value: u64) {
        let row = self.rows;
        match &mut self.builders[column] {
            Builder::U64(sparse) => sparse.put(row, value),
            // No column of 32 bits is given more: the types come from the recording's own columns.
            Builder::U32(sparse) => sparse.put(row, value as u32),
            other => {
                debug_assert!(false, "{} takes no unsigned number: {other:?}", self.names[column])
            }
        }
    }

    #[inline]
    pub(crate) fn put_i64(&mut self, column: usize, value: i64) {
        let row = self.rows;
        match &mut self.builders[column] {
            Builder::I64(sparse) => sparse.put(row, value),
            Builder::I32(sparse) => sparse.put(row, value as i32),
            other => {
                debug_assert!(false, "{} takes no signed number: {other:?}", self.names[column])
            }
        }
    }

    #[inline]
    pub(crate) fn put_bool(&mut self, column: usize, value: bool) {
        let row = self.rows;
        match &mut self.builders[column] {
            Builder::Bool(sparse) => sparse.put(row, value),
            other => debug_assert!(false, "{} takes no yes or no: {other:?}", self.names[column]),
        }
    }

    /// The number of a word in a column: for [`Self::put_word`], which is faster than the text.
    pub(crate) fn word(&mut self, column: usize, word: &str) -> u32 {
        match &mut self.builders[column] {
            Builder::Text { words, .. } => words.number(word),
            _ => 0,
        }
    }

    #[inline]
    pub(crate) fn put_word(&mut self, column: usize, number: u32) {
        let row = self.rows;
        match &mut self.builders[column] {
            Builder::Text { keys, .. } => keys.put(row, number),
            other => debug_assert!(false, "{} takes no text: {other:?}", self.names[column]),
        }
    }

    #[inline]
    pub(crate) fn put_text(&mut self, column: usize, text: &str) {
        let number = self.word(column, text);
        self.put_word(column, number);
    }

    /// The rows as a data frame of one chunk; empty again after.
    pub(crate) fn finish(&mut self) -> PolarsResult<DataFrame> {
        let rows = std::mem::take(&mut self.rows);
        let columns = self
            .builders
            .iter_mut()
            .zip(&self.names)
            .map(|(builder, name)| Ok(builder.finish(name, rows)?.into_column()))
            .collect::<PolarsResult<Vec<_>>>()?;
        DataFrame::new(rows, columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(frame: &DataFrame, column: &str) -> Vec<Option<String>> {
        let array = frame.column(column).unwrap().str().unwrap();
        array.iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn words_stay_valid_over_row_groups_and_texts_are_forgotten() {
        let mut frame = Frame::new(&[("word", ColumnType::Word), ("text", ColumnType::Text)]);
        let (first, second) = (frame.word(0, "first"), frame.word(0, "second"));
        frame.put_word(0, second);
        frame.put_text(1, "a");
        frame.end_row();
        let group = frame.finish().unwrap();
        assert_eq!(texts(&group, "word"), [Some("second".to_owned())]);
        assert_eq!(texts(&group, "text"), [Some("a".to_owned())]);
        frame.end_row();
        frame.put_word(0, first);
        frame.put_text(1, "b");
        frame.end_row();
        let group = frame.finish().unwrap();
        assert_eq!(texts(&group, "word"), [None, Some("first".to_owned())]);
        assert_eq!(texts(&group, "text"), [None, Some("b".to_owned())]);
        assert_eq!(frame.word(1, "c"), 0);
    }

    #[test]
    fn rows_without_a_value_are_null_wherever_they_are() {
        let mut frame = Frame::new(&[("number", ColumnType::U64), ("other", ColumnType::I32)]);
        frame.end_row();
        frame.put_u64(0, 7);
        frame.end_row();
        frame.end_row();
        let group = frame.finish().unwrap();
        let numbers: Vec<Option<u64>> =
            group.column("number").unwrap().u64().unwrap().iter().collect();
        assert_eq!(numbers, [None, Some(7), None]);
        assert_eq!(group.column("other").unwrap().null_count(), 3);
        assert_eq!(frame.rows(), 0);
    }
}
