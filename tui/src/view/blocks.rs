//! Physical memory as a map: one cell a page block, or some page blocks where there is little room.

use super::canvas::Canvas;
use crate::app::App;
use crate::number::{bytes, since};
use crate::parts::{Block, BlockMap};
use crate::source::{Snapshot, Told};
use crate::table::{Column, Table, Value};
use crate::theme::{Mood, Theme};
use kmemlab_trace::snapshot::PageUse;

/// Lines below the map: what is under the cursor, and the legend.
const TAIL: u16 = 6;
/// Columns left of the map: addresses.
const LEFT: u16 = 11;

/// How the blocks lie on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    columns: usize,
    per_cell: usize,
}

impl Shape {
    /// The shape of the map at hand.
    #[must_use]
    pub fn of(app: &App) -> Self {
        let (width, height) = app.size();
        let height = height.saturating_sub(super::ABOVE + super::BELOW);
        let map = app.snapshot().and_then(|snapshot| snapshot.blocks.yes());
        map.map_or(Self { columns: 1, per_cell: 1 }, |map| Self::fit(map, width, height))
    }

    /// As few page blocks a cell as the room allows.
    fn fit(map: &BlockMap, width: u16, height: u16) -> Self {
        let columns = usize::from(width.saturating_sub(LEFT)).max(1);
        let lines = usize::from(height.saturating_sub(TAIL)).max(1);
        let mut per_cell = 1;
        loop {
            let row = columns * per_cell;
            let zones = map.zones.iter().map(|(_, first, end)| 1 + (end - first).div_ceil(row));
            let needed: usize = zones.sum();
            // A line a zone and its title are the least there can be.
            if needed <= lines || per_cell >= map.blocks.len().max(1) {
                return Self { columns, per_cell };
            }
            per_cell += 1 + per_cell / 8;
        }
    }

    /// Page blocks of a line.
    #[must_use]
    pub fn row(self) -> isize {
        isize::try_from(self.columns).unwrap_or(1)
    }

    /// The first block of the cell so many cells on, within the zones.
    #[must_use]
    pub fn step(self, map: &BlockMap, block: usize, cells: isize) -> usize {
        let per_cell = isize::try_from(self.per_cell).unwrap_or(1);
        let goal = block.saturating_add_signed(cells.saturating_mul(per_cell));
        let zone_at =
            |at: usize| map.zones.iter().find(|(_, from, end)| (*from..*end).contains(&at));
        if zone_at(goal).is_some() {
            return goal;
        }
        // Holes between zones are passed over; at either end the cursor stops.
        let firsts = map.zones.iter().map(|(_, from, _)| *from);
        let lasts = map.zones.iter().map(|(_, _, end)| end.saturating_sub(1));
        if cells > 0 {
            let next = firsts.filter(|from| *from > block).min();
            next.or_else(|| zone_at(block).map(|(_, _, end)| end - 1)).unwrap_or(block)
        } else {
            let before = lasts.filter(|last| *last < block && *last < goal.max(block)).max();
            let before =
                before.filter(|last| zone_at(block).is_none_or(|(_, from, _)| last < from));
            before.or_else(|| zone_at(block).map(|(_, from, _)| *from)).unwrap_or(block)
        }
    }
}

/// The first block of the zone after a block's, around the end.
pub(crate) fn next_zone(map: &BlockMap, block: usize) -> usize {
    let firsts = || map.zones.iter().map(|(_, first, _)| *first);
    firsts().filter(|first| *first > block).min().or_else(|| firsts().min()).unwrap_or(0)
}

/// The next block that holds pages of another type than its own.
pub(crate) fn next_mixed(map: &BlockMap, block: usize) -> Option<usize> {
    let is_mixed = |index: &usize| map.blocks.get(*index).is_some_and(|block| block.foreign > 0);
    (block + 1..map.blocks.len()).find(is_mixed).or_else(|| (0..=block).find(is_mixed))
}

/// The map for an export: a row a page block.
pub(super) fn table(snapshot: &Snapshot) -> Table {
    const COLUMNS: [Column; 6] = [
        Column::number("BLOCK", "page_block", 9),
        Column::number("PFN", "first_pfn", 9),
        Column::text("ZONE", "zone", 16),
        Column::text("TYPE", "migrate_type", 12),
        Column::number("FREE", "free_pages", 9),
        Column::number("FOREIGN", "foreign_pages", 9),
    ];
    let mut table = Table::new("blocks", &COLUMNS);
    let Told::Yes(map) = &snapshot.blocks else { return table };
    for (name, first, end) in &map.zones {
        for index in *first..*end {
            let Some(block) = map.blocks.get(index) else { continue };
            table.rows.push(vec![
                Value::Count(index as u64),
                Value::Count(index as u64 * u64::from(map.pages_per_block)),
                Value::text(name),
                Value::text(type_name(map, block.migrate)),
                Value::Count(u64::from(block.free)),
                Value::Count(u64::from(block.foreign)),
            ]);
        }
    }
    table
}

