//! How large a slab is and how many objects it holds: SLUB's arithmetic by release.
//!
//! A recording tells the geometry of its own host (`/proc/slabinfo`); these rules serve caches that
//! it does not name and every "what if" about other parameters.

use super::rules::{OrderSearch, SlabRules};

/// What a host or a policy sets for all caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Present processors (`nr_cpu_ids` up to 5.10).
    pub cpus: u32,
    /// `slab_min_order`.
    pub min_order: u8,
    /// `slab_max_order`.
    pub max_order: u8,
    /// `slab_min_objects`; 0: by the number of processors.
    pub min_objects: u32,
}

impl Parameters {
    /// The kernel's defaults on a host.
    #[must_use]
    pub fn of_host(page_bytes: u64, cpus: u32) -> Self {
        Self { page_bytes: page_bytes.max(512), cpus, min_order: 0, max_order: 3, min_objects: 0 }
    }

    /// Least order whose block holds so many bytes (`get_order`).
    #[must_use]
    pub fn order_of(&self, bytes: u64) -> u8 {
        let pages = bytes.div_ceil(self.page_bytes).max(1);
        pages.next_power_of_two().trailing_zeros() as u8
    }

    /// Objects of that stride in a block of that order.
    #[must_use]
    pub fn objects(&self, stride: u64, order: u8) -> u32 {
        ((self.page_bytes << order) / stride.max(1)).min(u64::from(MAX_OBJECTS)) as u32
    }

    fn wanted_objects(&self) -> u32 {
        if self.min_objects > 0 { self.min_objects } else { 4 * (fls(self.cpus) + 1) }
    }
}

/// Most objects a slab can count (`MAX_OBJS_PER_PAGE`).
const MAX_OBJECTS: u32 = 32_767;

