//! Keys and what they do: the one table that input is read by and that the help is printed from.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::app::{Action, PromptKind, View};
use crate::view::slabs::Sort;

mod map;

pub use map::{Bound, KeyError, Keys};

/// A key and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Its name in the configuration and the palette.
    pub name: &'static str,
    /// The keys, any of which does it.
    pub keys: &'static [KeyCode],
    /// All of them with Ctrl.
    pub ctrl: bool,
    /// The keys as the help writes them.
    pub label: &'static str,
    /// What they do.
    pub action: Action,
    /// The same for people.
    pub help: &'static str,
    /// One or two words for the bottom line; empty when it is not there.
    pub hint: &'static str,
    /// Where they do it.
    pub place: Place,
}

/// Where a key does something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In every view.
    Everywhere,
    /// In every view that is a table.
    Tables,
    /// In one view.
    View(View),
}

impl Place {
    /// Whether the view is there.
    #[must_use]
    pub fn holds(self, view: View) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Tables => view.is_table(),
            Self::View(only) => only == view,
        }
    }
}

type Codes = &'static [KeyCode];
type Text = &'static str;

const fn key(name: Text, keys: Codes, label: Text, action: Action, help: Text) -> Binding {
    let place = Place::Everywhere;
    Binding { name, keys, ctrl: false, label, action, help, hint: "", place }
}

impl Binding {
    const fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }

    const fn ctrl(self) -> Self {
        Self { ctrl: true, ..self }
    }

    const fn tables(self) -> Self {
        Self { place: Place::Tables, ..self }
    }

    const fn only(self, view: View) -> Self {
        Self { place: Place::View(view), ..self }
    }
}

const fn sort(name: Text, keys: Codes, label: Text, by: Sort, help: Text) -> Binding {
    key(name, keys, label, Action::Sort(by), help).only(View::Slabs)
}

use Action as A;
use KeyCode::{BackTab, Char, Down, End, Enter, Esc, Home, Left, PageDown, PageUp, Right, Tab, Up};
use PromptKind::{Command, Filter, Time};

