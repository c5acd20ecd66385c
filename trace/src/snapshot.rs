//! What the kernel says of itself in `/proc`, row by row, as the recording keeps it.
//!
//! Every row carries the two moments between which its file was read. `None` means "not told",
//! never zero.

use crate::table::TableBatch;
use crate::unit::{Cpu, Nanos, NodeId, Order, Pfn};

/// The moments just before and just after one read of a `/proc` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Before the first byte was asked for.
    pub before: Nanos,
    /// After the last byte arrived.
    pub after: Nanos,
}

/// `/proc/buddyinfo`: free blocks of one zone at every order, printed under the zone lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuddyRow {
    /// Node of the zone.
    pub node: NodeId,
    /// Zone name.
    pub zone: String,
    /// Free blocks by order.
    pub free_blocks: Vec<u64>,
}

/// `/proc/pagetypeinfo`: one cell. The file is not atomic, and its counts may be cut at 100,000.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageTypeRow {
    /// Node of the zone.
    pub node: NodeId,
    /// Zone name.
    pub zone: String,
    /// Migrate type as the file's heading spells it.
    pub migrate_type: String,
    /// Order of the free blocks counted; `None` for the count of pageblocks of this type.
    pub order: Option<Order>,
    /// Blocks.
    pub blocks: u64,
    /// The kernel stopped counting here (`>` in the file): the true value may be larger.
    pub is_lower_bound: bool,
}

/// `/proc/zoneinfo`: one number of one zone. Keys are the file's own words; the per-CPU page lists'
/// keys are `pcp_count`, `pcp_high`, `pcp_batch`, `pcp_high_min`, `pcp_high_max` with a CPU;
/// `protection` comes as `protection_0`, `protection_1`, ...; node statistics have the zone `""`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneRow {
    /// Node of the zone.
    pub node: NodeId,
    /// Zone name; empty for numbers of the whole node.
    pub zone: String,
    /// CPU, for numbers of a per-CPU page list.
    pub cpu: Option<Cpu>,
    /// The file's own key.
    pub key: String,
    /// In the file's own unit: pages, mostly.
    pub value: i64,
}

/// `/proc/slabinfo`: one cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlabRow {
    /// Cache name.
    pub cache: String,
    /// Objects in use; counts every object of a per-CPU slab as used.
    pub active_objects: u64,
    /// Objects there is room for.
    pub objects: u64,
    /// Size of one object with its padding.
    pub object_size_bytes: u64,
    /// Objects in a slab.
    pub objects_per_slab: u64,
    /// Pages of a slab.
    pub pages_per_slab: u64,
    /// Slabs in use.
    pub active_slabs: u64,
    /// Slabs.
    pub slabs: u64,
}

impl SlabRow {
    /// A row of the table `slabinfo` ([`crate::format::SLABINFO`]).
    #[must_use]
    pub fn of(batch: &TableBatch, row: usize) -> Self {
        Self {
            cache: batch.text(row, 2).to_owned(),
            active_objects: batch.number(row, 3),
            objects: batch.number(row, 4),
            object_size_bytes: batch.number(row, 5),
            objects_per_slab: batch.number(row, 6),
            pages_per_slab: batch.number(row, 7),
            active_slabs: batch.number(row, 8),
            slabs: batch.number(row, 9),
        }
    }

    /// Pages of all slabs. A slab made while no larger block was free has the least order that
    /// holds an object (`kmem_cache.min`), and the file counts it like any other; the objects that
    /// are missing from `objects` tell how many have it (`get_slabinfo`, Linux 5.10 to 6.18).
    #[must_use]
    pub fn pages(&self, page_size_bytes: u64) -> u64 {
        let usual = self.slabs.saturating_mul(self.pages_per_slab);
        let missing = self.slabs.saturating_mul(self.objects_per_slab).saturating_sub(self.objects);
        if missing == 0 || self.object_size_bytes == 0 || page_size_bytes == 0 {
            return usual;
        }
        let pages = self.object_size_bytes.div_ceil(page_size_bytes).next_power_of_two();
        let objects = pages.saturating_mul(page_size_bytes) / self.object_size_bytes;
        let least = missing.checked_div(self.objects_per_slab.saturating_sub(objects));
        let least = least.unwrap_or(0).min(self.slabs);
        usual - least.saturating_mul(self.pages_per_slab.saturating_sub(pages))
    }
}

