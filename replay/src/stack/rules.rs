//! The rows of rules that a stack of layers decides by: pages, slabs and the vmalloc space.

use kmemlab_trace::manifest::Manifest;

use crate::engine;
use crate::rules::Rules;
use crate::slab::caches::Caches;
use crate::slab::rules::SlabRules;
use crate::vmap::rules::VmapRules;

/// One row of each table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StackRules {
    /// The page allocator.
    pub pages: Rules,
    /// Slabs and kmalloc.
    pub slab: SlabRules,
    /// The vmalloc space.
    pub vmap: VmapRules,
}

impl Default for StackRules {
    fn default() -> Self {
        Self::of("")
    }
}

impl StackRules {
    /// The rows of a release.
    #[must_use]
    pub fn of(release: &str) -> Self {
        Self {
            pages: Rules::of(release),
            slab: SlabRules::of(release),
            vmap: VmapRules::of(release),
        }
    }

    /// Those of the recorded kernel, and which a probe set.
    pub(super) fn recorded(manifest: &Manifest) -> (Self, Vec<String>) {
        let (pages, said) = engine::rules_of(manifest);
        (Self { pages, ..Self::of(&manifest.host.kernel_release) }, said)
    }

    /// Which rows were forced, and what that changes, in a sentence.
    pub(super) fn note(&self, recorded: &Caches) -> String {
        let under = recorded.under(&self.slab);
        format!(
            "rules were forced, not the recorded release's: pages of {}, slabs and kmalloc of {} \
             ({} of {} caches are cut anew), vmalloc of {}",
            self.pages.name(),
            self.slab.name(),
            under.cut_anew(),
            under.list().len(),
            self.vmap.name()
        )
    }
}

/// Page rules that a probe set; none of rules that were forced.
pub(super) fn by_probe(manifest: &Manifest, forced: Option<StackRules>) -> Vec<String> {
    if forced.is_some() { Vec::new() } else { StackRules::recorded(manifest).1 }
}
