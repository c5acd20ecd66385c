//! `kmemlab tui`

use kmemlab_replay::policy::PolicySet;
use kmemlab_trace::Recording;
use kmemlab_tui::{Source, View};

use super::{measure, screen};
use crate::args::TuiArgs;
use crate::config::Config;
use crate::exit::Answer;
use crate::policy_file::set_of;
use crate::source::recording::{RecordingSource, Show};

pub(crate) fn run(args: &TuiArgs) -> anyhow::Result<Answer> {
    if !args.measure {
        screen::check_terminal(&args.screen)?;
    }
    let config = Config::read()?;
    let salvage = args.salvage;
    let rules = args.rules.clone();
    rules.as_deref().map(super::replay::rules_of).transpose()?;
    let policies = policies(args)?;
    let open = || -> anyhow::Result<RecordingSource> {
        let (rules, policies) = (rules.clone(), policies.clone());
        let path = args.recording.clone();
        let show = Show { path, salvage, rules, policies, ..Show::default() };
        let source = RecordingSource::open(show)?;
        let Some(path) = args.other.clone() else { return Ok(source) };
        let show = Show { path, salvage, ..Show::default() };
        Ok(source.with_other(RecordingSource::open(show)?))
    };
    if args.measure {
        return measure::run(open, &config);
    }
    let mut source = open()?;
    let compares = args.other.is_some() || !args.policies.is_empty();
    let own = if compares { View::Compare } else { View::Overview };
    let view = screen::view(&args.screen, &config, own);
    if args.screen.once {
        source.finish(view);
        source.refresh().map_err(anyhow::Error::from_boxed)?;
    }
    screen::show(&args.screen, &config, view, &mut source, |app| app, Box::new(|| {}))
}

/// The sets of policies asked for: none, one or two.
fn policies(args: &TuiArgs) -> anyhow::Result<Vec<PolicySet>> {
    anyhow::ensure!(
        args.policies.len() <= 2,
        "{} policies were given and the screen compares two; `kmemlab replay` takes any number",
        args.policies.len()
    );
    if args.policies.is_empty() {
        return Ok(Vec::new());
    }
    let recording = Recording::open(&args.recording, args.salvage)?;
    let (rules, _) = kmemlab_replay::rules_of(recording.manifest());
    let sets = args.policies.iter().map(|text| set_of(text, &rules));
    let sets = sets.collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(chosen) = sets.iter().find_map(PolicySet::above_pages) {
        anyhow::bail!("{} acts above the pages; `kmemlab replay --stack` runs it", chosen.name);
    }
    Ok(sets)
}
