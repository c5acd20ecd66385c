//! Fragmentation formulas over free-block counts, as the kernel computes them.
//!
//! `free[k]` is the number of free blocks of order `k` (what `/proc/buddyinfo` prints). Divisions
//! truncate, as the kernel's do.

/// Free pages: the sum of `free[k] * 2^k`.
#[must_use]
pub fn free_pages(free: &[u64]) -> u64 {
    free.iter().enumerate().map(|(order, blocks)| blocks << order).sum()
}

/// Blocks of `order` that could be had without merging: larger blocks count as many.
#[must_use]
pub fn suitable_blocks(free: &[u64], order: usize) -> u64 {
    free.iter().enumerate().skip(order).map(|(k, blocks)| blocks << (k - order)).sum()
}

/// Unusable free space index at `order`, in thousandths: the share of free memory that cannot serve
/// a request of that order. 0 is good; 1000 when nothing is free.
/// Source: `unusable_free_index`, `mm/vmstat.c`, 5.10 to 6.18.
#[must_use]
pub fn unusable_free_index(free: &[u64], order: usize) -> u64 {
    let pages = free_pages(free);
    if pages == 0 {
        return 1000;
    }
    (pages - (suitable_blocks(free, order) << order)) * 1000 / pages
}

/// Fragmentation index at `order`, in thousandths: -1000 when a request would find a block, else
/// towards 0 for want of memory and towards 1000 for fragmentation.
/// Source: `__fragmentation_index`, `mm/vmstat.c`, 5.10 to 6.18.
#[must_use]
pub fn fragmentation_index(free: &[u64], order: usize) -> i64 {
    let blocks: u64 = free.iter().sum();
    if blocks == 0 {
        return 0;
    }
    if suitable_blocks(free, order) > 0 {
        return -1000;
    }
    let wanted = 1u64 << order;
    1000 - ((1000 + free_pages(free) * 1000 / wanted) / blocks) as i64
}

/// What an `mm_page_alloc_extfrag` event tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FallbackKind {
    /// A block of at least a pageblock changed its type.
    WholeClaim,
    /// A pageblock changed its type with its free blocks.
    SmallClaim,
    /// One block was taken, the pageblock kept its type.
    Steal,
}

/// The kind of a fallback: from the order of the block it took from, the order of a pageblock, and
/// whether the pageblock has the request's type after it (`change_ownership`).
#[must_use]
pub fn fallback_kind(taken_order: u8, pageblock_order: u8, changed: bool) -> FallbackKind {
    match (taken_order >= pageblock_order, changed) {
        (true, _) => FallbackKind::WholeClaim,
        (false, true) => FallbackKind::SmallClaim,
        (false, false) => FallbackKind::Steal,
    }
}

/// Order error of `model` against `kernel`, in percent of the kernel's free pages: the pages that
/// stand at another order. 0 when both are empty, 100 when only the kernel is.
#[must_use]
pub fn order_error_percent(kernel: &[u64], model: &[u64]) -> f64 {
    let wrong = wrong_pages(kernel, model);
    let pages = free_pages(kernel);
    match (wrong, pages) {
        (0, _) => 0.0,
        (_, 0) => 100.0,
        _ => wrong as f64 * 100.0 / pages as f64,
    }
}

/// Sum over orders of |model - kernel| * 2^order, in pages.
#[must_use]
pub fn wrong_pages(kernel: &[u64], model: &[u64]) -> u64 {
    let orders = kernel.len().max(model.len());
    let at = |counts: &[u64], order: usize| counts.get(order).copied().unwrap_or(0);
    (0..orders).map(|order| at(kernel, order).abs_diff(at(model, order)) << order).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Four free order-0 pages, two order-1, one order-3: 4 + 4 + 8 = 16 pages in 7 blocks.
    const FREE: [u64; 5] = [4, 2, 0, 1, 0];

    #[test]
    fn free_pages_and_suitable_blocks_by_hand() {
        assert_eq!(free_pages(&FREE), 16);
        assert_eq!(suitable_blocks(&FREE, 0), 16);
        assert_eq!(suitable_blocks(&FREE, 1), 2 + 4);
        assert_eq!(suitable_blocks(&FREE, 3), 1);
        assert_eq!(suitable_blocks(&FREE, 4), 0);
    }

    #[test]
    fn unusable_index_by_hand() {
        assert_eq!(unusable_free_index(&FREE, 0), 0);
        // Order 2: two blocks out of the order-3 one serve 8 of 16 pages.
        assert_eq!(unusable_free_index(&FREE, 2), 500);
        assert_eq!(unusable_free_index(&FREE, 4), 1000);
        assert_eq!(unusable_free_index(&[0, 0], 0), 1000);
    }

    #[test]
    fn fragmentation_index_by_hand() {
        assert_eq!(fragmentation_index(&FREE, 3), -1000);
        // 1000 - (1000 + 16*1000/16) / 7 = 1000 - 285
        assert_eq!(fragmentation_index(&FREE, 4), 715);
        assert_eq!(fragmentation_index(&[0, 0], 1), 0);
    }

    #[test]
    fn order_error_counts_pages_not_blocks() {
        // One order-3 block too few (8 pages) and four order-1 too many (8 pages): 16 of 16.
        assert_eq!(wrong_pages(&FREE, &[4, 6, 0, 0, 0]), 16);
        assert!((order_error_percent(&FREE, &[4, 6]) - 100.0).abs() < 1e-12);
        assert!(order_error_percent(&FREE, &FREE).abs() < 1e-12);
        assert!((order_error_percent(&[0], &[1]) - 100.0).abs() < 1e-12);
    }
}
