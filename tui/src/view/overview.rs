//! One screen for the first question: is memory short, is it in pieces, and can the numbers be
//! trusted.

use kmemlab_trace::measure;
use kmemlab_trace::unit::Nanos;

use super::canvas::{Canvas, wrapped};
use super::{GUTTER, column_of};
use crate::app::App;
use crate::history::{ORDERS, indices};
use crate::number::{count, mebibytes, percent, short, since};
use crate::source::{Snapshot, ZoneState};
use crate::table::{Column, Table, Value};
use crate::theme::{LEVELS, Mood, Theme};

/// Columns of a zone's label.
const LABEL: u16 = 14;
/// Columns of a number of the memory table.
const NUMBER: u16 = 8;
/// Share of free memory out of reach of order 9 that the verdict calls fragmented, in thousandths.
const FRAGMENTED: u16 = 500;
/// The same, badly.
const SHATTERED: u16 = 900;
/// The order of the verdict: a huge page where pages have 4 KiB.
const VERDICT: usize = 1;

/// Lines that are there whatever the number of zones: verdict, pressure, three headings, three
/// indices, loss.
const FIXED: u16 = 9;

/// Zones that fit in a body of that height: each takes a line in two tables.
pub(super) fn zones_visible(zones: usize, height: u16) -> usize {
    zones.min(usize::from(height.saturating_sub(FIXED) / 2)).max(1)
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = app.snapshot() else {
        canvas.text(0, 0, "No snapshot to show.", theme.title());
        return;
    };
    let visible = zones_visible(snapshot.zones.len(), canvas.height());
    let zones: Vec<_> =
        snapshot.zones.iter().skip(app.table_state().scroll).take(visible).collect();
    let hidden = snapshot.zones.len() - zones.len();
    let used = FIXED + 2 * zones.len() as u16;
    let mut spare = canvas.height().saturating_sub(used);
    // First a blank line before each of the four parts, then room for the sparklines.
    let blank = u16::from(spare >= 4);
    spare -= 4 * blank;
    let legend = u16::from(spare > 0);
    spare -= legend;
    let note_lines = note_lines(app, canvas.width());
    let notes = note_lines.len().min(usize::from(spare)) as u16;
    let spark = 1 + ((spare - notes) / ORDERS.len() as u16).min(7);

    let mut y = verdict(snapshot, theme, canvas);
    y = pressure(snapshot, theme, canvas, y) + blank;
    y = memory(app, &zones, hidden, theme, canvas, y) + blank;
    y = heat_map(&zones, theme, canvas, y);
    if legend > 0 {
        let from = origin(snapshot, app.outline().about.start);
        let next = canvas.text(0, y, &from, theme.dim());
        canvas.text(next, y, theme.heat_legend(), theme.dim());
    }
    y += legend + blank;
    y = unusable(app, snapshot, spark, theme, canvas, y) + blank;
    y = loss(app, note_lines.len() - usize::from(notes), theme, canvas, y);
    for ((heading, line), y) in note_lines.iter().zip(y..y + notes) {
        canvas.text(0, y, heading, theme.heading());
        canvas.text(NOTE, y, line, theme.plain());
    }
}

/// Columns of a note's heading.
const NOTE: u16 = 6;

/// The notes in lines of that width, the first of each with a heading.
fn note_lines(app: &App, width: u16) -> Vec<(&'static str, String)> {
    let notes = app.outline().about.notes.iter();
    let lines = notes.flat_map(|note| {
        let lines = wrapped(note, width.saturating_sub(NOTE));
        lines.into_iter().enumerate().map(|(n, line)| (if n == 0 { "Note" } else { "" }, line))
    });
    lines.collect()
}

/// The zones for an export: a row a zone and order.
pub(super) fn table(snapshot: &Snapshot) -> Table {
    const COLUMNS: [Column; 5] = [
        Column::number("NODE", "node", 6),
        Column::text("ZONE", "zone", 12),
        Column::number("ORDER", "order", 7),
        Column::number("BLOCKS", "free_blocks", 10),
        Column::number("UNUSABLE", "unusable_thousandths", 10),
    ];
    let mut table = Table::new("zones", &COLUMNS);
    for zone in &snapshot.zones {
        for (order, blocks) in zone.free_blocks.iter().enumerate() {
            table.rows.push(vec![
                Value::Count(u64::from(zone.node.0)),
                Value::text(&zone.zone),
                Value::Count(order as u64),
                Value::Count(*blocks),
                Value::Count(measure::unusable_free_index(&zone.free_blocks, order)),
            ]);
        }
    }
    table
}

