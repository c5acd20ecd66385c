//! What `kmemlab info` prints.

use std::fmt::Write;

use kmemlab_trace::Recording;
use kmemlab_trace::manifest::{Manifest, TracepointRecord};
use kmemlab_trace::privacy::{ANONYMOUS, SCRUBBED};
use serde_json::{Value, json};

use super::Facts;
use crate::json::rounded;
use crate::text::{Table, bytes, count, span};

fn bytes_per_event(facts: &Facts) -> f64 {
    facts.event_bytes as f64 / facts.events.max(1) as f64
}

/// The keys are documented in `docs/json.md`.
pub(super) fn json(recording: &Recording, facts: &Facts) -> Value {
    let manifest = recording.manifest();
    let host = &manifest.host;
    let end = manifest.end.as_ref();
    let kinds: serde_json::Map<String, Value> =
        facts.kinds.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect();
    let loss: Vec<_> = facts
        .loss
        .iter()
        .map(|gap| {
            json!({
                "cpu": gap.cpu,
                "from_ns": gap.from_ns,
                "to_ns": gap.to_ns,
                "lost_events": gap.events,
            })
        })
        .collect();
    let sites: Vec<_> = facts
        .sites
        .iter()
        .map(|site| {
            json!({
                "call_site": site.name,
                "address": format!("{:#x}", site.address),
                "allocations": site.allocations,
                "bytes_requested": site.bytes_requested,
                "bytes_allocated": site.bytes_allocated,
            })
        })
        .collect();
    let tables: Vec<_> = facts
        .tables
        .iter()
        .map(|table| {
            json!({
                "table": table.name,
                "batches": table.batches,
                "rows": table.rows,
                "size_bytes": table.bytes,
            })
        })
        .collect();
    json!({
        "kernel_release": host.kernel_release,
        "host_name": host.name,
        "architecture": host.architecture,
        "cpus": host.cpus.len(),
        "page_size_bytes": host.page_size_bytes,
        "tool": manifest.tool,
        "format_version": manifest.format_version,
        "backend": manifest.backend,
        "origin": manifest.origin,
        "stacks": manifest.stacks,
        "ring_bytes": manifest.ring_bytes,
        "privacy": manifest.privacy,
        "command": manifest.command,
        "command_exit_status": end.and_then(|end| end.command_exit_status),
        "ended_cleanly": manifest.ended_cleanly(),
        "ended_by": end.map(|end| end.reason.clone()),
        "direct_map_base": facts.direct_map.map(|map| format!("{:#x}", map.base)),
        "direct_map_found_by": facts.direct_map.map(|map| map.found_by.name()),
        "direct_map_votes": facts.direct_map.map(|map| map.votes),
        "direct_map_votes_of": facts.direct_map.map(|map| map.of),
        "direct_map_is_stored": manifest.direct_map_base.is_some(),
        "span_ns": facts.span_ns,
        "events": facts.events,
        "recorder_events": facts.recorder_events,
        "lost_events": end.map_or_else(|| lost_in_gaps(facts), |end| end.lost_events),
        "counted_events": end.and_then(|end| end.counted_events),
        "damaged_batches": facts.damaged_batches,
        "events_bytes": facts.event_bytes,
        "bytes_per_event": rounded(bytes_per_event(facts)),
        "size_bytes": facts.disk_bytes,
        "events_by_kind": kinds,
        "tracepoints": manifest.tracepoints.iter().map(tracepoint).collect::<Vec<_>>(),
        "absent_tracepoints": manifest.absent_tracepoints,
        "loss": loss,
        "tables": tables,
        "call_sites": sites,
        "recorder_cpu_ns": end.map(|end| end.recorder_cpu_ns),
        "notes": notes(recording),
    })
}

fn lost_in_gaps(facts: &Facts) -> u64 {
    facts.loss.iter().map(|gap| gap.events).sum()
}

fn tracepoint(row: &TracepointRecord) -> Value {
    json!({
        "name": row.name,
        "recorded_events": row.recorded,
        "lost_events": row.lost,
        "counted_events": row.counted,
    })
}

fn notes(recording: &Recording) -> Vec<String> {
    let manifest = recording.manifest();
    recording.notes().iter().chain(&manifest.notes).cloned().collect()
}

