//! `/proc/slabinfo`: a heading that names the columns, then a line for each cache.

use kmemlab_trace::snapshot::SlabRow;

use super::{Line, whole_lines};
use crate::error::ParseError;

/// Where it stands below the root.
pub const PATH: &str = "proc/slabinfo";

const FILE: &str = "/proc/slabinfo";
const VERSION: &str = "`slabinfo - version: N`";
const HEADING: &str = "`# name <active_objs> <num_objs> ...`";
const ROW: &str = "a cache with a number under each heading";

/// Where the heading puts each column, from the end of the line.
#[derive(Debug)]
struct Columns {
    words: usize,
    from_end: [usize; NAMES.len()],
}

const NAMES: [&str; 7] = [
    "<active_objs>",
    "<num_objs>",
    "<objsize>",
    "<objperslab>",
    "<pagesperslab>",
    "<active_slabs>",
    "<num_slabs>",
];

impl Columns {
    fn parse(line: &Line<'_>) -> Result<Self, ParseError> {
        let rest = line.text.strip_prefix('#').ok_or_else(|| line.wrong(HEADING))?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let mut from_end = [0; NAMES.len()];
        for (place, name) in from_end.iter_mut().zip(NAMES) {
            let index = words.iter().position(|word| *word == name);
            *place = words.len() - index.ok_or_else(|| line.wrong(HEADING))?;
        }
        Ok(Self { words: words.len(), from_end })
    }

    /// A cache may be named with a space by a module: numbers are counted from the end of the line.
    fn row(&self, line: &Line<'_>) -> Result<SlabRow, ParseError> {
        let words: Vec<&str> = line.text.split_whitespace().collect();
        if words.len() < self.words {
            return Err(line.wrong(ROW));
        }
        let mut numbers = [0u64; NAMES.len()];
        for (number, from_end) in numbers.iter_mut().zip(self.from_end) {
            *number = line.number(words.get(words.len() - from_end).copied(), ROW)?;
        }
        let name_words = words.len() + 1 - self.words;
        let [active_objects, objects, size, per_slab, pages, active_slabs, slabs] = numbers;
        Ok(SlabRow {
            cache: words[..name_words].join(" "),
            active_objects,
            objects,
            object_size_bytes: size,
            objects_per_slab: per_slab,
            pages_per_slab: pages,
            active_slabs,
            slabs,
        })
    }
}

/// The caches of the file, in its order.
///
/// # Errors
/// A heading or a column is missing, or a line has too few numbers.
pub fn parse(text: &str) -> Result<Vec<SlabRow>, ParseError> {
    let mut lines = whole_lines(FILE, text)?;
    let absent = |expected| ParseError::Absent { file: FILE, expected };
    let version = lines.next().ok_or_else(|| absent(VERSION))?;
    if !version.text.starts_with("slabinfo - version:") {
        return Err(version.wrong(VERSION));
    }
    let columns = Columns::parse(&lines.next().ok_or_else(|| absent(HEADING))?)?;
    let rows = lines.map(|line| columns.row(&line)).collect::<Result<Vec<_>, _>>()?;
    if rows.is_empty() { Err(absent(ROW)) } else { Ok(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n";

    #[test]
    fn every_column_by_its_heading() {
        let text = format!(
            "{HEAD}dentry            203385 203700    192   21    1 : tunables    0    0    0 : slabdata   9699   9700      0\n\
             odd name  1 2 3 4 5 : tunables 0 0 0 : slabdata 6 7 0\n"
        );
        let rows = parse(&text).unwrap();
        assert_eq!(
            rows[0],
            SlabRow {
                cache: "dentry".into(),
                active_objects: 203_385,
                objects: 203_700,
                object_size_bytes: 192,
                objects_per_slab: 21,
                pages_per_slab: 1,
                active_slabs: 9699,
                slabs: 9700,
            }
        );
        assert_eq!(
            (rows[1].cache.as_str(), rows[1].active_objects, rows[1].slabs),
            ("odd name", 1, 7)
        );
    }

    #[test]
    fn a_kernel_with_slab_statistics_has_more_columns() {
        let text = "slabinfo - version: 2.1 (statistics)\n\
            # name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail> : globalstat <listallocs> : cpustat <allochit>\n\
            pid 1 2 3 4 5 : tunables 0 0 0 : slabdata 6 7 8 : globalstat 9 : cpustat 10\n";
        let rows = parse(text).unwrap();
        assert_eq!((rows[0].cache.as_str(), rows[0].active_slabs, rows[0].slabs), ("pid", 6, 7));
    }

    #[test]
    fn a_cut_or_foreign_text_is_an_error() {
        for tail in [
            "",
            "dentry 1 2 3 4 5 : tunables 0 0 0 : slabdata 6 7\n",
            "dentry 1 2 3 4 5 : tunables 0 0 0 : slabdata 6 7 0",
            "dentry 1 2 x 4 5 : tunables 0 0 0 : slabdata 6 7 0\n",
            "\n",
        ] {
            assert!(parse(&format!("{HEAD}{tail}")).is_err(), "{tail:?}");
        }
        for text in
            ["", "\n", "slabinfo - version: 2.1\n", "slabinfo - version: 2.1\n# name\n", "x\ny\n"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