/// Where a zone's free pages stand among its watermarks.
fn standing(zone: &ZoneState) -> Option<(Mood, &'static str)> {
    let free = zone.free_pages()?;
    Some(match (zone.min?, zone.low?, zone.high?) {
        (min, ..) if free < min => (Mood::Bad, "< min"),
        (_, low, _) if free < low => (Mood::Warn, "< low"),
        (.., high) if free < high => (Mood::Fine, "< high"),
        _ => (Mood::Fine, "> high"),
    })
}

/// The answer in one sentence: want of memory first, then its pieces.
fn judge(snapshot: &Snapshot) -> (Mood, String) {
    let at = |mood: Mood| {
        let short = |zone: &&ZoneState| standing(zone).is_some_and(|(found, _)| found == mood);
        snapshot.zones.iter().find(short).map(ZoneState::label)
    };
    if let Some(zone) = at(Mood::Bad) {
        return (
            Mood::Bad,
            format!("{zone} is below its min watermark: allocations reclaim directly"),
        );
    }
    if let Some(zone) = at(Mood::Warn) {
        return (Mood::Warn, format!("{zone} is below its low watermark: kswapd reclaims"));
    }
    let order = ORDERS[VERDICT];
    let Some(index) = indices(&snapshot.free_blocks())[VERDICT] else {
        return (Mood::Fine, "No zone is short of memory; no free blocks were told".to_owned());
    };
    let share = percent(u64::from(index));
    let text = |word: &str| format!("{word} {share} of free memory cannot serve order {order}");
    match index {
        SHATTERED.. => (Mood::Bad, text("Badly fragmented:")),
        FRAGMENTED.. => (Mood::Warn, text("Fragmented:")),
        _ => (Mood::Fine, text("No zone is short of memory;")),
    }
}

fn verdict(snapshot: &Snapshot, theme: &Theme, canvas: &mut Canvas<'_>) -> u16 {
    let (mood, text) = judge(snapshot);
    let next = canvas.text(0, 0, mood.mark(), theme.mood(mood)) + 1;
    canvas.text(next, 0, &text, theme.title());
    1
}

/// How long tasks waited for memory, and what reclaim and compaction do a second.
fn pressure(snapshot: &Snapshot, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) -> u16 {
    let mut x = canvas.text(0, y, "Pressure", theme.heading()) + 2;
    if let Some(pressure) = snapshot.pressure {
        for (name, hundredths) in [("some", pressure.some), ("full", pressure.full)] {
            let mood = match hundredths {
                0..100 => Mood::Fine,
                100..1000 => Mood::Warn,
                _ => Mood::Bad,
            };
            let text = format!("{name} {}.{:02} %", hundredths / 100, hundredths % 100);
            x = canvas.text(x, y, &text, theme.mood(mood)) + 2;
        }
    }
    if snapshot.counters.is_empty() && snapshot.pressure.is_none() {
        canvas.text(x, y, "not told", theme.dim());
    }
    for (name, rate) in &snapshot.counters {
        let mood = if *rate > 0 { theme.mood(Mood::Warn) } else { theme.dim() };
        x = canvas.text(x, y, &format!("{name} {}/s", short(*rate, 6)), mood) + 2;
    }
    y + 1
}

fn memory(
    app: &App,
    zones: &[&ZoneState],
    hidden: usize,
    theme: &Theme,
    canvas: &mut Canvas<'_>,
    y: u16,
) -> u16 {
    canvas.text(0, y, "Memory, MiB", theme.heading());
    let end = |column: u16| LABEL + NUMBER * (column + 1);
    for (column, title) in (0..).zip(["managed", "free", "free%", "min", "low", "high", "per-CPU"])
    {
        canvas.right(end(column), y, title, theme.dim());
    }
    if hidden > 0 {
        let more = format!("+{hidden} ↑↓");
        let width = canvas.width();
        canvas.right(width, y, &more, theme.title());
    }
    let page_size = app.outline().about.page_size_bytes;
    for (zone, y) in zones.iter().zip(y + 1..) {
        canvas.text(0, y, &zone.label(), theme.plain());
        let size = |pages: Option<u64>| {
            pages.map_or_else(|| "-".to_owned(), |pages| mebibytes(pages, page_size))
        };
        let free = zone.free_pages();
        let share = match (free, zone.managed) {
            (Some(free), Some(managed)) if managed > 0 => {
                let tenths = u128::from(free) * 1000 / u128::from(managed);
                format!("{}.{}", tenths / 10, tenths % 10)
            }
            _ => "-".to_owned(),
        };
        let cells = [
            size(zone.managed),
            size(free),
            share,
            size(zone.min),
            size(zone.low),
            size(zone.high),
            size(zone.percpu),
        ];
        for (column, text) in (0..).zip(cells) {
            canvas.right(end(column), y, &text, theme.plain());
        }
        if let Some((mood, word)) = standing(zone) {
            canvas.text(end(6) + 1, y, mood.mark(), theme.mood(mood));
            canvas.text(end(6) + 4, y, word, theme.mood(mood));
        }
    }
    y + 1 + zones.len() as u16
}

