//! Files of `/proc` that a recording reads.

use std::io::{BufRead, BufReader, Read};

use super::privilege::Rights;
use super::{Check, NOT_PERMITTED, State};
use crate::error::{Error, ParseError};
use crate::proc::vmallocinfo::{self, Addresses};
use crate::proc::{kpageflags, pagetypeinfo, slabinfo};
use crate::root::Root;

const SHOW_ADDRESSES: &str = "sysctl -w kernel.kptr_restrict=1";

pub(super) fn check(root: &Root, rights: &Rights, checks: &mut Vec<Check>) {
    checks.push(page_flags(root, rights));
    checks.push(parsed(root, rights, slabinfo::PATH, |text| {
        slabinfo::parse(text).map(|rows| format!("{} caches", rows.len()))
    }));
    checks.push(vmalloc(root, rights));
    checks.push(parsed(root, rights, pagetypeinfo::PATH, |text| {
        pagetypeinfo::parse_whole(text).map(|info| info.migrate_types.join(", "))
    }));
    checks.push(symbols(root, rights));
}

/// The check of a file that could not be read: the recording lacks it.
fn unread(name: &str, rights: &Rights, error: &Error) -> Check {
    match error {
        Error::Denied { .. } => Check::new(name, State::Warn, NOT_PERMITTED, rights.grant()),
        _ => Check::new(name, State::Warn, error.to_string(), None),
    }
}

fn parsed(
    root: &Root,
    rights: &Rights,
    rel: &str,
    describe: impl FnOnce(&str) -> Result<String, ParseError>,
) -> Check {
    let name = format!("/{rel}");
    match root.read(rel) {
        Ok(text) => match describe(&text) {
            Ok(found) => Check::new(name, State::Ok, found, None),
            Err(error) => Check::new(name, State::Warn, error.to_string(), None),
        },
        Err(error) => unread(&name, rights, &error),
    }
}

fn page_flags(root: &Root, rights: &Rights) -> Check {
    let name = "/proc/kpageflags";
    let first = root.open(kpageflags::PATH).and_then(|mut file| {
        let mut entry = [0u8; 8];
        file.read_exact(&mut entry).map_err(|source| root.error(kpageflags::PATH, source))
    });
    match first {
        Ok(()) => Check::new(name, State::Ok, "readable", None),
        Err(error) => unread(name, rights, &error),
    }
}

fn vmalloc(root: &Root, rights: &Rights) -> Check {
    let name = "/proc/vmallocinfo";
    let rows = match root.read(vmallocinfo::PATH) {
        Ok(text) => vmallocinfo::parse(&text),
        Err(error) => return unread(name, rights, &error),
    };
    match rows.map(|rows| (vmallocinfo::addresses(&rows), rows.len())) {
        Ok((Addresses::Real, areas)) => {
            Check::new(name, State::Ok, format!("{areas} areas, real addresses"), None)
        }
        Ok((Addresses::Hashed, _)) => {
            let found = "hashes in place of addresses, as kernel.kptr_restrict is 0";
            Check::new(name, State::Warn, found, Some(SHOW_ADDRESSES.to_owned()))
        }
        Ok((Addresses::Zero, _)) => Check::new(
            name,
            State::Warn,
            "zeros in place of addresses",
            show_addresses(root, rights),
        ),
        Err(error) => Check::new(name, State::Warn, error.to_string(), None),
    }
}

/// Zeros come from the setting, or from the reader's lack of a capability.
fn show_addresses(root: &Root, rights: &Rights) -> Option<String> {
    let setting = root.read("proc/sys/kernel/kptr_restrict").unwrap_or_default();
    if setting.trim() == "2" || rights.may_see_addresses() {
        Some(SHOW_ADDRESSES.to_owned())
    } else {
        rights.grant()
    }
}

fn symbols(root: &Root, rights: &Rights) -> Check {
    let name = "/proc/kallsyms";
    let file = match root.open("proc/kallsyms") {
        Ok(file) => file,
        Err(error) => return unread(name, rights, &error),
    };
    // The first addresses are truly zero where per-CPU symbols count from zero: look for any other.
    let is_told = BufReader::new(file)
        .split(b'\n')
        .map_while(Result::ok)
        .any(|line| line.first().is_some_and(u8::is_ascii_hexdigit) && has_address(&line));
    if is_told {
        Check::new(name, State::Ok, "addresses are shown", None)
    } else {
        Check::new(name, State::Warn, "zeros in place of addresses", show_addresses(root, rights))
    }
}

fn has_address(line: &[u8]) -> bool {
    line.iter().take_while(|byte| byte.is_ascii_hexdigit()).any(|byte| *byte != b'0')
}
