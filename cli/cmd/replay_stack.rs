//! `kmemlab replay --stack`: the layers above pages.

use kmemlab_replay::policy::PolicySet;
use kmemlab_replay::stack::{
    CacheOutcome, SlabOutcome, StackOptions, StackOutcome, StackRules, StackRun, Sums, VmapOutcome,
    replay_stack,
};
use kmemlab_replay::{Outcome, Row};
use kmemlab_trace::Recording;
use serde_json::{Value, json};

use crate::args::ReplayArgs;
use crate::exit::Answer;
use crate::json::rounded;
use crate::results::{self, Samples};

pub(crate) fn run(
    recording: &Recording,
    args: &ReplayArgs,
    policies: Vec<PolicySet>,
    clock: fn() -> u64,
) -> anyhow::Result<Answer> {
    let (clock, check) = (Some(clock), args.check);
    let rules = args.rules.as_deref().map(StackRules::of);
    let options = StackOptions { rules, policies, clock, check, ..StackOptions::default() };
    let mut samples = Samples::default();
    let mut keep = |name: &str, row: Row<'_>| {
        if let (Some(_), Row::Sample(row)) = (&args.output, row) {
            samples.keep_as(name, row);
        }
    };
    let mut outcome = replay_stack(recording, &options, &mut keep)?;
    if let Some(directory) = &args.output {
        results::write_stack(recording, &outcome, &samples, directory, args.force)?;
    }
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
    let baseline = &outcome.baseline;
    let policies: Vec<Value> = outcome.policies.iter().map(policy).collect();
    json!({
        "rules": {
            "pages": outcome.rules.pages.name(),
            "slab": outcome.rules.slab.name(),
            "vmalloc": outcome.rules.vmap.name(),
        },
        "rules_by_probe": outcome.rules_by_probe,
        "events": outcome.events,
        "direct_map_base": outcome.direct_map.map(|map| format!("{:#x}", map.base)),
        "direct_map_votes": outcome.direct_map.map(|map| map.votes),
        "stack": {
            "events_per_second": rounded(outcome.events_per_second().round()),
            "learning_ns": outcome.learning_ns,
            "spent_ns": baseline.spent_ns,
            "state_bytes": baseline.slab.state_bytes + baseline.vmap.state_bytes,
            "live_objects_peak": baseline.slab.peak_live_objects,
        },
        "residue": residue(outcome),
        "recognised": {
            "page_allocs": outcome.follow.slab_pages_allocs,
            "page_frees": outcome.follow.slab_pages_frees,
            "told_by_object": outcome.follow.told_by_object,
            "nameless": outcome.follow.nameless_slabs,
            "look_alikes": outcome.follow.look_alikes,
            "failed": outcome.follow.failed_slab_pages,
        },
        "slab": slab(&baseline.slab),
        "vmalloc": vmalloc(&baseline.vmap),
        "pages": baseline.pages.as_ref().map(pages),
        "pages_alone": outcome.pages_alone.map(|(mean, worst)| json!({
            "order_error_mean_percent": rounded(mean),
            "order_error_worst_percent": rounded(worst),
        })),
        "policies": policies,
        "notes": outcome.notes,
    })
}

fn residue(outcome: &StackOutcome) -> Value {
    let follow = &outcome.follow;
    json!({
        "object_events": follow.object_events,
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
    })
}

/// One set of policies beside the baseline.
fn policy(run: &StackRun) -> Value {
    let chosen: Vec<Value> = run
        .chosen
        .iter()
        .map(|chosen| {
            let given = chosen.params.given().iter();
            let params: serde_json::Map<_, _> =
                given.map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
            json!({ "role": chosen.role.name(), "name": chosen.name, "params": params })
        })
        .collect();
    json!({
        "name": run.name,
        "policies": chosen,
        "slab": slab(&run.slab),
        "vmalloc": vmalloc(&run.vmap),
        "pages": run.pages.as_ref().map(pages),
    })
}

