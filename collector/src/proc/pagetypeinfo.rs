//! `/proc/pagetypeinfo`: free blocks by migrate type and order, and pageblocks by migrate type.
//!
//! Its headings are also the one place where a kernel says which migrate types it has, in the order
//! of their numbers. Reading the file empties every per-CPU list when page_owner is active.

use kmemlab_trace::snapshot::PageTypeRow;
use kmemlab_trace::unit::Order;

use super::{Line, whole_lines};
use crate::error::ParseError;

/// Where it stands below the root.
pub const PATH: &str = "proc/pagetypeinfo";

const FILE: &str = "/proc/pagetypeinfo";
const BLOCK_ORDER: &str = "`Page block order: N`";
const FREE_ROW: &str = "`Node N, zone NAME, type TYPE` and a count for every order";
const BLOCKS_ROW: &str = "`Node N, zone NAME` and a count for every migrate type";
const BLOCKS: &str =
    "`Number of blocks type` with the names of the migrate types and a row for each zone";

/// The whole file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageTypeInfo {
    /// Order of a pageblock.
    pub pageblock_order: Order,
    /// Pages of a pageblock.
    pub pages_per_block: u64,
    /// Names of the migrate types; the index is the kernel's number.
    pub migrate_types: Vec<String>,
    /// The cells, in the file's order.
    pub rows: Vec<PageTypeRow>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Headings,
    Free,
    Blocks,
    Mixed,
}

/// The cells of the file, in its order.
///
/// # Errors
/// As [`parse_whole`].
pub fn parse(text: &str) -> Result<Vec<PageTypeRow>, ParseError> {
    parse_whole(text).map(|info| info.rows)
}

/// The file with its headings.
///
/// # Errors
/// A heading is missing, or a row has not a number for each column.
pub fn parse_whole(text: &str) -> Result<PageTypeInfo, ParseError> {
    let mut info = PageTypeInfo {
        pageblock_order: Order(0),
        pages_per_block: 0,
        migrate_types: Vec::new(),
        rows: Vec::new(),
    };
    let mut part = Part::Headings;
    let mut orders = 0;
    let mut zones_with_blocks = 0;
    for line in whole_lines(FILE, text)? {
        if let Some(order) = line.text.strip_prefix("Page block order:") {
            info.pageblock_order = Order(line.number(Some(order.trim()), BLOCK_ORDER)?);
        } else if let Some(pages) = line.text.strip_prefix("Pages per block:") {
            info.pages_per_block = line.number(Some(pages.trim()), "`Pages per block: N`")?;
        } else if let Some(heading) =
            line.text.strip_prefix("Free pages count per migrate type at order")
        {
            orders = heading.split_whitespace().count();
            part = Part::Free;
        } else if let Some(heading) = line.text.strip_prefix("Number of blocks type") {
            // Each node prints the headings anew; they are the same.
            info.migrate_types = heading.split_whitespace().map(str::to_owned).collect();
            part = Part::Blocks;
        } else if line.text.starts_with("Number of mixed blocks") {
            part = Part::Mixed;
        } else if !line.text.trim().is_empty() {
            match part {
                Part::Headings => return Err(line.wrong(BLOCK_ORDER)),
                Part::Free => free_row(&line, orders, &mut info.rows)?,
                Part::Blocks => {
                    blocks_row(&line, &info.migrate_types, &mut info.rows)?;
                    zones_with_blocks += 1;
                }
                Part::Mixed => {}
            }
        }
    }
    if info.pages_per_block == 0 || info.migrate_types.is_empty() || zones_with_blocks == 0 {
        let expected = if info.pages_per_block == 0 { BLOCK_ORDER } else { BLOCKS };
        return Err(ParseError::Absent { file: FILE, expected });
    }
    Ok(info)
}

