//! What the recorded call sites tell, by the number of the stack.

use std::collections::HashMap;

use kmemlab_trace::reader::Recording;
use kmemlab_trace::{Error, format};

use super::outcome::SiteOutcome;
use crate::slab::caches::Site;

/// Callers whose messages have caches of their own.
const MESSAGES: [&str; 2] = ["load_msg", "alloc_msg"];
/// The caller that allocates sheaves.
const SHEAVES: &str = "alloc_empty_sheaf";

/// The kind of every call site.
pub(super) fn read(recording: &Recording, vector_site: &str) -> Result<Vec<Site>, Error> {
    let mut kinds: HashMap<u64, Site> = HashMap::new();
    for batch in recording.table(&format::SYMBOLS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let symbol = batch.text(row, 1);
            let site = if MESSAGES.contains(&symbol) {
                Site::MsgMsg
            } else if symbol.starts_with(vector_site) {
                Site::Vector
            } else if symbol.starts_with(SHEAVES) {
                Site::Sheaf
            } else {
                continue;
            };
            kinds.insert(batch.number(row, 0), site);
        }
    }
    let mut sites = Vec::new();
    for batch in recording.table(&format::STACKS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let number = batch.number(row, 0) as usize;
            if number >= MAX_STACKS {
                continue;
            }
            if sites.len() <= number {
                sites.resize(number + 1, Site::Plain);
            }
            let found = kinds.get(&batch.number(row, 2)).copied();
            if let Some(site) = found.filter(|_| batch.number(row, 1) < INNERMOST) {
                sites[number] = site;
            }
        }
    }
    Ok(sites)
}

/// The call sites within functions of these names, with what stands beside the name.
pub(super) fn of_functions(
    recording: &Recording,
    functions: &[(&str, &'static str)],
) -> Result<Vec<(u32, &'static str)>, Error> {
    let mut addresses: HashMap<u64, &'static str> = HashMap::new();
    for batch in recording.table(&format::SYMBOLS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let symbol = batch.text(row, 1);
            if let Some((_, beside)) = functions.iter().find(|(name, _)| *name == symbol) {
                addresses.insert(batch.number(row, 0), beside);
            }
        }
    }
    let mut found = Vec::new();
    for batch in recording.table(&format::STACKS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let beside = addresses.get(&batch.number(row, 2));
            if let Some(beside) = beside.filter(|_| batch.number(row, 1) < INNERMOST) {
                found.push((batch.number(row, 0) as u32, *beside));
            }
        }
    }
    Ok(found)
}

/// Names the call sites as `function+0xoffset`, by address where no symbol is known.
pub(super) fn name(recording: &Recording, sites: &mut [SiteOutcome]) -> Result<(), Error> {
    for batch in recording.table(&format::STACKS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let stack = batch.number(row, 0);
            let site = sites.iter_mut().find(|site| u64::from(site.stack) == stack);
            if let Some(site) = site.filter(|_| batch.number(row, 1) == 0) {
                site.address = batch.number(row, 2);
            }
        }
    }
    for batch in recording.table(&format::SYMBOLS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let (address, symbol) = (batch.number(row, 0), batch.text(row, 1));
            for site in sites.iter_mut().filter(|site| site.address == address) {
                if !symbol.is_empty() {
                    site.name = format!("{symbol}+{:#x}", batch.number(row, 2));
                }
            }
        }
    }
    for site in sites.iter_mut().filter(|site| site.name.is_empty()) {
        site.name = format!("{:#x}", site.address);
    }
    Ok(())
}

/// Frames of a call chain that can be the caller of an allocation.
const INNERMOST: u64 = 6;
/// More call sites than any recording has.
const MAX_STACKS: usize = 1 << 26;
