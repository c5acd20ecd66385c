//! `kmemlab tui`

use crate::args::TuiArgs;
use crate::exit::Answer;

pub(crate) fn run(_args: &TuiArgs) -> anyhow::Result<Answer> {
    anyhow::bail!("the screen comes with a later release")
}
