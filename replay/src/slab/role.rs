//! What the functions that ask for objects, or free them, tell beyond the object itself.

/// What a call site does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Nothing that matters, or takes one node by itself.
    #[default]
    Plain,
    /// Takes the root of a copy.
    Root,
    /// Takes the other nodes of a copy, from a sheaf.
    Copy,
    /// Takes nodes for a change, from a sheaf.
    Store,
    /// Frees the root of a tree, after all its other nodes.
    Destroy,
    /// Frees the areas of an address space that ends.
    Exit,
    /// Frees what waited for a grace period.
    Grace,
    /// Takes a process's number.
    NewPid,
    /// Frees a process, whose number then waits for a grace period.
    Release,
    /// Frees a process's number.
    PidGone,
}

impl Role {
    /// Its objects come from a sheaf that the thread took for itself.
    #[must_use]
    pub fn is_prefilled(self) -> bool {
        matches!(self, Self::Copy | Self::Store)
    }
}