/// Where the free blocks come from, and how far they may be trusted.
fn origin(snapshot: &Snapshot, start: Nanos) -> String {
    if let Some(at) = snapshot.zones_at {
        return format!("read at {}; ", since(start, at));
    }
    match snapshot.mirror_error {
        Some(error) if error.wrong_pages > 0 => {
            let share = error.wrong_pages.saturating_mul(1000) / error.free_pages.max(1);
            format!("from events ({} off at {}); ", percent(share), since(start, error.at))
        }
        Some(error) => format!("from events (exact at {}); ", since(start, error.at)),
        None => "from events; ".to_owned(),
    }
}

/// 0 for an empty order, else 1 to 9 by the share of the zone's free pages that stand in it.
fn heat_level(free_blocks: &[u64], order: usize) -> usize {
    let total = u128::from(measure::free_pages(free_blocks));
    let here = u128::from(free_blocks[order]) << order;
    if here == 0 || total == 0 {
        return 0;
    }
    let steps = u128::from(LEVELS) - 1;
    1 + (here * steps / total).min(steps - 1) as usize
}

fn heat_map(zones: &[&ZoneState], theme: &Theme, canvas: &mut Canvas<'_>, y: u16) -> u16 {
    let orders = zones.iter().map(|zone| zone.free_blocks.len()).max().unwrap_or(0).max(1) as u16;
    let with_index = canvas.width() >= 120;
    let beside = if with_index { NUMBER * ORDERS.len() as u16 + 2 } else { 0 };
    let room = canvas.width().saturating_sub(LABEL + beside);
    let cell = (room / orders).clamp(5, 10);
    canvas.text(0, y, "Free blocks", theme.heading());
    let end = |order: u16| LABEL + cell * (order + 1);
    for order in 0..orders {
        canvas.right(end(order) - 1, y, &order.to_string(), theme.dim());
    }
    let index_end = |column: u16| end(orders - 1) + 2 + NUMBER * (column + 1);
    for (column, order) in (0..).zip(ORDERS).take(if with_index { ORDERS.len() } else { 0 }) {
        canvas.right(index_end(column), y, &format!("uns@{order}"), theme.dim());
    }
    for (zone, y) in zones.iter().zip(y + 1..) {
        canvas.text(0, y, &zone.label(), theme.plain());
        for (order, blocks) in zone.free_blocks.iter().enumerate() {
            let level = heat_level(&zone.free_blocks, order);
            let start = LABEL + cell * order as u16;
            let number = match blocks {
                0 => ".".to_owned(),
                blocks => short(*blocks, usize::from(cell) - 2),
            };
            canvas.paint(start, y, cell, theme.heat(level));
            canvas.right(start + cell - 1, y, &number, theme.heat(level));
            let mark = theme.heat_mark(level).to_string();
            canvas.text(start + cell - 1, y, &mark, theme.heat(level));
        }
        if with_index {
            for (column, index) in (0..).zip(indices(&zone.free_blocks)) {
                let text = index.map_or_else(|| "-".to_owned(), |index| percent(index.into()));
                canvas.right(index_end(column), y, &text, theme.plain());
            }
        }
    }
    y + 1 + zones.len() as u16
}

