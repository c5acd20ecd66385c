//! Rules of the house that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{skipped, text_of};

const LINES_MAX: usize = 500;
const LINES_MAX_WITH_TESTS: usize = 800;
const COLUMNS_MAX: usize = 100;

/// A file that is part of the sources.
struct Source {
    name: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.name.ends_with(".rs")
    }

    /// Tests, examples and this suite: they may print, stop and wait.
    fn is_test(&self) -> bool {
        let folders = ["tests", "examples", "benches"];
        let mut parts = Path::new(&self.name).iter().map(|part| part.to_string_lossy());
        parts.any(|part| folders.contains(&&*part)) || self.name.ends_with("tests.rs")
    }

    /// The lines before `#[cfg(test)] mod tests {`, numbered, without comments of their own.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that git knows or would take; without git, all below the root.
fn sources() -> Vec<Source> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let names: Vec<String> = match command.output() {
        Ok(output) if output.status.success() => {
            text_of(&output).lines().map(str::to_owned).collect()
        }
        _ => {
            let mut names = Vec::new();
            walk(root(), &mut names);
            names
        }
    };
    let read = |name: String| {
        let text = String::from_utf8(fs::read(root().join(&name)).ok()?).ok()?;
        (!text.contains('\0')).then_some(Source { name, text })
    };
    names.into_iter().filter_map(read).collect()
}

fn walk(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name == "target" || name == ".git" || path.extension().is_some_and(|it| it == "kmt") {
            continue;
        }
        if path.is_dir() {
            walk(&path, names);
        } else {
            names.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
        }
    }
}

/// Fails with all that was found, not with the first.
#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}: {} places\n  {}", found.len(), found.join("\n  "));
}

/// Places in the code (no comments, no tests) that hold one of these words.
fn places(is_looked_at: impl Fn(&Source) -> bool, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust() && is_looked_at(source)) {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", source.name, line.trim()));
            }
        }
    }
    found
}

/// Names of the dependencies of a manifest, by section; dotted and quoted forms too.
fn dependencies(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            sections.entry(section.clone()).or_default().insert(name.trim_matches('"').to_owned());
        }
    }
    sections
}

#[test]
fn the_arrows_between_crates_are_the_documented_ones() {
    // Crate, our crates that it may use, and heavy crates that it alone may use.
    let rules: [(&str, &[&str], &[&str]); 6] = [
        ("trace", &[], &[]),
        ("replay", &["kmemlab-trace"], &[]),
        ("collector", &["kmemlab-trace"], &["perf-event-open", "blazesym"]),
        ("analyze", &["kmemlab-trace"], &["polars", "parquet"]),
        ("tui", &["kmemlab-trace"], &["ratatui", "crossterm"]),
        (
            ".",
            &[
                "kmemlab-trace",
                "kmemlab-collector",
                "kmemlab-replay",
                "kmemlab-analyze",
                "kmemlab-tui",
            ],
            &["clap", "anyhow", "signal-hook"],
        ),
    ];
    let mut found = Vec::new();
    for (folder, ours, heavy) in rules {
        let sections = dependencies(folder);
        let used = sections.get("dependencies").into_iter().flatten();
        for name in used {
            let is_allowed = ours.contains(&name.as_str());
            if name.starts_with("kmemlab-") && !is_allowed {
                found.push(format!("{folder} uses {name}"));
            }
            let owner = rules.iter().find(|(_, _, heavy)| heavy.contains(&name.as_str()));
            if owner.is_some() && !heavy.contains(&name.as_str()) {
                found.push(format!("{folder} uses {name}"));
            }
        }
    }
    none("arrows that are not in the plan", &found);
    let replay = &dependencies("replay")["dependencies"];
    let allowed = BTreeSet::from(["kmemlab-trace", "rayon", "thiserror"].map(str::to_owned));
    assert!(replay.is_subset(&allowed), "replay is a pure function of the trace: {replay:?}");
}

#[test]
fn unsafe_code_is_in_the_collector_s_system_calls_only() {
    let is_elsewhere = |source: &Source| {
        let allowed = ["collector/src/sys.rs", "collector/src/perf/", "collector/src/clock.rs"];
        !allowed.iter().any(|place| source.name.starts_with(place)) && source.name != NAME
    };
    none("unsafe code", &places(is_elsewhere, &["unsafe {", "unsafe fn", "unsafe impl"]));
    none("lifted lint", &places(is_elsewhere, &["allow(unsafe_code"]));
}

