//! How classic SLAB cuts its slabs and sizes its arrays.

/// What a cache is cut like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Bytes from one object to the next.
    pub stride: u64,
    /// Order of a slab.
    pub order: u8,
    /// Objects of a slab.
    pub objects: u16,
    /// Objects of a processor's array.
    pub limit: u32,
    /// Objects moved at once.
    pub batch: u32,
    /// Objects of the shared array.
    pub shared: u32,
    /// Free objects kept in slabs.
    pub free_limit: u64,
}

/// Most objects that an index of one byte can name.
const MAX_OBJECTS: u64 = 255;
/// Largest order looked for (`slab_max_order` of a machine with more than 32 MiB).
const MAX_ORDER: u8 = 1;
/// The page allocator's largest order.
const LAST_ORDER: u8 = 10;

/// `__kmem_cache_create`, `calculate_slab_order`, `enable_cpucache`.
#[must_use]
pub fn layout(stride: u64, cpus: u32, page_bytes: u64) -> Layout {
    let stride = stride.max(16).next_multiple_of(8);
    // The index of free objects lies in a free object where it fits there, else behind the objects
    // or in a block of its own.
    let in_object = |bytes: u64| {
        let objects = bytes / stride;
        (objects <= stride).then_some(objects)
    };
    let behind = |bytes: u64| bytes / (stride + 1);
    let count = |order: u8| {
        let bytes = page_bytes << order;
        in_object(bytes).unwrap_or_else(|| behind(bytes))
    };
    let mut found = None;
    for order in 0..=LAST_ORDER {
        let objects = count(order);
        if objects == 0 {
            continue;
        }
        if objects > MAX_OBJECTS {
            break;
        }
        found = Some((order, objects));
        let bytes = page_bytes << order;
        let left = bytes - objects * stride;
        if order >= MAX_ORDER || left * 8 <= bytes {
            break;
        }
    }
    let (order, objects) = found.unwrap_or((0, count(0).clamp(1, MAX_OBJECTS)));
    let limit = match stride {
        131_073.. => 1,
        4097.. => 8,
        1025.. => 24,
        257.. => 54,
        _ => 120,
    };
    let batch = u32::div_ceil(limit, 2);
    let shared = if stride <= page_bytes && cpus > 1 { 8 * batch } else { 0 };
    let free_limit = u64::from((1 + cpus) * batch) + objects;
    Layout { stride, order, objects: objects as u16, limit, batch, shared, free_limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_limits_on_two_processors() {
        for (stride, order, objects, limit, batch, shared, free_limit) in [
            (32, 0, 124, 120, 60, 480, 304),
            (64, 0, 64, 120, 60, 480, 244),
            (192, 0, 21, 120, 60, 480, 201),
            (256, 0, 16, 120, 60, 480, 196),
            (512, 0, 8, 54, 27, 216, 89),
            (2048, 0, 2, 24, 12, 96, 38),
            (4096, 0, 1, 24, 12, 96, 37),
            (8192, 1, 1, 8, 4, 0, 13),
        ] {
            let found = layout(stride, 2, 4096);
            let wanted = Layout { stride, order, objects, limit, batch, shared, free_limit };
            assert_eq!(found, wanted, "stride {stride}");
        }
    }
}
