//! `/proc/zoneinfo`: numbers of nodes, zones and per-CPU page lists, each under its own key.
//!
//! A new number of a newer release becomes a row without a change here. The keys are the file's
//! words but for three: `pages free` is `free`, the numbers of a per-CPU list get `pcp_` in front,
//! and
//! `protection: (a, b)` becomes `protection_0`, `protection_1`.

use kmemlab_trace::snapshot::ZoneRow;
use kmemlab_trace::unit::{Cpu, NodeId};

use super::{Line, whole_lines};
use crate::error::ParseError;

/// Where it stands below the root.
pub const PATH: &str = "proc/zoneinfo";

const FILE: &str = "/proc/zoneinfo";
const TITLE: &str = "`Node N, zone NAME`";
const ROW: &str = "a name and a number";
const PROTECTION: &str = "`protection: (N, N, ...)`";
const WHOLE_ZONE: &str = "a zone with its protection and, after its per-CPU lists, its start_pfn";

/// Where in the file a line stands.
#[derive(Debug, Default)]
struct Place {
    node: NodeId,
    zone: String,
    in_node_block: bool,
    cpu: Option<(Cpu, usize)>,
    has_protection: bool,
    has_page_sets: bool,
    has_start: bool,
}

impl Place {
    fn is_whole(&self) -> bool {
        self.has_protection && (self.has_start || !self.has_page_sets)
    }

    fn row(&self, cpu: Option<Cpu>, key: String, value: i64) -> ZoneRow {
        let zone = if self.in_node_block { String::new() } else { self.zone.clone() };
        ZoneRow { node: self.node, zone, cpu, key, value }
    }
}

/// The numbers of the file, in its order.
///
/// # Errors
/// A line is no name with a number, or the last zone is not whole.
pub fn parse(text: &str) -> Result<Vec<ZoneRow>, ParseError> {
    let mut rows = Vec::with_capacity(512);
    let mut place: Option<Place> = None;
    for line in whole_lines(FILE, text)? {
        if line.text.starts_with("Node") {
            if place.as_ref().is_some_and(|place| !place.is_whole()) {
                return Err(line.wrong(WHOLE_ZONE));
            }
            let (node, zone, _) = line.node_and_zone(TITLE)?;
            place = Some(Place { node, zone: zone.to_owned(), ..Place::default() });
        } else {
            let place = place.as_mut().ok_or_else(|| line.wrong(TITLE))?;
            read_line(&line, place, &mut rows)?;
        }
    }
    if place.is_some_and(|place| place.is_whole()) {
        Ok(rows)
    } else {
        Err(ParseError::Absent { file: FILE, expected: WHOLE_ZONE })
    }
}

fn read_line(
    line: &Line<'_>,
    place: &mut Place,
    rows: &mut Vec<ZoneRow>,
) -> Result<(), ParseError> {
    let text = line.text.trim();
    let indent = line.text.len() - line.text.trim_start().len();
    match text {
        "per-node stats" => {
            place.in_node_block = true;
            return Ok(());
        }
        "pagesets" => {
            place.has_page_sets = true;
            return Ok(());
        }
        _ => {}
    }
    if let Some(list) = text.strip_prefix("protection:") {
        place.has_protection = true;
        return protection(line, list, place, rows);
    }
    if let Some(cpu) = text.strip_prefix("cpu:") {
        place.cpu = Some((Cpu(line.number(Some(cpu.trim()), "`cpu: N`")?), indent));
        return Ok(());
    }
    let (key, value) = text.rsplit_once(char::is_whitespace).ok_or_else(|| line.wrong(ROW))?;
    let key = key.trim_end().trim_end_matches(':');
    let value = signed(value).ok_or_else(|| line.wrong(ROW))?;
    let row = match (key, place.cpu) {
        ("pages free", _) => {
            place.in_node_block = false;
            place.row(None, "free".to_owned(), value)
        }
        ("vm stats threshold", Some((cpu, _))) => place.row(Some(cpu), key.to_owned(), value),
        // What a CPU's list owns is indented deeper than the line that names the CPU.
        (_, Some((cpu, outer))) if indent > outer => {
            place.row(Some(cpu), format!("pcp_{key}"), value)
        }
        _ => {
            place.has_start |= key == "start_pfn";
            place.row(None, key.to_owned(), value)
        }
    };
    rows.push(row);
    Ok(())
}

