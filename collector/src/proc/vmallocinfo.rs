//! `/proc/vmallocinfo`: one area of the vmalloc space on each line.
//!
//! Rows keep the file's order, which since 6.9 is not the order of addresses. Whether the addresses
//! mean anything depends on `kernel.kptr_restrict`: see [`addresses`].

use kmemlab_trace::snapshot::VmallocRow;

use super::{Line, whole_lines};
use crate::error::ParseError;

/// Where it stands below the root.
pub const PATH: &str = "proc/vmallocinfo";

const FILE: &str = "/proc/vmallocinfo";
const ROW: &str = "`0xSTART-0xEND BYTES` and what the area is";

/// What the kernel printed in place of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// Addresses: `kernel.kptr_restrict` is 1 and the reader has `CAP_SYSLOG`.
    Real,
    /// Hashes of addresses: `kernel.kptr_restrict` is 0. Equal hashes are equal addresses.
    Hashed,
    /// Zeros: `kernel.kptr_restrict` is 2, or 1 and the reader lacks `CAP_SYSLOG`.
    Zero,
}

/// What these rows hold in place of addresses. Only real ones differ by the size printed beside
/// them.
#[must_use]
pub fn addresses(rows: &[VmallocRow]) -> Addresses {
    if rows.iter().all(|row| row.start_address == 0 && row.end_address == 0) {
        Addresses::Zero
    } else if rows
        .iter()
        .all(|row| row.end_address.checked_sub(row.start_address) == Some(row.bytes))
    {
        Addresses::Real
    } else {
        Addresses::Hashed
    }
}

/// The areas of the file, in its order.
///
/// # Errors
/// A line is no range with a size.
pub fn parse(text: &str) -> Result<Vec<VmallocRow>, ParseError> {
    whole_lines(FILE, text)?.map(|line| row(&line)).collect()
}

fn row(line: &Line<'_>) -> Result<VmallocRow, ParseError> {
    let mut words = line.text.split_whitespace().peekable();
    let range = words.next().and_then(|range| range.split_once('-'));
    let (start, end) = range.ok_or_else(|| line.wrong(ROW))?;
    let address = |token: &str| {
        let digits = token.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    let start_address = address(start).ok_or_else(|| line.wrong(ROW))?;
    let end_address = address(end).ok_or_else(|| line.wrong(ROW))?;
    let bytes = line.number(words.next(), ROW)?;
    let mut caller = words.next_if(|word| is_caller(word)).map(str::to_owned);
    if let Some(caller) = &mut caller {
        // A module's function is printed with the module in brackets behind it.
        while let Some(module) = words.next_if(|word| word.starts_with('[') || word.ends_with(']'))
        {
            caller.push(' ');
            caller.push_str(module);
        }
    }
    let mut pages = None;
    let mut flags = String::new();
    for word in words {
        if let Some(count) = word.strip_prefix("pages=") {
            pages = Some(line.number(Some(count), ROW)?);
        } else {
            flags.push_str(if flags.is_empty() { "" } else { " " });
            flags.push_str(word);
        }
    }
    Ok(VmallocRow { start_address, end_address, bytes, caller, pages, flags })
}

/// `function+0x12/0x34`, or a bare address where the kernel knows no symbol.
fn is_caller(word: &str) -> bool {
    word.starts_with("0x") || (word.contains("+0x") && word.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
0xffffc90000000000-0xffffc90000005000   20480 irq_init_percpu_irqstack+0xca/0x100 vmap
0xffffc90000005000-0xffffc90000007000    8192 acpi_os_map_iomem+0x1bc/0x1e0 phys=0x00000000000a0000 ioremap
0xffffc90000008000-0xffffc9000000d000   20480 kernel_clone+0x94/0x3e0 pages=4 vmalloc N0=3 N1=1
0xffffc90000010000-0xffffc90000012000    8192 probe+0x10/0x20 [some_driver] pages=1 vmalloc N0=1
0xffffc90000020000-0xffffc90000030000   65536 vm_map_ram
0xffffc90000030000-0xffffc90000035000   20480 unpurged vm_area
0xffffe8ffffc00000-0xffffe8ffffe00000 2097152 pcpu_get_vm_areas+0x0/0x1050 vmalloc
";

    #[test]
    fn every_kind_of_area() {
        let rows = parse(TEXT).unwrap();
        assert_eq!(rows.len(), 7);
        assert_eq!(
            rows[2],
            VmallocRow {
                start_address: 0xffff_c900_0000_8000,
                end_address: 0xffff_c900_0000_d000,
                bytes: 20_480,
                caller: Some("kernel_clone+0x94/0x3e0".into()),
                pages: Some(4),
                flags: "vmalloc N0=3 N1=1".into(),
            }
        );
        assert_eq!(
            (rows[1].pages, rows[1].flags.as_str()),
            (None, "phys=0x00000000000a0000 ioremap")
        );
        assert_eq!(rows[3].caller.as_deref(), Some("probe+0x10/0x20 [some_driver]"));
        assert_eq!((rows[4].caller.as_deref(), rows[4].flags.as_str()), (None, "vm_map_ram"));
        assert_eq!((rows[5].caller.as_deref(), rows[5].flags.as_str()), (None, "unpurged vm_area"));
        assert_eq!((rows[6].bytes, rows[6].flags.as_str()), (2_097_152, "vmalloc"));
    }

    #[test]
    fn real_hashed_and_zero_addresses_are_told_apart() {
        let kind = |text: &str| addresses(&parse(text).unwrap());
        assert_eq!(kind(TEXT), Addresses::Real);
        assert_eq!(
            kind("0x0000000062dc0626-0x00000000d23594cc   20480 f+0xca/0x100 vmap\n"),
            Addresses::Hashed
        );
        assert_eq!(
            kind("0x0000000000000000-0x0000000000000000   20480 f+0xca/0x100 vmap\n"),
            Addresses::Zero
        );
    }

    #[test]
    fn a_cut_or_foreign_text_is_an_error() {
        for text in [
            "",
            "\n",
            "0xffffc90000000000-0xffffc90000005000   20480 vmap",
            "0xffffc90000000000-0xffffc90000005000\n",
            "0xffffc90000000000-\n",
            "0xffffc90000000000\n",
            "ffffc90000000000-ffffc90000005000 20480 vmap\n",
            "0x(____ptrval____)-0x(____ptrval____) 20480 vmap\n",
            "0x1-0x2 x\n",
            "0x1-0x2 1 f+0x1/0x2 pages=x\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
