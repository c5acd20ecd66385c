//! `kmemlab replay --stack`: the layers above pages.

use kmemlab_replay::stack::{CacheOutcome, StackOptions, StackOutcome, replay_stack};
use kmemlab_trace::Recording;
use serde_json::{Value, json};

use crate::args::ReplayArgs;
use crate::exit::Answer;
use crate::json::rounded;

pub(crate) fn run(
    recording: &Recording,
    args: &ReplayArgs,
    clock: fn() -> u64,
) -> anyhow::Result<Answer> {
    let options =
        StackOptions { clock: Some(clock), slab: args.slab.clone(), vmap: args.vmap.clone() };
    let mut outcome = replay_stack(recording, &options)?;
    outcome.notes.splice(0..0, recording.notes().iter().cloned());
    if args.read.json {
        crate::json::print(&as_json(&outcome))?;
    } else {
        crate::exit::print(&super::replay_stack_text::render(recording, &outcome))?;
    }
    Ok(Answer::Yes)
}

/// The keys are documented in `docs/json.md`.
fn as_json(outcome: &StackOutcome) -> Value {
    json!({
        "events": outcome.events,
        "direct_map_base": outcome.direct_map.map(|map| format!("{:#x}", map.base)),
        "stack": {
            "events_per_second": rounded(outcome.events_per_second().round()),
            "learning_ns": outcome.learning_ns,
            "spent_ns": outcome.spent_ns,
            "state_bytes": outcome.slab.state_bytes,
            "live_objects_peak": outcome.slab.peak_live_objects,
        },
        "slab": slab(outcome),
        "vmalloc": vmalloc(outcome),
        "notes": outcome.notes,
    })
}

fn slab(outcome: &StackOutcome) -> Value {
    let (slab, follow) = (&outcome.slab, &outcome.follow);
    let caches: Vec<Value> = slab.caches.iter().map(cache).collect();
    json!({
        "policy": slab.policy,
        "samples": slab.samples,
        "pages_error_percent": rounded(slab.pages_error_percent),
        "pages_error_worst_percent": rounded(slab.pages_error_worst_percent),
        "followed_exact": slab.followed_exact,
        "followed": slab.followed,
        "followed_wrong_pages": slab.followed_wrong_pages,
        "residue": {
            "null_frees": follow.null_frees,
            "failed_allocs": follow.failed_allocs,
            "hidden_frees": follow.hidden_frees,
            "hidden_frees_with_slab": follow.hidden_frees_with_slab,
            "hidden_allocs": follow.hidden_allocs,
            "frees_from_before": follow.frees_from_before,
            "unknown_objects": follow.unknown_objects,
            "unknown_frees": follow.unknown_frees,
            "contradictions": follow.contradictions,
            "large_kmallocs": follow.large_kmallocs,
            "doubled_kmallocs": follow.doubled_kmallocs,
            "unseen_slabs": follow.unseen_slabs,
        },
        "recognised": {
            "page_allocs": follow.slab_pages_allocs,
            "page_frees": follow.slab_pages_frees,
            "told_by_object": follow.told_by_object,
            "nameless": follow.nameless_slabs,
            "look_alikes": follow.look_alikes,
        },
        "caches": caches,
    })
}

fn cache(cache: &CacheOutcome) -> Value {
    json!({
        "name": cache.name,
        "new_slabs_model": cache.new_slabs_model,
        "new_slabs_kernel": cache.new_slabs_kernel,
        "released_slabs_model": cache.released_slabs_model,
        "released_slabs_kernel": cache.released_slabs_kernel,
        "slabs_model": cache.slabs_model,
        "slabs_kernel": cache.slabs_kernel,
        "slabs_followed": cache.slabs_followed,
        "active_objects_model": cache.active_objects_model,
        "active_objects_kernel": cache.active_objects_kernel,
        "hidden_frees": cache.hidden_frees,
        "hidden_allocs": cache.hidden_allocs,
        "events": cache.events,
    })
}

fn vmalloc(outcome: &StackOutcome) -> Value {
    let vmap = &outcome.vmap;
    json!({
        "policy": vmap.policy,
        "allocs": vmap.allocs,
        "frees": vmap.frees,
        "address_exact_percent": rounded(vmap.address_exact_percent()),
        "unaligned_allocs": vmap.unaligned,
        "unaligned_exact": vmap.unaligned_exact,
        "pool_hits": vmap.pool_hits,
        "purges_model": vmap.purges_model,
        "purges_kernel": vmap.purges_kernel,
        "purges_for_others": vmap.purges_for_others,
        "purged_areas_model": vmap.purged_areas_model,
        "purged_areas_kernel": vmap.purged_areas_kernel,
        "lazy_pages_exact": vmap.lazy_exact,
        "samples": vmap.samples,
        "exact_samples": vmap.exact_samples,
        "areas_model": vmap.areas_model,
        "areas_kernel": vmap.areas_kernel,
        "size_bytes_model": vmap.bytes_model,
        "size_bytes_kernel": vmap.bytes_kernel,
        "lazy_areas_model": vmap.lazy_model,
        "lazy_areas_kernel": vmap.lazy_kernel,
        "pooled_areas": vmap.pooled,
        "holes": vmap.holes,
        "largest_hole_bytes_model": vmap.largest_hole_model_bytes,
        "largest_hole_bytes_kernel": vmap.largest_hole_kernel_bytes,
        "unknown_frees": vmap.unknown_frees,
        "hidden_frees": vmap.hidden_frees,
        "failures_model": vmap.failed_model,
        "failures_kernel": vmap.failed_kernel,
    })
}
