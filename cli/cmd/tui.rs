//! `kmemlab tui`

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kmemlab_trace::Recording;
use kmemlab_tui::{Host, Theme, View};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};

use crate::args::{TuiArgs, TuiView};
use crate::exit::Answer;
use crate::source::RecordingSource;

/// Size of `--once` unless told otherwise: every terminal has it.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;

pub(crate) fn run(args: &TuiArgs) -> anyhow::Result<Answer> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    anyhow::ensure!(
        args.once || is_terminal,
        "the screen needs a terminal for its input and output; add --once to print it instead"
    );
    let recording = Recording::open(&args.recording, args.salvage)?;
    let mut source = RecordingSource::new(recording)?;
    let theme = Theme::detect(|name| std::env::var(name).ok());
    let view = match args.view {
        TuiView::Overview => View::Overview,
        TuiView::Slabs => View::Slabs,
    };
    if args.once {
        let (width, height) = (args.width.unwrap_or(WIDTH), args.height.unwrap_or(HEIGHT));
        let text = kmemlab_tui::once(&mut source, &theme, view, width, height);
        crate::exit::print(&text.map_err(anyhow::Error::from_boxed)?)?;
        return Ok(Answer::Yes);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let suspend = || signal_hook::low_level::emulate_default_handler(SIGTSTP);
    let host = Host { stop: &stop, suspend };
    let ran = kmemlab_tui::run(&mut source, &theme, view, &host);
    ran.map_err(anyhow::Error::from_boxed)?;
    Ok(Answer::Yes)
}