fn slab(slab: &SlabOutcome) -> Value {
    let caches: Vec<Value> = slab.caches.iter().map(cache).collect();
    let sites: Vec<Value> = slab
        .sites
        .iter()
        .map(|site| {
            json!({
                "call_site": site.name,
                "address": format!("{:#x}", site.address),
                "allocations": site.allocs,
                "bytes_requested": site.asked_bytes,
                "bytes_allocated": site.given_bytes,
            })
        })
        .collect();
    json!({
        "samples": slab.samples,
        "fullness": {
            "partial_waste_bytes": mean(&slab.sums.partial_waste_bytes, slab.samples, 1.0),
            "sparse_slabs": mean(&slab.sums.sparse_slabs, slab.samples, 1.0),
            "utilisation_percent": mean(&slab.sums.live_ppm, slab.samples, 1e4),
        },
        "pages_error_percent": rounded(slab.pages_error_percent),
        "pages_error_worst_percent": rounded(slab.pages_error_worst_percent),
        "pages_model": slab.pages_model,
        "pages_kernel": slab.pages_kernel,
        "followed_exact": slab.followed_exact,
        "followed": slab.followed,
        "followed_wrong_pages": slab.followed_wrong_pages,
        "min_order_model": slab.min_orders().0,
        "min_order_kernel": slab.min_orders().1,
        "apart": slab.apart.map(|apart| {
            json!({
                "merged_caches": apart.merged_caches,
                "caches_by_name": apart.caches_by_name,
                "caches_by_function": apart.caches_by_function,
                "objects_by_name": apart.objects_by_name,
                "objects_by_function": apart.objects_by_function,
            })
        }),
        "wasting_call_sites": sites,
        "caches": caches,
    })
}

/// Model, kernel and what they differ by, mean over the samples; null without one.
fn mean(sums: &Sums, samples: u64, unit: f64) -> Value {
    let of = |sum: i64| (samples > 0).then(|| rounded(sum as f64 / samples as f64 / unit));
    json!({ "model": of(sums.model), "kernel": of(sums.kernel), "error": of(sums.away) })
}

fn cache(cache: &CacheOutcome) -> Value {
    json!({
        "name": cache.name,
        "events": cache.events,
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
        "cause": cache.cause.name(),
        "bytes_requested": cache.asked_bytes,
        "bytes_allocated": cache.given_bytes,
        "utilisation_percent": rounded(cache.utilisation_percent()),
        "partial_waste_bytes": cache.partial_waste_bytes(),
        "utilisation_percent_kernel": rounded(cache.utilisation_kernel_percent()),
        "partial_waste_bytes_kernel": cache.partial_waste_kernel_bytes(),
        "sparse_slabs": cache.occupancy.sparse_slabs,
        "sparse_slabs_kernel": cache.occupancy_kernel.sparse_slabs,
        "empty_slabs": cache.occupancy.empty_slabs,
        "ping_pong_slabs": cache.ping_pong,
        "min_order_model": cache.min_order_model,
        "min_order_kernel": cache.min_order_kernel,
        "ping_pong_slabs_kernel": cache.ping_pong_kernel,
        "listed_free_objects_model": cache.listed_free_model,
        "listed_free_objects_kernel": cache.listed_free_kernel,
    })
}

fn vmalloc(vmap: &VmapOutcome) -> Value {
    json!({
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
        "wrong_areas": vmap.wrong_areas,
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
        "largest_free_bytes_model": vmap.largest_free_bytes,
        "unknown_frees": vmap.unknown_frees,
        "hidden_frees": vmap.hidden_frees,
        "failures_model": vmap.failed_model,
        "failures_kernel": vmap.failed_kernel,
    })
}

fn pages(pages: &Outcome) -> Value {
    let (model, own) = (&pages.model, &pages.model.own);
    json!({
        "order_error_mean_percent": rounded(model.order_error_mean_percent),
        "order_error_worst_percent": rounded(model.order_error_worst_percent),
        "pfn_exact_percent": rounded(model.placement.exact_percent()),
        "allocs": own.allocs,
        "frees": own.frees,
        "failures": own.failures,
        "unplaced_frees": own.unplaced,
        "digest": format!("{:016x}", pages.digest),
    })
}
