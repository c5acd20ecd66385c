//! What the mirror could not explain, as a person reads it.

use std::collections::BTreeMap;
use std::fmt::Write;

use kmemlab_replay::residue::{Cause, Evidence, ResidueSum};
use kmemlab_replay::{MirrorResult, Outcome};

use crate::text::{Table, count, span};

/// One line for each place, zone and cause, over all orders; nothing when all was explained.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mirror = &outcome.mirror;
    let mut text = unsure(mirror, outcome.start_ns);
    if mirror.table.sums.is_empty() {
        text.push_str("\nResidue: none, every sample and page is explained\n");
        return text;
    }
    let titles = ["found at", "zone", "cause", "orders", "rows", "over", "under", "first", "last"];
    let mut table = Table::new(titles, 3);
    for ((evidence, zone, cause), (orders, sum)) in by_cause(mirror) {
        let since = |at_ns: u64| span(at_ns.saturating_sub(outcome.start_ns));
        table.row(vec![
            evidence.name().to_owned(),
            zone,
            cause.name().replace('_', " "),
            orders_of(&orders),
            count(sum.rows),
            count(sum.pages_over),
            count(sum.pages_under),
            since(sum.first_ns),
            since(sum.last_ns),
        ]);
    }
    let _ = write!(
        text,
        "\nResidue: what the mirror could not explain (pages that it had over and under the kernel's)\n{}",
        table.render()
    );
    let residue = &mirror.table;
    if residue.hidden_refills + residue.hidden_drains > 0 {
        let _ = writeln!(
            text,
            "  threads that fire no events: {} refills ({} pages), {} drains ({} pages)",
            count(residue.hidden_refills),
            count(residue.hidden_refill_pages),
            count(residue.hidden_drains),
            count(residue.hidden_drain_pages)
        );
    }
    text
}

type Line = (Evidence, String, Cause);

fn by_cause(mirror: &MirrorResult) -> BTreeMap<Line, (Vec<u8>, ResidueSum)> {
    let mut lines: BTreeMap<Line, (Vec<u8>, ResidueSum)> = BTreeMap::new();
    for (key, sum) in &mirror.table.sums {
        let line = (key.evidence, format!("{}:{}", key.node, key.zone), key.cause);
        let (orders, whole) = lines.entry(line).or_default();
        orders.push(key.order);
        whole.merge(sum);
    }
    lines
}

fn orders_of(orders: &[u8]) -> String {
    match (orders.first(), orders.last()) {
        (Some(first), Some(last)) if first != last => format!("{first}-{last}"),
        (Some(first), _) => first.to_string(),
        _ => String::new(),
    }
}

fn unsure(mirror: &MirrorResult, start_ns: u64) -> String {
    let mut text = String::new();
    for interval in &mirror.unsure {
        let since = |at_ns: u64| span(at_ns.saturating_sub(start_ns));
        let until = match interval.until_ns {
            Some(until_ns) => format!(
                "to {}, where {} pages were taken off and {} put on to make the counts the kernel's",
                since(until_ns),
                count(interval.removed_pages),
                count(interval.added_pages)
            ),
            None => "to the end".to_owned(),
        };
        let _ = writeln!(
            text,
            "\nUnsure: {} events are lost; the state is unsure from {} {until}; which pages are free \
             stays unsure after it",
            count(interval.lost_events),
            since(interval.from_ns)
        );
    }
    text
}
