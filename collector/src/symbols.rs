//! Names for the addresses in call chains.

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use kmemlab_trace::format::SYMBOLS;
use kmemlab_trace::snapshot::Stamp;
use kmemlab_trace::table::Cell;
use kmemlab_trace::writer::RecordingWriter;

use crate::clock;
use crate::root::Root;

const KALLSYMS: &str = "proc/kallsyms";
/// The kernel's list has no sizes: an address far behind a symbol is in none.
const OFFSET_MAX: u64 = 1 << 20;

/// Writes a row for every address, named as far as the kernel's symbols go. Returns a note when
/// there are no names at all.
pub(crate) fn write(
    root: &Root,
    addresses: &[u64],
    writer: &mut RecordingWriter,
) -> Result<Option<String>, kmemlab_trace::Error> {
    if addresses.is_empty() {
        return Ok(None);
    }
    let (names, note) = match resolve(root, addresses) {
        Ok(names) => (names, None),
        Err(why) => (Vec::new(), Some(format!("no symbols: {why}"))),
    };
    for (index, address) in addresses.iter().enumerate() {
        let (symbol, offset) = match names.get(index) {
            Some(Some((name, offset))) => (Cell::Str(name), *offset),
            _ => (Cell::Null, 0),
        };
        writer.row(&SYMBOLS, &[Cell::U64(*address), symbol, Cell::U64(offset)])?;
    }
    let now = clock::now();
    writer.flush_table(&SYMBOLS, Stamp { before: now, after: now })?;
    Ok(note)
}

type Named = Option<(String, u64)>;

fn resolve(root: &Root, addresses: &[u64]) -> Result<Vec<Named>, String> {
    let text = root.read(KALLSYMS).map_err(|error| error.to_string())?;
    if hides_addresses(&text) {
        return Err("/proc/kallsyms shows zeros in place of addresses (CAP_SYSLOG is missing, or \
                    kernel.kptr_restrict is 2)"
            .to_owned());
    }
    drop(text);
    let kernel = Kernel {
        kallsyms: MaybeDefault::Some(root.join(KALLSYMS)),
        // Whatever lies in /boot may be of another kernel.
        vmlinux: MaybeDefault::None,
        ..Kernel::default()
    };
    let symbolizer = Symbolizer::builder()
        .enable_code_info(false)
        .enable_inlined_fns(false)
        .enable_demangling(false)
        .build();
    let found = symbolizer
        .symbolize(&Source::Kernel(kernel), Input::AbsAddr(addresses))
        .map_err(|error| error.to_string())?;
    Ok(found.iter().map(named).collect())
}

fn named(symbolized: &Symbolized<'_>) -> Named {
    let symbol = symbolized.as_sym()?;
    let offset = symbol.offset as u64;
    (offset <= OFFSET_MAX).then(|| (symbol.name.clone().into_owned(), offset))
}

/// The kernel prints zeros to those who may not see addresses. Per-CPU symbols are near zero on
/// some machines, so that it takes all of them.
fn hides_addresses(kallsyms: &str) -> bool {
    kallsyms.lines().all(|line| {
        line.split_once(' ').is_some_and(|(address, _)| address.bytes().all(|digit| digit == b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    const TEXT: &str = "ffffffff81000000 T _stext\nffffffff81000100 T kmalloc_site\n";

    #[test]
    fn addresses_get_their_function_or_none() {
        let scratch = Scratch::new();
        scratch.write(KALLSYMS, TEXT);
        let names =
            resolve(&scratch.0, &[0xffff_ffff_8100_0010, 0xffff_ffff_8100_0123, u64::MAX - 5])
                .unwrap();
        assert_eq!(names[0], Some(("_stext".to_owned(), 0x10)));
        assert_eq!(names[1], Some(("kmalloc_site".to_owned(), 0x23)));
        assert_eq!(names[2], None);
    }

    #[test]
    fn zeros_are_told_from_addresses() {
        assert!(hides_addresses("0000000000000000 T _stext\n0000000000000000 T other\n"));
        assert!(!hides_addresses("0000000000000000 A percpu\nffffffff81000000 T _stext\n"));
    }
}
