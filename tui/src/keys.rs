//! Keys and what they do: the one table that input is read by and that the help is printed from.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::app::{Action, View};
use crate::view::slabs::Sort;

/// A key and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
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
    /// Where they do it; everywhere when `None`.
    pub view: Option<View>,
}

const fn key(
    keys: &'static [KeyCode],
    label: &'static str,
    action: Action,
    help: &'static str,
    hint: &'static str,
) -> Binding {
    Binding { keys, ctrl: false, label, action, help, hint, view: None }
}

const fn ctrl(
    keys: &'static [KeyCode],
    label: &'static str,
    action: Action,
    help: &'static str,
) -> Binding {
    Binding { keys, ctrl: true, label, action, help, hint: "", view: None }
}

const fn sort(
    keys: &'static [KeyCode],
    label: &'static str,
    by: Sort,
    help: &'static str,
) -> Binding {
    let action = Action::Sort(by);
    Binding { keys, ctrl: false, label, action, help, hint: "", view: Some(View::Slabs) }
}

use KeyCode::{BackTab, Char, Down, End, Esc, Home, Left, PageDown, PageUp, Right, Tab, Up};

/// Every key.
pub const ALL: &[Binding] = &[
    key(&[Tab], "Tab", Action::NextView, "next view", "view"),
    key(&[BackTab], "Shift-Tab", Action::PreviousView, "view before", ""),
    key(&[Char('1')], "1", Action::Go(View::Overview), "Overview", ""),
    key(&[Char('2')], "2", Action::Go(View::Slabs), "Slabs", ""),
    key(&[Left], "←", Action::Back, "one snapshot back", "back"),
    key(&[Right], "→", Action::Forward, "one snapshot on", "on"),
    key(&[Home], "Home", Action::First, "first snapshot", ""),
    key(&[End], "End", Action::Last, "last snapshot", ""),
    key(&[Char(' ')], "Space", Action::Play, "play or pause", "play"),
    key(&[Up], "↑", Action::Up, "a line up", ""),
    key(&[Down], "↓", Action::Down, "a line down", ""),
    key(&[PageUp], "PgUp", Action::PageUp, "a page up", ""),
    key(&[PageDown], "PgDn", Action::PageDown, "a page down", ""),
    key(&[Char('?')], "?", Action::Help, "this help", "help"),
    key(&[Esc], "Esc", Action::Close, "close the help", ""),
    key(&[Char('q'), Char('Q')], "q", Action::Quit, "quit", "quit"),
    ctrl(&[Char('c')], "Ctrl-C", Action::Quit, "quit"),
    ctrl(&[Char('z')], "Ctrl-Z", Action::Suspend, "suspend"),
    sort(&[Char('a')], "a", Sort::ActiveObjects, "sort by active objects"),
    sort(&[Char('b')], "b", Sort::ObjectsPerSlab, "sort by objects per slab"),
    sort(&[Char('c')], "c", Sort::CacheSize, "sort by cache size"),
    sort(&[Char('l')], "l", Sort::Slabs, "sort by slabs"),
    sort(&[Char('v')], "v", Sort::ActiveSlabs, "sort by active slabs"),
    sort(&[Char('n')], "n", Sort::Name, "sort by name"),
    sort(&[Char('o')], "o", Sort::Objects, "sort by objects"),
    sort(&[Char('p')], "p", Sort::PagesPerSlab, "sort by pages per slab"),
    sort(&[Char('s')], "s", Sort::ObjectSize, "sort by object size"),
    sort(&[Char('u')], "u", Sort::Use, "sort by use"),
];

/// The keys that do something in a view, in the order of the table.
pub fn of(view: View) -> impl Iterator<Item = &'static Binding> {
    ALL.iter().filter(move |binding| binding.view.is_none_or(|only| only == view))
}

/// What a key does in a view.
#[must_use]
pub fn action(event: &KeyEvent, view: View) -> Option<Action> {
    let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    if event.is_release() || event.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    of(view)
        .find(|binding| binding.ctrl == ctrl && binding.keys.contains(&event.code))
        .map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things() {
        for view in View::ALL {
            let mut known = Vec::new();
            for binding in of(view) {
                for key in binding.keys {
                    let key = (binding.ctrl, *key);
                    assert!(!known.contains(&key), "{key:?} in {view:?}");
                    known.push(key);
                }
            }
        }
    }

    #[test]
    fn letters_sort_in_the_slabs_only_and_ctrl_c_quits_there_too() {
        let c = KeyEvent::new(Char('c'), KeyModifiers::NONE);
        assert_eq!(action(&c, View::Slabs), Some(Action::Sort(Sort::CacheSize)));
        assert_eq!(action(&c, View::Overview), None);
        let ctrl_c = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(&ctrl_c, View::Slabs), Some(Action::Quit));
        let question = KeyEvent::new(Char('?'), KeyModifiers::SHIFT);
        assert_eq!(action(&question, View::Slabs), Some(Action::Help));
        let alt = KeyEvent::new(Char('q'), KeyModifiers::ALT);
        assert_eq!(action(&alt, View::Slabs), None);
    }

    #[test]
    fn every_sort_has_its_letter() {
        for sort in Sort::ALL {
            let bindings = ALL.iter().filter(|binding| binding.action == Action::Sort(sort));
            let labels: Vec<_> = bindings.map(|binding| binding.label).collect();
            assert_eq!(labels, [sort.letter().to_string()]);
        }
    }
}
