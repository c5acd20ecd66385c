//! Counts of what the mechanism did.

/// Work done by the mechanism, for the cost model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Blocks split in two.
    pub splits: u64,
    /// Pairs of buddies merged.
    pub merges: u64,
    /// Per-CPU lists refilled.
    pub refills: u64,
    /// Per-CPU lists drained.
    pub drains: u64,
    /// Free lists looked at in vain.
    pub lists_scanned: u64,
    /// Blocks looked at to choose one; a policy that takes the head looks at none.
    pub blocks_looked_at: u64,
    /// Zones looked at.
    pub zones_tried: u64,
}
