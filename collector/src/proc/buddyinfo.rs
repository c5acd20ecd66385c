//! `/proc/buddyinfo`: free blocks by order. The number of columns is the kernel's number of orders.

use kmemlab_trace::snapshot::BuddyRow;

use super::whole_lines;
use crate::error::ParseError;

/// Where it stands below the root.
pub const PATH: &str = "proc/buddyinfo";

const FILE: &str = "/proc/buddyinfo";
const ROW: &str = "`Node N, zone NAME` and a count for every order";

/// The zones of the file, in its order.
///
/// # Errors
/// A line is no zone, or the zones differ in their number of orders.
pub fn parse(text: &str) -> Result<Vec<BuddyRow>, ParseError> {
    let mut rows: Vec<BuddyRow> = Vec::new();
    for line in whole_lines(FILE, text)? {
        let (node, zone, counts) = line.node_and_zone(ROW)?;
        let free_blocks = counts
            .split_whitespace()
            .map(|count| line.number(Some(count), ROW))
            .collect::<Result<Vec<u64>, _>>()?;
        let orders = rows.first().map_or(free_blocks.len(), |first| first.free_blocks.len());
        if free_blocks.is_empty() || free_blocks.len() != orders {
            return Err(line.wrong(ROW));
        }
        rows.push(BuddyRow { node, zone: zone.to_owned(), free_blocks });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use kmemlab_trace::unit::NodeId;

    use super::*;

    #[test]
    fn two_nodes_and_fourteen_orders() {
        // arm64 with 64 KiB pages has 14 orders.
        let text = "Node 0, zone    DMA      1      0      2      0      0      0      0      0      0      0      0      0      0     14 \n\
                    Node 1, zone   Normal      3      0      0      0      0      0      0      0      0      0      0      0      0     15 \n";
        let rows = parse(text).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].node, rows[0].zone.as_str()), (NodeId(0), "DMA"));
        assert_eq!((rows[1].node, rows[1].zone.as_str()), (NodeId(1), "Normal"));
        assert_eq!(rows[0].free_blocks, [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 14]);
        assert_eq!(rows[1].free_blocks[13], 15);
    }

    #[test]
    fn a_cut_or_foreign_text_is_an_error() {
        for text in [
            "",
            "\n",
            "Node 0, zone DMA 1 2",
            "Node 0, zone DMA\n",
            "Node 0, zone\n",
            "Node x, zone DMA 1 2\n",
            "Node 0, zone DMA 1 -2\n",
            "Node 0, zone DMA 1 2\nNode 0, zone Normal 1\n",
            "garbage\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let error = parse("Node 0, zone DMA 1 2\nNode 0, zo\n").unwrap_err();
        assert!(error.to_string().starts_with("/proc/buddyinfo, line 2: expected `Node N, zone"));
    }
}
