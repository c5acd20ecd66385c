//! The one integration suite: what a user sees of `kmemlab`, end to end.
//!
//! `cargo test --release --test suite`. What needs root and tracefs says so on stderr and is passed
//! over without them; everything else runs anywhere.

// Helpers of a test may stop it, as tests may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod bad_input;
mod bad_record;
mod cli;
mod damage;
mod determinism;
mod disk_full;
mod fidelity;
mod imperfect;
mod kill;
mod late;
mod mirror_live;
mod policies;
mod record_live;
mod salvage;
mod screen;
mod scrub;
mod stack;
mod support;
mod synthetic;
mod tidy;
mod untrue;
