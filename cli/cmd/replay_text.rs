//! The replay's result as a person reads it.

use std::fmt::Write;

use kmemlab_replay::{Comparison, MirrorResult, ModelResult, Outcome, ZoneComparison};
use kmemlab_trace::{Recording, measure};

use crate::text::{Table, bytes, count, span};

/// The whole report.
pub(crate) fn render(recording: &Recording, outcome: &Outcome) -> String {
    let host = &recording.manifest().host;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: Linux {}, {} events in {}, rules of {}{}",
        recording.path().display(),
        host.kernel_release,
        count(outcome.events),
        span(outcome.span_ns),
        outcome.rules,
        outcome.rules_by_probe.iter().map(|said| format!(", {said}")).collect::<String>()
    );
    let _ = writeln!(
        text,
        "{} events lost, {} unmatched frees, {} unmatched allocations",
        count(outcome.lost_events),
        count(outcome.mirror.residue.unmatched_frees),
        count(outcome.mirror.residue.unmatched_allocs)
    );
    for note in &outcome.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if let Some(worst) = &outcome.worst {
        text.push_str(&table("Worst sample", worst));
    }
    if let Some(last) = &outcome.last {
        text.push_str(&table("Last sample", last));
    }
    text.push_str(&mirror(&outcome.mirror));
    text.push_str(&super::replay_residue::render(outcome));
    text.push_str(&model(&outcome.model));
    text.push_str(&super::replay_policies::render(outcome));
    let _ = writeln!(text, "\ndigest {:016x}", outcome.digest);
    text
}

/// Free blocks by zone and order: kernel, mirror, model and the model's difference.
fn table(title: &str, sample: &Comparison) -> String {
    let orders = sample.zones.iter().map(|zone| zone.kernel.len()).max().unwrap_or(0);
    let mut table = Table::new(["node", "zone", "source"], 3);
    let mut titles = vec!["node".to_owned(), "zone".to_owned(), "source".to_owned()];
    titles.extend((0..orders).map(|order| order.to_string()));
    titles.push("pages".to_owned());
    titles.push("order error".to_owned());
    table.set_titles(titles);
    for zone in &sample.zones {
        rows(&mut table, zone, orders);
    }
    format!(
        "\n{title}, {} after the start: free blocks by order\n{}",
        span(sample.since_ns),
        table.render()
    )
}

fn rows(table: &mut Table, zone: &ZoneComparison, orders: usize) {
    let sources = [("kernel", &zone.kernel), ("mirror", &zone.mirror), ("model", &zone.model)];
    for (index, (source, free)) in sources.into_iter().enumerate() {
        let mut cells = if index == 0 {
            vec![zone.node.to_string(), zone.zone.clone()]
        } else {
            vec![String::new(), String::new()]
        };
        cells.push(source.to_owned());
        cells.extend((0..orders).map(|order| free.get(order).copied().unwrap_or(0).to_string()));
        cells.push(count(measure::free_pages(free)));
        if index > 0 {
            cells.push(format!("{:.3}%", measure::order_error_percent(&zone.kernel, free)));
        }
        table.row(cells);
    }
    let mut cells = vec![String::new(), String::new(), "difference".to_owned()];
    cells.extend((0..orders).map(|order| {
        let of = |free: &[u64]| free.get(order).copied().unwrap_or(0) as i64;
        match of(&zone.model) - of(&zone.kernel) {
            0 => ".".to_owned(),
            difference => format!("{difference:+}"),
        }
    }));
    let pages = |free: &[u64]| measure::free_pages(free) as i64;
    cells.push(format!("{:+}", pages(&zone.model) - pages(&zone.kernel)));
    table.row(cells);
}

