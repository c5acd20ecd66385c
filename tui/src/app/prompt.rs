//! What is asked for at the bottom line.

use super::{Action, App};

/// What a prompt is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PromptKind {
    /// Only rows with this text.
    Filter,
    /// A moment to go to.
    Time,
    /// A command.
    Command,
}

impl PromptKind {
    /// What stands before the answer.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Filter => "Filter: ",
            Self::Time => "Go to (3m ago, 12:03:10, +2.5s): ",
            Self::Command => ":",
        }
    }
}

/// A question and what was answered so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prompt {
    /// What is asked.
    pub kind: PromptKind,
    /// The answer so far.
    pub text: String,
}

impl Prompt {
    pub(super) fn new(kind: PromptKind) -> Self {
        Self { kind, text: String::new() }
    }
}

/// Longest answer.
const LONGEST: usize = 200;

impl App {
    pub(super) fn answer(&mut self, action: Action) {
        let Some(prompt) = &mut self.prompt else { return };
        match action {
            Action::Type(letter) if prompt.text.len() < LONGEST && !letter.is_control() => {
                prompt.text.push(letter);
            }
            Action::Erase => {
                prompt.text.pop();
            }
            Action::Accept => {
                let prompt = self.prompt.take();
                prompt.into_iter().for_each(|prompt| self.accept(&prompt));
                return;
            }
            _ => {}
        }
        if prompt.kind == PromptKind::Filter {
            // The table follows every letter.
            let text = prompt.text.clone();
            self.filter(text);
        }
    }

    fn filter(&mut self, text: String) {
        let state = &mut self.tables[self.view as usize];
        state.filter = text;
        state.selected = 0;
        self.reorder();
    }

    fn accept(&mut self, prompt: &Prompt) {
        match prompt.kind {
            PromptKind::Filter => self.filter(prompt.text.clone()),
            PromptKind::Time => self.go_to(&prompt.text),
            PromptKind::Command => self.command(prompt.text.trim()),
        }
    }

    fn go_to(&mut self, text: &str) {
        match super::time::parse(text, &self.outline, self.at) {
            Some(at) => self.stand_at(at),
            None if text.trim().is_empty() => {}
            None => self.message = Some(format!("{text} is no time: 3m ago, 12:03:10, +2.5s")),
        }
    }

    /// Commands that the palette offers for what was typed: those of the keys, by name.
    #[must_use]
    pub fn suggestions(&self) -> Vec<(String, &'static str)> {
        let Some(Prompt { kind: PromptKind::Command, text }) = &self.prompt else {
            return Vec::new();
        };
        let wanted = text.trim().to_lowercase();
        let keys = self.keys.of(self.view).filter(|bound| {
            bound.binding.name.contains(&wanted) || bound.binding.help.contains(&wanted)
        });
        keys.map(|bound| (bound.label.clone(), bound.binding.name)).collect()
    }

    fn command(&mut self, text: &str) {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        match word {
            "" => {}
            "go" => self.go_to(rest),
            "filter" => self.filter(rest.to_owned()),
            "sort" => self.sort_by(rest),
            _ => {
                let named = |fits: &dyn Fn(&str) -> bool| {
                    let mut bound = self.keys.of(self.view);
                    bound.find(|bound| fits(bound.binding.name)).map(|it| it.binding.action)
                };
                let found = named(&|name| name == text).or_else(|| named(&|n| n.starts_with(text)));
                match found {
                    Some(action) => self.update(action),
                    None => self.message = Some(format!("no command {text}; ? shows the keys")),
                }
            }
        }
    }

    fn sort_by(&mut self, title: &str) {
        let wanted = title.to_lowercase();
        let columns = &self.table.columns;
        let named = columns.iter().position(|column| {
            column.title.to_lowercase() == wanted || column.name.starts_with(&wanted)
        });
        match named.filter(|_| !wanted.is_empty()) {
            Some(column) => {
                self.tables[self.view as usize].column = column;
                self.reorder();
            }
            None => {
                let names: Vec<_> = columns.iter().map(|column| column.name).collect();
                self.message = Some(format!("columns to sort by: {}", names.join(", ")));
            }
        }
    }
}
