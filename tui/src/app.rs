//! What is on the screen. [`App`] changes by [`Action`]s and by what the source answers, by nothing
//! else.

use std::time::Duration;

use crate::source::{Outline, Snapshot};
use crate::view::slabs::Sort;

/// While playing, a snapshot a second.
const STEP: Duration = Duration::from_secs(1);

/// A page of the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum View {
    /// Zones, free blocks, fragmentation, loss.
    #[default]
    Overview,
    /// Slab caches.
    Slabs,
}

impl View {
    /// Every view, in the order of the tabs.
    pub const ALL: [Self; 2] = [Self::Overview, Self::Slabs];

    /// Its name on the tab.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Slabs => "Slabs",
        }
    }

    fn neighbour(self, forward: bool) -> Self {
        let count = Self::ALL.len();
        let step = if forward { 1 } else { count - 1 };
        Self::ALL[(self as usize + step) % count]
    }
}

/// Everything that can happen to the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Leave.
    Quit,
    /// Give the terminal back until continued; the loop around the app does it.
    Suspend,
    /// Open or close the help.
    Help,
    /// Close the help.
    Close,
    /// The next tab.
    NextView,
    /// The tab before.
    PreviousView,
    /// That tab.
    Go(View),
    /// One snapshot on.
    Forward,
    /// One snapshot back.
    Back,
    /// The first snapshot.
    First,
    /// The last snapshot.
    Last,
    /// Play or pause.
    Play,
    /// Sort the slabs.
    Sort(Sort),
    /// A line up.
    Up,
    /// A line down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// The screen has this size now.
    Resize(u16, u16),
    /// So much time went by.
    Elapsed(Duration),
}

/// The state of the screen.
#[derive(Clone, Debug)]
pub struct App {
    outline: Outline,
    at: usize,
    shown: Option<(usize, Snapshot)>,
    trouble: Option<(usize, String)>,
    view: View,
    sort: Sort,
    scroll: [usize; View::ALL.len()],
    size: (u16, u16),
    is_help_open: bool,
    is_playing: bool,
    is_done: bool,
    played: Duration,
}

impl App {
    /// The screen of a source, at its last moment: where a live screen stands too.
    #[must_use]
    pub fn new(outline: Outline, view: View) -> Self {
        Self {
            at: outline.times.len().saturating_sub(1),
            outline,
            shown: None,
            trouble: None,
            view,
            sort: Sort::Objects,
            scroll: [0; View::ALL.len()],
            size: (80, 24),
            is_help_open: false,
            is_playing: false,
            is_done: false,
            played: Duration::ZERO,
        }
    }

    /// The snapshot that the screen needs and has not.
    #[must_use]
    pub fn wanted(&self) -> Option<usize> {
        let shown = self.shown.as_ref().map(|(index, _)| *index);
        let failed = self.trouble.as_ref().map(|(index, _)| *index);
        let there = self.at < self.outline.times.len();
        (there && shown != Some(self.at) && failed != Some(self.at)).then_some(self.at)
    }

    /// The source's answer to [`Self::wanted`].
    pub fn show(&mut self, index: usize, snapshot: Snapshot) {
        self.shown = Some((index, snapshot));
        self.trouble = None;
        self.clamp();
    }

    /// The source could not answer: the screen keeps what it had and says why.
    pub fn fail(&mut self, index: usize, why: String) {
        self.is_playing = false;
        self.trouble = Some((index, why));
    }

    /// Does what was asked for.
    pub fn update(&mut self, action: Action) {
        let last = self.outline.times.len().saturating_sub(1);
        match action {
            Action::Quit => self.is_done = true,
            Action::Suspend => {}
            Action::Help => self.is_help_open = !self.is_help_open,
            Action::Close => self.is_help_open = false,
            Action::NextView => self.view = self.view.neighbour(true),
            Action::PreviousView => self.view = self.view.neighbour(false),
            Action::Go(view) => self.view = view,
            Action::Forward => self.at = (self.at + 1).min(last),
            Action::Back => self.at = self.at.saturating_sub(1),
            Action::First => self.at = 0,
            Action::Last => self.at = last,
            Action::Play => self.play(last),
            Action::Sort(sort) => {
                self.sort = sort;
                self.scroll[View::Slabs as usize] = 0;
            }
            Action::Up => self.scroll_by(-1),
            Action::Down => self.scroll_by(1),
            Action::PageUp => self.scroll_by(-self.page()),
            Action::PageDown => self.scroll_by(self.page()),
            Action::Resize(width, height) => self.size = (width, height),
            Action::Elapsed(time) => self.elapse(time, last),
        }
        self.clamp();
    }

    fn play(&mut self, last: usize) {
        self.is_playing = !self.is_playing && last > 0;
        self.played = Duration::ZERO;
        if self.is_playing && self.at == last {
            self.at = 0;
        }
    }

    fn elapse(&mut self, time: Duration, last: usize) {
        if !self.is_playing {
            return;
        }
        self.played += time;
        if self.played >= STEP {
            // One step even after a long silence: a suspended screen goes on where it stood.
            self.played = Duration::from_nanos((self.played.as_nanos() % STEP.as_nanos()) as u64);
            self.at = (self.at + 1).min(last);
            self.is_playing = self.at < last;
        }
    }

    fn page(&self) -> isize {
        let (_, height) = self.size;
        let lines = crate::view::lines_visible(self, height);
        isize::try_from(lines).unwrap_or(1).max(1)
    }

    fn scroll_by(&mut self, lines: isize) {
        let scroll = &mut self.scroll[self.view as usize];
        *scroll = scroll.saturating_add_signed(lines);
    }

    fn clamp(&mut self) {
        let (_, height) = self.size;
        let hidden = self.lines().saturating_sub(crate::view::lines_visible(self, height));
        let scroll = &mut self.scroll[self.view as usize];
        *scroll = (*scroll).min(hidden);
    }

    /// Lines of the view at hand that scroll.
    fn lines(&self) -> usize {
        let Some(snapshot) = self.snapshot() else { return 0 };
        match self.view {
            View::Overview => snapshot.zones.len(),
            View::Slabs => snapshot.slabs.as_ref().map_or(0, |slabs| slabs.rows.len()),
        }
    }

    /// What the source said of itself.
    #[must_use]
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The snapshot on the screen: the one before, while the one asked for cannot be read.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.shown.as_ref().map(|(_, snapshot)| snapshot)
    }

    /// Which snapshot is asked for.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Why the snapshot asked for is not the one on the screen.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().filter(|(index, _)| *index == self.at).map(|(_, why)| why.as_str())
    }

    /// The view at hand.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// What the slabs are sorted by.
    #[must_use]
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// Lines scrolled away at the top of the view at hand.
    #[must_use]
    pub fn scroll(&self) -> usize {
        self.scroll[self.view as usize]
    }

    /// The help is open.
    #[must_use]
    pub fn is_help_open(&self) -> bool {
        self.is_help_open
    }

    /// Time goes on.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        self.is_playing
    }

    /// It is time to leave.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }
}
