//! The vocabulary of kmemlab and the file format of its recordings.
//!
//! A recording is a directory (`NAME.kmt/`) of Arrow IPC streams and one JSON manifest;
//! `docs/format.md` describes it. Start with [`Recording::open`] to read one, with
//! [`RecordingWriter::create`] to write one, and with [`event::Event`] for what an event is.
//! [`measure`] holds the formulas that every other crate shares.
//!
//! This crate knows no kernel interface, no model and no screen.

pub mod batch;
mod batches;
mod checksums;
pub mod direct_map;
pub mod error;
pub mod event;
pub mod format;
pub mod gfp;
pub mod manifest;
pub mod measure;
pub mod privacy;
pub mod reader;
pub mod scrub;
pub mod show;
pub mod snapshot;
mod stream;
pub mod table;
pub mod tracepoint;
pub mod unit;
pub mod writer;

pub use batch::{EventBatch, EventBatchBuilder};
pub use error::Error;
pub use event::{Column, Context, Event, Kind};
pub use manifest::Manifest;
pub use reader::Recording;
pub use writer::RecordingWriter;
