//! `kmemlab`: records what a live Linux kernel's memory allocators do, replays the recording
//! through a model of them, compares the two and exports it all.

mod args;
mod cmd;
mod exit;
mod json;
mod text;
mod value;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    exit::code(cmd::run(args))
}
