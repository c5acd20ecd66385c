//! Kernel addresses to other ones, region by region.
//!
//! Linux places the direct map, the vmalloc space and the memory map at random steps of 1 GiB, its
//! own text and data at steps of 2 MiB. Each region is moved by whole steps to one fixed place:
//! what comes out does not depend on the random numbers of the boot, distances and alignments
//! within a region stay, and so does the order of the regions.

use std::collections::BTreeSet;

/// Numbers from here on are addresses of a kernel, with four or five levels of page tables.
const KERNEL: u64 = 0xff00_0000_0000_0000;
/// The last ones are error codes.
const ERRORS: u64 = u64::MAX - 4095;
/// With four levels, a kernel's addresses begin here.
const FOUR_LEVELS: u64 = 0xffff_8000_0000_0000;
/// The kernel's text and data, up to its modules.
const TEXT: u64 = 0xffff_ffff_8000_0000;
const MODULES: u64 = 0xffff_ffff_c000_0000;

const GIB_SHIFT: u32 = 30;
/// Steps of the text; what the survey remembers.
const CHUNK_SHIFT: u32 = 21;

/// New places by region, with four levels and with five.
const DIRECT_AT: [u64; 2] = [0xffff_9000_0000_0000, 0xff20_0000_0000_0000];
const VMALLOC_AT: [u64; 2] = [0xffff_c900_0000_0000, 0xffa0_0000_0000_0000];
const ABOVE_AT: [u64; 2] = [0xffff_ea00_0000_0000, 0xffd4_0000_0000_0000];
const TEXT_AT: u64 = 0xffff_ffff_8100_0000;
const MODULES_AT: u64 = 0xffff_ffff_b000_0000;
/// Where something of the recording stands in the new place already, the region goes so many steps
/// further, and so on: no address that comes out is one that was recorded.
const OTHER_STEPS: u64 = 7;
const TRIES: u64 = 64;

pub(super) fn is_address(number: u64) -> bool {
    (KERNEL..=ERRORS).contains(&number)
}

/// Collects what addresses there are.
#[derive(Debug, Default)]
pub(super) struct Survey {
    chunks: BTreeSet<u64>,
    last: u64,
    vmalloc: Option<(u64, u64)>,
}

impl Survey {
    pub(super) fn address(&mut self, number: u64) {
        let chunk = number >> CHUNK_SHIFT;
        if chunk != self.last && is_address(number) {
            self.last = chunk;
            self.chunks.insert(chunk);
        }
    }

    /// As [`Self::address`], of the vmalloc space (or of the modules').
    pub(super) fn area(&mut self, number: u64) {
        self.address(number);
        if is_address(number) && number < TEXT {
            let (first, last) = self.vmalloc.unwrap_or((number, number));
            self.vmalloc = Some((first.min(number), last.max(number)));
        }
    }

    pub(super) fn relocation(&self) -> Relocation {
        let lowest = |from: u64, to: u64| {
            let first = self.chunks.range(from >> CHUNK_SHIFT..).next()?;
            Some(first << CHUNK_SHIFT).filter(|first| *first < to)
        };
        let (vmalloc, above) = self.vmalloc.map_or((TEXT, TEXT), |(first, last)| {
            (first >> GIB_SHIFT << GIB_SHIFT, last.saturating_add(1))
        });
        let lowest_of_all = lowest(KERNEL, TEXT).unwrap_or(TEXT);
        let level = usize::from(lowest_of_all < FOUR_LEVELS);
        let mut regions = Vec::new();
        for (from, to, place, step) in [
            (KERNEL, vmalloc, DIRECT_AT[level], GIB_SHIFT),
            (vmalloc, above, VMALLOC_AT[level], GIB_SHIFT),
            (above, TEXT, ABOVE_AT[level], GIB_SHIFT),
            (TEXT, MODULES, TEXT_AT, CHUNK_SHIFT),
            (MODULES, ERRORS + 1, MODULES_AT, CHUNK_SHIFT),
        ] {
            let Some(first) = lowest(from, to) else { continue };
            let old = first.max(from) >> step << step;
            let shifts = (0..TRIES).map(|n| (place + n * (OTHER_STEPS << step)).wrapping_sub(old));
            let shift = shifts.clone().find(|shift| self.is_free(from, to, *shift));
            let shift = shift.or_else(|| shifts.clone().find(|shift| *shift != 0));
            regions.push(Region { from, to, shift: shift.unwrap_or_default() });
        }
        Relocation { regions }
    }

