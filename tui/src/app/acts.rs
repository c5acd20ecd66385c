//! What each action does.

use std::time::Duration;

use kmemlab_trace::unit::Nanos;

use super::{Action, App, Format, Prompt, View};
use crate::view;

/// The fastest that time goes.
const FASTEST: u32 = 64;
const MINUTE_NS: u64 = 60_000_000_000;

impl App {
    /// Does what was asked for.
    pub fn update(&mut self, action: Action) {
        if !matches!(action, Action::Elapsed(_) | Action::Resize(..)) {
            self.message = None;
        }
        match action {
            Action::Quit => self.is_done = true,
            Action::Suspend => {}
            Action::Help => {
                self.is_help_open = !self.is_help_open;
                self.help_scroll = 0;
            }
            Action::Up | Action::Down | Action::PageUp | Action::PageDown if self.is_help_open => {
                self.scroll_help(action);
            }
            Action::Close => self.close(),
            Action::NextView => self.go(self.view.neighbour(true)),
            Action::PreviousView => self.go(self.view.neighbour(false)),
            Action::Go(view) => self.go(view),
            Action::Play => self.play(),
            Action::Faster => self.speed_up(true),
            Action::Slower => self.speed_up(false),
            Action::Mark => {
                self.mark = Some(self.at);
                let snapshot = self.snapshot().cloned();
                self.marked = snapshot.map(|snapshot| (self.view, snapshot));
                self.message = Some("changes are counted from here on".to_owned());
                self.rebuild();
            }
            Action::Export => self.wants_export = Some(Format::Csv),
            Action::ExportParquet => self.wants_export = Some(Format::Parquet),
            Action::Ask(kind) => {
                self.is_help_open = false;
                self.prompt = Some(Prompt::new(kind));
            }
            Action::Type(_) | Action::Erase | Action::Accept => self.answer(action),
            Action::Resize(width, height) => self.size = (width, height),
            Action::Elapsed(time) => self.elapse(time),
            _ => {
                self.travel(action);
                self.look_at_table(action);
                self.look_at_map(action);
            }
        }
        self.clamp();
    }

    fn go(&mut self, view: View) {
        self.view = view;
        self.rebuild();
    }

    fn close(&mut self) {
        if self.prompt.take().is_some() || std::mem::take(&mut self.is_help_open) {
            return;
        }
        let state = &mut self.tables[self.view as usize];
        if !std::mem::take(&mut state.is_open) && !state.filter.is_empty() {
            state.filter.clear();
            self.reorder();
        }
    }

    /// Moves in time. Whoever steps back from a moving end stands still.
    fn travel(&mut self, action: Action) {
        let times = &self.outline.times;
        let (begin, end) = (self.outline.begin, self.outline.end.max(self.outline.begin));
        let goal = match action {
            Action::Forward => {
                times.get(times.partition_point(|time| *time <= self.at)).copied().or(Some(end))
            }
            Action::Back => {
                let place = times.partition_point(|time| *time < self.at);
                place.checked_sub(1).map(|place| times[place]).or(Some(begin))
            }
            Action::MinuteForward => Some(Nanos(self.at.0.saturating_add(MINUTE_NS))),
            Action::MinuteBack => Some(Nanos(self.at.0.saturating_sub(MINUTE_NS))),
            Action::First => Some(begin),
            Action::Last => Some(end),
            Action::NextMark | Action::PreviousMark => self.next_mark(action == Action::NextMark),
            _ => return,
        };
        if let Some(goal) = goal {
            self.stand_at(goal.clamp(begin, end));
            self.is_following = self.outline.is_live && goal >= end;
        }
    }

    fn next_mark(&mut self, forward: bool) -> Option<Nanos> {
        let marks = &self.outline.marks;
        let found = if forward { marks.next(self.at) } else { marks.previous(self.at) };
        self.message = Some(match found {
            Some((_, kind)) => kind.name().to_owned(),
            None => "no mark there".to_owned(),
        });
        found.map(|(at, _)| at)
    }

    /// Shows that moment.
    pub(super) fn stand_at(&mut self, at: Nanos) {
        self.is_following = false;
        let (begin, end) = (self.outline.begin, self.outline.end.max(self.outline.begin));
        self.at = at.clamp(begin, end);
    }

