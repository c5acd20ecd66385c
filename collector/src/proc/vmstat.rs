//! `/proc/vmstat`: a name and a counter on each line.

use kmemlab_trace::snapshot::VmstatRow;

use super::whole_lines;
use crate::error::ParseError;

/// Where it stands below the root.
pub const PATH: &str = "proc/vmstat";

const FILE: &str = "/proc/vmstat";
const ROW: &str = "a name and a number";

/// The counters of the file, in its order.
///
/// # Errors
/// A line is no name with a number.
pub fn parse(text: &str) -> Result<Vec<VmstatRow>, ParseError> {
    let mut rows = Vec::with_capacity(256);
    for line in whole_lines(FILE, text)? {
        let mut words = line.text.split_whitespace();
        let key = words.next().ok_or_else(|| line.wrong(ROW))?.to_owned();
        let value = line.number(words.next(), ROW)?;
        if words.next().is_some() {
            return Err(line.wrong(ROW));
        }
        rows.push(VmstatRow { key, value });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let rows = parse("nr_free_pages 943688\npgfree 18446744073709551615\n").unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].key.as_str(), rows[0].value), ("nr_free_pages", 943_688));
        assert_eq!(rows[1].value, u64::MAX);
    }

    #[test]
    fn a_cut_or_foreign_text_is_an_error() {
        for text in ["", "nr_free_pages 9", "nr_free_pages\n", "a b\n", "a 1 2\n", "\n", "a -1\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