fn unusable(
    app: &App,
    snapshot: &Snapshot,
    lines: u16,
    theme: &Theme,
    canvas: &mut Canvas<'_>,
    y: u16,
) -> u16 {
    let next = canvas.text(0, y, "Unusable free space index", theme.heading()) + 2;
    let help = "free memory that cannot serve the order, 0 to 100 %";
    canvas.text(next, y, help, theme.dim());
    let now = indices(&snapshot.free_blocks());
    for (row, (order, index)) in (0..).zip(ORDERS.into_iter().zip(now)) {
        let top = y + 1 + row * lines;
        let label = format!("Order {order:>2}");
        let value = index.map_or_else(|| "-".to_owned(), |index| percent(index.into()));
        canvas.text(0, top + lines - 1, &label, theme.plain());
        canvas.right(GUTTER - 2, top + lines - 1, &value, theme.title());
        let width = canvas.width().saturating_sub(GUTTER);
        // Tall ones keep a line of air above them.
        let air = u16::from(lines > 2);
        let mut part = canvas.part(GUTTER, top + air, width, lines - air);
        sparkline(app, usize::from(row), theme, &mut part);
    }
    y + 1 + lines * ORDERS.len() as u16
}

/// An index over the whole time, from 0 to 100 %, along the columns of the time line.
fn sparkline(app: &App, which: usize, theme: &Theme, canvas: &mut Canvas<'_>) {
    let (first, last) = (app.outline().begin, app.outline().end);
    let (width, lines) = (canvas.width(), canvas.height());
    if width == 0 || lines == 0 {
        return;
    }
    let span = last.0.saturating_sub(first.0);
    let mut columns: Vec<Option<u16>> = vec![None; usize::from(width)];
    for point in app.outline().history.points() {
        let column = column_of(point.at.0.saturating_sub(first.0), span, width);
        let value = &mut columns[usize::from(column)];
        *value = (*value).max(point.indices[which]);
    }
    let mut held = None;
    for (x, value) in (0..).zip(columns) {
        // Between two snapshots nothing is known but the earlier one.
        held = value.or(held);
        let Some(index) = held else { continue };
        let eighths = (u32::from(index) * u32::from(lines) * 8 / 1000).max(1);
        for line in 0..lines {
            let below = u32::from(lines - 1 - line) * 8;
            let height = eighths.saturating_sub(below).min(8);
            if let Some(bar) = height.checked_sub(1).and_then(|bar| char::from_u32(0x2581 + bar)) {
                canvas.text(x, line, bar.encode_utf8(&mut [0; 4]), theme.line());
            }
        }
    }
}

fn loss(app: &App, unseen: usize, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) -> u16 {
    let loss = &app.outline().loss;
    let next = canvas.text(0, y, "Loss", theme.heading()) + 2;
    let mut text = "none told by the rings".to_owned();
    let mut style = theme.plain();
    if loss.events > 0 {
        let (events, gaps) = (count(loss.events), count(loss.gaps));
        text = format!("{events} events in {gaps} gaps on {} CPUs", loss.cpus);
        style = theme.mood(Mood::Bad);
    }
    let next = canvas.text(next, y, &text, style);
    if unseen > 0 {
        // No room for all of them: say at least that they are there.
        canvas.text(next, y, &format!("; +{unseen} lines of notes"), theme.title());
    }
    y + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(free: u64) -> ZoneState {
        ZoneState {
            zone: "Normal".to_owned(),
            free: Some(free),
            min: Some(10),
            low: Some(20),
            high: Some(30),
            free_blocks: vec![free, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ..ZoneState::default()
        }
    }

    #[test]
    fn want_of_memory_is_said_before_its_pieces() {
        let judged = |zones: Vec<ZoneState>| {
            let (mood, text) = judge(&Snapshot { zones, ..Snapshot::default() });
            format!("{} {text}", mood.mark())
        };
        assert!(judged(vec![zone(100), zone(5)]).starts_with("!! Node 0 Normal is below its min"));
        assert!(judged(vec![zone(15), zone(5)]).starts_with("!! "));
        assert!(judged(vec![zone(15)]).starts_with("!  Node 0 Normal is below its low"));
        assert!(judged(vec![zone(25)]).starts_with("!! Badly fragmented: 100.0 %"));
        let mut whole = zone(4096);
        whole.free_blocks = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4];
        assert!(judged(vec![whole]).starts_with("ok No zone is short of memory; 0.0 %"));
        assert!(judged(Vec::new()).starts_with("ok No zone is short of memory; no free"));
    }

    #[test]
    fn heat_follows_pages_not_blocks() {
        let blocks = [16, 0, 0, 6];
        assert_eq!(heat_level(&blocks, 0), 1 + 16 * 9 / 64);
        assert_eq!(heat_level(&blocks, 1), 0);
        assert_eq!(heat_level(&blocks, 3), 1 + 48 * 9 / 64);
        assert_eq!(heat_level(&[0, 3], 1), 9);
    }
}