/// The report for people.
pub(super) fn text(recording: &Recording, facts: &Facts) -> String {
    let manifest = recording.manifest();
    let host = &manifest.host;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("recording", recording.path().display().to_string());
    line(
        "host",
        format!(
            "{}, Linux {} ({}), {} processors",
            host.name,
            host.kernel_release,
            host.architecture,
            host.cpus.len()
        ),
    );
    line("made by", made_by(manifest));
    match manifest.privacy.as_str() {
        ANONYMOUS => line("privacy", "anonymous: without names".to_owned()),
        SCRUBBED => line("privacy", "scrubbed: without names, addresses relocated".to_owned()),
        _ => {}
    }
    if !manifest.command.is_empty() {
        line("command", manifest.command.join(" "));
    }
    match &manifest.end {
        Some(end) => line("ended", ended(end.reason.as_str(), end.command_exit_status)),
        None => line("ended", "cut off: readable up to its last whole batch".to_owned()),
    }
    line("span", span(facts.span_ns));
    line("events", events(facts));
    if let Some(end) = &manifest.end {
        let check = match end.counted_events {
            Some(counted) => format!("{} counted independently", count(counted)),
            None => "not counted independently".to_owned(),
        };
        line("lost", format!("{}; {check}", count(end.lost_events)));
    }
    if facts.damaged_batches > 0 {
        line("damaged", format!("{} batches, left out", count(facts.damaged_batches)));
    }
    line("size", bytes(facts.disk_bytes));
    if let Some(map) = facts.direct_map {
        let (votes, of) = (count(map.votes), count(map.of));
        let by = map.found_by.name();
        let when = if manifest.direct_map_base.is_some() { "stored" } else { "inferred now" };
        line("direct map", format!("at {:#x} ({votes} of {of} votes by {by}, {when})", map.base));
    }
    for note in notes(recording) {
        line("note", note);
    }
    text.push_str(&tables(recording, facts));
    text
}

fn events(facts: &Facts) -> String {
    if facts.events == 0 {
        return "none".to_owned();
    }
    format!(
        "{} ({} of the recorder itself), {:.2} bytes each in {}",
        count(facts.events),
        count(facts.recorder_events),
        bytes_per_event(facts),
        bytes(facts.event_bytes)
    )
}

/// What made it: a recorder, or a model under some policies.
fn made_by(manifest: &Manifest) -> String {
    let Some(run) = &manifest.model else {
        return format!(
            "{} through {}, stacks {}",
            manifest.tool, manifest.backend, manifest.stacks
        );
    };
    let names: Vec<&str> = run.policies.iter().map(|chosen| chosen.name.as_str()).collect();
    let policies = if names.is_empty() { "the baseline".to_owned() } else { names.join(" and ") };
    format!(
        "{}, a model of {} under {policies}; its order error is {:.3}%",
        manifest.tool, run.recording, run.error.order_error_mean_percent
    )
}

fn ended(reason: &str, status: Option<i32>) -> String {
    match status {
        _ if reason == "disk full" => "because the disk was full".to_owned(),
        _ if reason == "cut off" => "cut off: all up to its last whole batch".to_owned(),
        _ if reason == "error" => "because of an error".to_owned(),
        Some(status) => format!("cleanly, by {reason} (exit status {status})"),
        None => format!("cleanly, by {reason}"),
    }
}

fn tables(recording: &Recording, facts: &Facts) -> String {
    let mut text = String::from("\nEvents by tracepoint\n");
    let mut table = Table::new(["tracepoint", "events", "lost", "counted"], 1);
    for (kind, events) in &facts.kinds {
        let row = recording.manifest().tracepoints.iter().find(|row| row.name == kind.name());
        let told = |number: Option<u64>| number.map_or("-".to_owned(), count);
        table.row(vec![
            kind.name().to_owned(),
            count(*events),
            told(row.and_then(|row| row.lost)),
            told(row.and_then(|row| row.counted)),
        ]);
    }
    text.push_str(&table.render());
    if !facts.loss.is_empty() {
        let start = recording.span().map_or(0, |(first, _)| first.0);
        let mut table = Table::new(["cpu", "events", "from", "to"], 0);
        for gap in facts.loss.iter().take(20) {
            table.row(vec![
                gap.cpu.to_string(),
                count(gap.events),
                span(gap.from_ns.saturating_sub(start)),
                span(gap.to_ns.saturating_sub(start)),
            ]);
        }
        let _ = write!(text, "\nLost events ({} gaps)\n{}", facts.loss.len(), table.render());
    }
    let mut table = Table::new(["table", "batches", "rows", "size"], 1);
    for row in &facts.tables {
        table.row(vec![row.name.to_owned(), count(row.batches), count(row.rows), bytes(row.bytes)]);
    }
    let _ = write!(text, "\nTables\n{}", table.render());
    let mut table = Table::new(["call site", "allocations", "asked", "given", "waste"], 1);
    for site in &facts.sites {
        let waste = site.bytes_allocated.saturating_sub(site.bytes_requested);
        table.row(vec![
            site.name.clone(),
            count(site.allocations),
            bytes(site.bytes_requested),
            bytes(site.bytes_allocated),
            bytes(waste),
        ]);
    }
    if !table.is_empty() {
        let _ = write!(text, "\nTop call sites by bytes given\n{}", table.render());
    }
    text
}
