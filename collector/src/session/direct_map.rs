//! The base of the kernel's direct map, inferred from what was just recorded and stored beside it.

use std::path::Path;

use kmemlab_trace::direct_map;
use kmemlab_trace::event::Kind;
use kmemlab_trace::{Manifest, Recording, writer};

/// Events that are read for it: a fraction of a second.
const MOST_EVENTS: u64 = 500_000;

/// The kernel tells `page_offset_base` nowhere. A slab's page and the address of an object in it
/// tell it, so it is known when events are. Without it a reader infers it itself: nothing that
/// fails here fails the recording.
pub(super) fn store(output: &Path, mut manifest: Manifest) {
    let recorded = |kind: Kind| manifest.tracepoints.iter().any(|it| it.name == kind.name());
    if !recorded(Kind::CacheAlloc) {
        return;
    }
    let Ok(recording) = Recording::open(output, false) else { return };
    if let Ok(Some(map)) = direct_map::infer(&recording, MOST_EVENTS) {
        manifest.set_direct_map(&map);
        let _ = writer::amend(output, &manifest);
    }
}
