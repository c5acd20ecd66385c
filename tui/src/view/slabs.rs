//! slabtop's table: its columns, its sort letters, its arithmetic.

use std::cmp::Reverse;

use kmemlab_trace::snapshot::SlabRow;

use super::canvas::{Canvas, width_of};
use crate::app::App;
use crate::number::{share, since};
use crate::source::SlabSample;
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

    /// slabtop's letter, and a name.
    fn told(self) -> (char, &'static str) {
        match self {
            Self::ActiveObjects => ('a', "active objects"),
            Self::ObjectsPerSlab => ('b', "objects per slab"),
            Self::CacheSize => ('c', "cache size"),
            Self::Slabs => ('l', "slabs"),
            Self::ActiveSlabs => ('v', "active slabs"),
            Self::Name => ('n', "name"),
            Self::Objects => ('o', "objects"),
            Self::PagesPerSlab => ('p', "pages per slab"),
            Self::ObjectSize => ('s', "object size"),
            Self::Use => ('u', "use"),
        }
    }

    /// slabtop's letter.
    #[must_use]
    pub fn letter(self) -> char {
        self.told().0
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

/// A column: title, width, what sorts by it, and its cell.
struct Column {
    title: &'static str,
    width: u16,
    sort: Sort,
    cell: fn(&SlabRow, u64) -> String,
}

const COLUMNS: [Column; 8] = [
    Column { title: "OBJS", width: 7, sort: Sort::Objects, cell: |row, _| row.objects.to_string() },
    Column {
        title: "ACTIVE",
        width: 7,
        sort: Sort::ActiveObjects,
        cell: |row, _| row.active_objects.to_string(),
    },
    Column {
        title: "USE",
        width: 5,
        sort: Sort::Use,
        cell: |row, _| format!("{}%", use_percent(row)),
    },
    Column {
        title: "OBJ SIZE",
        width: 9,
        sort: Sort::ObjectSize,
        cell: |row, _| format!("{:.2}K", row.object_size_bytes as f64 / 1024.0),
    },
    Column { title: "SLABS", width: 7, sort: Sort::Slabs, cell: |row, _| row.slabs.to_string() },
    Column {
        title: "OBJ/SLAB",
        width: 9,
        sort: Sort::ObjectsPerSlab,
        cell: |row, _| row.objects_per_slab.to_string(),
    },
    Column {
        title: "CACHE SIZE",
        width: 11,
        sort: Sort::CacheSize,
        cell: |row, page_size| format!("{}K", cache_bytes(row, page_size) / 1024),
    },
    Column { title: "NAME", width: 26, sort: Sort::Name, cell: |row, _| row.cache.clone() },
];

/// What slabtop can sort by but does not show; shown where there is room.
const MORE: [Column; 2] = [
    Column {
        title: "ACTIVE SLABS",
        width: 14,
        sort: Sort::ActiveSlabs,
        cell: |row, _| row.active_slabs.to_string(),
    },
    Column {
        title: "PAGES/SLAB",
        width: 12,
        sort: Sort::PagesPerSlab,
        cell: |row, _| row.pages_per_slab.to_string(),
    },
];

/// Width from which [`MORE`] is shown.
const WIDE: u16 = 110;

fn cache_bytes(row: &SlabRow, page_size_bytes: u64) -> u64 {
    row.slabs.saturating_mul(row.pages_per_slab).saturating_mul(page_size_bytes)
}

/// Lines above the caches: slabtop's five of totals, what sorts, the titles.
const HEAD: u16 = 7;

/// Caches that fit in a body of that height.
pub(super) fn rows_visible(height: u16) -> usize {
    usize::from(height.saturating_sub(HEAD))
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(slabs) = app.snapshot().and_then(|snapshot| snapshot.slabs.as_ref()) else {
        let why = "No slab caches here: /proc/slabinfo was not recorded (reading it needs root).";
        canvas.text(0, 0, why, theme.title());
        return;
    };
    totals(app, slabs, theme, canvas);
    titles(app.sort(), theme, canvas);
    let page_size = app.outline().about.page_size_bytes;
    let rows = app.sort().sorted(&slabs.rows);
    let wide = canvas.width() >= WIDE;
    let shown = rows.iter().skip(app.scroll()).take(rows_visible(canvas.height()));
    for (row, y) in shown.zip(HEAD..) {
        for (column, start, end) in places(wide) {
            let text = (column.cell)(row, page_size);
            if column.sort == Sort::Name {
                canvas.part(0, y, end, 1).text(start + 1, 0, &text, theme.plain());
            } else {
                canvas.right(end, y, &text, theme.plain());
            }
        }
    }
}

/// The columns with their first column of the screen and the one behind their last.
fn places(wide: bool) -> impl Iterator<Item = (&'static Column, u16, u16)> {
    let mut end = 0;
    COLUMNS.iter().chain(MORE.iter().filter(move |_| wide)).map(move |column| {
        let start = end;
        end += column.width;
        (column, start, end)
    })
}

/// slabtop's own five lines, and what sorts in place of its empty one.
fn totals(app: &App, slabs: &SlabSample, theme: &Theme, canvas: &mut Canvas<'_>) {
    let rows = &slabs.rows;
    let sum = |value: fn(&SlabRow) -> u64| rows.iter().map(value).fold(0, u64::saturating_add);
    let pair = |part: u64, whole: u64| format!("{part} / {whole} ({})", share(part, whole));
    let kibibytes = |bytes: u64| format!("{:.2}K", bytes as f64 / 1024.0);
    let objects = sum(|row| row.objects);
    let used = rows.iter().filter(|row| row.objects > 0).count();
    let active_bytes = sum(|row| row.active_objects.saturating_mul(row.object_size_bytes));
    let bytes = sum(|row| row.objects.saturating_mul(row.object_size_bytes));
    let sizes = || rows.iter().map(|row| row.object_size_bytes);
    let lines = [
        ("Active / Total Objects (% used)", pair(sum(|row| row.active_objects), objects)),
        ("Active / Total Slabs (% used)", pair(sum(|row| row.active_slabs), sum(|row| row.slabs))),
        ("Active / Total Caches (% used)", pair(used as u64, rows.len() as u64)),
        (
            "Active / Total Size (% used)",
            format!(
                "{} / {} ({})",
                kibibytes(active_bytes),
                kibibytes(bytes),
                share(active_bytes, bytes)
            ),
        ),
        (
            "Minimum / Average / Maximum Object",
            format!(
                "{} / {} / {}",
                kibibytes(sizes().min().unwrap_or(0)),
                kibibytes(bytes.checked_div(objects).unwrap_or(0)),
                kibibytes(sizes().max().unwrap_or(0))
            ),
        ),
    ];
    for (y, (name, text)) in (0..).zip(&lines) {
        canvas.text(1, y, &format!("{name:<34} : {text}"), theme.plain());
    }
    let (letter, name) = app.sort().told();
    let read = since(app.outline().about.start, slabs.at);
    let line = format!(" Sorted by {name} ({letter}); slabinfo was read at {read}");
    canvas.text(0, lines.len() as u16, &line, theme.dim());
}

fn titles(sort: Sort, theme: &Theme, canvas: &mut Canvas<'_>) {
    let width = canvas.width();
    canvas.paint(0, HEAD - 1, width, theme.table());
    for (column, start, end) in places(width >= WIDE) {
        let is_chosen = column.sort == sort;
        let style = if is_chosen { theme.chosen() } else { theme.table() };
        if column.sort == Sort::Name {
            let mark = if is_chosen { "▲" } else { "" };
            canvas.text(start + 1, HEAD - 1, &format!("{}{mark}", column.title), style);
        } else {
            let mark = if is_chosen { "▼" } else { "" };
            canvas.right(end, HEAD - 1, &format!("{mark}{}", column.title), style);
        }
    }
    // Sorted by a column that is not on the screen: told in its place all the same.
    let hidden = places(width >= WIDE).all(|(column, ..)| column.sort != sort);
    if hidden {
        let text = format!("▼{}", sort.told().1);
        let x = width.saturating_sub(width_of(&text) + 1);
        canvas.text(x, HEAD - 1, &text, theme.chosen());
    }
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
    fn use_is_cut_not_rounded_as_slabtop_does() {
        assert_eq!(use_percent(&row("x", 159_892, 160_251, 1)), 99);
        assert_eq!(use_percent(&row("x", 0, 0, 0)), 0);
    }
}
