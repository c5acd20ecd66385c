//! Who allocates: call sites with what they hold.

use super::canvas::Canvas;
use super::grid;
use crate::app::App;
use crate::number::since;
use crate::parts::Site;
use crate::source::{Snapshot, Told};
use crate::table::{Column, Table, Value};
use crate::theme::Theme;

const COLUMNS: [Column; 12] = [
    Column::number("LIVE", "live_bytes", 11),
    Column::number("GROWTH", "live_bytes_since_mark", 12),
    Column::text("CALL SITE", "call_site", 27),
    Column::text("CACHE", "cache", 18),
    Column::number("ALLOC/s", "allocated_bytes_per_second", 11),
    Column::number("FREED/s", "freed_bytes_per_second", 11),
    Column::number("WASTE", "waste_bytes", 11),
    Column::number("OBJECTS", "live_objects", 9),
    Column::number("ALLOCS", "allocations", 10),
    Column::number("FREES", "frees", 10),
    Column::number("AGE", "mean_age_ns", 10),
    Column::text("ORDERS", "orders", 10),
];

pub(super) fn table(snapshot: &Snapshot, marked: Option<&Snapshot>) -> Table {
    let mut table = Table::new("sites", &COLUMNS);
    let Told::Yes(sites) = &snapshot.sites else { return table };
    let marked = marked.and_then(|snapshot| snapshot.sites.yes());
    for (index, site) in sites.iter().enumerate() {
        // Sites keep their places: new ones come behind.
        let growth = marked.map(|marked| {
            let then = marked.get(index).filter(|then| same(then, site));
            let then = then.or_else(|| marked.iter().find(|then| same(then, site)));
            let change =
                i128::from(site.live_bytes) - i128::from(then.map_or(0, |then| then.live_bytes));
            Value::BytesChange(i64::try_from(change).unwrap_or(0))
        });
        table.rows.push(vec![
            Value::Bytes(site.live_bytes),
            growth.unwrap_or(Value::None),
            Value::Text(site.label.clone()),
            match site.is_bound {
                true => Value::text(format!("? {}", site.cache)),
                false => Value::Text(site.cache.clone()),
            },
            Value::Bytes(site.allocated_per_second),
            Value::Bytes(site.freed_per_second),
            Value::Bytes(site.waste_bytes),
            Value::Count(site.live_objects),
            Value::Count(site.allocations),
            Value::Count(site.frees),
            site.age_ns.map_or(Value::None, Value::Nanos),
            orders(site.orders),
        ]);
    }
    table
}

fn same(one: &Site, other: &Site) -> bool {
    one.stack == other.stack && one.cache == other.cache
}

/// `0-3` for orders without a gap, `0,9` for others; nothing for objects.
fn orders(bits: u32) -> Value {
    let mut text = String::new();
    let mut order = 0;
    while order < 32 {
        let run = (bits >> order).trailing_ones();
        if run == 0 {
            order += 1;
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&order.to_string());
        if run > 1 {
            text.push_str(&format!("-{}", order + run - 1));
        }
        order += run;
    }
    if text.is_empty() { Value::None } else { Value::text(text) }
}

/// Lines above the table.
const HEAD: u16 = 1;

/// Lines of the call chain below it.
fn tail(app: &App, height: u16) -> u16 {
    let sites = app.snapshot().and_then(|snapshot| snapshot.sites.yes());
    if !app.table_state().is_open {
        return 0;
    }
    let site = sites.and_then(|sites| sites.get(app.selected_row()?));
    let frames = site.map_or(0, |site| site.stack.len());
    (frames as u16 + 1).min(height / 2)
}

pub(super) fn rows_visible(app: &App, height: u16) -> usize {
    usize::from(height.saturating_sub(HEAD + 1 + tail(app, height)))
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = app.snapshot() else { return };
    let sites = match &snapshot.sites {
        Told::Yes(sites) => sites,
        Told::No(why) => return super::missing(why, theme, canvas),
    };
    let held: u64 = sites.iter().map(|site| site.live_bytes).sum();
    let waste: u64 = sites.iter().map(|site| site.waste_bytes).sum();
    let growth = match app.mark() {
        Some(mark) => format!("GROWTH since {}", since(app.outline().about.start, mark)),
        None => "m marks for GROWTH".to_owned(),
    };
    let bound =
        if sites.iter().any(|site| site.is_bound) { "; ? freed unseen: at most" } else { "" };
    let line = format!(
        " {} sites, {} live as seen, {} waste; {growth}{bound}",
        sites.len(),
        crate::number::bytes(held),
        crate::number::bytes(waste)
    );
    canvas.text(0, 0, &line, theme.dim());
    let (width, height) = (canvas.width(), canvas.height());
    let below = tail(app, height);
    let body = height.saturating_sub(HEAD + below);
    grid::draw(app, theme, &mut canvas.part(0, HEAD, width, body));
    let site = app.selected_row().and_then(|row| sites.get(row));
    if let (Some(site), 1..) = (site, below) {
        let mut part = canvas.part(0, HEAD + body, width, below);
        stack(&format!("{} in {}", site.label, site.cache), &site.stack, theme, &mut part);
    }
}

/// A call chain, innermost first.
pub(super) fn stack(
    title: &str,
    frames: &[std::sync::Arc<str>],
    theme: &Theme,
    canvas: &mut Canvas<'_>,
) {
    canvas.text(0, 0, title, theme.heading());
    for (y, frame) in (1..).zip(frames) {
        canvas.text(2, y, frame, theme.plain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_as_ranges() {
        let shown = |bits| orders(bits).shown();
        assert_eq!(shown(0), "-");
        assert_eq!(shown(0b1), "0");
        assert_eq!(shown(0b10_0000_1111), "0-3,9");
        assert_eq!(shown(u32::MAX), "0-31");
    }
}
