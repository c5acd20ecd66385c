//! The commands, one file each.

mod compare;
mod doctor;
mod export;
mod info;
mod measure;
mod policies;
mod record;
mod replay;
mod replay_policies;
mod replay_residue;
mod replay_stack;
mod replay_stack_text;
mod replay_text;
mod screen;
mod screen_export;
mod scrub;
mod top;
mod tui;

use crate::args::{Args, Command};
use crate::exit::Answer;

/// Runs what was asked for.
pub(crate) fn run(args: Args) -> anyhow::Result<Answer> {
    match args.command {
        Command::Record(args) => record::run(args),
        Command::Info(args) => info::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Policies(args) => policies::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Scrub(args) => scrub::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Tui(args) => tui::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}
