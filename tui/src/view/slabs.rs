//! slabtop's table with its sort letters and arithmetic, and what slabtop has not: rates, changes,
//! waste, and who allocates.

use std::cmp::Reverse;

use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::unit::Nanos;

use super::canvas::Canvas;
use super::grid;
use crate::app::App;
use crate::number::{share, since};
use crate::source::{Outline, SlabSample, Snapshot, Told};
use crate::table::{Column, Table, Value};
use crate::theme::Theme;

/// What the caches are sorted by: slabtop's choices. Numbers fall, names rise; equals keep the
/// file's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sort {
    /// Active objects.
    ActiveObjects,
    /// Objects in a slab.
    ObjectsPerSlab,
    /// Bytes of all slabs.
    CacheSize,
    /// Slabs.
    Slabs,
    /// Active slabs.
    ActiveSlabs,
    /// Name.
    Name,
    /// Objects.
    #[default]
    Objects,
    /// Pages of a slab.
    PagesPerSlab,
    /// Bytes of an object.
    ObjectSize,
    /// Active objects in a hundred.
    Use,
}

/// slabtop's columns first, in its order and with its titles.
const COLUMNS: [Column; 15] = [
    Column::number("OBJS", "objects", 7),
    Column::number("ACTIVE", "active_objects", 7),
    Column::number("USE", "use_percent", 5),
    Column::number("OBJ SIZE", "object_size_bytes", 9),
    Column::number("SLABS", "slabs", 7),
    Column::number("OBJ/SLAB", "objects_per_slab", 9),
    Column::number("CACHE SIZE", "cache_size_bytes", 11),
    Column::text("NAME", "cache", 25),
    Column::number("RATE/s", "active_objects_change_per_second", 9),
    Column::number("DELTA", "active_objects_since_mark", 9),
    Column::number("PARTIAL", "free_in_slabs_bytes", 11),
    Column::number("SLAB WASTE", "slab_waste_bytes", 11),
    Column::number("ACT SLABS", "active_slabs", 10),
    Column::number("PG/SLAB", "pages_per_slab", 8),
    Column::text("TOP CALL SITE", "top_call_site", 28),
];

impl Sort {
    /// Every choice, in the order of slabtop's manual.
    pub const ALL: [Self; 10] = [
        Self::ActiveObjects,
        Self::ObjectsPerSlab,
        Self::CacheSize,
        Self::Slabs,
        Self::ActiveSlabs,
        Self::Name,
        Self::Objects,
        Self::PagesPerSlab,
        Self::ObjectSize,
        Self::Use,
    ];

    /// slabtop's letter, and the column of the table.
    fn told(self) -> (char, usize) {
        match self {
            Self::ActiveObjects => ('a', 1),
            Self::ObjectsPerSlab => ('b', 5),
            Self::CacheSize => ('c', 6),
            Self::Slabs => ('l', 4),
            Self::ActiveSlabs => ('v', 12),
            Self::Name => ('n', 7),
            Self::Objects => ('o', 0),
            Self::PagesPerSlab => ('p', 13),
            Self::ObjectSize => ('s', 3),
            Self::Use => ('u', 2),
        }
    }

    /// slabtop's letter.
    #[must_use]
    pub fn letter(self) -> char {
        self.told().0
    }

    /// The choice of that letter.
    #[must_use]
    pub fn of_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.letter() == letter)
    }

    /// The column of the table that it sorts by.
    #[must_use]
    pub fn column(self) -> usize {
        self.told().1
    }

    fn key(self, row: &SlabRow) -> u64 {
        match self {
            Self::ActiveObjects => row.active_objects,
            Self::ObjectsPerSlab => row.objects_per_slab,
            Self::CacheSize => row.slabs.saturating_mul(row.pages_per_slab),
            Self::Slabs => row.slabs,
            Self::ActiveSlabs => row.active_slabs,
            Self::Name => 0,
            Self::Objects => row.objects,
            Self::PagesPerSlab => row.pages_per_slab,
            Self::ObjectSize => row.object_size_bytes,
            Self::Use => use_percent(row),
        }
    }

    /// The caches in this order.
    #[must_use]
    pub fn sorted(self, rows: &[SlabRow]) -> Vec<&SlabRow> {
        let mut rows: Vec<&SlabRow> = rows.iter().collect();
        match self {
            Self::Name => rows.sort_by(|one, other| one.cache.cmp(&other.cache)),
            _ => rows.sort_by_key(|row| Reverse(self.key(row))),
        }
        rows
    }
}

/// All letters, in the order of the manual.
pub(super) fn letters() -> String {
    Sort::ALL.iter().map(|sort| sort.letter()).collect()
}

fn use_percent(row: &SlabRow) -> u64 {
    row.active_objects.saturating_mul(100).checked_div(row.objects).unwrap_or(0)
}

