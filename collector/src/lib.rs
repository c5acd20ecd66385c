//! Records a live kernel: perf rings, /proc readers, symbols.

pub mod clock;
pub mod doctor;
pub mod error;
pub mod host;
pub mod proc;
pub mod root;
pub mod tracefs;