/// This file names what it bans.
const NAME: &str = "tests/tidy.rs";

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        let end = source.text.find("#[cfg(test)]\nmod tests {").unwrap_or(source.text.len());
        let (code, all) = (source.text[..end].lines().count(), source.text.lines().count());
        if code > LINES_MAX || all > LINES_MAX_WITH_TESTS {
            found.push(format!("{}: {all} lines, {code} without its tests", source.name));
        }
    }
    none("files that are too long", &found);
}

#[test]
fn lines_are_narrow() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        for (number, width) in wide_lines(&source.text) {
            found.push(format!("{}:{number}: {width} columns", source.name));
        }
    }
    none("lines that are too wide", &found);
}

/// Lines wider than allowed, counting a string as if it were empty: sentences and the kernel's own
/// lines stay whole, so that they can be searched for.
fn wide_lines(text: &str) -> Vec<(usize, usize)> {
    let mut wide = Vec::new();
    let mut quote: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let (width, rest) = width_without_strings(line, quote);
        quote = rest;
        if line.chars().count() > COLUMNS_MAX && width > COLUMNS_MAX {
            wide.push((index + 1, width));
        }
    }
    wide
}

/// Columns outside of strings, and the end of the string that goes on in the next line, if any.
fn width_without_strings(line: &str, mut quote: Option<String>) -> (usize, Option<String>) {
    let mut width = 0;
    let mut rest = line;
    while !rest.is_empty() {
        if let Some(end) = &quote {
            if end == "\"" && rest.starts_with('\\') {
                rest = rest.get(2..).unwrap_or("");
            } else if let Some(after) = rest.strip_prefix(end.as_str()) {
                rest = after;
                quote = None;
            } else {
                rest = &rest[rest.chars().next().map_or(1, char::len_utf8)..];
            }
            continue;
        }
        if rest.starts_with("//") {
            return (width + rest.chars().count(), None);
        }
        let token = ["r##\"", "r#\"", "r\"", "'\\\"'", "'\"'", "\""]
            .into_iter()
            .find(|token| rest.starts_with(token));
        let taken = token.map_or_else(|| rest.chars().next().map_or(1, char::len_utf8), str::len);
        quote = token.filter(|token| !token.starts_with('\'')).map(|token| match token {
            "r##\"" => "\"##".to_owned(),
            "r#\"" => "\"#".to_owned(),
            _ => "\"".to_owned(),
        });
        width += rest[..taken].chars().count();
        rest = &rest[taken..];
    }
    (width, quote)
}

#[test]
fn wide_lines_are_told_from_long_sentences() {
    let code = "x".repeat(101);
    assert_eq!(wide_lines(&format!("short\n{code}\n")), [(2, 101)]);
    assert_eq!(wide_lines(&format!("// {code}\n")).len(), 1);
    assert!(wide_lines(&format!("say(\"{code}\\\"{code}\")\n")).is_empty());
    assert!(wide_lines(&format!("let x = r#\"a\n{code}\n\"#;\n")).is_empty());
    assert_eq!(wide_lines(&format!("let x = '\"'; {code}\n")).len(), 1);
}

#[test]
fn no_tabs_and_no_trailing_space() {
    let mut found = Vec::new();
    let is_ours = |source: &&Source| {
        let endings = [".rs", ".md", ".toml", ".sh", ".py", ".yml"];
        endings.iter().any(|ending| source.name.ends_with(ending))
    };
    for source in sources().iter().filter(is_ours) {
        let mut quote = None;
        for (index, line) in source.text.lines().enumerate() {
            if source.is_rust() {
                quote = width_without_strings(line, quote).1;
            }
            // The kernel's own lines end as they end.
            if quote.is_none() && (line.contains('\t') || line.trim_end() != line) {
                found.push(format!("{}:{}", source.name, index + 1));
            }
        }
        if !source.text.is_empty() && !source.text.ends_with('\n') {
            found.push(format!("{}: no line end at its end", source.name));
        }
    }
    none("tabs and trailing space", &found);
}

#[test]
fn nothing_is_left_for_later() {
    let mut found = Vec::new();
    let words = ["TODO", "FIXME", "XXX", "HACK", "todo!(", "unimplemented!(", "dbg!("];
    let in_prose = ["TODO:", "FIXME:", "TBD"];
    for source in sources().iter().filter(|source| source.name != NAME) {
        let words: &[&str] = if source.is_rust() {
            &words
        } else if source.name.ends_with(".md") {
            &in_prose
        } else {
            continue;
        };
        for (index, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", source.name, index + 1, line.trim()));
            }
        }
    }
    none("things left for later", &found);
    let attic = ["utils", "misc", "common", "helpers", "old", "v0", "priv"];
    let is_attic = |source: &&Source| {
        let stem = Path::new(&source.name).file_stem().unwrap_or_default().to_string_lossy();
        source.is_rust() && attic.contains(&&*stem)
    };
    let found: Vec<String> =
        sources().iter().filter(is_attic).map(|source| source.name.clone()).collect();
    none("names that say nothing", &found);
}