fn cache_bytes(row: &SlabRow, page_size_bytes: u64) -> u64 {
    row.slabs.saturating_mul(row.pages_per_slab).saturating_mul(page_size_bytes)
}

/// The caches as a table.
pub(super) fn table(snapshot: &Snapshot, marked: Option<&Snapshot>, outline: &Outline) -> Table {
    let mut table = Table::new("slabs", &COLUMNS);
    let Told::Yes(slabs) = &snapshot.slabs else { return table };
    let marked = marked.and_then(|snapshot| snapshot.slabs.yes()).map(SlabSample::active);
    let page_size = outline.about.page_size_bytes;
    for row in &slabs.rows {
        let since_mark = marked.as_ref().map(|marked| {
            let then = marked.get(&row.cache).copied().unwrap_or(0);
            Value::Change(change(then, row.active_objects))
        });
        let bytes = cache_bytes(row, page_size);
        let objects_bytes = row.objects.saturating_mul(row.object_size_bytes);
        let free = row.objects.saturating_sub(row.active_objects);
        let site = slabs.top_sites.get(row.cache.as_str());
        table.rows.push(vec![
            Value::Count(row.objects),
            Value::Count(row.active_objects),
            Value::Percent(use_percent(row)),
            Value::KibiFine(row.object_size_bytes),
            Value::Count(row.slabs),
            Value::Count(row.objects_per_slab),
            Value::Kibi(bytes),
            Value::text(&row.cache),
            rate(slabs, row),
            since_mark.unwrap_or(Value::None),
            Value::Bytes(free.saturating_mul(row.object_size_bytes)),
            Value::Bytes(bytes.saturating_sub(objects_bytes)),
            Value::Count(row.active_slabs),
            Value::Count(row.pages_per_slab),
            site.map_or(Value::None, Value::text),
        ]);
    }
    table
}

fn change(then: u64, now: u64) -> i64 {
    i64::try_from(i128::from(now) - i128::from(then)).unwrap_or(0)
}

fn rate(slabs: &SlabSample, row: &SlabRow) -> Value {
    let Some((at, before)) = &slabs.before else { return Value::None };
    let Some(then) = before.get(&row.cache) else { return Value::None };
    let span = i128::from(slabs.at.0.saturating_sub(at.0));
    if span == 0 {
        return Value::None;
    }
    let change = i128::from(change(*then, row.active_objects)) * 1_000_000_000 / span;
    Value::Change(i64::try_from(change).unwrap_or(0))
}

/// Lines above the titles: slabtop's five of totals, and what was read when.
const HEAD: u16 = 6;

/// Caches that fit in a body of that height.
pub(super) fn rows_visible(height: u16) -> usize {
    usize::from(height.saturating_sub(HEAD + 1))
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = app.snapshot() else { return };
    let slabs = match &snapshot.slabs {
        Told::Yes(slabs) => slabs,
        Told::No(why) => return super::missing(why, theme, canvas),
    };
    let (width, height) = (canvas.width(), canvas.height());
    for (y, line) in (0..).zip(totals(&slabs.rows)) {
        canvas.text(0, y, &line, theme.plain());
    }
    if app.is_exact() {
        return exact(app, slabs, theme, canvas);
    }
    canvas.text(0, HEAD - 1, &said(app, slabs.at), theme.dim());
    grid::draw(app, theme, &mut canvas.part(0, HEAD, width, height.saturating_sub(HEAD)));
}

fn said(app: &App, at: Nanos) -> String {
    let read = since(app.outline().about.start, at);
    let mark = app.mark().map_or_else(
        || "m sets a mark for DELTA".to_owned(),
        |mark| format!("DELTA since {}", since(app.outline().about.start, mark)),
    );
    format!(" slabinfo was read at {read}; {mark}")
}

/// slabtop's screen, line for line.
fn exact(app: &App, slabs: &SlabSample, theme: &Theme, canvas: &mut Canvas<'_>) {
    let width = canvas.width();
    canvas.paint(0, HEAD, width, theme.table());
    canvas.text(0, HEAD, TITLES, theme.table());
    let (_, order) = app.table();
    let scroll = app.table_state().scroll;
    let page_size = app.outline().about.page_size_bytes;
    let rows = order.iter().skip(scroll).take(rows_visible(canvas.height()));
    for (y, row) in (HEAD + 1..).zip(rows) {
        if let Some(row) = slabs.rows.get(*row) {
            canvas.text(0, y, &line(row, page_size), theme.plain());
        }
    }
}

const TITLES: &str =
    "  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME                   ";

fn line(row: &SlabRow, page_size_bytes: u64) -> String {
    format!(
        "{:>6} {:>6} {:>3}% {:>7.2}K {:>6} {:>8} {:>9}K {:<23}",
        row.objects,
        row.active_objects,
        use_percent(row),
        row.object_size_bytes as f64 / 1024.0,
        row.slabs,
        row.objects_per_slab,
        cache_bytes(row, page_size_bytes) / 1024,
        row.cache
    )
}