/// Index of the highest bit set, plus one.
fn fls(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

/// Order of a cache's slabs (`calculate_order`, `mm/slub.c`).
#[must_use]
pub fn slab_order(stride: u64, rules: &SlabRules, parameters: &Parameters) -> u8 {
    let stride = stride.max(8);
    let fits = u64::from(parameters.objects(stride, parameters.max_order)).max(1);
    let wanted = u64::from(parameters.wanted_objects()).min(fits);
    let fractions: &[u64] = match rules.order_search {
        OrderSearch::HalfOnce => &[16, 8, 4, 2],
        OrderSearch::FewerObjects => &[16, 8, 4],
    };
    let mut objects = wanted;
    loop {
        for &fraction in fractions {
            if let Some(order) = search(stride, objects, fraction, parameters) {
                return order;
            }
        }
        objects -= 1;
        if rules.order_search == OrderSearch::HalfOnce || objects <= 1 {
            break;
        }
    }
    if rules.order_search == OrderSearch::FewerObjects
        && let Some(order) = search(stride, 1, 1, parameters)
    {
        return order;
    }
    parameters.order_of(stride)
}

/// The first order that wastes at most one part in `fraction` (`calc_slab_order`).
fn search(stride: u64, objects: u64, fraction: u64, parameters: &Parameters) -> Option<u8> {
    let first = parameters.min_order.max(parameters.order_of(objects * stride));
    if (parameters.page_bytes << first) / stride > u64::from(MAX_OBJECTS) {
        return Some(parameters.order_of(stride * u64::from(MAX_OBJECTS)).saturating_sub(1));
    }
    (first..=parameters.max_order).find(|&order| {
        let bytes = parameters.page_bytes << order;
        bytes % stride <= bytes / fraction
    })
}

/// Partial slabs that a node keeps although they are empty (`do_kmem_cache_create`).
#[must_use]
pub fn min_partial(stride: u64) -> u32 {
    (stride.max(8).ilog2() / 2).clamp(5, 10)
}

/// Objects that a processor's partial slabs should hold (`set_cpu_partial`).
#[must_use]
pub fn cpu_partial(stride: u64, rules: &SlabRules, page_bytes: u64) -> u32 {
    let (since_5_16, before) = if stride >= page_bytes {
        (6, 2)
    } else if stride >= 1024 {
        (24, 6)
    } else if stride >= 256 {
        (52, 13)
    } else {
        (120, 30)
    };
    if rules.cpu_partial_in_slabs { since_5_16 } else { before }
}

/// The same as a number of slabs, taken to be half full (`slub_set_cpu_partial`).
#[must_use]
pub fn cpu_partial_slabs(cpu_partial: u32, objects: u32) -> u32 {
    (2 * cpu_partial).div_ceil(objects.max(1))
}

/// The size class of a kmalloc request (`kmalloc_size_index`); `None` for one that the page
/// allocator serves.
#[must_use]
pub fn kmalloc_class(bytes: u64, min_bytes: u64, max_bytes: u64) -> Option<u64> {
    if bytes == 0 || bytes > max_bytes {
        return None;
    }
    Some(match bytes {
        65..=96 if min_bytes < 64 => 96,
        129..=192 if min_bytes < 128 => 192,
        _ => bytes.next_power_of_two().max(min_bytes),
    })
}

/// The class as the cache's name spells it: `8`, `1k`.
#[must_use]
pub fn class_name(bytes: u64) -> String {
    match bytes {
        0..1024 => bytes.to_string(),
        1024..1_048_576 => format!("{}k", bytes / 1024),
        _ => format!("{}M", bytes / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::rules::SlabRules;

    /// Stride, order, objects, cpu_partial, slabs of it, min_partial: what 6.18 says in sysfs on
    /// two processors.
    const TWO_CPUS: [(u64, u8, u32, u32, u32, u32); 14] = [
        (8, 0, 512, 120, 1, 5),
        (96, 0, 42, 120, 6, 5),
        (192, 0, 21, 120, 12, 5),
        (256, 0, 16, 52, 7, 5),
        (512, 1, 16, 52, 7, 5),
        (624, 1, 13, 52, 8, 5),
        (696, 2, 23, 52, 5, 5),
        (1472, 3, 22, 24, 3, 5),
        (2048, 3, 16, 24, 3, 5),
        (2112, 3, 15, 24, 4, 5),
        (4096, 3, 8, 6, 2, 6),
        (5888, 3, 5, 6, 3, 6),
        (8192, 3, 4, 6, 3, 6),
        (51_472, 4, 1, 6, 12, 7),
    ];

    #[test]
    fn geometry_is_what_the_kernel_says_of_its_own() {
        let rules = SlabRules::of("6.18.44");
        let host = Parameters::of_host(4096, 2);
        for (stride, order, objects, partial, slabs, min) in TWO_CPUS {
            assert_eq!(slab_order(stride, &rules, &host), order, "order of {stride}");
            assert_eq!(host.objects(stride, order), objects, "objects of {stride}");
            let cpu = cpu_partial(stride, &rules, 4096);
            assert_eq!((cpu, cpu_partial_slabs(cpu, objects)), (partial, slabs), "{stride}");
            assert_eq!(min_partial(stride), min, "min_partial of {stride}");
        }
    }

    #[test]
    fn more_processors_want_more_objects_in_a_slab() {
        let rules = SlabRules::of("6.6.0");
        let order = |stride, cpus| slab_order(stride, &rules, &Parameters::of_host(4096, cpus));
        assert_eq!([2, 8, 16, 128].map(|cpus| order(256, cpus)), [0, 1, 1, 2]);
        assert_eq!([2, 8, 16, 128].map(|cpus| order(512, cpus)), [1, 2, 2, 3]);
        assert_eq!([2, 8, 16, 128].map(|cpus| order(192, cpus)), [0, 0, 1, 1]);
    }

    #[test]
    fn a_bound_on_the_order_bounds_it_unless_an_object_needs_more() {
        let rules = SlabRules::of("6.18.0");
        let flat = Parameters { max_order: 0, ..Parameters::of_host(4096, 2) };
        assert_eq!(slab_order(512, &rules, &flat), 0);
        assert_eq!(slab_order(2048, &rules, &flat), 0);
        assert_eq!(slab_order(8192, &rules, &flat), 1);
        let large = Parameters { min_order: 2, ..Parameters::of_host(4096, 2) };
        assert_eq!(slab_order(64, &rules, &large), 2);
    }

    #[test]
    fn classes_of_kmalloc() {
        let class = |bytes| kmalloc_class(bytes, 8, 8192);
        assert_eq!(
            [1, 8, 9, 65, 96, 97, 129, 193, 4097].map(|bytes| class(bytes).unwrap_or(0)),
            [8, 8, 16, 96, 96, 128, 192, 256, 8192]
        );
        assert_eq!((class(0), class(8193)), (None, None));
        assert_eq!(kmalloc_class(65, 64, 8192), Some(128));
        assert_eq!(kmalloc_class(129, 128, 8192), Some(256));
        assert_eq!((class_name(96), class_name(8192)), ("96".into(), "8k".into()));
    }
}
