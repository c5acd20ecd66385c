//! Opens a recording: its manifest, and as much of its index as can be believed.

use std::path::Path;

use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;

use crate::checksums::vouched_bytes;
use crate::error::Error;
use crate::format::{self, INDEX_TABLE};
use crate::manifest::Manifest;
use crate::stream::IndexRow;
use crate::table::{Cell, TableBatch};

/// The end mark of a stream is no part of it that anything vouches for, but it is there.
const END_MARK_BYTES: usize = 8;

pub(super) fn read_manifest(root: &Path) -> Result<Manifest, Error> {
    let path = root.join(format::MANIFEST);
    let not_ours =
        |found: &str| Error::NotARecording { path: root.to_owned(), found: found.to_owned() };
    match std::fs::metadata(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_ours("there is nothing of that name"));
        }
        Err(error) => return Err(Error::io("read", root, error)),
        Ok(meta) if !meta.is_dir() => return Err(not_ours("it is a file, not a directory")),
        Ok(_) => {}
    }
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(not_ours("it has no manifest.json"));
        }
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let bad = |why: String| Error::BadManifest { path: path.clone(), why };
    let mut value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let version = value.get("format_version").and_then(serde_json::Value::as_u64);
    let Some(version) = version else {
        return Err(not_ours("its manifest.json is not kmemlab's"));
    };
    if version > format::VERSION {
        let tool = value.get("tool").and_then(|tool| tool.as_str()).unwrap_or("unknown");
        let tool = tool.to_owned();
        return Err(Error::TooNew {
            path: root.to_owned(),
            found: version,
            known: format::VERSION,
            tool,
        });
    }
    let checksum = value.as_object_mut().and_then(|object| object.shift_remove("checksum"));
    let crc = format!("crc32:{:08x}", crc32fast::hash(value.to_string().as_bytes()));
    if checksum.as_ref().and_then(|checksum| checksum.as_str()) != Some(crc.as_str()) {
        return Err(bad("its checksum does not fit its text".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| bad(error.to_string()))
}

pub(super) fn read_index(
    root: &Path,
    manifest: &Manifest,
    salvage: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<IndexRow>, Error> {
    let read = |name: &str| {
        let path = root.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(_) if salvage => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", path, error)),
        }
    };
    let mut bytes = read(format::INDEX)?;
    let vouched = vouched_bytes(&read(format::INDEX_CRC)?, &bytes);
    let mut damage = |name: &str, offset: usize, why: String, what_then: &str| {
        if !salvage {
            return Err(Error::Damaged { path: root.join(name), offset: offset as u64, why });
        }
        let subject = if name == format::INDEX { "the index" } else { name };
        notes.push(format!("{subject} is damaged ({why}): {what_then}"));
        Ok(())
    };
    let left_out = "batches after the damage are left out";
    match &manifest.end {
        None => {
            // The recorder may have been stopped between a part and its checksum.
            bytes.truncate(vouched);
        }
        Some(end) => {
            let found = (bytes.len() as u64, crc32fast::hash(&bytes));
            let wanted = (end.index_bytes, end.index_crc32);
            if found != wanted {
                let why = format!(
                    "{} bytes with checksum {:08x}, expected {} with {:08x}",
                    found.0, found.1, wanted.0, wanted.1
                );
                damage(format::INDEX, vouched, why, left_out)?;
                bytes.truncate(vouched);
            } else if ![vouched, vouched + END_MARK_BYTES].contains(&bytes.len()) {
                let why = format!("it fits the index up to byte {vouched} of {}", bytes.len());
                let whole = "the index itself is whole";
                damage(format::INDEX_CRC, 0, why, whole)?;
            }
        }
    }
    Ok(index_rows(bytes))
}

/// The rows of the index. Its bytes are as they were written: they were checked.
fn index_rows(bytes: Vec<u8>) -> Vec<IndexRow> {
    let mut rows = Vec::new();
    let mut buffer = Buffer::from_vec(bytes);
    let mut decoder = StreamDecoder::new();
    while !buffer.is_empty() {
        let Ok(decoded) = decoder.decode(&mut buffer) else { break };
        let Some(batch) = decoded else { continue };
        let Ok(batch) = TableBatch::new(&INDEX_TABLE, &batch) else { break };
        for row in 0..batch.rows() {
            rows.push(IndexRow {
                stream: batch.text(row, 0).to_owned(),
                offset: batch.number(row, 1),
                length: batch.number(row, 2),
                crc32: batch.number(row, 3) as u32,
                rows: batch.number(row, 4),
                first_time_ns: batch.number(row, 5),
                last_time_ns: batch.number(row, 6),
                has_dictionary: matches!(batch.cell(row, 7), Cell::Bool(true)),
            });
        }
    }
    rows
}
