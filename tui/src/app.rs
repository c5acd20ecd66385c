//! What is on the screen. [`App`] changes by [`Action`]s and by what the source answers, by nothing
//! else.

use std::collections::BTreeMap;
use std::time::Duration;

use kmemlab_trace::unit::Nanos;

use crate::keys::Keys;
use crate::source::{Outline, Snapshot};
use crate::table::{Table, TableState};
use crate::view::{self, slabs::Sort};

mod acts;
mod look;
mod prompt;
mod time;

pub use prompt::{Prompt, PromptKind};

/// A page of the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum View {
    /// Zones, free blocks, fragmentation, pressure, loss.
    #[default]
    Overview,
    /// Slab caches.
    Slabs,
    /// Places that allocate.
    Sites,
    /// Physical memory as a map.
    Blocks,
    /// The vmalloc space.
    Vmalloc,
    /// Several tellers side by side.
    Compare,
    /// Stalls.
    Latency,
}

impl View {
    /// Every view, in the order of the tabs.
    pub const ALL: [Self; 7] = [
        Self::Overview,
        Self::Slabs,
        Self::Sites,
        Self::Blocks,
        Self::Vmalloc,
        Self::Compare,
        Self::Latency,
    ];

    /// Its name on the tab.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Slabs => "Slabs",
            Self::Sites => "Sites",
            Self::Blocks => "Blocks",
            Self::Vmalloc => "Vmalloc",
            Self::Compare => "Compare",
            Self::Latency => "Latency",
        }
    }

    /// It is a table that can be sorted and filtered.
    #[must_use]
    pub fn is_table(self) -> bool {
        !matches!(self, Self::Overview | Self::Blocks)
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
    /// Close what is open; where nothing is, drop the filter.
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
    /// A minute on.
    MinuteForward,
    /// A minute back.
    MinuteBack,
    /// The beginning.
    First,
    /// The end; a live screen follows it again.
    Last,
    /// The next mark on the time bar.
    NextMark,
    /// The mark before.
    PreviousMark,
    /// Play or pause.
    Play,
    /// Play twice as fast.
    Faster,
    /// Play half as fast.
    Slower,
    /// Sort the slabs.
    Sort(Sort),
    /// Sort by the next column.
    NextColumn,
    /// Sort by the column before.
    PreviousColumn,
    /// Sort the other way round.
    Reverse,
    /// Show the row at the cursor in full, or no longer.
    Open,
    /// slabtop's own screen, or the one with more columns.
    Exact,
    /// A line up.
    Up,
    /// A line down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// The page block before.
    CellBack,
    /// The next page block.
    CellForward,
    /// The next zone.
    NextZone,
    /// The next mixed page block.
    NextMixed,
    /// Fill levels or letters of types on the map.
    MapMode,
    /// Compare from here on.
    Mark,
    /// Export the table at hand as CSV.
    Export,
    /// Export the table at hand as Parquet.
    ExportParquet,
    /// Ask for something.
    Ask(PromptKind),
    /// A character of the answer.
    Type(char),
    /// Takes the last one back.
    Erase,
    /// The answer is complete.
    Accept,
    /// The screen has this size now.
    Resize(u16, u16),
    /// So much time went by.
    Elapsed(Duration),
}

/// How a table is exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Comma-separated values.
    Csv,
    /// Parquet.
    Parquet,
}

/// What a snapshot on the screen is of: moment, view, and how much the source knew.
type Shown = (Nanos, View, u64);

/// The state of the screen.
#[derive(Clone, Debug)]
pub struct App {
    outline: Outline,
    revision: u64,
    at: Nanos,
    is_following: bool,
    shown: Option<(Shown, Snapshot)>,
    trouble: Option<(Shown, String)>,
    mark: Option<Nanos>,
    marked: Option<(View, Snapshot)>,
    view: View,
    keys: Keys,
    columns: BTreeMap<usize, Vec<String>>,
    tables: [TableState; View::ALL.len()],
    table: Table,
    order: Vec<usize>,
    size: (u16, u16),
    prompt: Option<Prompt>,
    message: Option<String>,
    is_help_open: bool,
    help_scroll: usize,
    is_exact: bool,
    is_lettered: bool,
    block: usize,
    speed: Option<u32>,
    last_speed: u32,
    wants_export: Option<Format>,
    is_done: bool,
}

