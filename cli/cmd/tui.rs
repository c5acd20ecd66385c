//! `kmemlab tui`

use kmemlab_tui::{Source, View};

use super::screen;
use crate::args::{ScreenView, TuiArgs};
use crate::exit::Answer;
use crate::source::recording::{RecordingSource, Show};

pub(crate) fn run(args: &TuiArgs) -> anyhow::Result<Answer> {
    screen::check_terminal(&args.screen)?;
    let salvage = args.salvage;
    let rules = args.rules.clone();
    rules.as_deref().map(super::replay::rules_of).transpose()?;
    let show = Show { path: args.recording.clone(), salvage, rules, ..Show::default() };
    let mut source = RecordingSource::open(show)?;
    if let Some(path) = args.other.clone() {
        let show = Show { path, salvage, ..Show::default() };
        source = source.with_other(RecordingSource::open(show)?);
    }
    if args.screen.once {
        source.finish(args.screen.view.map_or(View::Overview, View::from));
        source.refresh().map_err(anyhow::Error::from_boxed)?;
    }
    let view = args.other.as_ref().map_or(ScreenView::Overview, |_| ScreenView::Compare);
    screen::show(&args.screen, view, &mut source, |app| app)
}
