//! `$XDG_CONFIG_HOME/kmemlab/config.toml`: how the screen is to be, for good.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kmemlab_tui::theme::Colours;
use kmemlab_tui::view::slabs::Sort;
use kmemlab_tui::{App, Keys, Theme, View};
use serde::Deserialize;

use crate::value;

/// What the file may say; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    theme: Option<String>,
    ascii: Option<bool>,
    interval: Option<String>,
    sort: Option<String>,
    view: Option<String>,
    keys: BTreeMap<String, String>,
    columns: BTreeMap<String, Vec<String>>,
}

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) theme: Theme,
    pub(crate) interval: Duration,
    pub(crate) sort: Sort,
    pub(crate) view: Option<View>,
    keys: Keys,
    columns: Vec<(View, Vec<String>)>,
}

impl Config {
    /// Reads the file, if there is one.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = set("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")));
        let Some(path) = folder.map(|folder| folder.join("kmemlab/config.toml")) else {
            return Self::of("");
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                Self::of(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::of(""),
            Err(error) => Err(anyhow::anyhow!("cannot read {}: {error}", path.display())),
        }
    }

    fn of(text: &str) -> anyhow::Result<Self> {
        // The message alone: where it stands takes lines of its own.
        let file: File = toml::from_str(text)
            .map_err(|error| anyhow::anyhow!("{}", error.message().replace('\n', " ")))?;
        let env = |name: &str| std::env::var(name).ok();
        let mut theme = Theme::detect(env);
        // The terminal's own word against colour stands above the file's.
        let is_without = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        if let Some(name) = file.theme.as_deref().filter(|_| !is_without) {
            theme = theme.with_colours(match name {
                "auto" => theme.colours(),
                "none" => Colours::None,
                "16" => Colours::Sixteen,
                "256" => Colours::Many,
                _ => anyhow::bail!("{name} is no theme; write auto, none, 16 or 256"),
            });
        }
        if file.ascii == Some(true) {
            theme = theme.without_unicode();
        }
        let interval = file.interval.as_deref().map_or(Ok(Duration::from_secs(1)), value::span);
        let sort = file.sort.as_deref().map_or(Ok(Sort::default()), value::sort);
        let mut keys = Keys::default();
        for (name, key) in &file.keys {
            keys.rebind(name, key)?;
        }
        let mut columns = Vec::new();
        for (name, names) in file.columns {
            columns.push((view(&name)?, names));
        }
        Ok(Self {
            theme,
            interval: interval.map_err(anyhow::Error::msg)?,
            sort: sort.map_err(anyhow::Error::msg)?,
            view: file.view.as_deref().map(view).transpose()?,
            keys,
            columns,
        })
    }

    /// The app as the configuration wants it.
    pub(crate) fn apply(&self, app: App) -> App {
        let columns = self.columns.iter().cloned();
        let app = app.with_keys(self.keys.clone()).with_sort(self.sort);
        columns.fold(app, |app, (view, names)| app.with_columns(view, names))
    }
}

fn view(name: &str) -> anyhow::Result<View> {
    let named = View::ALL.into_iter().find(|view| view.name().eq_ignore_ascii_case(name));
    let names: Vec<_> = View::ALL.iter().map(|view| view.name().to_lowercase()).collect();
    named.ok_or_else(|| anyhow::anyhow!("{name} is no view; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_may_be_left_out_and_nothing_misspelt() {
        assert!(Config::of("").is_ok());
        let text = "theme = \"none\"\nascii = true\ninterval = \"2s\"\nsort = \"c\"\n\
                    view = \"latency\"\n[keys]\nquit = \"F10\"\n\
                    [columns]\nslabs = [\"objects\", \"cache\"]\n";
        let config = Config::of(text).unwrap();
        assert_eq!(config.interval, Duration::from_secs(2));
        assert_eq!((config.sort, config.view), (Sort::CacheSize, Some(View::Latency)));
        assert_eq!(config.theme, Theme::new(Colours::None, false));
        for (wrong, word) in [
            ("them = \"none\"", "unknown field"),
            ("theme = \"pink\"", "pink is no theme"),
            ("interval = \"1ms\"", "at least"),
            ("sort = \"z\"", "slabtop"),
            ("view = \"x\"", "there are overview, slabs"),
            ("[keys]\nquit = \"a\"", "is the key of"),
            ("[columns]\nx = []", "is no view"),
            ("theme =", ""),
        ] {
            let error = Config::of(wrong).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{wrong}: {error}");
        }
    }
}
