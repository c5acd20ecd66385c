//! `kmemlab doctor`

use std::fmt::Write;

use kmemlab_collector::doctor::{self, Check, State};
use kmemlab_collector::root::Root;
use kmemlab_trace::tracepoint::{self, Need};
use serde_json::json;

use crate::args::DoctorArgs;
use crate::exit::Answer;
use crate::text::Table;

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<Answer> {
    let fields: Vec<Vec<&str>> = tracepoint::ALL.iter().map(|row| required_fields(row)).collect();
    let wanted: Vec<(&str, &str, &[&str])> = tracepoint::ALL
        .iter()
        .zip(&fields)
        .map(|(row, fields)| (row.system(), row.event(), fields.as_slice()))
        .collect();
    let checks = doctor::check(&Root::new(&args.root), &wanted);
    if args.json {
        let rows: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({
                    "name": check.name,
                    "state": word(check.state),
                    "found": check.found,
                    "mend": check.mend,
                })
            })
            .collect();
        crate::json::print(&json!({ "can_record": can_record(&checks), "checks": rows }))?;
    } else {
        crate::exit::print(&render(&checks))?;
    }
    Ok(if can_record(&checks) { Answer::Yes } else { Answer::No })
}

fn required_fields(row: &tracepoint::Tracepoint) -> Vec<&'static str> {
    row.fields
        .iter()
        .filter(|field| field.need == Need::Required)
        .map(|field| field.field)
        .collect()
}

fn can_record(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != State::Fail)
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "FAIL",
    }
}

fn render(checks: &[Check]) -> String {
    let mut table = Table::new(["state", "check", "found"], 3);
    for check in checks {
        table.row(vec![word(check.state).to_owned(), check.name.clone(), check.found.clone()]);
        if let Some(mend) = &check.mend {
            table.row(vec![String::new(), String::new(), format!("mend: {mend}")]);
        }
    }
    let mut text = table.render();
    let failed = checks.iter().filter(|check| check.state == State::Fail).count();
    let warned = checks.iter().filter(|check| check.state == State::Warn).count();
    let _ = match (failed, warned) {
        (0, 0) => writeln!(text, "This machine can be recorded in full."),
        (0, _) => writeln!(text, "This machine can be recorded; {warned} things will be lacking."),
        _ => writeln!(text, "This machine cannot be recorded: {failed} checks failed."),
    };
    text
}
