//! Readers of `/proc`: each takes the file's text and yields its rows, whatever the kernel release.
//!
//! They are pure, so that a fixture of any release tests them. Columns and numbers are found by the
//! names that the file itself prints. A text that was cut is an error, never a shorter answer.

use std::str::FromStr;

use kmemlab_trace::unit::NodeId;

use crate::error::{ParseError, quoted};

pub mod buddyinfo;
pub mod iomem;
pub mod kpageflags;
pub mod pagetypeinfo;
pub mod slabinfo;
pub mod vmallocinfo;
pub mod vmstat;
pub mod zoneinfo;

/// One line of a kernel's text, which knows where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    file: &'static str,
    number: usize,
    pub(crate) text: &'a str,
}

/// The lines of a text that must be whole: not empty, and ended by a newline.
pub(crate) fn whole_lines<'a>(
    file: &'static str,
    text: &'a str,
) -> Result<impl Iterator<Item = Line<'a>>, ParseError> {
    if text.ends_with('\n') {
        Ok(lines(file, text))
    } else {
        Err(ParseError::Absent { file, expected: "a newline at the end" })
    }
}

/// The lines of a text that may have lost its last newline on the way.
pub(crate) fn lines<'a>(file: &'static str, text: &'a str) -> impl Iterator<Item = Line<'a>> {
    text.lines().enumerate().map(move |(index, text)| Line { file, number: index + 1, text })
}

impl<'a> Line<'a> {
    /// The error of this line.
    pub(crate) fn wrong(&self, expected: &'static str) -> ParseError {
        ParseError::Line {
            file: self.file,
            line: self.number,
            expected,
            found: quoted(self.text.trim()),
        }
    }

    /// A number out of this line.
    pub(crate) fn number<T: FromStr>(
        &self,
        token: Option<&str>,
        expected: &'static str,
    ) -> Result<T, ParseError> {
        token.and_then(|token| token.parse().ok()).ok_or_else(|| self.wrong(expected))
    }

    /// Node and zone of `Node 0, zone   Normal` and the rest of the line.
    pub(crate) fn node_and_zone(
        &self,
        expected: &'static str,
    ) -> Result<(NodeId, &'a str, &'a str), ParseError> {
        let split = || {
            let (node, rest) = self.text.trim_start().strip_prefix("Node")?.split_once(',')?;
            let rest = rest.trim_start().strip_prefix("zone")?.trim_start();
            let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
            let (zone, rest) = rest.split_at(end);
            (!zone.is_empty()).then_some((node.trim(), zone, rest))
        };
        let (node, zone, rest) = split().ok_or_else(|| self.wrong(expected))?;
        Ok((NodeId(self.number(Some(node), expected)?), zone, rest))
    }
}
