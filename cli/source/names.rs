//! Names for what the events have as numbers: call chains, threads.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kmemlab_trace::format::{STACKS, SYMBOLS, TASKS};
use kmemlab_trace::{Error, Recording};

/// Functions that allocate for others: the caller of interest is behind them.
const ALLOCATORS: [&str; 14] = [
    "__alloc_pages",
    "__alloc_frozen_pages",
    "alloc_pages",
    "__kmalloc",
    "kmalloc",
    "kmem_cache_alloc",
    "__kmem_cache_alloc",
    "krealloc",
    "kvmalloc",
    "__kvmalloc",
    "kmemdup",
    "__vmalloc",
    "vmalloc",
    "___slab_alloc",
];
/// Where the running kernel names its functions.
const KALLSYMS: &str = "/proc/kallsyms";

/// A call chain by name, innermost first.
pub(super) type Chain = Arc<[Arc<str>]>;

/// All names of a recording so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    chains: BTreeMap<u32, Chain>,
    tasks: BTreeMap<u32, Arc<str>>,
}

impl Names {
    /// Reads them. While the recorder runs it has not named the functions: then, and only of this
    /// machine, the kernel is asked.
    pub(super) fn read(recording: &Recording, is_this_machine: bool) -> Result<Self, Error> {
        let mut addresses: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for batch in recording.table(&STACKS)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                let frames = addresses.entry(batch.number(row, 0) as u32).or_default();
                let frame = batch.number(row, 1) as usize;
                if frame < 1024 {
                    frames.resize(frames.len().max(frame + 1), 0);
                    frames[frame] = batch.number(row, 2);
                }
            }
        }
        let told = symbols(recording)?;
        let is_asked = told.is_empty() && is_this_machine;
        let symbols = if is_asked { running_kernel() } else { &told };
        let name = |address: &u64| -> Arc<str> {
            match symbols.range(..=address).next_back() {
                Some((start, (name, true))) if start == address => name.clone(),
                Some((start, (name, false))) => Arc::from(format!("{name}+{:#x}", address - start)),
                _ => Arc::from(format!("{address:#x}")),
            }
        };
        let chains = addresses
            .into_iter()
            .map(|(stack, frames)| (stack, frames.iter().map(&name).collect::<Chain>()))
            .collect();
        let mut tasks = BTreeMap::new();
        for batch in recording.table(&TASKS)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                tasks.insert(batch.number(row, 0) as u32, Arc::from(batch.text(row, 2)));
            }
        }
        Ok(Self { chains, tasks })
    }

    /// The chain of that number.
    pub(super) fn chain(&self, stack: u32) -> Chain {
        self.chains.get(&stack).cloned().unwrap_or_else(|| Arc::from(Vec::new()))
    }

    /// The function that a chain is about: the innermost that is no allocator.
    pub(super) fn label(chain: &Chain) -> Arc<str> {
        let is_allocator = |frame: &str| ALLOCATORS.iter().any(|start| frame.starts_with(start));
        let caller = chain.iter().find(|frame| !is_allocator(frame)).or_else(|| chain.first());
        caller.cloned().unwrap_or_else(|| Arc::from("(no call chain)"))
    }

    /// A thread's name; empty when it was not seen.
    pub(super) fn task(&self, pid: u32) -> Arc<str> {
        if pid == 0 {
            return Arc::from("(idle)");
        }
        self.tasks.get(&pid).cloned().unwrap_or_default()
    }
}

/// Names by address, and whether a name is that address's alone or of all up to the next.
type Symbols = BTreeMap<u64, (Arc<str>, bool)>;

fn symbols(recording: &Recording) -> Result<Symbols, Error> {
    let mut symbols = Symbols::new();
    for batch in recording.table(&SYMBOLS)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let (name, offset) = (batch.text(row, 1), batch.number(row, 2));
            if !name.is_empty() {
                let name = Arc::from(format!("{name}+{offset:#x}"));
                symbols.insert(batch.number(row, 0), (name, true));
            }
        }
    }
    Ok(symbols)
}

/// The functions of the kernel that runs: dear to read, and read once.
fn running_kernel() -> &'static Symbols {
    static KERNEL: OnceLock<Symbols> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let text = std::fs::read_to_string(KALLSYMS).unwrap_or_default();
        let mut symbols = Symbols::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let address = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
            let is_code = words.next().is_some_and(|kind| kind.eq_ignore_ascii_case("t"));
            if let (Some(address @ 1..), true, Some(name)) = (address, is_code, words.next()) {
                symbols.insert(address, (Arc::from(name), false));
            }
        }
        symbols
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_about_who_asked() {
        let chain = |frames: &[&str]| frames.iter().map(|f| Arc::from(*f)).collect::<Chain>();
        assert_eq!(
            &*Names::label(&chain(&["__kmalloc_noprof", "seq_read", "vfs_read"])),
            "seq_read"
        );
        assert_eq!(&*Names::label(&chain(&["kmem_cache_alloc"])), "kmem_cache_alloc");
        assert_eq!(&*Names::label(&chain(&[])), "(no call chain)");
    }
}
