//! A number never travels without its unit: one type for each kind of number in a recording.

use std::fmt;

/// Declares a plain-number unit with the traits every unit has.
macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

unit!(
    /// Page frame number: physical address divided by the page size.
    Pfn(u64)
);
unit!(
    /// Allocation order: a block of 2^order pages.
    Order(u8)
);
unit!(
    /// Nanoseconds of `CLOCK_MONOTONIC`, or a span of them.
    Nanos(u64)
);
unit!(
    /// A logical processor, as Linux numbers them.
    Cpu(u16)
);
unit!(
    /// A thread id (what tracepoints call `common_pid`); 0 is the idle task.
    Pid(u32)
);
unit!(
    /// A NUMA node.
    NodeId(u16)
);
unit!(
    /// A row of the recording's `stacks` table.
    StackId(u32)
);
unit!(
    /// Allocation flags, in the recorded kernel's own bits.
    Gfp(u32)
);
unit!(
    /// A migrate type, in the recorded kernel's own numbers (`Manifest::migrate_types` names them).
    Migrate(u8)
);

impl Order {
    /// Pages in a block of this order; 0 for an order too large to be one.
    #[must_use]
    pub fn pages(self) -> u64 {
        1u64.checked_shl(u32::from(self.0)).unwrap_or(0)
    }
}

impl Migrate {
    /// `MIGRATE_UNMOVABLE`; the first four numbers are the same in every release since 4.4.
    pub const UNMOVABLE: Self = Self(0);
    /// `MIGRATE_MOVABLE`.
    pub const MOVABLE: Self = Self(1);
    /// `MIGRATE_RECLAIMABLE`.
    pub const RECLAIMABLE: Self = Self(2);
    /// `MIGRATE_HIGHATOMIC`, also the number of types that per-CPU lists know (`MIGRATE_PCPTYPES`).
    pub const HIGHATOMIC: Self = Self(3);
}