/// What `slabtop -o` prints.
#[must_use]
pub fn slabtop(rows: &[SlabRow], sort: Sort, page_size_bytes: u64) -> String {
    let mut text = totals(rows).join("\n");
    text.push_str("\n\n");
    text.push_str(TITLES);
    text.push('\n');
    for row in sort.sorted(rows) {
        text.push_str(&line(row, page_size_bytes));
        text.push('\n');
    }
    text
}

/// slabtop's own five lines.
fn totals(rows: &[SlabRow]) -> [String; 5] {
    let sum = |value: fn(&SlabRow) -> u64| rows.iter().map(value).fold(0, u64::saturating_add);
    let pair = |part: u64, whole: u64| format!("{part} / {whole} ({})", share(part, whole));
    let kibibytes = |bytes: u64| format!("{:.2}K", bytes as f64 / 1024.0);
    let objects = sum(|row| row.objects);
    let used = rows.iter().filter(|row| row.objects > 0).count();
    let active_bytes = sum(|row| row.active_objects.saturating_mul(row.object_size_bytes));
    let bytes = sum(|row| row.objects.saturating_mul(row.object_size_bytes));
    let sizes = || rows.iter().map(|row| row.object_size_bytes);
    let active_share = share(active_bytes, bytes);
    let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    let mean = kibibytes(bytes.checked_div(objects).unwrap_or(0));
    [
        ("Active / Total Objects (% used)", pair(sum(|row| row.active_objects), objects)),
        ("Active / Total Slabs (% used)", pair(sum(|row| row.active_slabs), sum(|row| row.slabs))),
        ("Active / Total Caches (% used)", pair(used as u64, rows.len() as u64)),
        (
            "Active / Total Size (% used)",
            format!("{} / {} ({active_share})", kibibytes(active_bytes), kibibytes(bytes)),
        ),
        (
            "Minimum / Average / Maximum Object",
            format!("{} / {mean} / {}", kibibytes(least), kibibytes(most)),
        ),
    ]
    .map(|(name, text)| format!(" {name:<34} : {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cache: &str, active_objects: u64, objects: u64, slabs: u64) -> SlabRow {
        SlabRow {
            cache: cache.to_owned(),
            active_objects,
            objects,
            object_size_bytes: 192,
            objects_per_slab: 21,
            pages_per_slab: 1,
            active_slabs: slabs,
            slabs,
        }
    }

    #[test]
    fn numbers_fall_and_names_rise() {
        let rows = [row("b", 5, 10, 3), row("a", 0, 0, 0), row("c", 9, 9, 1)];
        let names = |sort: Sort| -> String {
            sort.sorted(&rows).iter().map(|row| row.cache.as_str()).collect()
        };
        assert_eq!(names(Sort::Objects), "bca");
        assert_eq!(names(Sort::ActiveObjects), "cba");
        assert_eq!(names(Sort::Use), "cba");
        assert_eq!(names(Sort::Name), "abc");
        // All alike: the file's order.
        assert_eq!(names(Sort::PagesPerSlab), "bac");
    }

    #[test]
    fn the_letters_and_the_columns_sort_alike() {
        let rows = vec![row("b", 5, 10, 3), row("a", 0, 0, 0), row("c", 9, 9, 1)];
        let slabs = SlabSample { rows: rows.clone(), ..SlabSample::default() };
        let snapshot = Snapshot { slabs: Told::Yes(slabs), ..Snapshot::default() };
        let mut outline = Outline::default();
        outline.about.page_size_bytes = 4096;
        let table = table(&snapshot, None, &outline);
        for sort in Sort::ALL {
            let column = sort.column();
            let state = crate::table::TableState { column, ..Default::default() };
            let order: Vec<&SlabRow> =
                state.order(&table).into_iter().map(|row| &rows[row]).collect();
            assert_eq!(order, sort.sorted(&rows), "{sort:?}");
        }
    }

    #[test]
    fn use_is_cut_not_rounded_as_slabtop_does() {
        assert_eq!(use_percent(&row("x", 159_892, 160_251, 1)), 99);
        assert_eq!(use_percent(&row("x", 0, 0, 0)), 0);
    }

    #[test]
    fn rates_are_a_second() {
        let before = std::collections::BTreeMap::from([("x".to_owned(), 100)]);
        let slabs = SlabSample {
            at: Nanos(3_000_000_000),
            before: Some((Nanos(1_000_000_000), before.into())),
            ..SlabSample::default()
        };
        assert_eq!(rate(&slabs, &row("x", 50, 50, 1)), Value::Change(-25));
        assert_eq!(rate(&slabs, &row("new", 50, 50, 1)), Value::None);
    }
}
