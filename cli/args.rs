//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kmemlab_collector::{BackendChoice, Counting, Stacks};
use kmemlab_trace::tracepoint::Group;
use kmemlab_tui::view::slabs::Sort;

use crate::value;

/// Record what a Linux kernel's memory allocators do, replay it through a model, compare, export.
#[derive(Parser, Debug)]
#[command(version, about, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Record this machine's allocators (as root)
    Record(RecordArgs),
    /// Tell what a recording holds
    Info(ReadArgs),
    /// Replay a recording: kernel, mirror and model side by side
    Replay(ReplayArgs),
    /// Hold two recordings or model runs against each other
    Compare(CompareArgs),
    /// List the policies that `replay --policy` knows
    Policies(PoliciesArgs),
    /// Write a recording as Parquet, for notebooks
    Export(ExportArgs),
    /// Copy a recording without names and without the kernel's own addresses, to hand on
    Scrub(ScrubArgs),
    /// Look at this machine now, as slabtop does, and beyond
    Top(TopArgs),
    /// Look at a recording on the screen
    Tui(TuiArgs),
    /// Tell what this machine lets us record, and what mends the rest
    Doctor(DoctorArgs),
}

#[derive(clap::Args, Debug)]
pub(crate) struct RecordArgs {
    /// Directory to write
    #[arg(short, long, value_name = "NAME.kmt", default_value = "kmemlab.kmt")]
    pub(crate) output: PathBuf,
    /// How long; without it and without COMMAND, until Ctrl-C
    #[arg(short, long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) duration: Option<Duration>,
    /// Groups of events: page, slab, vmalloc, compaction, reclaim, oom [default: all]
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = value::group)]
    pub(crate) events: Vec<Group>,
    /// Way that events come: tracefs, perf (call chains need it), or auto, the better one
    #[arg(long, value_name = "WAY", default_value_t)]
    pub(crate) backend: BackendChoice,
    /// Kernel call chains: none, sampled[:N] (every Nth allocation) or all
    #[arg(long, value_name = "WHICH", default_value = "none", value_parser = value::stacks)]
    pub(crate) stacks: Stacks,
    /// Events counted beside the rings, to check them: all, but-slab (costs less), or none
    #[arg(long, value_name = "WHICH", default_value_t)]
    pub(crate) count: Counting,
    /// Size of the ring of each processor [default: 8M to 64M, by the memory that is left]
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub(crate) ring: Option<u64>,
    /// Time between snapshots of /proc
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::duration)]
    pub(crate) snapshot_every: Duration,
    /// Read /sys/kernel/slab too, at the start and the end; shrinks every slab cache for it
    #[arg(long)]
    pub(crate) slab_detail: bool,
    /// Leave out the host's name, command lines and thread names
    #[arg(long)]
    pub(crate) anonymous: bool,
    /// Replace a recording that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Command to run and record; the recording ends with it
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ReadArgs {
    /// The recording
    #[arg(value_name = "NAME.kmt")]
    pub(crate) recording: PathBuf,
    /// Pass over damaged batches instead of refusing the recording
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ScrubArgs {
    /// The recording
    #[arg(value_name = "NAME.kmt")]
    pub(crate) recording: PathBuf,
    /// Directory to write
    #[arg(short, long, value_name = "OUT.kmt")]
    pub(crate) output: PathBuf,
    /// Replace a recording that is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Rules of another release than the recorded one (6.1, 6.12, ...)
    #[arg(long, value_name = "RELEASE")]
    pub(crate) rules: Option<String>,
    /// A policy in place of the kernel's, beside the baseline; joined by + they act together
    #[arg(long = "policy", value_name = "NAME[=KEY=VALUE,...]|FILE.toml")]
    pub(crate) policies: Vec<String>,
    /// Directory to write each model's run to, as a recording that `compare` reads
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Replace runs that are there
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// Replay the layers above pages: slab caches and the vmalloc space
    #[arg(long)]
    pub(crate) stack: bool,
    /// Check every law of the replay's state at each sample (slow)
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CompareArgs {
    /// A recording, or a model's run
    #[arg(value_name = "A.kmt")]
    pub(crate) a: PathBuf,
    /// Another one
    #[arg(value_name = "B.kmt")]
    pub(crate) b: PathBuf,
    /// Pass over damaged batches instead of refusing the recording
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct PoliciesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Directory for the Parquet files
    #[arg(long, value_name = "DIR")]
    pub(crate) parquet: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) screen: ScreenArgs,
    /// Sort by slabtop's letter: a, b, c, l, v, n, o, p, s or u [default: o]
    #[arg(short, long, value_name = "LETTER", value_parser = value::sort)]
    pub(crate) sort: Option<Sort>,
    /// Time between two readings [default: 1s]
    #[arg(short = 'd', long, value_name = "TIME", value_parser = value::span)]
    pub(crate) interval: Option<Duration>,
    /// Another root than / (a container's, a fixture)
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "events")]
    pub(crate) root: PathBuf,
    /// Events too (as root): call sites, page blocks, stalls
    #[arg(long)]
    pub(crate) events: bool,
    /// Keep the events in this recording [default: a temporary one]
    #[arg(short, long, value_name = "NAME.kmt", requires = "events")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct TuiArgs {
    /// The recording
    #[arg(value_name = "NAME.kmt")]
    pub(crate) recording: PathBuf,
    /// Another one, to compare it with
    #[arg(value_name = "OTHER.kmt")]
    pub(crate) other: Option<PathBuf>,
    /// Rules of another release (6.1, 6.12, ...) for a second model to compare with
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["other", "policies"])]
    pub(crate) rules: Option<String>,
    /// A policy to compare with the baseline; two, to compare with each other
    #[arg(
        long = "policy",
        value_name = "NAME[=KEY=VALUE,...]|FILE.toml",
        conflicts_with = "other"
    )]
    pub(crate) policies: Vec<String>,
    /// Pass over damaged batches instead of refusing the recording
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Measure how fast the screen is over this recording, and leave
    #[arg(long, conflicts_with = "once")]
    pub(crate) measure: bool,
    #[command(flatten)]
    pub(crate) screen: ScreenArgs,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ScreenArgs {
    /// View to open with
    #[arg(long, value_enum)]
    pub(crate) view: Option<ScreenView>,
    /// Print the first screen and leave
    #[arg(long)]
    pub(crate) once: bool,
    /// Columns of the printed screen [default: 80]
    #[arg(
        long,
        value_name = "COLUMNS",
        requires = "once",
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub(crate) width: Option<u16>,
    /// Lines of the printed screen [default: 24]
    #[arg(
        long,
        value_name = "LINES",
        requires = "once",
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub(crate) height: Option<u16>,
}

/// A view of the screen.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScreenView {
    /// Zones, free blocks, fragmentation, pressure, loss
    Overview,
    /// Slab caches, as slabtop shows them
    Slabs,
    /// Call sites: who holds memory
    Sites,
    /// A map of the page blocks
    Blocks,
    /// The vmalloc space
    Vmalloc,
    /// Kernel, mirror and model, or two recordings
    Compare,
    /// Stalls
    Latency,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Look at another root than / (a container's, a fixture)
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
