//! What `kmemlab top` and `kmemlab tui` have in common: one screen over one source.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kmemlab_tui::source::SourceError;
use kmemlab_tui::table::Table;
use kmemlab_tui::{App, Host, Keys, Source, Theme, View};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};

use crate::args::{ScreenArgs, ScreenView};
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

/// Shows or prints the source.
pub(super) fn show(
    args: &ScreenArgs,
    view: ScreenView,
    source: &mut dyn Source,
    change: impl Fn(App) -> App,
) -> anyhow::Result<Answer> {
    let theme = Theme::detect(|name| std::env::var(name).ok());
    let view = args.view.unwrap_or(view).into();
    let app = change(App::new(source.outline().clone(), view).with_keys(Keys::default()));
    if args.once {
        let (width, height) = (args.width.unwrap_or(WIDTH), args.height.unwrap_or(HEIGHT));
        let text = kmemlab_tui::once(source, &theme, app, width, height);
        crate::exit::print(&text.map_err(anyhow::Error::from_boxed)?)?;
        return Ok(Answer::Yes);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let suspend = || signal_hook::low_level::emulate_default_handler(SIGTSTP);
    let host = Host { stop: &stop, suspend, export: &export };
    kmemlab_tui::run(source, &theme, app, &host).map_err(anyhow::Error::from_boxed)?;
    Ok(Answer::Yes)
}

/// Writes the rows as CSV into the working directory, under a name that is not taken.
fn export(table: &Table, order: &[usize]) -> Result<String, SourceError> {
    let text = table.csv(order);
    for number in 0.. {
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let name = format!("kmemlab-{}{suffix}.csv", table.name);
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&name) {
            Ok(mut file) => {
                io::Write::write_all(&mut file, text.as_bytes())?;
                return Ok(format!("{} rows in {name}", order.len()));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot write {name}: {error}").into()),
        }
    }
    Err("no free file name".into())
}