#[test]
fn only_the_program_prints_and_exits() {
    let is_library = |source: &Source| !source.is_test() && !source.name.starts_with("cli/");
    let words = ["println!", "print!(", "eprint!(", "process::exit"];
    none("printing libraries", &places(is_library, &words));
    // The screen is the terminal's.
    let is_plain = |source: &Source| is_library(source) && !source.name.starts_with("tui/src/");
    none("writing libraries", &places(is_plain, &["io::stdout", "io::stderr"]));
    let is_program = |source: &Source| source.name.starts_with("cli/");
    none("macros that panic on a closed pipe", &places(is_program, &["println!", "print!("]));
    let is_not_exit = |source: &Source| !source.is_test() && source.name != "cli/exit.rs";
    none("exits", &places(is_not_exit, &["process::exit"]));
}

#[test]
fn the_replay_is_a_pure_function() {
    let is_replay = |source: &Source| source.name.starts_with("replay/src/");
    let words = ["std::time", "Instant::now", "SystemTime", "std::thread", "std::fs", "std::env"];
    none("clocks, threads and files in the replay", &places(is_replay, &words));
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust() && is_replay(source)) {
        found.extend(hash_iterations(source));
    }
    none("iterations in hash order in the replay", &found);
}

/// Loops over what the file declares as a `HashMap` or `HashSet`.
fn hash_iterations(source: &Source) -> Vec<String> {
    let declared = |line: &str| {
        let at = line.find(": HashMap<").or_else(|| line.find(": HashSet<"))?;
        let name = line[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        Some(name.to_owned())
    };
    let names: BTreeSet<String> = source.code().filter_map(|(_, line)| declared(line)).collect();
    let ways = ["iter()", "iter_mut()", "keys()", "values()", "values_mut()", "drain()", "retain("];
    let mut found = Vec::new();
    for (number, line) in source.code() {
        let is_iterated = names.iter().any(|name| {
            ways.iter().any(|way| line.contains(&format!("{name}.{way}")))
                || line.contains(&format!("in &self.{name} "))
                || line.contains(&format!("in self.{name} "))
        });
        if is_iterated {
            found.push(format!("{}:{number}: {}", source.name, line.trim()));
        }
    }
    found
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.name.ends_with(".md")) {
        let folder = root().join(&source.name).parent().map(PathBuf::from).unwrap();
        for target in links(&source.text) {
            let path = target.split(['#', '?']).next().unwrap_or("");
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !path.is_empty() && !folder.join(path).exists() {
                found.push(format!("{}: {target}", source.name));
            }
        }
    }
    none("links to nothing", &found);
}

/// Targets of `[text](target)`, outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut links = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let parts = line.split("](").skip(1).filter(|_| !is_code);
        links.extend(parts.filter_map(|part| part.split([')', ' ']).next()));
    }
    links
}

#[test]
fn no_path_of_anyone_s_machine() {
    let mut found = Vec::new();
    let homes = ["work", "root", "home", "Users", "tmp/h1"];
    for source in sources().iter().filter(|source| source.name != NAME) {
        if source.name.starts_with("collector/tests/kernels/") {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            let is_path = |home: &&str| {
                let path = format!("/{home}/");
                line.match_indices(&path).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && !"./_-{}$*\"".contains(c))
                        || (before == Some('"') && line[at + path.len()..].contains('/'))
                })
            };
            if homes.iter().any(is_path) {
                found.push(format!("{}:{}: {}", source.name, index + 1, line.trim()));
            }
        }
    }
    none("paths of one machine", &found);
}

#[test]
fn every_sample_trace_says_what_it_is() {
    let traces = crate::support::sample_traces();
    if traces.is_empty() {
        return skipped("no sample traces, nothing to say of them");
    }
    for trace in traces {
        assert!(trace.join("manifest.json").is_file(), "{}", trace.display());
        let told = crate::support::info(&trace, &[]);
        assert_eq!(told["ended_cleanly"], true, "{}", trace.display());
    }
}