/// Every key.
pub const ALL: &[Binding] = &[
    key("next-view", &[Tab], "Tab", A::NextView, "next view").hint("view"),
    key("previous-view", &[BackTab], "Shift-Tab", A::PreviousView, "view before"),
    key("overview", &[Char('1')], "1", A::Go(View::Overview), "Overview"),
    key("slabs", &[Char('2')], "2", A::Go(View::Slabs), "Slabs"),
    key("sites", &[Char('3')], "3", A::Go(View::Sites), "Sites: who allocates"),
    key("blocks", &[Char('4')], "4", A::Go(View::Blocks), "Blocks: map of memory"),
    key("vmalloc", &[Char('5')], "5", A::Go(View::Vmalloc), "Vmalloc"),
    key("compare", &[Char('6')], "6", A::Go(View::Compare), "Compare"),
    key("latency", &[Char('7')], "7", A::Go(View::Latency), "Latency: stalls"),
    key("back", &[Left], "←", A::Back, "one snapshot back").hint("back"),
    key("forward", &[Right], "→", A::Forward, "one snapshot on").hint("on"),
    key("minute-back", &[Char('{')], "{", A::MinuteBack, "a minute back; Shift-←"),
    key("minute-forward", &[Char('}')], "}", A::MinuteForward, "a minute on; Shift-→"),
    key("previous-mark", &[Char('[')], "[", A::PreviousMark, "mark before on time bar"),
    key("next-mark", &[Char(']')], "]", A::NextMark, "next mark on time bar"),
    key("go", &[Char('g')], "g", A::Ask(Time), "go to a time"),
    key("first", &[Home], "Home", A::First, "the beginning"),
    key("last", &[End], "End", A::Last, "the end, and follow it"),
    key("play", &[Char(' ')], "Space", A::Play, "play or pause").hint("play"),
    key("faster", &[Char('+'), Char('=')], "+", A::Faster, "play faster, up to 64x"),
    key("slower", &[Char('-')], "-", A::Slower, "play slower"),
    key("mark", &[Char('m')], "m", A::Mark, "mark: changes from here"),
    key("export", &[Char('e')], "e", A::Export, "export table as CSV"),
    key("export-parquet", &[Char('E')], "E", A::ExportParquet, "export table as Parquet"),
    key("palette", &[Char(':')], ":", A::Ask(Command), "command palette"),
    key("up", &[Up], "↑", A::Up, "a line up"),
    key("down", &[Down], "↓", A::Down, "a line down"),
    key("page-up", &[PageUp], "PgUp", A::PageUp, "a page up"),
    key("page-down", &[PageDown], "PgDn", A::PageDown, "a page down"),
    key("help", &[Char('?')], "?", A::Help, "this help").hint("help"),
    key("close", &[Esc], "Esc", A::Close, "close, drop the filter"),
    key("quit", &[Char('q'), Char('Q')], "q", A::Quit, "quit").hint("quit"),
    key("interrupt", &[Char('c')], "Ctrl-C", A::Quit, "quit").ctrl(),
    key("suspend", &[Char('z')], "Ctrl-Z", A::Suspend, "suspend").ctrl(),
    key("filter", &[Char('/')], "/", A::Ask(Filter), "filter rows").tables().hint("filter"),
    key("sort-next", &[Char('>'), Char('.')], ">", A::NextColumn, "sort by next column").tables(),
    key("sort-previous", &[Char('<'), Char(',')], "<", A::PreviousColumn, "sort by column before")
        .tables(),
    key("reverse", &[Char('R'), Char('S')], "R", A::Reverse, "reverse the order").tables(),
    key("open", &[Enter], "Enter", A::Open, "row in full, or not").tables(),
    key("slabtop", &[Char('x')], "x", A::Exact, "slabtop's own screen").only(View::Slabs),
    sort("active", &[Char('a')], "a", Sort::ActiveObjects, "sort by active objects"),
    sort("per-slab", &[Char('b')], "b", Sort::ObjectsPerSlab, "sort by objects per slab"),
    sort("cache-size", &[Char('c')], "c", Sort::CacheSize, "sort by cache size"),
    sort("slab-count", &[Char('l')], "l", Sort::Slabs, "sort by slabs"),
    sort("active-slabs", &[Char('v')], "v", Sort::ActiveSlabs, "sort by active slabs"),
    sort("name", &[Char('n')], "n", Sort::Name, "sort by name"),
    sort("objects", &[Char('o')], "o", Sort::Objects, "sort by objects"),
    sort("pages", &[Char('p')], "p", Sort::PagesPerSlab, "sort by pages per slab"),
    sort("object-size", &[Char('s')], "s", Sort::ObjectSize, "sort by object size"),
    sort("use", &[Char('u')], "u", Sort::Use, "sort by use"),
    key("cell-back", &[Char('h')], "h", A::CellBack, "page block before").only(View::Blocks),
    key("cell-forward", &[Char('l')], "l", A::CellForward, "next page block").only(View::Blocks),
    key("zone", &[Char('z')], "z", A::NextZone, "next zone").only(View::Blocks).hint("zone"),
    key("mixed", &[Char('n')], "n", A::NextMixed, "next mixed block")
        .only(View::Blocks)
        .hint("mixed"),
    key("letters", &[Char('t')], "t", A::MapMode, "fill levels or types")
        .only(View::Blocks)
        .hint("types"),
];

/// What a key does while a prompt is open.
#[must_use]
pub fn prompt_action(event: &KeyEvent) -> Option<Action> {
    let is_ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    if event.is_release() {
        return None;
    }
    match event.code {
        Char('c' | 'g') if is_ctrl => Some(Action::Close),
        Char('z') if is_ctrl => Some(Action::Suspend),
        Char('h') if is_ctrl => Some(Action::Erase),
        Char(letter) if !is_ctrl => Some(Action::Type(letter)),
        KeyCode::Backspace => Some(Action::Erase),
        Enter => Some(Action::Accept),
        Esc => Some(Action::Close),
        _ => None,
    }
}

/// The keys as a table in Markdown, for the documentation.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| key | name | where | what it does |\n|---|---|---|---|\n");
    for binding in ALL {
        let place = match binding.place {
            Place::Everywhere => "everywhere",
            Place::Tables => "tables",
            Place::View(view) => view.name(),
        };
        let (label, name, help) = (binding.label, binding.name, binding.help);
        text.push_str(&format!("| `{label}` | `{name}` | {place} | {help} |\n"));
    }
    text
}