fn free_row(line: &Line<'_>, orders: usize, rows: &mut Vec<PageTypeRow>) -> Result<(), ParseError> {
    let wrong = || line.wrong(FREE_ROW);
    let (node, zone, rest) = line.node_and_zone(FREE_ROW)?;
    let rest = rest.trim_start_matches(',').trim_start().strip_prefix("type").ok_or_else(wrong)?;
    let mut words = rest.split_whitespace();
    let migrate_type = words.next().ok_or_else(wrong)?;
    let first = rows.len();
    for (order, cell) in words.enumerate() {
        // The kernel stops counting at 100,000 and glues `>` to the number.
        let digits = cell.strip_prefix('>');
        rows.push(PageTypeRow {
            node,
            zone: zone.to_owned(),
            migrate_type: migrate_type.to_owned(),
            order: Some(Order(u8::try_from(order).map_err(|_| wrong())?)),
            blocks: line.number(Some(digits.unwrap_or(cell)), FREE_ROW)?,
            is_lower_bound: digits.is_some(),
        });
    }
    if orders == 0 || rows.len() - first != orders { Err(wrong()) } else { Ok(()) }
}

fn blocks_row(
    line: &Line<'_>,
    migrate_types: &[String],
    rows: &mut Vec<PageTypeRow>,
) -> Result<(), ParseError> {
    let (node, zone, rest) = line.node_and_zone(BLOCKS_ROW)?;
    let mut cells = rest.split_whitespace();
    for migrate_type in migrate_types {
        rows.push(PageTypeRow {
            node,
            zone: zone.to_owned(),
            migrate_type: migrate_type.clone(),
            order: None,
            blocks: line.number(cells.next(), BLOCKS_ROW)?,
            is_lower_bound: false,
        });
    }
    if cells.next().is_some() { Err(line.wrong(BLOCKS_ROW)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use kmemlab_trace::unit::NodeId;

    use super::*;

    /// 6.1 with CMA and page_owner: six types, a capped count, mixed blocks; three orders only.
    const CAPPED: &str = "Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2 
Node    1, zone   Normal, type    Unmovable     64    183    321 
Node    1, zone   Normal, type      Movable >100000   1572   4600 
Node    1, zone   Normal, type          CMA      0      0      1 

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic          CMA      Isolate 
Node 1, zone   Normal           53         1623           52            1            8            0 
Number of mixed blocks    Unmovable      Movable  Reclaimable   HighAtomic          CMA      Isolate 
Node 1, zone   Normal            1            2            3            0            0            0 
";

    #[test]
    fn headings_cells_and_the_cap() {
        let info = parse_whole(CAPPED).unwrap();
        assert_eq!((info.pageblock_order, info.pages_per_block), (Order(9), 512));
        assert_eq!(
            info.migrate_types,
            ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate"]
        );
        assert_eq!(info.rows.len(), 3 * 3 + 6);
        let capped = &info.rows[3];
        assert_eq!((capped.node, capped.zone.as_str()), (NodeId(1), "Normal"));
        assert_eq!((capped.migrate_type.as_str(), capped.order), ("Movable", Some(Order(0))));
        assert_eq!((capped.blocks, capped.is_lower_bound), (100_000, true));
        assert_eq!((info.rows[4].blocks, info.rows[4].is_lower_bound), (1572, false));
        let blocks = &info.rows[10];
        assert_eq!(
            (blocks.migrate_type.as_str(), blocks.order, blocks.blocks),
            ("Movable", None, 1623)
        );
    }

    #[test]
    fn a_cut_or_foreign_text_is_an_error() {
        for count in 0..10 {
            let cut: String = CAPPED.split_inclusive('\n').take(count).collect();
            assert!(parse(&cut).is_err(), "{count} lines");
        }
        for end in 0..CAPPED.len() {
            if !CAPPED[..end].ends_with('\n') {
                assert!(parse(&CAPPED[..end]).is_err(), "{end}");
            }
        }
        for text in [
            "x\n",
            &CAPPED.replace("   1572", ""),
            &CAPPED.replace("1623", ""),
            &CAPPED.replace("1623", "1623 7"),
            &CAPPED.replace("1623", ">x"),
            &CAPPED.replace("order: 9", "order: nine"),
            &CAPPED.replace(", type ", ", kind "),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
