//! The other policies' results, as text and as JSON.

use std::fmt::Write;

use kmemlab_replay::policy::PolicySet;
use kmemlab_replay::{ModelResult, Outcome, PolicyOutcome};
use serde_json::{Value, json};

use crate::json::rounded;
use crate::text::{Table, count};

/// What was chosen, role by role.
pub(super) fn chosen(policies: &PolicySet) -> Value {
    let chosen: Vec<_> = policies
        .chosen
        .iter()
        .map(|chosen| {
            let params: serde_json::Map<_, _> = chosen
                .params
                .given()
                .iter()
                .map(|(key, value)| (key.clone(), Value::from(value.clone())))
                .collect();
            json!({ "role": chosen.role.name(), "name": chosen.name, "params": params })
        })
        .collect();
    chosen.into()
}

/// One set of policies: its name, what was chosen, and what it came to beside `model`'s keys.
pub(super) fn as_json(run: &PolicyOutcome, baseline: &ModelResult, model: Value) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("name".to_owned(), run.policies.name.clone().into());
    object.insert("policies".to_owned(), chosen(&run.policies));
    let differences: Vec<_> = baseline
        .unusable_index
        .iter()
        .zip(&run.result.unusable_index)
        .map(|(base, own)| {
            json!({
                "order": own.order,
                "baseline_mean_points": rounded(base.model_mean_points),
                "mean_points": rounded(own.model_mean_points),
                "difference_points": rounded(own.model_mean_points - base.model_mean_points),
                "model_error_points": rounded(base.error_mean_points),
            })
        })
        .collect();
    object.insert("unusable_against_baseline".to_owned(), differences.into());
    if let Value::Object(rest) = model {
        object.extend(rest);
    }
    object.into()
}

/// Kernel, baseline and the other policies beside each other, with the error bar.
pub(super) fn render(outcome: &Outcome) -> String {
    if outcome.policies.is_empty() {
        return String::new();
    }
    let base = &outcome.model;
    let mut titles = vec!["Policies".to_owned(), "kernel".to_owned(), "baseline".to_owned()];
    titles.extend(outcome.policies.iter().map(|run| run.policies.name.clone()));
    titles.push("model\u{2019}s error".to_owned());
    let mut table = Table::new(["Policies"], 1);
    table.set_titles(titles);
    for (place, index) in base.unusable_index.iter().enumerate() {
        let of =
            |result: &ModelResult| result.unusable_index.get(place).map(|i| i.model_mean_points);
        let mut cells = vec![
            format!("unusable free space, order {}, points", index.order),
            format!("{:.2}", index.kernel_mean_points),
            format!("{:.2}", index.model_mean_points),
        ];
        let points = |run: &PolicyOutcome| format!("{:.2}", of(&run.result).unwrap_or(0.0));
        cells.extend(outcome.policies.iter().map(points));
        cells.push(format!("{:.2}", index.error_mean_points));
        table.row(cells);
    }
    type Number = fn(&ModelResult) -> u64;
    let rows: [(&str, Option<u64>, Number); 9] = [
        ("whole claims", Some(base.fallback.kernel.whole_claims), |r| {
            r.fallback.model.whole_claims
        }),
        ("small claims", Some(base.fallback.kernel.small_claims), |r| {
            r.fallback.model.small_claims
        }),
        ("steals", Some(base.fallback.kernel.steals), |r| r.fallback.model.steals),
        ("failed requests", Some(base.kernel_failures), |r| r.counts.all_failures()),
        ("kswapd wakes", Some(base.kernel_kswapd_wakes), |r| r.counts.kswapd_wakes),
        ("refills", Some(base.moved.kernel_refills), |r| r.moved.model_refills),
        ("drains", Some(base.moved.kernel_drains), |r| r.moved.model_drains),
        ("splits", None, |r| r.work.splits),
        ("merges", None, |r| r.work.merges),
    ];
    for (name, kernel, of) in rows {
        let mut cells = vec![name.to_owned()];
        cells.push(kernel.map_or_else(|| "-".to_owned(), count));
        cells.push(count(of(base)));
        cells.extend(outcome.policies.iter().map(|run| count(of(&run.result))));
        cells
            .push(kernel.map_or_else(|| "-".to_owned(), |kernel| count(kernel.abs_diff(of(base)))));
        table.row(cells);
    }
    let mut text = format!("\n{}", table.render());
    for run in outcome.policies.iter().filter(|run| run.result.counts.illegal_verdicts > 0) {
        let count = count(run.result.counts.illegal_verdicts);
        let _ =
            writeln!(text, "  {}: {count} verdicts could not be carried out", run.policies.name);
    }
    text
}