impl App {
    /// The screen of a source, at its last moment: where a live screen stands too.
    #[must_use]
    pub fn new(outline: Outline, view: View) -> Self {
        let mut tables: [TableState; View::ALL.len()] = Default::default();
        tables[View::Compare as usize].column = view::compare::WORST;
        tables[View::Vmalloc as usize].column = view::vmalloc::SIZE;
        Self {
            at: outline.end,
            is_following: outline.is_live,
            outline,
            revision: 0,
            shown: None,
            trouble: None,
            mark: None,
            marked: None,
            view,
            keys: Keys::default(),
            columns: BTreeMap::new(),
            tables,
            table: Table::default(),
            order: Vec::new(),
            size: (80, 24),
            prompt: None,
            message: None,
            is_help_open: false,
            help_scroll: 0,
            is_exact: false,
            is_lettered: false,
            block: 0,
            speed: None,
            last_speed: 1,
            wants_export: None,
            is_done: false,
        }
    }

    /// Other keys than the usual ones.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Only these columns of a view's table, by their names in exports.
    #[must_use]
    pub fn with_columns(mut self, view: View, names: Vec<String>) -> Self {
        self.columns.insert(view as usize, names);
        self
    }

    /// The slabs sorted like that from the start.
    #[must_use]
    pub fn with_sort(mut self, sort: Sort) -> Self {
        self.tables[View::Slabs as usize].column = sort.column();
        self
    }

    /// The source has new things to tell.
    pub fn renew(&mut self, outline: Outline) {
        let was_at_end = self.at >= self.outline.end && self.speed.is_none();
        self.is_following |= outline.is_live && !self.outline.is_live && was_at_end;
        self.is_following &= outline.is_live;
        self.outline = outline;
        self.revision += 1;
        if self.is_following {
            self.at = self.outline.end;
        }
        self.at = self.at.clamp(self.outline.begin, self.outline.end.max(self.outline.begin));
    }

    fn key(&self) -> Shown {
        (self.at, self.view, self.revision)
    }

    /// The moment and view that the screen needs and has not.
    #[must_use]
    pub fn wanted(&self) -> Option<(Nanos, View)> {
        let key = self.key();
        let is_there = self.shown.as_ref().is_some_and(|(known, _)| *known == key);
        let has_failed = self.trouble.as_ref().is_some_and(|(known, _)| *known == key);
        let is_empty = self.outline.times.is_empty() && self.outline.end == Nanos(0);
        (!is_there && !has_failed && !is_empty).then_some((self.at, self.view))
    }

    /// The source's answer to [`Self::wanted`].
    pub fn show(&mut self, snapshot: Snapshot) {
        self.shown = Some((self.key(), snapshot));
        self.trouble = None;
        self.rebuild();
    }

    /// The source could not answer: the screen keeps what it had and says why.
    pub fn fail(&mut self, why: String) {
        self.speed = None;
        self.trouble = Some((self.key(), why));
    }

    /// The mark's moment and the view, where its state is needed and not there.
    #[must_use]
    pub fn wanted_mark(&self) -> Option<(Nanos, View)> {
        let at = self.mark?;
        let known = self.marked.as_ref().is_some_and(|(view, _)| *view == self.view);
        (!known).then_some((at, self.view))
    }

    /// The source's answer to [`Self::wanted_mark`]; nothing when it could not answer.
    pub fn show_mark(&mut self, snapshot: Option<Snapshot>) {
        match snapshot {
            Some(snapshot) => self.marked = Some((self.view, snapshot)),
            None => {
                self.mark = None;
                self.message = Some("the mark is too old: its state is gone".to_owned());
            }
        }
        self.rebuild();
    }

    /// Makes the table anew from the snapshot, and puts its rows in order.
    fn rebuild(&mut self) {
        let marked = self.marked.as_ref().filter(|(view, _)| *view == self.view);
        let marked = marked.map(|(_, snapshot)| snapshot);
        self.table = match self.shown.as_ref() {
            Some((_, snapshot)) => view::table(self.view, snapshot, marked, &self.outline),
            None => Table::default(),
        };
        if let Some(names) = self.columns.get(&(self.view as usize)) {
            self.table.show_only(names);
        }
        self.reorder();
    }

    fn reorder(&mut self) {
        self.order = self.tables[self.view as usize].order(&self.table);
        self.clamp();
    }

    fn clamp(&mut self) {
        let visible = view::lines_visible(self, self.size.1);
        let lines = self.lines();
        if self.view == View::Overview {
            let state = &mut self.tables[self.view as usize];
            state.scroll = state.scroll.min(lines.saturating_sub(visible));
            return;
        }
        self.tables[self.view as usize].clamp(lines, visible);
    }

    /// Lines of the view at hand that scroll.
    fn lines(&self) -> usize {
        match self.view {
            View::Overview => self.snapshot().map_or(0, |snapshot| snapshot.zones.len()),
            View::Blocks => 0,
            _ => self.order.len(),
        }
    }
}
