//! `kmemlab top`

use kmemlab_collector::proc::slabinfo;
use kmemlab_collector::root::Root;
use kmemlab_tui::view::slabs::slabtop;
use kmemlab_tui::{About, Source};

use super::screen;
use crate::args::{ScreenView, TopArgs};
use crate::exit::Answer;
use crate::source::live::LiveSource;

pub(crate) fn run(args: TopArgs) -> anyhow::Result<Answer> {
    screen::check_terminal(&args.screen)?;
    let root = Root::new(&args.root);
    if args.screen.once && args.screen.view.is_none() {
        return print_slabtop(&root, &args);
    }
    let sort = args.sort;
    let mut source = LiveSource::new(root, args.interval);
    screen::show(&args.screen, ScreenView::Slabs, &mut source, |app| app.with_sort(sort))
}

/// What `slabtop -o` prints.
fn print_slabtop(root: &Root, args: &TopArgs) -> anyhow::Result<Answer> {
    let rows = slabinfo::parse(&root.read(slabinfo::PATH)?)?;
    let about: About = LiveSource::new(root.clone(), args.interval).outline().about.clone();
    crate::exit::print(&slabtop(&rows, args.sort, about.page_size_bytes))?;
    Ok(Answer::Yes)
}
