//! The slab policies by name. A new one is a file and a line in [`ALL`].

use super::policy::SlabPolicy;
use super::rules::SlabRules;
use super::slub::{Slub, Tuning};

/// The policy of the recorded kernel.
pub const DEFAULT: &str = "slub";

/// What a policy is made for.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Processors.
    pub cpus: usize,
    /// The recorded release.
    pub rules: SlabRules,
    /// Bytes of a page.
    pub page_bytes: u64,
}

/// One policy.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Its parameters, as `key` and meaning.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Makes it.
    pub make: Make,
}

/// Makes a policy for a host, with parameters.
pub type Make = fn(&Host, &Values) -> Result<Box<dyn SlabPolicy>, String>;

/// Parameters as given: `key:value`, separated by commas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Values(Vec<(String, u64)>);

impl Values {
    /// A parameter.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
    }
}

/// Every policy.
pub const ALL: &[Entry] = &[Entry {
    name: "slub",
    help: "as recorded",
    parameters: &[],
    make: |host, _| Ok(Box::new(Slub::new(host.cpus, host.rules, Tuning::default()))),
}];

/// A policy by `NAME` or `NAME=key:value,...`.
pub fn make(
    spec: &str,
    cpus: usize,
    rules: SlabRules,
    page_bytes: u64,
) -> Result<Box<dyn SlabPolicy>, String> {
    let (name, text) = spec.split_once('=').unwrap_or((spec, ""));
    let entry = ALL.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|entry| entry.name).collect();
        format!("there is no slab policy {name}; known: {}", known.join(", "))
    })?;
    let mut values = Values::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once(':').unwrap_or((part, ""));
        if !entry.parameters.iter().any(|(known, _)| *known == key) {
            let known: Vec<&str> = entry.parameters.iter().map(|(known, _)| *known).collect();
            return Err(match known.is_empty() {
                true => format!("the slab policy {name} has no parameters"),
                false => format!("{name} has no parameter {key}; known: {}", known.join(", ")),
            });
        }
        let value =
            value.parse().map_err(|_| format!("{key} of {name} needs a number, as {key}:4"))?;
        values.0.push((key.to_owned(), value));
    }
    (entry.make)(&Host { cpus, rules, page_bytes }, &values)
}
