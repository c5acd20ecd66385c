//! The vmalloc policies by name. A new one is a line in [`ALL`].

use super::layer::Tuning;
use super::space::Fit;

/// The policy of the recorded kernel.
pub const DEFAULT: &str = "kernel";

/// One policy.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// The meaning of its number; empty when it takes none.
    pub parameter: &'static str,
    /// Makes it.
    pub make: fn(Option<u64>) -> Tuning,
}

const RECORDED: Tuning = Tuning { fit: Fit::First, no_pools: false, lazy_max_pages: None };

/// Every policy.
pub const ALL: &[Entry] = &[
    Entry { name: DEFAULT, help: "as recorded", parameter: "", make: |_| RECORDED },
    Entry {
        name: "first-fit",
        help: "the lowest hole that is large enough, without pools",
        parameter: "",
        make: |_| Tuning { no_pools: true, ..RECORDED },
    },
    Entry {
        name: "best-fit",
        help: "the smallest hole that is large enough, without pools",
        parameter: "",
        make: |_| Tuning { fit: Fit::Best, no_pools: true, ..RECORDED },
    },
    Entry {
        name: "lazy",
        help: "freed areas are purged at another number of pages",
        parameter: "pages that may wait",
        make: |pages| Tuning { lazy_max_pages: Some(pages.unwrap_or(0)), ..RECORDED },
    },
];

/// A policy by `NAME` or `NAME=NUMBER`.
pub fn tuning(spec: &str) -> Result<Tuning, String> {
    let (name, number) = match spec.split_once('=') {
        Some((name, number)) => (name, Some(number)),
        None => (spec, None),
    };
    let entry = ALL.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|entry| entry.name).collect();
        format!("there is no vmalloc policy {name}; known: {}", known.join(", "))
    })?;
    let number = match (number, entry.parameter) {
        (None, "") => None,
        (Some(_), "") => return Err(format!("the vmalloc policy {name} takes no number")),
        (number, meaning) => {
            let parsed = number.and_then(|number| number.parse().ok());
            Some(
                parsed
                    .ok_or_else(|| format!("{name} needs a number, as {name}=4096: {meaning}"))?,
            )
        }
    };
    Ok((entry.make)(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_found_by_name_and_number() {
        assert_eq!(tuning("kernel"), Ok(RECORDED));
        assert_eq!(tuning("lazy=512").map(|it| it.lazy_max_pages), Ok(Some(512)));
        for wrong in ["lazy", "lazy=x", "kernel=1", "worst-fit", ""] {
            assert!(tuning(wrong).is_err(), "{wrong}");
        }
    }
}
