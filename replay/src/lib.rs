//! Replays a recording: the mirror follows what the kernel did, the model decides by itself, and
//! both are compared with what `/proc/buddyinfo` said.
//!
//! [`replay`] does it in one call. A run is a pure function of the recording: no clock, no threads,
//! no hash order; equal input gives equal digests on every machine. What is modelled, and after
//! which function of the kernel, stands in `docs/model.md`.
//!
//! This crate knows no kernel interface, no data frame and no screen.

mod binding;
mod compare;
mod engine;
pub mod learning;
pub mod limits;
pub mod machine;
pub mod memory;
pub mod mirror;
pub mod model;
mod moved;
mod outcome;
mod pages;
pub mod policy;
pub mod residue;
pub mod rules;
pub mod seeding;
pub mod slab;
pub mod stack;
pub mod vmap;
mod worker;

pub use engine::{Options, ReplayError, Row, SampleRow, replay, rules_of};
pub use outcome::{
    Comparison, DriftPoint, FallbackError, MirrorResult, ModelResult, MovedError, Outcome,
    OwnCounts, PcpCounts, Placement, PolicyOutcome, Speed, Unsure, UnusableError, UnusableIndex,
    ZoneComparison,
};
