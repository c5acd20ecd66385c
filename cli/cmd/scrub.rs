//! `kmemlab scrub`

use kmemlab_trace::Recording;
use kmemlab_trace::scrub::scrub;

use crate::args::ScrubArgs;
use crate::exit::Answer;
use crate::text::count;

pub(crate) fn run(args: &ScrubArgs) -> anyhow::Result<Answer> {
    let recording = Recording::open(&args.recording, false)?;
    let done = scrub(&recording, &args.output, args.force)?;
    crate::exit::print(&format!(
        "{}: {} events; {} addresses relocated, {} thread names and all command lines left out\n",
        args.output.display(),
        count(done.events),
        count(done.addresses),
        count(done.names)
    ))?;
    Ok(Answer::Yes)
}
