//! `docs/format.md` says what the code says.
//!
//! Text between `<!-- generated: NAME -->` and `<!-- end -->` is written by this test when
//! `UPDATE_DOCS=1` is set and compared otherwise. Between `<!-- keys: NAME -->` and `<!-- end -->`
//! stand tables written by hand, whose first column must name every key there is and no other.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write;

use kmemlab_trace::batch::FIXED_COLUMNS;
use kmemlab_trace::event::{Column, Kind};
use kmemlab_trace::format::{CellType, TABLES, TableSpec, VERSION};
use kmemlab_trace::manifest::{End, Host, Manifest, ModelRun, StackRun, TracepointRecord, Zone};
use kmemlab_trace::snapshot::PageUse;
use kmemlab_trace::tracepoint::{self, Need};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format.md");
const STALE: &str = "stale: run UPDATE_DOCS=1 cargo test -p kmemlab-trace --test docs";
const END: &str = "<!-- end -->";

/// Writes a generated part.
type Generator = fn() -> String;

const GENERATORS: [(&str, Generator); 5] = [
    ("version", version),
    ("fixed columns", fixed_columns),
    ("optional columns", optional_columns),
    ("tracepoints", tracepoints),
    ("tables", tables),
];

#[test]
fn the_generated_tables_are_current() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    for (name, _) in GENERATORS {
        let marker = format!("<!-- generated: {name} -->");
        assert_eq!(page.lines().filter(|line| *line == marker).count(), 1, "{marker}");
    }
    let wanted = generate(&page);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(PAGE, &wanted).unwrap();
        return;
    }
    let differs = page.lines().zip(wanted.lines()).position(|(have, want)| have != want);
    let line = differs.unwrap_or_else(|| page.lines().count().min(wanted.lines().count())) + 1;
    assert!(page == wanted, "docs/format.md, line {line}: {STALE}");
}

#[test]
fn every_manifest_key_is_described() {
    let manifest = Manifest {
        host: Host { zones: vec![Zone::default()], ..Host::default() },
        tracepoints: vec![TracepointRecord::default()],
        model: Some(ModelRun { stack: Some(StackRun::default()), ..ModelRun::default() }),
        end: Some(End::default()),
        ..Manifest::default()
    };
    let value = serde_json::to_value(manifest).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect();
    let mut whole: BTreeSet<String> = keys(&value);
    whole.insert("checksum".to_owned());
    assert_eq!(described("manifest"), whole);
    assert_eq!(described("host"), keys(&value["host"]));
    assert_eq!(described("zone"), keys(&value["host"]["zones"][0]));
    assert_eq!(described("tracepoint"), keys(&value["tracepoints"][0]));
    assert_eq!(described("end"), keys(&value["end"]));
    assert_eq!(described("model"), keys(&value["model"]));
    assert_eq!(described("counts"), keys(&value["model"]["counts"]));
    assert_eq!(described("error"), keys(&value["model"]["error"]));
    assert_eq!(described("stack"), keys(&value["model"]["stack"]));
    assert_eq!(described("figures"), keys(&value["model"]["stack"]["model"]));
}

#[test]
fn every_page_use_is_described() {
    let uses = PageUse::ALL.iter().map(|(_, name)| (*name).to_owned()).collect();
    assert_eq!(described("page_use"), uses);
}

/// The page with every generated part as it should be.
fn generate(page: &str) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        let name = line.strip_prefix("<!-- generated: ").and_then(|name| name.strip_suffix(" -->"));
        let Some(name) = name else { continue };
        let known = GENERATORS.iter().find(|(known, _)| *known == name);
        let (_, write) = known.unwrap_or_else(|| panic!("nothing generates {name}"));
        out.push_str(&write());
        assert!(lines.any(|line| line == END), "no {END} after {name}");
        let _ = writeln!(out, "{END}");
    }
    out
}

/// The first column of a table written by hand.
fn described(name: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let marker = format!("<!-- keys: {name} -->");
    let lines = page.lines().skip_while(|line| *line != marker).take_while(|line| *line != END);
    let keys: Vec<String> = lines
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    let set: BTreeSet<String> = keys.iter().cloned().collect();
    assert_eq!(set.len(), keys.len(), "{name}: a key is described twice");
    set
}

fn version() -> String {
    format!("The version is {VERSION}.\n")
}

fn fixed_columns() -> String {
    let mut text = String::from("| column | Arrow type | meaning |\n| --- | --- | --- |\n");
    for (name, ty, help) in FIXED_COLUMNS {
        let _ = writeln!(text, "| `{name}` | {ty} | {help} |");
    }
    text
}

fn optional_columns() -> String {
    let mut text = String::from("| column | Arrow type | meaning |\n| --- | --- | --- |\n");
    for (_, name, ty, help) in Column::ALL {
        let _ = writeln!(text, "| `{name}` | {ty} | {help} |");
    }
    text
}

fn tracepoints() -> String {
    let mut text = String::from("| tracepoint | group | column = field |\n| --- | --- | --- |\n");
    for row in tracepoint::ALL {
        let fields: Vec<String> = row
            .fields
            .iter()
            .map(|field| {
                let mark = if field.need == Need::Optional { "?" } else { "" };
                match (field.field, field.column.name()) {
                    (same, column) if same == column => format!("`{column}`{mark}"),
                    (field, column) => format!("`{column}` = {field}{mark}"),
                }
            })
            .collect();
        let need = if row.need == Need::Required { " (needed)" } else { "" };
        let (name, group) = (row.kind.name(), row.group.name());
        let _ = writeln!(text, "| `{name}` | {group}{need} | {} |", fields.join(", "));
    }
    assert_eq!(tracepoint::ALL.len(), Kind::ALL.len());
    text
}

fn tables() -> String {
    TABLES.iter().map(table).collect::<Vec<_>>().join("\n")
}

fn table(spec: &TableSpec) -> String {
    let mut text = format!("#### `{}`\n\n`{}`: {}.\n\n", spec.name, spec.file, spec.help);
    text.push_str("| column | Arrow type | meaning |\n| --- | --- | --- |\n");
    for column in spec.columns {
        let ty = match column.cell {
            CellType::U64 => "UInt64",
            CellType::U32 => "UInt32",
            CellType::U16 => "UInt16",
            CellType::I64 => "Int64",
            CellType::Bool => "Boolean",
            CellType::Word => "Dictionary(UInt32, Utf8)",
            CellType::Text => "Utf8",
        };
        let null = if column.nullable { ", may be null" } else { "" };
        let _ = writeln!(text, "| `{}` | {ty}{null} | {} |", column.name, column.help);
    }
    text
}
