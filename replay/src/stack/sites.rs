//! What the recorded call sites tell, by the number of the stack.

use std::collections::HashMap;

use kmemlab_trace::event::Event;
use kmemlab_trace::reader::Recording;
use kmemlab_trace::{Error, format};

use super::outcome::SiteOutcome;
use crate::slab::caches::Site;
use crate::slab::role::Role;

/// Callers whose messages have caches of their own.
const MESSAGES: [&str; 2] = ["load_msg", "alloc_msg"];
/// The caller that allocates sheaves.
const SHEAVES: &str = "alloc_empty_sheaf";

/// What functions do, by the start of their name (`lib/maple_tree.c`, `mm/mmap.c`, `kernel/exit.c`,
/// `kernel/pid.c`, `kernel/rcu/tree.c`).
const ROLES: [(&str, Role); 17] = [
    ("alloc_pid", Role::NewPid),
    ("release_task", Role::Release),
    ("put_pid", Role::PidGone),
    ("delayed_put_pid", Role::PidGone),
    ("rcu_do_batch", Role::Grace),
    ("__mt_dup", Role::Root),
    ("mas_dup_build", Role::Root),
    ("mas_dup_alloc", Role::Copy),
    ("__mt_destroy", Role::Destroy),
    ("mte_destroy_walk", Role::Destroy),
    ("exit_mmap", Role::Exit),
    ("mas_preallocate", Role::Plain),
    ("mas_store_gfp", Role::Plain),
    ("mas_alloc_nodes", Role::Plain),
    ("mas_nomem", Role::Plain),
    ("mas_wr_preallocate", Role::Plain),
    ("mas_", Role::Store),
];

/// What every call site does, by the number of the stack: what the innermost function tells.
pub(super) fn roles(recording: &Recording) -> Result<Vec<Role>, Error> {
    let of = |symbol: &str| {
        let found = ROLES.iter().find(|(start, _)| symbol.starts_with(start));
        found.map(|(_, role)| *role)
    };
    let mut roles = Vec::new();
    each_frame(recording, of, |number, role| {
        let Some(role) = role else { return };
        if roles.len() <= number {
            roles.resize(number + 1, Role::Plain);
        }
        if roles[number] == Role::Plain {
            roles[number] = role;
        }
    })?;
    Ok(roles)
}

/// The kind of every call site.
pub(super) fn read(recording: &Recording, vector_site: &str) -> Result<Vec<Site>, Error> {
    let of = |symbol: &str| {
        if MESSAGES.contains(&symbol) {
            Some(Site::MsgMsg)
        } else if symbol.starts_with(vector_site) {
            Some(Site::Vector)
        } else {
            symbol.starts_with(SHEAVES).then_some(Site::Sheaf)
        }
    };
    let mut sites = Vec::new();
    each_frame(recording, of, |number, site| {
        if sites.len() <= number {
            sites.resize(number + 1, Site::Plain);
        }
        sites[number] = site.unwrap_or(sites[number]);
    })?;
    Ok(sites)
}

/// Every frame of every call site, by the number of its stack, with what its function tells if it
/// is one of the innermost.
fn each_frame<T: Copy>(
    recording: &Recording,
    tells: impl Fn(&str) -> Option<T>,
    mut each: impl FnMut(usize, Option<T>),
) -> Result<(), Error> {
    let mut addresses: HashMap<u64, T> = HashMap::new();
    for batch in recording.table(&format::SYMBOLS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            if let Some(told) = tells(batch.text(row, 1)) {
                addresses.insert(batch.number(row, 0), told);
            }
        }
    }
    for batch in recording.table(&format::STACKS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let number = batch.number(row, 0) as usize;
            if number >= MAX_STACKS {
                continue;
            }
            let told = addresses.get(&batch.number(row, 2)).copied();
            each(number, told.filter(|_| batch.number(row, 1) < INNERMOST));
        }
    }
    Ok(())
}

/// The functions that allocate, by the number of the stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Functions {
    /// By stack: place in `names`.
    of_stack: Vec<u32>,
    names: Vec<String>,
}

/// Functions of the allocator itself: who called them is the caller.
const ALLOCATOR: [&str; 4] = ["kmem_cache_alloc", "__kmalloc", "kmalloc_", "__kmem_cache_alloc"];
/// No function.
const NOBODY: u32 = u32::MAX;

impl Functions {
    /// The innermost function of each stack that is not the allocator's.
    pub(super) fn read(recording: &Recording) -> Result<Self, Error> {
        let mut by_address: HashMap<u64, u32> = HashMap::new();
        let mut by_name: HashMap<String, u32> = HashMap::new();
        let mut functions = Self::default();
        for batch in recording.table(&format::SYMBOLS)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                let symbol = batch.text(row, 1);
                let is_allocator = ALLOCATOR.iter().any(|start| symbol.starts_with(start));
                if symbol.is_empty() || is_allocator {
                    continue;
                }
                let next = functions.names.len() as u32;
                let number = *by_name.entry(symbol.to_owned()).or_insert(next);
                if number == next {
                    functions.names.push(symbol.to_owned());
                }
                by_address.insert(batch.number(row, 0), number);
            }
        }
        let mut frames: Vec<u64> = Vec::new();
        for batch in recording.table(&format::STACKS)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                let (stack, frame) = (batch.number(row, 0) as usize, batch.number(row, 1));
                let Some(function) = by_address.get(&batch.number(row, 2)) else { continue };
                if stack >= MAX_STACKS || frame >= INNERMOST {
                    continue;
                }
                if frames.len() <= stack {
                    frames.resize(stack + 1, u64::MAX);
                    functions.of_stack.resize(stack + 1, NOBODY);
                }
                if frame < frames[stack] {
                    (frames[stack], functions.of_stack[stack]) = (frame, *function);
                }
            }
        }
        Ok(functions)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The function that an event's request comes from, by its number.
    #[inline]
    pub(super) fn of(&self, event: &Event) -> u32 {
        self.of_stack.get(event.stack as usize).copied().unwrap_or(NOBODY)
    }

    /// Its name.
    pub(super) fn name(&self, function: u32) -> &str {
        self.names.get(function as usize).map_or("unknown", String::as_str)
    }
}

/// The call sites within functions of these names, with what stands beside the name.
pub(super) fn of_functions(
    recording: &Recording,
    functions: &[(&str, &'static str)],
) -> Result<Vec<(u32, &'static str)>, Error> {
    let of = |symbol: &str| {
        let found = functions.iter().find(|(name, _)| *name == symbol);
        found.map(|(_, beside)| *beside)
    };
    let mut found = Vec::new();
    each_frame(recording, of, |number, beside| {
        found.extend(beside.map(|beside| (number as u32, beside)));
    })?;
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
