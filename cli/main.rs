//! `kmemlab`: records what a live Linux kernel's memory allocators do, replays the recording
//! through a model of them, compares the two and exports it all.

mod args;
mod cmd;
mod config;
mod exit;
mod json;
mod policy_file;
mod results;
mod source;
mod text;
mod usage;
mod value;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    exit::code(match args::Args::try_parse() {
        Ok(args) => cmd::run(args),
        Err(error) => usage::answer(&error),
    })
}
