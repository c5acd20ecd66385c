//! Two recordings side by side, at the same time since the beginning of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use kmemlab_trace::unit::Nanos;
use kmemlab_tui::parts::{Compared, Comparison};
use kmemlab_tui::source::SourceError;
use kmemlab_tui::{MarkKind, Snapshot};

use super::recording::RecordingSource;

/// Numbers of a recording by group and name, with their weights.
type Numbers = BTreeMap<(&'static str, String), (u64, u64)>;

/// Compares a recording at a moment with another one at the corresponding moment.
pub(super) fn compare(
    one: &mut RecordingSource,
    two: &mut RecordingSource,
    snapshot: &Snapshot,
) -> Result<Comparison, SourceError> {
    let since = snapshot.at.0.saturating_sub(one.outline.begin.0);
    let there = Nanos(two.outline.begin.0.saturating_add(since)).min(two.outline.end);
    let other = two.both(there)?;
    let first = numbers(one, snapshot);
    let second = numbers(two, &other);
    let mut keys: Vec<_> = first.keys().chain(second.keys()).collect();
    keys.sort();
    keys.dedup();
    let rows = keys.into_iter().map(|key| {
        let told = |numbers: &Numbers| numbers.get(key).map(|(value, _)| *value);
        let weight = first.get(key).or_else(|| second.get(key)).map_or(1, |(_, weight)| *weight);
        Compared {
            group: Arc::from(key.0),
            name: Arc::from(key.1.as_str()),
            values: vec![told(&first), told(&second)],
            weight,
        }
    });
    let rows = rows.collect();
    let names = [&one.outline.about.name, &two.outline.about.name];
    let verdict = format!("A: {}  B: {}, at the same time since the start", names[0], names[1]);
    let tellers = vec!["A".to_owned(), "B".to_owned()];
    Ok(Comparison { tellers, at: snapshot.at, rows, verdicts: vec![verdict] })
}

fn numbers(source: &mut RecordingSource, snapshot: &Snapshot) -> Numbers {
    let mut numbers = Numbers::new();
    for zone in &snapshot.zones {
        for (order, blocks) in zone.free_blocks.iter().enumerate() {
            let name = format!("{} order {order:>2}", zone.label());
            numbers.insert(("free blocks", name), (*blocks, 1 << order));
        }
    }
    if let Some(slabs) = snapshot.slabs.yes() {
        for row in slabs.rows.iter().filter(|row| row.slabs > 0) {
            numbers.insert(("slabs", row.cache.clone()), (row.slabs, row.pages_per_slab));
        }
    }
    let end = Nanos(snapshot.at.0.saturating_add(1));
    for (kind, name) in [(MarkKind::Fallback, "fallbacks"), (MarkKind::Failure, "failures")] {
        let count = source.outline.marks.within(kind, Nanos(0), end) as u64;
        numbers.insert((name, "so far".to_owned()), (count, 1));
    }
    for class in &source.latency(snapshot.at).classes {
        let order = class.order.map_or(String::new(), |order| format!(" order {order}"));
        let name = format!("{}{order}", class.cause);
        numbers.insert(("stalls", name.clone()), (class.count, 1));
        numbers.insert(("stalls, us", name), (class.total_ns / 1000, 1));
    }
    numbers
}