fn mirror(mirror: &MirrorResult) -> String {
    let (residue, hits) = (&mirror.residue, &mirror.pcp_hits);
    let mut text = String::from("\nMirror (the kernel's choices, followed)\n");
    let mut line = |text_line: String| {
        let _ = writeln!(text, "  {text_line}");
    };
    line(format!(
        "samples equal at every zone and order  {} of {}",
        count(mirror.exact_samples),
        count(mirror.samples)
    ));
    line(format!(
        "of them without an event in the read   {} of {}",
        count(mirror.exact_quiet_samples),
        count(mirror.quiet_samples)
    ));
    match mirror.wrong_pages {
        Some(wrong) => line(format!(
            "wrong pages in the last page map       {} of {} free ({} only in the mirror, {} only in the kernel)",
            count(wrong),
            count(mirror.free_pages),
            count(mirror.mirror_only_pages),
            count(mirror.kernel_only_pages)
        )),
        None => line("no last page map to compare with".to_owned()),
    }
    let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    line(format!(
        "per-CPU lists                          {:.4}% of {} allocations at the head, {:.4}% of {} drains at the tail",
        share(hits.at_head, hits.pops),
        count(hits.pops),
        share(hits.at_tail, hits.drains),
        count(hits.drains)
    ));
    let lists = &mirror.pcp_counts;
    line(format!(
        "their lengths in /proc/zoneinfo        {} of {} equal, worst difference {} pages",
        count(lists.equal),
        count(lists.compared),
        count(lists.worst_pages)
    ));
    line(format!(
        "found without an event, in pages       {} allocated in bulk, {} freed past the lists, {} taken unseen",
        count(residue.bulk_pages),
        count(residue.direct_frees),
        count(residue.hidden_takes)
    ));
    line(format!(
        "not explained                          {} pages missing, {} drains twice, {} isolations ({} ambiguous)",
        count(residue.missing_takes),
        count(residue.double_drains),
        count(residue.unsolved_isolations),
        count(residue.ambiguous_isolations)
    ));
    if residue.impossible_events > 0 {
        line(format!(
            "impossible on the recorded machine     {} events, passed over",
            count(residue.impossible_events)
        ));
    }
    line(format!(
        "speed and state                        {:.1} M events/s ({:.1} M page events/s), {}",
        mirror.speed.events_per_second() / 1e6,
        mirror.speed.page_events_per_second() / 1e6,
        bytes(mirror.state_bytes)
    ));
    text
}

fn model(model: &ModelResult) -> String {
    let mut text = String::from("\nModel (its own choices, by the kernel's policy)\n");
    let mut line = |text_line: String| {
        let _ = writeln!(text, "  {text_line}");
    };
    line(format!(
        "order error                            mean {:.3}%, worst {:.3}%",
        model.order_error_mean_percent, model.order_error_worst_percent
    ));
    line(format!(
        "placement of {:<12} allocations   {:.2}% at the kernel's page, {:.2}% in its pageblock",
        count(model.placement.allocs),
        model.placement.exact_percent(),
        model.placement.same_block_percent()
    ));
    for error in &model.unusable {
        line(format!(
            "unusable free space, order {:<2}          mean {:.2}, worst {:.2} points",
            error.order, error.mean_points, error.worst_points
        ));
    }
    let (kernel, own) = (&model.fallback.kernel, &model.fallback.model);
    line(format!(
        "fallbacks, kernel / model              whole claims {} / {}, small claims {} / {}, steals {} / {}",
        count(kernel.whole_claims),
        count(own.whole_claims),
        count(kernel.small_claims),
        count(own.small_claims),
        count(kernel.steals),
        count(own.steals)
    ));
    if let (Some(first), Some(last)) = (model.drift.first(), model.drift.last()) {
        line(format!(
            "drift of the order error               {:.3}% at the first sample, {:.3}% {} later",
            first.order_error_percent,
            last.order_error_percent,
            span(last.since_ns - first.since_ns)
        ));
    }
    let moved = &model.moved;
    line(format!(
        "refills, kernel / model                {} / {}, {:.2}% of equal size",
        count(moved.kernel_refills),
        count(moved.model_refills),
        moved.equal_refills_percent()
    ));
    line(format!(
        "drains, kernel / model                 {} / {}, {:.2}% of equal size",
        count(moved.kernel_drains),
        count(moved.model_drains),
        moved.equal_drains_percent()
    ));
    line(format!(
        "failures, kernel / model               {} / {}, {} served below the watermark",
        count(model.kernel_failures),
        count(model.counts.all_failures()),
        count(model.counts.below_watermark)
    ));
    line(format!(
        "wakes of kswapd, kernel / model        {} / {}",
        count(model.kernel_kswapd_wakes),
        count(model.counts.kswapd_wakes)
    ));
    line(format!(
        "speed and state                        {:.1} M events/s ({:.1} M page events/s), {}",
        model.speed.events_per_second() / 1e6,
        model.speed.page_events_per_second() / 1e6,
        bytes(model.state_bytes)
    ));
    text
}