    fn play(&mut self) {
        if self.outline.is_live && self.is_following {
            self.is_following = false;
            self.speed = None;
            return;
        }
        if self.speed.take().is_some() {
            return;
        }
        let has_span = self.outline.end > self.outline.begin;
        if self.at >= self.outline.end {
            if self.outline.is_live {
                self.is_following = true;
                return;
            }
            self.at = self.outline.begin;
        }
        self.speed = has_span.then_some(self.last_speed);
    }

    fn speed_up(&mut self, faster: bool) {
        let speed = self.last_speed;
        self.last_speed = if faster { (speed * 2).min(FASTEST) } else { (speed / 2).max(1) };
        self.speed = self.speed.map(|_| self.last_speed);
        self.message = Some(format!("plays at {}x", self.last_speed));
    }

    fn elapse(&mut self, time: Duration) {
        let Some(speed) = self.speed else { return };
        // One step at most a second long: a suspended screen goes on where it stood.
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(1_000_000_000);
        let at = Nanos(self.at.0.saturating_add(nanos * u64::from(speed)));
        self.at = at.min(self.outline.end);
        if self.at >= self.outline.end {
            self.speed = None;
            self.is_following = self.outline.is_live;
        }
    }

    fn page(&self) -> isize {
        let lines = view::lines_visible(self, self.size.1);
        isize::try_from(lines).unwrap_or(1).max(1)
    }

    fn move_by(&mut self, lines: isize) {
        let is_overview = self.view == View::Overview;
        let state = &mut self.tables[self.view as usize];
        let place = if is_overview { &mut state.scroll } else { &mut state.selected };
        *place = place.saturating_add_signed(lines);
    }

    fn scroll_help(&mut self, action: Action) {
        let lines = match action {
            Action::Up => -1,
            Action::Down => 1,
            Action::PageUp => -10,
            _ => 10,
        };
        let hidden = view::help::hidden(self, self.size);
        self.help_scroll = self.help_scroll.saturating_add_signed(lines).min(hidden);
    }

    fn look_at_table(&mut self, action: Action) {
        let page = self.page();
        let columns = self.table.columns.len();
        let state = &mut self.tables[self.view as usize];
        match action {
            Action::Sort(sort) => {
                state.column = sort.column();
                state.is_reversed = false;
                (state.selected, state.scroll) = (0, 0);
            }
            Action::NextColumn if columns > 0 => state.column = (state.column + 1) % columns,
            Action::PreviousColumn if columns > 0 => {
                state.column = (state.column + columns - 1) % columns;
            }
            Action::Reverse => state.is_reversed = !state.is_reversed,
            Action::Open => {
                state.is_open = !state.is_open;
                return;
            }
            Action::Exact => {
                self.is_exact = !self.is_exact;
                return;
            }
            Action::Up => return self.move_by(-1),
            Action::Down => return self.move_by(1),
            Action::PageUp => return self.move_by(-page),
            Action::PageDown => return self.move_by(page),
            _ => return,
        }
        self.reorder();
    }

    fn look_at_map(&mut self, action: Action) {
        if self.view != View::Blocks {
            return;
        }
        let shape = view::blocks::Shape::of(self);
        let Some(map) = self.snapshot().and_then(|snapshot| snapshot.blocks.yes()).cloned() else {
            return;
        };
        self.block = match action {
            Action::CellBack => shape.step(&map, self.block, -1),
            Action::CellForward => shape.step(&map, self.block, 1),
            Action::Up => shape.step(&map, self.block, -shape.row()),
            Action::Down => shape.step(&map, self.block, shape.row()),
            Action::PageUp => shape.step(&map, self.block, -shape.row() * 8),
            Action::PageDown => shape.step(&map, self.block, shape.row() * 8),
            Action::NextZone => view::blocks::next_zone(&map, self.block),
            Action::NextMixed => view::blocks::next_mixed(&map, self.block).unwrap_or(self.block),
            Action::MapMode => {
                self.is_lettered = !self.is_lettered;
                self.block
            }
            _ => self.block,
        };
    }
}