    /// Whether nothing of these numbers comes to stand where anything stands now.
    fn is_free(&self, from: u64, to: u64, shift: u64) -> bool {
        let chunks = self.chunks.range(from >> CHUNK_SHIFT..=(to - 1) >> CHUNK_SHIFT);
        let moved = |chunk: u64| (chunk << CHUNK_SHIFT).wrapping_add(shift) >> CHUNK_SHIFT;
        chunks.copied().all(|chunk| !self.chunks.contains(&moved(chunk)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Region {
    from: u64,
    /// First number behind it.
    to: u64,
    shift: u64,
}

/// Where each address goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Relocation {
    regions: Vec<Region>,
}

impl Relocation {
    /// A number that is no kernel address stays what it is.
    pub(super) fn number(&self, number: u64) -> u64 {
        let is_in = |region: &&Region| (region.from..region.to).contains(&number);
        let region = self.regions.iter().find(is_in);
        region.map_or(number, |region| number.wrapping_add(region.shift))
    }

    /// Addresses in a text, as 16 hexadecimal digits each.
    pub(super) fn text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|letter: char| letter.is_ascii_hexdigit()) {
            let (before, word) = rest.split_at(start);
            let end = word.find(|letter: char| !letter.is_ascii_hexdigit()).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            out += before;
            match u64::from_str_radix(word, 16) {
                Ok(number) if word.len() == 16 && is_address(number) => {
                    out += &format!("{:016x}", self.number(number));
                }
                _ => out += word,
            }
            rest = after;
        }
        out + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(addresses: &[u64], areas: &[u64]) -> Relocation {
        let mut survey = Survey::default();
        addresses.iter().for_each(|address| survey.address(*address));
        areas.iter().for_each(|address| survey.area(*address));
        survey.relocation()
    }

    /// Two boots of one machine cannot be told apart.
    #[test]
    fn what_comes_out_does_not_depend_on_the_boot() {
        let boot = |direct: u64, vmalloc: u64, text: u64| {
            let addresses = [direct + 0x1234_5678, direct + 0x9_8765_4320, text + 0x1_0042];
            let areas = [vmalloc, vmalloc + 0x5000, vmalloc + 0x1fff_ffff_ffff];
            let map = survey(&addresses, &areas);
            addresses.iter().chain(&areas).map(|it| map.number(*it)).collect::<Vec<_>>()
        };
        let first = boot(0xffff_8880_0000_0000, 0xffff_c900_0000_0000, 0xffff_ffff_8200_0000);
        let second = boot(0xffff_9a40_4000_0000, 0xffff_b1c5_c000_0000, 0xffff_ffff_a3a0_0000);
        // The first boot's vmalloc space stood in the new place already.
        assert_eq!(first[..3], second[..3]);
        assert_eq!(second[..2], [0xffff_9000_1234_5678, 0xffff_9009_8765_4320]);
        assert_eq!(second[2], 0xffff_ffff_8101_0042);
        assert_eq!(second[3], 0xffff_c900_0000_0000);
        assert_ne!(first[3], 0xffff_c900_0000_0000, "every region moves");
        for (a, b) in first[3..].iter().zip(&second[3..]) {
            assert_eq!(a - first[3], b - second[3]);
        }
    }

    #[test]
    fn modules_move_and_what_is_no_address_stays() {
        let map = survey(&[0xffff_ffff_c034_5678], &[0xffff_ffff_ff00_0000]);
        assert_eq!(map.number(0xffff_ffff_c034_5678), 0xffff_ffff_b014_5678);
        assert!(map.number(0xffff_ffff_ff00_0000) < ERRORS);
        for number in [0, 7, 1 << 47, u64::MAX, u64::MAX - 11, 0x7fff_ffff_f000] {
            assert_eq!(map.number(number), number, "{number:#x}");
        }
        assert_eq!(survey(&[], &[]).number(0xffff_9000_0000_1000), 0xffff_9000_0000_1000);
    }

    #[test]
    fn five_levels_keep_theirs() {
        let map = survey(&[0xff11_0040_0000_0040], &[0xff90_0000_4000_0000, 0xffc1_ffff_ffff_ffff]);
        assert_eq!(map.number(0xff11_0040_0000_0040), 0xff20_0000_0000_0040);
        assert_eq!(map.number(0xff90_0000_4000_0000), 0xffa0_0000_0000_0000);
    }

    #[test]
    fn addresses_in_a_text() {
        let map = survey(&[0xffff_ffff_9234_5678], &[]);
        assert_eq!(
            map.text("0xffffffff92345678 f+0x10/0xdeadbeef"),
            "0xffffffff81145678 f+0x10/0xdeadbeef"
        );
        assert_eq!(map.text("é 1 phys=0x00000000fec00000"), "é 1 phys=0x00000000fec00000");
        assert_eq!(map.text(""), "");
    }
}
