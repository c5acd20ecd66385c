//! `kmemlab tui`

use kmemlab_tui::{Source, View};

use super::{measure, screen};
use crate::args::TuiArgs;
use crate::config::Config;
use crate::exit::Answer;
use crate::source::recording::{RecordingSource, Show};

pub(crate) fn run(args: &TuiArgs) -> anyhow::Result<Answer> {
    if !args.measure {
        screen::check_terminal(&args.screen)?;
    }
    let config = Config::read()?;
    let salvage = args.salvage;
    let rules = args.rules.clone();
    rules.as_deref().map(super::replay::rules_of).transpose()?;
    let open = || -> anyhow::Result<RecordingSource> {
        let rules = rules.clone();
        let show = Show { path: args.recording.clone(), salvage, rules, ..Show::default() };
        let source = RecordingSource::open(show)?;
        let Some(path) = args.other.clone() else { return Ok(source) };
        let show = Show { path, salvage, ..Show::default() };
        Ok(source.with_other(RecordingSource::open(show)?))
    };
    if args.measure {
        return measure::run(open, &config);
    }
    let mut source = open()?;
    let own = args.other.as_ref().map_or(View::Overview, |_| View::Compare);
    let view = screen::view(&args.screen, &config, own);
    if args.screen.once {
        source.finish(view);
        source.refresh().map_err(anyhow::Error::from_boxed)?;
    }
    screen::show(&args.screen, &config, view, &mut source, |app| app, Box::new(|| {}))
}
