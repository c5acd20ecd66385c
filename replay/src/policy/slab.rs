//! The slab layer: how objects are laid out, which partial slab is taken, when one is given back.
//!
//! `replay --stack` runs it. Unlike the other roles it holds a state of its own: a policy makes a
//! whole layer ([`SlabPolicy`]).

use std::fmt::Debug;
use std::sync::Arc;

use super::{BadPolicy, Entry, Param, Params};
use crate::slab::policy::Begin;
pub use crate::slab::policy::SlabPolicy;
use crate::slab::rules::SlabRules;
use crate::slab::slub::{Slub, Tuning};

mod classic;
mod fullest_first;
mod order0;
mod slob;
mod tuned;

/// What a layer is made for.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Processors.
    pub cpus: usize,
    /// The recorded release.
    pub rules: SlabRules,
    /// Bytes of a page.
    pub page_bytes: u64,
}

/// Makes a slab layer.
pub trait SlabLayer: Debug + Send + Sync {
    /// A layer with nothing in it.
    fn make(&self, host: &Host) -> Box<dyn SlabPolicy>;
    /// Merged caches are apart.
    fn is_unmerged(&self) -> bool {
        false
    }
}

/// How a layer that cuts slabs its own way begins.
const START: Param = Param {
    name: "start",
    default: "compact",
    help: "live objects of the start in full slabs (compact), or with the kernel's free room between \
           (spread)",
};

fn begin_of(params: &Params) -> Result<Begin, BadPolicy> {
    let is_spread = params.word(START.name, &["compact", "spread"])? == Some("spread");
    Ok(if is_spread { Begin::Spread } else { Begin::Compact })
}

/// As recorded.
#[derive(Debug)]
struct Recorded;

impl SlabLayer for Recorded {
    fn make(&self, host: &Host) -> Box<dyn SlabPolicy> {
        Box::new(Slub::new(host.cpus, host.rules, Tuning::default()))
    }
}

pub(super) fn baseline() -> Arc<dyn SlabLayer> {
    Arc::new(Recorded)
}

/// Every slab policy.
pub const ALL: &[Entry<dyn SlabLayer>] = &[
    Entry {
        name: "slub",
        help: "SLUB as recorded: the host's own slabs, sheaves where it has them.",
        source: "mm/slub.c, 5.10 to 6.18",
        params: &[],
        make: |_, _| Ok(baseline()),
    },
    tuned::ENTRY,
    order0::ENTRY,
    fullest_first::ENTRY,
    classic::ENTRY,
    slob::ENTRY,
];
