//! Records a live kernel: perf rings, /proc readers, symbols.
//!
//! [`session::record`] makes a recording. Two threads carry the events: the first drains the rings
//! ([`capture::Backend`]), the second sorts, decodes and writes; a third takes snapshots of
//! `/proc`.

mod addresses;
pub mod backend;
pub mod btf;
pub mod capture;
mod choice;
mod chunk;
pub mod clock;
mod command;
pub mod doctor;
mod encode;
pub mod error;
mod fault;
pub mod features;
mod feed;
pub mod ftrace;
pub mod host;
pub mod layout;
mod merge;
pub mod perf;
pub mod proc;
pub mod progress;
pub mod record_error;
pub mod ring_page;
mod room;
pub mod root;
pub mod session;
mod slab_aliases;
mod slab_detail;
mod snapshots;
mod stacks;
mod symbols;
mod tasks;
pub mod tracefs;

pub use backend::{BackendChoice, Counting};
pub use perf::Stacks;
pub use progress::{Control, Progress};
pub use record_error::RecordError;
pub use session::{RecordOptions, Summary, record};
