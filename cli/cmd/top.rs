//! `kmemlab top`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kmemlab_collector::proc::slabinfo;
use kmemlab_collector::root::Root;
use kmemlab_collector::{Control, RecordError, RecordOptions, Summary};
use kmemlab_tui::view::slabs::{Sort, slabtop};
use kmemlab_tui::{App, Source, View};

use super::screen;
use crate::args::TopArgs;
use crate::config::Config;
use crate::exit::Answer;
use crate::source::live::LiveSource;
use crate::source::recording::{RecordingSource, Show};

/// How long the recorder may take to begin.
const BEGIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &TopArgs) -> anyhow::Result<Answer> {
    screen::check_terminal(&args.screen)?;
    let config = Config::read()?;
    let sort = args.sort.unwrap_or(config.sort);
    let interval = args.interval.unwrap_or(config.interval);
    if args.events {
        return with_events(args, &config, sort, interval);
    }
    let root = Root::new(&args.root);
    if args.screen.once && args.screen.view.is_none() {
        let rows = slabinfo::parse(&root.read(slabinfo::PATH)?)?;
        let page_size = LiveSource::new(root, interval).outline().about.page_size_bytes;
        crate::exit::print(&slabtop(&rows, sort, page_size))?;
        return Ok(Answer::Yes);
    }
    let view = screen::view(&args.screen, &config, View::Slabs);
    let mut source = LiveSource::new(root, interval);
    let sorted = |app: App| app.with_sort(sort);
    screen::show(&args.screen, &config, view, &mut source, sorted, Box::new(|| {}))
}

/// A recording under way.
struct Recorder {
    control: Control,
    thread: Option<JoinHandle<Result<Summary, RecordError>>>,
    is_over: Arc<AtomicBool>,
    path: PathBuf,
    is_kept: bool,
}

impl Recorder {
    fn start(args: &TopArgs, interval: Duration) -> anyhow::Result<Self> {
        let is_kept = args.output.is_some();
        let name = format!("kmemlab-top-{}.kmt", std::process::id());
        let path = args.output.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
        let mut options = RecordOptions::new(path.clone());
        options.snapshot_every = interval;
        options.command_line =
            std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let control = Control::new();
        let its_control = control.clone();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_over_there = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            let summary = kmemlab_collector::record(&options, &its_control);
            is_over_there.store(true, Ordering::Release);
            summary
        })?;
        let mut recorder = Self { control, thread: Some(thread), is_over, path, is_kept };
        let begun = Instant::now();
        while !has_begun(&recorder.path) {
            if recorder.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                recorder.end()?;
                anyhow::bail!("the recorder ended before it began; see `kmemlab doctor`");
            }
            anyhow::ensure!(begun.elapsed() < BEGIN, "the recorder does not begin");
            std::thread::sleep(LOOK);
        }
        Ok(recorder)
    }

    /// What to do when the terminal is gone and nobody else will.
    fn gone(&self) -> screen::Gone {
        let (control, is_over) = (self.control.clone(), Arc::clone(&self.is_over));
        let (path, is_kept) = (self.path.clone(), self.is_kept);
        Box::new(move || {
            control.stop();
            let begun = Instant::now();
            while !is_over.load(Ordering::Acquire) && begun.elapsed() < BEGIN {
                std::thread::sleep(LOOK);
            }
            if !is_kept {
                let _ = std::fs::remove_dir_all(&path);
            }
        })
    }

    /// Ends the recording in good order.
    fn end(&mut self) -> anyhow::Result<()> {
        self.control.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(summary)) => summary.map(|_| ()).map_err(anyhow::Error::from),
            Some(Err(_)) => anyhow::bail!("the recorder broke off; please report it"),
            None => Ok(()),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.end();
        if !self.is_kept {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// There is a manifest and a snapshot: enough for a first screen.
fn has_begun(path: &Path) -> bool {
    kmemlab_trace::Recording::open(path, false)
        .is_ok_and(|recording| recording.has(&kmemlab_trace::format::BUDDYINFO))
}

/// This machine with its events: a recording that is looked at while it grows.
fn with_events(
    args: &TopArgs,
    config: &Config,
    sort: Sort,
    interval: Duration,
) -> anyhow::Result<Answer> {
    let mut recorder = Recorder::start(args, interval)?;
    let show = Show { path: recorder.path.clone(), is_here: true, ..Show::default() };
    let mut source = RecordingSource::open(show)?;
    let view = screen::view(&args.screen, config, View::Overview);
    if args.screen.once {
        // One interval, as good as it gets at once.
        std::thread::sleep(interval);
        recorder.end()?;
        source.finish(view);
        source.refresh().map_err(anyhow::Error::from_boxed)?;
    }
    let sorted = |app: App| app.with_sort(sort);
    let gone = recorder.gone();
    let answer = screen::show(&args.screen, config, view, &mut source, sorted, gone)?;
    if !args.screen.once {
        // The last page map takes a moment, and the screen is gone.
        let _ = writeln!(std::io::stderr(), "ending the recording");
    }
    recorder.end()?;
    Ok(answer)
}
