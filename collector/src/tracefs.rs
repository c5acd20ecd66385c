//! Tracefs: where the kernel describes its tracepoints, and the description of one.
//!
//! Nothing about an event's layout is written in this source: each field is found by name in the
//! tracepoint's own `format` file, with the offset and size that stand there.

use std::io;
use std::path::Path;

use crate::error::{Error, ParseError};
use crate::proc::{Line, lines};
use crate::root::Root;

const PLACES: [&str; 2] = ["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// A mounted tracefs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracefs {
    base: Root,
}

impl Tracefs {
    /// The tracefs of a host.
    ///
    /// # Errors
    /// None is mounted, or it is not for us.
    pub fn find(root: &Root) -> Result<Self, Error> {
        for place in PLACES {
            let events = format!("{place}/events");
            match root.join(&events).metadata() {
                Ok(_) => return Ok(Self::at(Root::new(root.join(place)))),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(root.error(&events, error));
                }
                Err(_) => {}
            }
        }
        Err(Error::NoTracefs { path: root.join(PLACES[0]) })
    }

    /// The tracefs, or an instance of it, in this very folder.
    #[must_use]
    pub fn at(base: Root) -> Self {
        Self { base }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.base.path()
    }

    /// Whether it has such a file or folder, as far as we may see.
    #[must_use]
    pub fn exists(&self, rel: &str) -> bool {
        self.base.exists(rel)
    }

    /// The kernel's description of a tracepoint; `None` when this kernel has no such tracepoint.
    ///
    /// # Errors
    /// The description may not be read, or reading failed.
    pub fn format_text(&self, system: &str, name: &str) -> Result<Option<String>, Error> {
        match self.base.read(&format_path(system, name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Tracefs::format_text`], parsed.
    ///
    /// # Errors
    /// Also when the text is no description.
    pub fn format(&self, system: &str, name: &str) -> Result<Option<Format>, Error> {
        let Some(text) = self.format_text(system, name)? else {
            return Ok(None);
        };
        let path = self.base.join(&format_path(system, name));
        Format::parse(&text).map(Some).map_err(|source| Error::Parse { path, source })
    }
}

fn format_path(system: &str, name: &str) -> String {
    format!("events/{system}/{name}/format")
}

/// The kernel's description of one tracepoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format {
    /// The tracepoint's name, without its system.
    pub name: String,
    /// The kernel's number of it, new at each boot.
    pub id: u64,
    /// Its fields in the order of the record, the common ones first.
    pub fields: Vec<Field>,
    /// How the kernel would print it: holds the names of flags. Empty where the text has none.
    pub print_fmt: String,
}

/// One field of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Name.
    pub name: String,
    /// The C type as printed, without the name and its `[n]`. Says nothing of the size.
    pub type_text: String,
    /// Bytes from the start of the record.
    pub offset: usize,
    /// Bytes in the record.
    pub size: usize,
    /// Whether the number is signed.
    pub is_signed: bool,
    /// The name carries a `[n]`: the record holds the elements themselves.
    pub is_array: bool,
    /// The record holds where the elements are (`__data_loc`): low 16 bits the offset from the
    /// start of the record, high 16 bits the length in bytes.
    pub is_data_loc: bool,
    /// As `is_data_loc`, but the offset counts from the end of this field (`__rel_loc`, 5.17).
    pub is_rel_loc: bool,
}

const FILE: &str = "format";
const FIELD: &str = "`field:TYPE NAME; offset:N; size:N; signed:N;`";
/// A record's length is a number of 16 bits in the ring.
const RECORD_BYTES: usize = 1 << 16;

impl Format {
    /// Parses the text of a `format` file.
    ///
    /// # Errors
    /// The name, the number or every field is missing, or a field has not all its parts.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut name = None;
        let mut id = None;
        let mut fields = Vec::new();
        let mut print_fmt = String::new();
        for line in lines(FILE, text) {
            let body = line.text.trim();
            if let Some(word) = body.strip_prefix("name:") {
                name = Some(word.trim().to_owned()).filter(|word| !word.is_empty());
            } else if let Some(number) = body.strip_prefix("ID:") {
                id = Some(line.number(Some(number.trim()), "`ID: N`")?);
            } else if let Some(rest) = body.strip_prefix("field") {
                fields.push(field(&line, rest)?);
            } else if let Some(rest) = body.strip_prefix("print fmt:") {
                rest.trim().clone_into(&mut print_fmt);
            } else if !body.is_empty() && body != "format:" && print_fmt.is_empty() {
                // A print format may go over several lines; nothing else may stand here.
                return Err(line.wrong("`name:`, `ID:`, `format:`, a field or `print fmt:`"));
            }
        }
        let absent = |expected| ParseError::Absent { file: FILE, expected };
        if fields.is_empty() {
            return Err(absent(FIELD));
        }
        Ok(Self {
            name: name.ok_or_else(|| absent("`name: NAME`"))?,
            id: id.ok_or_else(|| absent("`ID: N`"))?,
            fields,
            print_fmt,
        })
    }

    /// A field by its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// What stands behind `field` (or, for types that old kernels held for special, `field special`).
pub(crate) fn field(line: &Line<'_>, rest: &str) -> Result<Field, ParseError> {
    let wrong = || line.wrong(FIELD);
    let (_, rest) = rest.split_once(':').ok_or_else(wrong)?;
    let mut parts = rest.split(';').map(str::trim);
    let declaration = parts.next().ok_or_else(wrong)?;
    let mut part = |key: &str| {
        let value: Option<usize> = parts.next()?.strip_prefix(key)?.parse().ok();
        value.filter(|value| *value < RECORD_BYTES)
    };
    let offset = part("offset:").ok_or_else(wrong)?;
    let size = part("size:").ok_or_else(wrong)?;
    let is_signed = part("signed:").ok_or_else(wrong)? != 0;
    // The last `;` is what says that the line was not cut within a number.
    parts.next().ok_or_else(wrong)?;
    let (declaration, is_array) = without_length(declaration);
    let name_start = declaration
        .rfind(|letter: char| !(letter.is_alphanumeric() || letter == '_'))
        .map_or(0, |index| index + 1);
    let (type_text, name) = declaration.split_at(name_start);
    let type_text = type_text.trim();
    if name.is_empty() || type_text.is_empty() {
        return Err(wrong());
    }
    Ok(Field {
        name: name.to_owned(),
        type_text: type_text.to_owned(),
        offset,
        size,
        is_signed,
        is_array,
        is_data_loc: type_text.starts_with("__data_loc"),
        is_rel_loc: type_text.starts_with("__rel_loc"),
    })
}

/// A declaration without the `[n]` behind its name; `n` may be an expression with brackets of its
/// own.
fn without_length(declaration: &str) -> (&str, bool) {
    if !declaration.ends_with(']') {
        return (declaration, false);
    }
    let mut depth = 0;
    for (index, letter) in declaration.char_indices().rev() {
        match letter {
            ']' => depth += 1,
            '[' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (declaration[..index].trim_end(), true);
        }
    }
    (declaration, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    const HEAD: &str = "name: mark_victim\nID: 612\nformat:\n";
    const TEXT: &str = "name: mark_victim
ID: 612
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:const void * ptr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:char comm[TASK_COMM_LEN];\toffset:16;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:32;\tsize:4;\tsigned:0;
\tfield:__rel_loc u64[] addrs;\toffset:36;\tsize:4;\tsigned:0;
\tfield special:u8 raw[sizeof(a) / sizeof(a[0])];\toffset:40;\tsize:3;\tsigned:0;

print fmt: \"pid=%d\", REC->common_pid
";

    #[test]
    fn every_kind_of_field() {
        let format = Format::parse(TEXT).unwrap();
        assert_eq!((format.name.as_str(), format.id), ("mark_victim", 612));
        assert_eq!(format.fields.len(), 7);
        assert_eq!(format.print_fmt, "\"pid=%d\", REC->common_pid");
        let field = |name| format.field(name).unwrap();
        let ptr = field("ptr");
        assert_eq!((ptr.type_text.as_str(), ptr.offset, ptr.size), ("const void *", 8, 8));
        assert!(field("common_pid").is_signed && !ptr.is_signed && !ptr.is_array);
        let comm = field("comm");
        assert_eq!((comm.type_text.as_str(), comm.size, comm.is_array), ("char", 16, true));
        let name = field("name");
        assert_eq!(name.type_text, "__data_loc char[]");
        assert!(name.is_data_loc && !name.is_rel_loc && !name.is_array);
        assert!(field("addrs").is_rel_loc && !field("addrs").is_data_loc);
        assert_eq!((field("raw").type_text.as_str(), field("raw").is_array), ("u8", true));
        assert_eq!(format.field("none"), None);
    }

    #[test]
    fn a_cut_or_foreign_text_is_an_error() {
        for text in ["", "\n", "garbage\n", HEAD, "ID: 1\n", "name: x\nID: y\n"] {
            assert!(Format::parse(text).is_err(), "{text:?}");
        }
        let whole = "\tfield:int order;\toffset:8;\tsize:4;\tsigned:1;";
        assert!(Format::parse(&format!("{HEAD}{whole}")).is_ok());
        for end in 1..whole.len() {
            let text = format!("{HEAD}{}", &whole[..end]);
            assert!(Format::parse(&text).is_err(), "{text:?}");
        }
        for line in [
            "field:order; offset:8; size:4; signed:1;",
            "field:int order; size:4; offset:8; signed:1;",
            "field:int order; offset:-8; size:4; signed:1;",
            "field:int order; offset:65536; size:4; signed:1;",
            "field:int ]; offset:8; size:4; signed:1;",
        ] {
            assert!(Format::parse(&format!("{HEAD}{line}\n")).is_err(), "{line}");
        }
    }

    #[test]
    fn tracefs_in_either_place_or_how_to_mount_it() {
        let scratch = Scratch::new();
        // The folder is there on every kernel; mounted it has `events`.
        scratch.write("sys/kernel/tracing/README", "");
        let error = Tracefs::find(&scratch.0).unwrap_err();
        assert!(error.to_string().ends_with("mount -t tracefs nodev /sys/kernel/tracing"));
        scratch.write("sys/kernel/debug/tracing/events/oom/mark_victim/format", TEXT);
        let tracefs = Tracefs::find(&scratch.0).unwrap();
        assert!(tracefs.path().ends_with("sys/kernel/debug/tracing"));
        assert_eq!(tracefs.format_text("oom", "mark_victim").unwrap().as_deref(), Some(TEXT));
        assert_eq!(tracefs.format("oom", "mark_victim").unwrap().unwrap().id, 612);
        assert_eq!(tracefs.format("oom", "none").unwrap(), None);
        scratch.write("sys/kernel/tracing/events/oom/mark_victim/format", "x\n");
        let tracefs = Tracefs::find(&scratch.0).unwrap();
        let error = tracefs.format("oom", "mark_victim").unwrap_err();
        assert!(error.to_string().contains("sys/kernel/tracing/events/oom"), "{error}");
    }
}
