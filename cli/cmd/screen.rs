//! What `kmemlab top` and `kmemlab tui` have in common: one screen over one source.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kmemlab_tui::{App, Host, Source, View};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};

use super::screen_export::export;
use crate::args::{ScreenArgs, ScreenView};
use crate::config::Config;
use crate::exit::Answer;

/// Size of `--once` unless told otherwise: every terminal has it.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;

impl From<ScreenView> for View {
    fn from(view: ScreenView) -> Self {
        match view {
            ScreenView::Overview => Self::Overview,
            ScreenView::Slabs => Self::Slabs,
            ScreenView::Sites => Self::Sites,
            ScreenView::Blocks => Self::Blocks,
            ScreenView::Vmalloc => Self::Vmalloc,
            ScreenView::Compare => Self::Compare,
            ScreenView::Latency => Self::Latency,
        }
    }
}

/// Says early, before anything is read, that there is nothing to draw on.
pub(super) fn check_terminal(args: &ScreenArgs) -> anyhow::Result<()> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    anyhow::ensure!(
        args.once || is_terminal,
        "the screen needs a terminal for its input and output; add --once to print it instead"
    );
    Ok(())
}

/// How often it is looked whether the terminal is still there.
const WATCH: Duration = Duration::from_millis(250);

/// Puts things in order when the terminal is gone.
pub(super) type Gone = Box<dyn Fn() + Send>;

/// Ends the process when its terminal is gone. The library that reads keys goes round in circles
/// then and never comes back, so that no flag can tell it.
fn watch_terminal(gone: Gone) -> io::Result<()> {
    let watch = move || {
        while io::stdin().is_terminal() {
            std::thread::sleep(WATCH);
        }
        // Whoever noticed by himself may end in good order.
        std::thread::sleep(WATCH);
        gone();
        crate::exit::at_once();
    };
    std::thread::Builder::new().name("terminal".to_owned()).spawn(watch).map(|_| ())
}

/// The view to open with: the command line's, else the configuration's, else the command's own.
pub(super) fn view(args: &ScreenArgs, config: &Config, own: View) -> View {
    args.view.map(View::from).or(config.view).unwrap_or(own)
}

/// Shows or prints the source.
pub(super) fn show(
    args: &ScreenArgs,
    config: &Config,
    view: View,
    source: &mut dyn Source,
    change: impl Fn(App) -> App,
    gone: Gone,
) -> anyhow::Result<Answer> {
    let app = change(config.apply(App::new(source.outline().clone(), view)));
    if args.once {
        let (width, height) = (args.width.unwrap_or(WIDTH), args.height.unwrap_or(HEIGHT));
        let text = kmemlab_tui::once(source, &config.theme, app, width, height);
        crate::exit::print(&text.map_err(anyhow::Error::from_boxed)?)?;
        return Ok(Answer::Yes);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    watch_terminal(gone)?;
    let suspend = || signal_hook::low_level::emulate_default_handler(SIGTSTP);
    let host = Host { stop: &stop, suspend, export: &export };
    kmemlab_tui::run(source, &config.theme, app, &host).map_err(anyhow::Error::from_boxed)?;
    Ok(Answer::Yes)
}
