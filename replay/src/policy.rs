//! Policies: who decides what, by role, chosen by name.
//!
//! A policy sees a read-only [`View`] and answers with a verdict; the model applies it. Each role
//! has a folder and a visible registry, `ALL`: a new policy is one new file there and one line in
//! the registry. What no policy was chosen for is decided as the recorded kernel does.

use std::fmt::Debug;
use std::sync::Arc;

use crate::rules::Rules;

pub mod block;
pub mod fallback;
mod params;
pub mod percpu;
pub mod placement;
mod set;
pub mod slab;
mod view;
pub mod vmap;
pub mod watermark;

pub use block::BlockPolicy;
pub use fallback::FallbackPolicy;
pub use params::{BadPolicy, Param, Params};
pub use percpu::PerCpuPolicy;
pub use placement::PlacementPolicy;
pub use set::{Chosen, PolicySet};
pub use slab::SlabLayer;
pub use view::View;
pub use vmap::VmapLayer;
pub use watermark::WatermarkPolicy;

/// One policy of a registry.
#[derive(Debug)]
pub struct Entry<P: ?Sized + 'static> {
    /// The name it is chosen by; unique over all roles.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
    /// The kernel function and release, or the paper, it stands for.
    pub source: &'static str,
    /// What can be set.
    pub params: &'static [Param],
    /// Makes it.
    pub make: fn(&Params, &Rules) -> Result<Arc<P>, BadPolicy>,
}

/// What a policy is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// In which order zones are looked at.
    Placement,
    /// Which free block of a list is taken, and to which end one is given back.
    Block,
    /// How a request takes from another migrate type.
    Fallback,
    /// How large per-CPU lists grow and how much moves at once.
    PerCpu,
    /// How much memory is kept back.
    Watermark,
    /// How objects are laid out in slabs (`replay --stack`).
    Slab,
    /// Where vmalloc's areas go (`replay --stack`).
    Vmap,
}

impl Role {
    /// Every role.
    pub const ALL: &'static [Role] = &[
        Role::Placement,
        Role::Block,
        Role::Fallback,
        Role::PerCpu,
        Role::Watermark,
        Role::Slab,
        Role::Vmap,
    ];

    /// Whether it decides above the pages, which `replay --stack` runs only.
    #[must_use]
    pub fn is_above_pages(self) -> bool {
        matches!(self, Self::Slab | Self::Vmap)
    }

    /// Its name in a policy file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::Block => "block",
            Self::Fallback => "fallback",
            Self::PerCpu => "percpu",
            Self::Watermark => "watermark",
            Self::Slab => "slab",
            Self::Vmap => "vmap",
        }
    }

    /// What it decides.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Placement => "in which order a request looks at the zones",
            Self::Block => "which free block of a list is taken, to which end one is given back",
            Self::Fallback => "how a request takes from another migrate type's free lists",
            Self::PerCpu => "how long per-CPU lists grow and how much moves at once",
            Self::Watermark => "how much memory is kept back",
            Self::Slab => "how objects are laid out in slabs, and when a slab goes back (--stack)",
            Self::Vmap => "which hole of the vmalloc space an area gets (--stack)",
        }
    }
}

/// A policy as a list of policies shows it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Its role.
    pub role: Role,
    /// See [`Entry::name`].
    pub name: &'static str,
    /// See [`Entry::help`].
    pub help: &'static str,
    /// See [`Entry::source`].
    pub source: &'static str,
    /// See [`Entry::params`].
    pub params: &'static [Param],
}

/// Every policy of every role.
#[must_use]
pub fn all() -> Vec<Listed> {
    fn of<P: ?Sized>(role: Role, entries: &'static [Entry<P>]) -> impl Iterator<Item = Listed> {
        entries.iter().map(move |entry| Listed {
            role,
            name: entry.name,
            help: entry.help,
            source: entry.source,
            params: entry.params,
        })
    }
    of(Role::Placement, placement::ALL)
        .chain(of(Role::Block, block::ALL))
        .chain(of(Role::Fallback, fallback::ALL))
        .chain(of(Role::PerCpu, percpu::ALL))
        .chain(of(Role::Watermark, watermark::ALL))
        .chain(of(Role::Slab, slab::ALL))
        .chain(of(Role::Vmap, vmap::ALL))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_over_all_roles() {
        let mut names: Vec<&str> = all().iter().map(|listed| listed.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Role::ALL.iter().all(|role| all().iter().any(|listed| listed.role == *role)));
    }
}