fn protection(
    line: &Line<'_>,
    list: &str,
    place: &Place,
    rows: &mut Vec<ZoneRow>,
) -> Result<(), ParseError> {
    let inner = list.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    for (index, value) in inner.ok_or_else(|| line.wrong(PROTECTION))?.split(',').enumerate() {
        let value = signed(value.trim()).ok_or_else(|| line.wrong(PROTECTION))?;
        rows.push(place.row(None, format!("protection_{index}"), value));
    }
    Ok(())
}

/// The kernel prints negative counters as huge unsigned ones.
fn signed(token: &str) -> Option<i64> {
    token.parse::<i64>().ok().or_else(|| token.parse::<u64>().ok().map(u64::cast_signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5.10: no boost, no promo, no cma, no high_min.
    const OLD: &str = "Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 18446744073709551615
      nr_kernel_stack 3184
  pages free     3840
        min      39
        low      48
        high     57
        spanned  4095
        present  3998
        managed  3840
        protection: (0, 2940, 15890)
      nr_free_pages 3840
      numa_hit     0
  pagesets
    cpu: 0
              count: 7
              high:  0
              batch: 1
  vm stats threshold: 6
    cpu: 11
              count: 8
              high:  0
              batch: 1
  vm stats threshold: 6
  node_unreclaimable:  0
  start_pfn:           1
Node 1, zone  Movable
  pages free     0
        min      0
        managed  0
        protection: (0, 0, 0)
";

    fn find<'a>(
        rows: &'a [ZoneRow],
        zone: &str,
        cpu: Option<u16>,
        key: &str,
    ) -> Option<&'a ZoneRow> {
        rows.iter().find(|row| row.zone == zone && row.cpu == cpu.map(Cpu) && row.key == key)
    }

    #[test]
    fn an_old_release_number_by_number() {
        let rows = parse(OLD).unwrap();
        let value = |zone, cpu, key| find(&rows, zone, cpu, key).map(|row| row.value);
        assert_eq!(value("", None, "nr_inactive_anon"), Some(-1));
        assert_eq!(value("", None, "nr_kernel_stack"), Some(3184));
        assert_eq!(value("DMA", None, "free"), Some(3840));
        assert_eq!(value("DMA", None, "high"), Some(57));
        assert_eq!(value("DMA", None, "boost"), None);
        assert_eq!(value("DMA", None, "protection_2"), Some(15_890));
        assert_eq!(value("DMA", Some(0), "pcp_count"), Some(7));
        assert_eq!(value("DMA", Some(11), "pcp_count"), Some(8));
        assert_eq!(value("DMA", Some(11), "pcp_high_min"), None);
        assert_eq!(value("DMA", Some(11), "vm stats threshold"), Some(6));
        assert_eq!(value("DMA", None, "start_pfn"), Some(1));
        assert_eq!(find(&rows, "Movable", None, "managed").unwrap().node, NodeId(1));
        // 2 node, 7 pages, 3 protection, 2 statistics, 2 * 4 of a CPU, 2 trailer; then 3 and 3.
        assert_eq!(rows.len(), 24 + 6);
    }

    #[test]
    fn a_new_number_of_a_cpu_list_needs_no_change() {
        let text = OLD.replace("batch: 1\n", "batch: 1\n              high_min: 24\n");
        let rows = parse(&text).unwrap();
        assert_eq!(find(&rows, "DMA", Some(0), "pcp_high_min").unwrap().value, 24);
    }

    #[test]
    fn a_text_cut_inside_a_line_is_an_error() {
        let lines: Vec<&str> = OLD.split_inclusive('\n').collect();
        for end in 0..OLD.len() {
            if !OLD[..end].ends_with('\n') {
                assert!(parse(&OLD[..end]).is_err(), "{end}");
            }
        }
        for count in [0, 1, 5, 11, 15, 16, 20, 25, lines.len() - 1] {
            assert!(parse(&lines[..count].concat()).is_err(), "{count}");
        }
    }

    #[test]
    fn foreign_texts_are_errors() {
        for text in [
            "\n",
            "x\n",
            "  pages free 1\n",
            "Node 0\n",
            "Node 0, zone DMA\n",
            "Node 0, zone DMA\n  pages free x\n        protection: (0)\n",
            "Node 0, zone DMA\n        protection: 0, 1\n",
            "Node 0, zone DMA\n        protection: (0, x)\n",
            "Node 0, zone DMA\n    cpu: x\n        protection: (0)\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