/// `/sys/kernel/slab/CACHE/FILE`: one number. The key `shrunk` stands for the moment at which the
/// recorder made the kernel shrink the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlabDetailRow {
    /// When this file was read, or the cache was shrunk.
    pub stamp: Stamp,
    /// Cache name, as in `/proc/slabinfo`.
    pub cache: String,
    /// Name of the file.
    pub key: String,
    /// The first number in it.
    pub value: i64,
}

/// `/proc/vmstat`: one counter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmstatRow {
    /// The file's own key.
    pub key: String,
    /// The counter.
    pub value: u64,
}

/// `/proc/vmallocinfo`: one area of the vmalloc space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmallocRow {
    /// First address.
    pub start_address: u64,
    /// First address after the area, guard page included.
    pub end_address: u64,
    /// `END - START` as printed.
    pub bytes: u64,
    /// Who asked for it, as printed (`function+0x12/0x34`); `None` for `vm_map_ram` and unpurged
    /// areas.
    pub caller: Option<String>,
    /// Backing pages, where told.
    pub pages: Option<u64>,
    /// The remaining words of the line (`vmalloc`, `vmap`, `ioremap`, `user`, `unpurged`, ...).
    pub flags: String,
}

/// What a run of pages is, from `/proc/kpageflags`: the first of these that fits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum PageUse {
    /// No flag set: per-CPU lists, raw kernel allocations, pages not yet initialised.
    Untold = 0,
    /// In a free block of the buddy allocator (`KPF_BUDDY`).
    Free = 1,
    /// In a slab.
    Slab = 2,
    /// On an LRU list or anonymous: user memory and page cache.
    Lru = 3,
    /// Part of a compound page that is none of the above.
    Compound = 4,
    /// A page table.
    PageTable = 5,
    /// A hugetlb page.
    Hugetlb = 6,
    /// Reserved, offline, or no page at all.
    Absent = 7,
    /// Some other flag is set.
    Other = 8,
}

impl PageUse {
    /// Every value with the name that tables print, in the order of the numbers.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Untold, "untold"),
        (Self::Free, "free"),
        (Self::Slab, "slab"),
        (Self::Lru, "lru"),
        (Self::Compound, "compound"),
        (Self::PageTable, "page_table"),
        (Self::Hugetlb, "hugetlb"),
        (Self::Absent, "absent"),
        (Self::Other, "other"),
    ];

    /// The name that tables print.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The use of that number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).map(|(page_use, _)| *page_use)
    }
}

/// A run of consecutive pages of one use; never longer than one read of `/proc/kpageflags`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRun {
    /// When the chunk holding the run was read.
    pub stamp: Stamp,
    /// First page.
    pub pfn: Pfn,
    /// Pages.
    pub pages: u64,
    /// What they are.
    pub page_use: PageUse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_of_the_least_order_have_fewer_pages() {
        let row = |objects| SlabRow {
            cache: "task_struct".to_owned(),
            active_objects: 0,
            objects,
            object_size_bytes: 5888,
            objects_per_slab: 5,
            pages_per_slab: 8,
            active_slabs: 10,
            slabs: 10,
        };
        assert_eq!(row(50).pages(4096), 80);
        // An object needs two pages: three such slabs lack four objects and six pages each.
        assert_eq!(row(50 - 3 * 4).pages(4096), 80 - 3 * 6);
        assert_eq!(row(0).pages(4096), 20);
        // More objects than there is room for, as a file read in between may tell.
        assert_eq!(row(60).pages(4096), 80);
    }
}
