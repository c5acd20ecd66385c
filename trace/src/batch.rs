//! Events to record batches and back.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::event::Column;

mod builder;
mod reader;

pub use builder::{EventBatchBuilder, FinishedBatch};
pub use reader::{EventBatch, Events};

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
