//! Stalls: who waited for reclaim and compaction, how often and how long.

use super::canvas::Canvas;
use super::grid;
use crate::app::App;
use crate::number::{duration, since};
use crate::parts::{BUCKETS, Latency, StallClass};
use crate::source::{Snapshot, Told};
use crate::table::{Column, Table, Value};
use crate::theme::Theme;

const COLUMNS: [Column; 7] = [
    Column::number("TOTAL", "total_ns", 12),
    Column::text("CAUSE", "cause", 18),
    Column::number("ORDER", "order", 7),
    Column::number("COUNT", "count", 9),
    Column::number("P50", "p50_ns", 11),
    Column::number("P99", "p99_ns", 11),
    Column::number("MAX", "max_ns", 11),
];

pub(super) fn table(snapshot: &Snapshot) -> Table {
    let mut table = Table::new("latency", &COLUMNS);
    let Told::Yes(latency) = &snapshot.latency else { return table };
    for class in &latency.classes {
        table.rows.push(vec![
            Value::Nanos(class.total_ns),
            Value::text(class.cause),
            class.order.map_or(Value::None, |order| Value::Count(u64::from(order))),
            Value::Count(class.count),
            Value::Nanos(class.p50_ns),
            Value::Nanos(class.p99_ns),
            Value::Nanos(class.max_ns),
        ]);
    }
    table
}

/// Lines of the histogram and its labels.
const HISTOGRAM: u16 = 6;

/// Lines of the table, its titles included: a third of the body.
fn table_lines(height: u16) -> u16 {
    (height.saturating_sub(HISTOGRAM) / 2).max(2)
}

pub(super) fn rows_visible(height: u16) -> usize {
    usize::from(table_lines(height) - 1)
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = app.snapshot() else { return };
    let latency = match &snapshot.latency {
        Told::Yes(latency) => latency,
        Told::No(why) => return super::missing(why, theme, canvas),
    };
    let (width, height) = (canvas.width(), canvas.height());
    let above = table_lines(height);
    grid::draw(app, theme, &mut canvas.part(0, 0, width, above));
    if latency.classes.is_empty() {
        canvas.text(1, 1, "no stall up to this moment", theme.plain());
    }
    let class = app.selected_row().and_then(|row| latency.classes.get(row));
    if let Some(class) = class {
        histogram(class, theme, &mut canvas.part(0, above, width, HISTOGRAM));
    }
    let below = height.saturating_sub(above + HISTOGRAM);
    let mut part = canvas.part(0, above + HISTOGRAM, width, below);
    stalls(app, latency, class, theme, &mut part);
}

/// How many took how long, on a scale of powers of two.
fn histogram(class: &StallClass, theme: &Theme, canvas: &mut Canvas<'_>) {
    const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let order = class.order.map_or(String::new(), |order| format!(", order {order}"));
    let title = format!("{}{order}: how many took how long", class.cause);
    canvas.text(0, 0, &title, theme.heading());
    let most = class.histogram.iter().copied().max().unwrap_or(0).max(1);
    let lines = HISTOGRAM - 2;
    let used = BUCKETS - class.histogram.iter().rev().take_while(|count| **count == 0).count();
    let cell = (canvas.width().saturating_sub(2) / (used.max(1) as u16)).clamp(2, 8);
    for (bucket, count) in class.histogram.iter().enumerate().take(used) {
        let x = 1 + bucket as u16 * cell;
        let eighths = (u128::from(*count) * u128::from(lines) * 8).div_ceil(u128::from(most));
        for line in 0..lines {
            let above = u128::from(lines - 1 - line) * 8;
            let part = eighths.saturating_sub(above).min(8) as usize;
            if part > 0 {
                let bar = BARS[part - 1].repeat(usize::from(cell - 1));
                canvas.text(x, 1 + line, &bar, theme.line());
            }
        }
        // The upper end of every fourth column, and of those that are alone.
        if bucket % 4 == 0 || cell >= 7 {
            canvas.text(x, 1 + lines, &duration_short(1000 << bucket), theme.dim());
        }
    }
}

fn duration_short(nanos: u64) -> String {
    match nanos {
        0..1_000_000 => format!("{}us", nanos / 1000),
        1_000_000..1_000_000_000 => format!("{}ms", nanos / 1_000_000),
        _ => format!("{}s", nanos / 1_000_000_000),
    }
}

/// The last stalls; with the chain of the latest where the row is open.
fn stalls(
    app: &App,
    latency: &Latency,
    class: Option<&StallClass>,
    theme: &Theme,
    canvas: &mut Canvas<'_>,
) {
    let width = canvas.width();
    canvas.paint(0, 0, width, theme.table());
    let title = format!(
        "{:>12} {:>11} {:<16} {:>5} {:>8} PROCESS",
        "WHEN", "TOOK", "CAUSE", "ORDER", "PID"
    );
    canvas.text(0, 0, &title, theme.table());
    let is_open = app.table_state().is_open;
    let fits = |cause: &str, order| {
        !is_open || class.is_none_or(|class| class.cause == cause && class.order == order)
    };
    let stalls = latency.stalls.iter().filter(|stall| fits(stall.cause, stall.order));
    let mut y = 1;
    for stall in stalls {
        if y >= canvas.height() {
            break;
        }
        let order = stall.order.map_or_else(|| "-".to_owned(), |order| order.to_string());
        let text = format!(
            "{:>12} {:>11} {:<16} {order:>5} {:>8} {}",
            since(app.outline().about.start, stall.at),
            duration(stall.nanos),
            stall.cause,
            stall.pid,
            stall.command
        );
        let next = canvas.text(0, y, &text, theme.plain()) + 1;
        if let Some(frame) = stall.stack.first().filter(|_| !is_open) {
            canvas.text(next, y, frame, theme.dim());
        }
        y += 1;
        if is_open && !stall.stack.is_empty() {
            let left = canvas.height().saturating_sub(y);
            for frame in stall.stack.iter().take(usize::from(left)) {
                canvas.text(14, y, frame, theme.dim());
                y += 1;
            }
        }
    }
}