fn type_name(map: &BlockMap, migrate: u8) -> &str {
    map.types.get(usize::from(migrate)).map_or("?", String::as_str)
}

/// Some page blocks together: free share in tenths, the type most of them have, and whether any is
/// mixed.
fn cell(map: &BlockMap, from: usize, end: usize) -> (u8, u8, bool) {
    let blocks = map.blocks.get(from..end.min(map.blocks.len())).unwrap_or(&[]);
    let free: u64 = blocks.iter().map(|block| u64::from(block.free)).sum();
    let pages = blocks.len() as u64 * u64::from(map.pages_per_block);
    let mut types = [0u32; 16];
    blocks.iter().for_each(|block| types[usize::from(block.migrate) & 15] += 1);
    let most = (0..16).max_by_key(|index| (types[*index as usize], 16 - *index)).unwrap_or(0);
    let used = pages.saturating_sub(free);
    // 9 is full, 0 is free: only a block without a used page is 0.
    let level = if used == 0 { 0 } else { (used * 9).div_ceil(pages.max(1)) };
    (level.min(9) as u8, most, blocks.iter().any(|block| block.foreign > 0))
}

pub(super) fn draw(app: &App, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = app.snapshot() else { return };
    let map = match &snapshot.blocks {
        Told::Yes(map) => map,
        Told::No(why) => return super::missing(why, theme, canvas),
    };
    let (width, height) = (canvas.width(), canvas.height());
    let shape = Shape::fit(map, width, height);
    let lines = height.saturating_sub(TAIL);
    draw_map(app, map, shape, theme, &mut canvas.part(0, 0, width, lines));
    legend(app, map, shape, theme, &mut canvas.part(0, lines, width, 2));
    inside(app, map, theme, &mut canvas.part(0, lines + 2, width, TAIL - 2));
}

fn draw_map(app: &App, map: &BlockMap, shape: Shape, theme: &Theme, canvas: &mut Canvas<'_>) {
    let cursor = app.block();
    let mut y = 0;
    let row = shape.columns * shape.per_cell;
    for (name, first, end) in &map.zones {
        let blocks = map.blocks.get(*first..*end).unwrap_or(&[]);
        let free: u64 = blocks.iter().map(|block| u64::from(block.free)).sum();
        let mixed = blocks.iter().filter(|block| block.foreign > 0).count();
        let next = canvas.text(0, y, name, theme.heading()) + 2;
        let text = format!("{} page blocks, {free} pages free, {mixed} mixed", end - first);
        canvas.text(next, y, &text, theme.dim());
        y += 1;
        for line in (*first..*end).step_by(row) {
            let pfn = line as u64 * u64::from(map.pages_per_block);
            canvas.text(0, y, &format!("{pfn:>9x}"), theme.dim());
            let cells = (line..(line + row).min(*end)).step_by(shape.per_cell);
            for (x, from) in (LEFT..).zip(cells) {
                let to = (from + shape.per_cell).min(*end);
                let (level, migrate, is_mixed) = cell(map, from, to);
                let is_cursor = (from..to).contains(&cursor);
                let letter = letter(map, migrate);
                let sign = match (is_cursor, app.is_lettered(), is_mixed) {
                    (true, ..) => "@".to_owned(),
                    (_, true, true) => letter.to_lowercase().to_string(),
                    (_, true, false) => letter.to_string(),
                    (_, false, _) => level.to_string(),
                };
                canvas.text(x, y, &sign, theme.block(migrate, is_mixed, is_cursor));
            }
            y += 1;
        }
    }
}

/// The type's initial; the reserve for atomic requests is H.
fn letter(map: &BlockMap, migrate: u8) -> char {
    type_name(map, migrate).chars().next().unwrap_or('?').to_ascii_uppercase()
}

