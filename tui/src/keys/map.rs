//! The keys in force: the table's own, or those that the configuration gives in their place.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{ALL, Binding};
use crate::app::{Action, View};

/// A binding with the keys in force.
#[derive(Clone, Debug)]
pub struct Bound {
    /// What is bound.
    pub binding: &'static Binding,
    /// The keys as the help writes them.
    pub label: String,
    keys: Vec<(KeyCode, bool)>,
}

/// Why keys cannot be as the configuration says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyError(String);

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

/// All keys in force.
#[derive(Clone, Debug)]
pub struct Keys {
    list: Vec<Bound>,
}

impl Default for Keys {
    fn default() -> Self {
        let bound = |binding: &'static Binding| Bound {
            binding,
            label: binding.label.to_owned(),
            keys: binding.keys.iter().map(|key| (*key, binding.ctrl)).collect(),
        };
        Self { list: ALL.iter().map(bound).collect() }
    }
}

impl Keys {
    /// Gives a binding another key: a letter or sign, `F1` to `F12`, or the same with `Ctrl-`.
    ///
    /// # Errors
    /// There is no such binding or key, or the key does something else there.
    pub fn rebind(&mut self, name: &str, key: &str) -> Result<(), KeyError> {
        let Some(index) = self.list.iter().position(|bound| bound.binding.name == name) else {
            return Err(KeyError(format!("there is no key named {name}; docs/screen.md has all")));
        };
        let parsed = parse(key)
            .ok_or_else(|| KeyError(format!("{key} is no key: a letter, F1 to F12, Ctrl-X")))?;
        let binding = self.list[index].binding;
        for view in View::ALL.into_iter().filter(|view| binding.place.holds(*view)) {
            let mut others = self.of(view).filter(|bound| bound.binding.name != name);
            if let Some(other) = others.find(|bound| bound.keys.contains(&parsed)) {
                let taken = other.binding.name;
                return Err(KeyError(format!(
                    "{key} is the key of {taken}; give it another first"
                )));
            }
        }
        self.list[index].keys = vec![parsed];
        key.clone_into(&mut self.list[index].label);
        Ok(())
    }

    /// The keys that do something in a view, in the order of the table.
    pub fn of(&self, view: View) -> impl Iterator<Item = &Bound> {
        self.list.iter().filter(move |bound| bound.binding.place.holds(view))
    }

    /// What a key does in a view.
    #[must_use]
    pub fn action(&self, event: &KeyEvent, view: View) -> Option<Action> {
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        if event.is_release() || event.modifiers.contains(KeyModifiers::ALT) {
            return None;
        }
        if event.modifiers.contains(KeyModifiers::SHIFT) {
            match event.code {
                KeyCode::Left => return Some(Action::MinuteBack),
                KeyCode::Right => return Some(Action::MinuteForward),
                _ => {}
            }
        }
        let mut bound = self.of(view);
        bound.find(|bound| bound.keys.contains(&(event.code, ctrl))).map(|it| it.binding.action)
    }
}

fn parse(key: &str) -> Option<(KeyCode, bool)> {
    let (name, ctrl) = key.strip_prefix("Ctrl-").map_or((key, false), |rest| (rest, true));
    let mut letters = name.chars();
    if let (Some(letter), None) = (letters.next(), letters.next()) {
        let letter = if ctrl { letter.to_ascii_lowercase() } else { letter };
        return (!letter.is_control()).then_some((KeyCode::Char(letter), ctrl));
    }
    let number: u8 = name.strip_prefix('F')?.parse().ok()?;
    (1..=12).contains(&number).then_some((KeyCode::F(number), ctrl))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::slabs::Sort;

    #[test]
    fn no_key_does_two_things() {
        let keys = Keys::default();
        for view in View::ALL {
            let mut known = Vec::new();
            for bound in keys.of(view) {
                for key in &bound.keys {
                    assert!(!known.contains(key), "{key:?} in {view:?}");
                    known.push(*key);
                }
            }
        }
        let names: Vec<_> = ALL.iter().map(|binding| binding.name).collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn letters_sort_in_the_slabs_only_and_ctrl_c_quits_there_too() {
        let keys = Keys::default();
        let c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE);
        assert_eq!(keys.action(&c, View::Slabs), Some(Action::Sort(Sort::CacheSize)));
        assert_eq!(keys.action(&c, View::Overview), None);
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(keys.action(&ctrl_c, View::Slabs), Some(Action::Quit));
        let question = KeyEvent::new(KeyCode::Char('?'), KeyModifiers::SHIFT);
        assert_eq!(keys.action(&question, View::Slabs), Some(Action::Help));
        let alt = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT);
        assert_eq!(keys.action(&alt, View::Slabs), None);
        let shifted = KeyEvent::new(KeyCode::Left, KeyModifiers::SHIFT);
        assert_eq!(keys.action(&shifted, View::Slabs), Some(Action::MinuteBack));
    }

    #[test]
    fn every_sort_has_its_letter() {
        for sort in Sort::ALL {
            let bindings = ALL.iter().filter(|binding| binding.action == Action::Sort(sort));
            let labels: Vec<_> = bindings.map(|binding| binding.label).collect();
            assert_eq!(labels, [sort.letter().to_string()]);
        }
    }

    #[test]
    fn keys_are_given_away_once() {
        let mut keys = Keys::default();
        keys.rebind("quit", "F10").unwrap();
        let f10 = KeyEvent::new(KeyCode::F(10), KeyModifiers::NONE);
        assert_eq!(keys.action(&f10, View::Latency), Some(Action::Quit));
        let q = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        assert_eq!(keys.action(&q, View::Latency), None);
        keys.rebind("export", "Ctrl-E").unwrap();
        // `z` is free in the slabs and taken in the map.
        keys.rebind("slabtop", "z").unwrap();
        for (name, key) in [("help", "q1"), ("nothing", "y"), ("help", "a"), ("mark", "F13")] {
            assert!(keys.rebind(name, key).is_err(), "{name} {key}");
        }
    }
}
