//! The vmalloc space: who has which areas, where the holes are, and what is freed but not unmapped.

use super::canvas::Canvas;
use super::grid;
use crate::app::App;
use crate::number::{bytes, since};
use crate::parts::Vmalloc;
use crate::source::{Snapshot, Told};
use crate::table::{Column, Table, Value};
use crate::theme::Theme;

const COLUMNS: [Column; 6] = [
    Column::number("SIZE", "area_bytes", 12),
    Column::number("PAGES", "pages", 9),
    Column::text("CALLER", "caller", 34),
    Column::text("KIND", "flags", 12),
    Column::text("START", "start_address", 19),
    Column::text("END", "end_address", 19),
];

/// The column that it is sorted by at first.
pub(crate) const SIZE: usize = 0;

/// A hole above this is the space between two regions, not between two areas.
const REGION_BYTES: u64 = 1 << 40;
/// Holes that are told of.
const HOLES: usize = 5;

pub(super) fn table(snapshot: &Snapshot) -> Table {
    let mut table = Table::new("vmalloc", &COLUMNS);
    let Told::Yes(vmalloc) = &snapshot.vmalloc else { return table };
    for area in &vmalloc.areas {
        table.rows.push(vec![
            Value::Bytes(area.bytes),
            area.pages.map_or(Value::None, Value::Count),
            area.caller.as_ref().map_or(Value::None, Value::text),
            Value::text(&area.flags),
            Value::text(format!("{:#018x}", area.start_address)),
            Value::text(format!("{:#018x}", area.end_address)),
        ]);
    }
    table
}

/// The largest holes between neighbouring areas: bytes and first address, largest first.
fn holes(vmalloc: &Vmalloc) -> Vec<(u64, u64)> {
    let mut areas: Vec<_> =
        vmalloc.areas.iter().map(|area| (area.start_address, area.end_address)).collect();
    areas.sort_unstable();
    let mut holes = Vec::new();
    let mut end = areas.first().map_or(0, |(start, _)| *start);
    for (from, to) in areas {
        let hole = from.saturating_sub(end);
        if hole > 0 && hole < REGION_BYTES {
            holes.push((hole, end));
        }
        end = end.max(to);
    }
    holes.sort_unstable_by(|one, other| other.cmp(one));
    holes
}

/// Lines above the table.
const HEAD: u16 = 3;

pub(super) fn rows_visible(height: u16) -> usize {
    usize::from(height.saturating_sub(HEAD + 1))
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = app.snapshot() else { return };
    let vmalloc = match &snapshot.vmalloc {
        Told::Yes(vmalloc) => vmalloc,
        Told::No(why) => return super::missing(why, theme, canvas),
    };
    let page_size = app.outline().about.page_size_bytes;
    let total: u64 = vmalloc.areas.iter().map(|area| area.bytes).sum();
    let pages: u64 = vmalloc.areas.iter().filter_map(|area| area.pages).sum();
    let line = format!(
        "{} areas, {} of addresses, {} of pages, read at {}",
        vmalloc.areas.len(),
        bytes(total),
        bytes(pages.saturating_mul(page_size)),
        since(app.outline().about.start, vmalloc.at)
    );
    canvas.text(1, 0, &line, theme.title());
    let lazy = match (vmalloc.lazy_pages, vmalloc.lazy_limit_pages) {
        (Some(pages), Some(limit)) => format!("{pages} pages, unmapped from {limit} on"),
        (Some(pages), None) => format!("{pages} pages"),
        _ => "not told before the first free".to_owned(),
    };
    let line = format!("Lazy  {lazy}; {} made and {} freed so far", vmalloc.made, vmalloc.freed);
    canvas.text(1, 1, &line, theme.plain());
    let holes = holes(vmalloc);
    let addresses_hidden = vmalloc.areas.iter().all(|area| area.start_address == 0);
    let line = if addresses_hidden {
        "Holes  not known: addresses are hidden (kernel.kptr_restrict)".to_owned()
    } else {
        let largest: Vec<_> = holes.iter().take(HOLES).map(|(size, _)| bytes(*size)).collect();
        format!("Holes  {} between areas, largest {}", holes.len(), largest.join(", "))
    };
    canvas.text(1, 2, &line, theme.plain());
    let (width, height) = (canvas.width(), canvas.height());
    grid::draw(app, theme, &mut canvas.part(0, HEAD, width, height.saturating_sub(HEAD)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmemlab_trace::snapshot::VmallocRow;

    #[test]
    fn holes_are_between_neighbours() {
        let area = |start_address, end_address| VmallocRow {
            start_address,
            end_address,
            bytes: end_address - start_address,
            caller: None,
            pages: None,
            flags: String::new(),
        };
        let areas = vec![
            area(5 << 41, (5 << 41) + 1),
            area(0x9000, 0xa000),
            area(0x1000, 0x3000),
            area(0x3000, 0x4000),
        ];
        let vmalloc = Vmalloc { areas, ..Vmalloc::default() };
        assert_eq!(holes(&vmalloc), [(0x5000, 0x4000)]);
    }
}