fn legend(app: &App, map: &BlockMap, shape: Shape, theme: &Theme, canvas: &mut Canvas<'_>) {
    let what =
        if app.is_lettered() { "letter: type, small where mixed" } else { "0 free .. 9 full" };
    let bytes_per_cell = shape.per_cell as u64
        * u64::from(map.pages_per_block)
        * app.outline().about.page_size_bytes;
    let blocks = if shape.per_cell == 1 { "page block" } else { "page blocks" };
    let text = format!("a cell is {} {blocks}, {}; {what}", shape.per_cell, bytes(bytes_per_cell));
    canvas.text(0, 0, &text, theme.dim());
    let mut x = 0;
    for migrate in 0..map.types.len().min(15) as u8 {
        let count = map.blocks.iter().filter(|block| is_in_zone(map, block, migrate)).count();
        let name = letter(map, migrate).to_string();
        x = canvas.text(x, 1, &name, theme.block(migrate, false, false));
        x = canvas.text(x, 1, &format!(" {} {count}", type_name(map, migrate)), theme.plain()) + 2;
    }
}

fn is_in_zone(map: &BlockMap, block: &Block, migrate: u8) -> bool {
    block.migrate == migrate && usize::from(block.zone) < map.zones.len()
}

/// What is under the cursor.
fn inside(app: &App, map: &BlockMap, theme: &Theme, canvas: &mut Canvas<'_>) {
    let index = app.block();
    let Some(block) = map.blocks.get(index) else { return };
    let zone = map.zones.get(usize::from(block.zone)).map_or("no zone", |(name, ..)| name);
    let pfn = index as u64 * u64::from(map.pages_per_block);
    let end = pfn + u64::from(map.pages_per_block);
    let title = format!("@ page block {index}, pfn {pfn:#x} to {end:#x}, {zone}, ");
    let next = canvas.text(0, 0, &title, theme.title());
    canvas.text(next, 0, type_name(map, block.migrate), theme.title());
    let mut text = format!("{} of {} pages free", block.free, map.pages_per_block);
    let orders = block.orders.iter().enumerate().filter(|(_, blocks)| **blocks > 0);
    for (order, blocks) in orders {
        text.push_str(&format!(", {blocks} of order {order}"));
    }
    canvas.text(2, 1, &text, theme.plain());
    if block.foreign > 0 {
        let text = format!("mixed: {} pages serve other types than its own", block.foreign);
        canvas.text(2, 2, &text, theme.mood(Mood::Warn));
    } else {
        canvas.text(2, 2, "no page seen that serves another type", theme.dim());
    }
    if let Some(uses) = map.uses.get(index) {
        let read = since(app.outline().about.start, map.uses_at);
        let mut text = format!("page map at {read}:");
        for ((_, name), pages) in PageUse::ALL.iter().zip(uses) {
            if *pages > 0 {
                text.push_str(&format!(" {name} {pages}"));
            }
        }
        canvas.text(2, 3, &text, theme.dim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> BlockMap {
        let mut map = BlockMap { pages_per_block: 512, ..BlockMap::default() };
        map.zones = vec![("Node 0 DMA".to_owned(), 0, 8), ("Node 0 Normal".to_owned(), 100, 400)];
        map.types = ["Unmovable", "Movable", "Reclaimable"].map(str::to_owned).to_vec();
        map.blocks = vec![Block { migrate: 1, zone: u8::MAX, ..Block::default() }; 400];
        map
    }

    #[test]
    fn the_cursor_stays_in_the_zones() {
        let map = map();
        let shape = Shape::fit(&map, 80, 20);
        assert_eq!(shape.per_cell, 1);
        assert_eq!(shape.step(&map, 7, 1), 100);
        assert_eq!(shape.step(&map, 100, -1), 7);
        assert_eq!(shape.step(&map, 3, shape.row()), 100);
        assert_eq!(shape.step(&map, 399, 1), 399);
        assert_eq!(shape.step(&map, 0, -5), 0);
        assert_eq!(shape.step(&map, 390, shape.row()), 399);
        assert_eq!(next_zone(&map, 50), 100);
        assert_eq!(next_zone(&map, 200), 0);
    }

    #[test]
    fn a_narrow_screen_joins_blocks() {
        let map = map();
        let shape = Shape::fit(&map, 21, 10);
        assert!(shape.per_cell > 1, "{shape:?}");
        let row = shape.columns * shape.per_cell;
        assert!(2 + 8usize.div_ceil(row) + 300usize.div_ceil(row) <= 4, "{shape:?}");
    }

    #[test]
    fn levels_say_full_only_of_full_and_free_only_of_free() {
        let mut map = map();
        let level = |free: u32, map: &mut BlockMap| {
            map.blocks[0].free = free;
            cell(map, 0, 1).0
        };
        assert_eq!(level(512, &mut map), 0);
        assert_eq!(level(511, &mut map), 1);
        assert_eq!(level(0, &mut map), 9);
        assert_eq!(level(256, &mut map), 5);
        assert_eq!(next_mixed(&map, 0), None);
        map.blocks[3].foreign = 1;
        assert_eq!(next_mixed(&map, 5), Some(3));
    }
}
