//! `kmemlab compare`

use std::fmt::Write;

use kmemlab_analyze::compare::{Compared, Metric, Side, Verdict, compare, show};
use kmemlab_trace::Recording;
use serde_json::{Value, json};

use crate::args::CompareArgs;
use crate::exit::Answer;
use crate::json::rounded;
use crate::text::Table;

pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<Answer> {
    let a = Recording::open(&args.a, args.salvage)?;
    let b = Recording::open(&args.b, args.salvage)?;
    let mut compared = compare(&a, &b)?;
    for recording in [&a, &b] {
        compared.notes.extend(recording.notes().iter().cloned());
    }
    if args.json {
        crate::json::print(&as_json(&compared))?;
    } else {
        crate::exit::print(&render(&compared))?;
    }
    Ok(Answer::Yes)
}

/// The keys are documented in `docs/json.md`.
fn as_json(compared: &Compared) -> Value {
    let side = |side: &Side| {
        json!({
            "path": side.path,
            "what": side.what,
            "samples": side.samples,
        })
    };
    let metric = |metric: &Metric| {
        json!({
            "name": metric.name,
            "a": rounded(metric.a),
            "b": rounded(metric.b),
            "difference": rounded(metric.b - metric.a),
            "model_error": metric.error.map(rounded),
            "verdict": metric.verdict().name(),
        })
    };
    let orders: Vec<_> = compared
        .orders
        .iter()
        .map(|row| {
            json!({
                "order": row.order,
                "a_mean_free_blocks": rounded(row.a),
                "b_mean_free_blocks": rounded(row.b),
            })
        })
        .collect();
    json!({
        "a": side(&compared.a),
        "b": side(&compared.b),
        "same_events": compared.same_events,
        "order_difference_percent": compared.order_difference_percent.map(rounded),
        "order_error_percent": compared.order_error_percent.map(rounded),
        "orders": orders,
        "metrics": compared.metrics.iter().map(metric).collect::<Vec<_>>(),
        "verdict": compared.verdict(),
        "notes": compared.notes,
    })
}

fn render(compared: &Compared) -> String {
    let mut text = String::new();
    for (name, side) in [("A", &compared.a), ("B", &compared.b)] {
        let _ = writeln!(text, "{name}: {} ({}), {} samples", side.path, side.what, side.samples);
    }
    for note in &compared.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if let Some(difference) = compared.order_difference_percent {
        let _ = write!(text, "{difference:.3}% of the free pages stand at another order");
        if let Some(error) = compared.order_error_percent {
            let _ = write!(text, "; the model\u{2019}s own error is {error:.3}%");
        }
        text.push('\n');
    }
    let mut orders = Table::new(["free blocks, mean"], 1);
    let titles = compared.orders.iter().map(|row| row.order.to_string());
    orders.set_titles(std::iter::once("free blocks, mean".to_owned()).chain(titles).collect());
    for (name, b) in [("A", false), ("B", true)] {
        let cells =
            compared.orders.iter().map(|row| format!("{:.1}", if b { row.b } else { row.a }));
        orders.row(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    let _ = write!(text, "\n{}\n", orders.render());
    let mut table = Table::new(["", "A", "B", "difference", "model\u{2019}s error", "B is"], 1);
    for metric in &compared.metrics {
        let difference = metric.b - metric.a;
        let sign = if difference > 0.0 { "+" } else { "" };
        table.row(vec![
            metric.what.clone(),
            show(metric.a),
            show(metric.b),
            match metric.verdict() {
                Verdict::Equal => ".".to_owned(),
                _ => format!("{sign}{}", show(difference)),
            },
            metric.error.map_or_else(|| "-".to_owned(), show),
            metric.verdict().name().to_owned(),
        ]);
    }
    let _ = write!(text, "{}\n{}\n", table.render(), compared.verdict());
    text
}
