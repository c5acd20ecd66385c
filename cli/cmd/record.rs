//! `kmemlab record`

use std::io::{IsTerminal, Write};

use anyhow::Context;
use kmemlab_collector::{Control, Progress, RecordOptions, Summary};

use crate::args::RecordArgs;
use crate::exit::Answer;
use crate::text::{bytes, count, span};

pub(crate) fn run(args: RecordArgs) -> anyhow::Result<Answer> {
    let is_terminal = std::io::stderr().is_terminal();
    let mut control = Control::new();
    if is_terminal {
        control = control.on_progress(show);
    }
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, control.stop_flag())
            .context("cannot listen for Ctrl-C")?;
    }
    let mut options = RecordOptions::new(args.output);
    options.force = args.force;
    options.is_anonymous = args.anonymous;
    options.duration = args.duration;
    options.command = args.command;
    options.groups = args.events;
    options.backend = args.backend;
    options.stacks = args.stacks;
    options.counting = args.count;
    options.ring_bytes = args.ring;
    options.snapshot_every = args.snapshot_every;
    options.slab_detail = args.slab_detail;
    options.command_line =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let result = kmemlab_collector::record(&options, &control);
    if is_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    tell(&result?);
    Ok(Answer::Yes)
}

/// One line, written over itself.
fn show(progress: &Progress) {
    let _ = write!(
        std::io::stderr(),
        "\r\x1b[K{:>6.1} s  {:>12} events/s  {} lost  {}  ring {}%",
        progress.elapsed.as_secs_f64(),
        count(progress.events_per_second),
        count(progress.lost),
        bytes(progress.bytes),
        progress.ring_fill_percent
    );
}

/// The summary goes to stderr: stdout is the command's.
fn tell(summary: &Summary) {
    let mut stderr = std::io::stderr().lock();
    let mut line = |text: String| {
        let _ = writeln!(stderr, "{text}");
    };
    let per_event = summary.bytes as f64 / summary.events.max(1) as f64;
    line(format!(
        "{}: {} events in {}, {} ({per_event:.1} bytes an event), ended by {}",
        summary.output.display(),
        count(summary.events),
        span(summary.elapsed.as_nanos() as u64),
        bytes(summary.bytes),
        summary.reason
    ));
    match summary.checked {
        Some([recorded, lost, counted]) => {
            let sign = if recorded + lost == counted { "=" } else { "IS NOT" };
            let of = if summary.counted.is_some() { "" } else { "of those checked, " };
            line(format!(
                "{of}{} recorded + {} lost {sign} {} counted",
                count(recorded),
                count(lost),
                count(counted)
            ));
            if summary.counted.is_none() {
                line(format!("{} lost of all", count(summary.lost)));
            }
        }
        None => line(format!("{} lost; nothing counted them independently", count(summary.lost))),
    }
    if let Some(status) = summary.command_exit_status {
        line(format!("the command ended with exit status {status}"));
    }
    for note in &summary.notes {
        line(format!("note: {note}"));
    }
}
