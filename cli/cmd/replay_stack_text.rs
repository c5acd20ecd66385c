//! The layers above pages as a person reads them.

use std::fmt::Write;

use kmemlab_replay::Outcome;
use kmemlab_replay::stack::{CacheOutcome, SlabOutcome, StackOutcome, StackRun, VmapOutcome};
use kmemlab_trace::Recording;

use crate::text::{Table, bytes, count};

/// The whole report.
pub(crate) fn render(recording: &Recording, outcome: &StackOutcome) -> String {
    let mut text = String::new();
    let host = &recording.manifest().host;
    let _ = writeln!(
        text,
        "{}: Linux {}, {} events",
        recording.path().display(),
        host.kernel_release,
        count(outcome.events),
    );
    let rules = &outcome.rules;
    let _ = writeln!(
        text,
        "rules: pages of {}{}, slabs and kmalloc of {}, vmalloc of {}",
        rules.pages.name(),
        outcome.rules_by_probe.iter().map(|said| format!(" ({said})")).collect::<String>(),
        rules.slab.name(),
        rules.vmap.name()
    );
    match outcome.direct_map {
        Some(map) => {
            let (votes, of) = (count(map.votes), count(map.of));
            let _ = writeln!(text, "direct map at {:#x} ({votes} of {of} votes)", map.base);
        }
        None => text.push_str("direct map not found\n"),
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let baseline = &outcome.baseline;
    text.push_str(&caches(&baseline.slab));
    text.push_str(&slab(&baseline.slab, outcome));
    text.push_str(&sites(&baseline.slab));
    text.push_str(&vmalloc(&baseline.vmap));
    text.push_str(&baseline.pages.as_ref().map_or_else(String::new, pages));
    text.push_str(&alone(outcome));
    text.push_str(&policies(outcome));
    let _ = writeln!(
        text,
        "\nspeed and state  {:.1} M events/s after a first pass of {:.1} s, {}, {} live objects at most",
        outcome.events_per_second() / 1e6,
        outcome.learning_ns as f64 / 1e9,
        bytes(baseline.slab.state_bytes),
        count(baseline.slab.peak_live_objects)
    );
    text
}

/// The caches that got slabs, those with most first.
fn caches(slab: &SlabOutcome) -> String {
    let mut table = Table::new(
        [
            "cache",
            "new slabs",
            "model",
            "",
            "released",
            "model",
            "slabs",
            "model",
            "objects",
            "model",
            "unseen",
            "use",
            "sparse",
        ],
        1,
    );
    let is_busy = |cache: &&CacheOutcome| cache.new_slabs_kernel + cache.new_slabs_model > 0;
    let mut caches: Vec<_> = slab.caches.iter().filter(is_busy).collect();
    caches.sort_by_key(|cache| std::cmp::Reverse(cache.new_slabs_kernel));
    for cache in caches {
        let unseen = cache.hidden_frees + cache.hidden_allocs;
        table.row(vec![
            cache.name.clone(),
            count(cache.new_slabs_kernel),
            count(cache.new_slabs_model),
            format!("{:+}", cache.new_slabs_model as i64 - cache.new_slabs_kernel as i64),
            count(cache.released_slabs_kernel),
            count(cache.released_slabs_model),
            count(cache.slabs_kernel),
            count(cache.slabs_model),
            count(cache.active_objects_kernel),
            count(cache.active_objects_model),
            match cache.cause.name() {
                Some(cause) => format!("{} {cause}", count(unseen)),
                None => ".".to_owned(),
            },
            format!("{:.0}%", cache.utilisation_percent()),
            count(cache.occupancy.sparse_slabs),
        ]);
    }
    format!("\nSlab caches, kernel and model\n{}", table.render())
}

fn slab(slab: &SlabOutcome, outcome: &StackOutcome) -> String {
    let follow = &outcome.follow;
    let mut text = String::new();
    let mut line = |text_line: String| {
        let _ = writeln!(text, "  {text_line}");
    };
    line(format!(
        "slab pages       error mean {:.3}%, worst {:.3}% over {} samples; {} at the end",
        slab.pages_error_percent,
        slab.pages_error_worst_percent,
        slab.samples,
        count(slab.pages_model)
    ));
    let sum = |of: fn(&CacheOutcome) -> u64| slab.caches.iter().map(of).sum::<u64>();
    line(format!(
        "kernel / model   {} / {} unused in partial slabs, {} / {} nearly empty, {} / {} made soon \
         after one went",
        bytes(sum(CacheOutcome::partial_waste_kernel_bytes)),
        bytes(sum(CacheOutcome::partial_waste_bytes)),
        count(sum(|cache| cache.occupancy_kernel.sparse_slabs)),
        count(sum(|cache| cache.occupancy.sparse_slabs)),
        count(sum(|cache| cache.ping_pong_kernel)),
        count(sum(|cache| cache.ping_pong)),
    ));
    line(format!(
        "page events      {} allocated and {} freed for slabs ({} told by an object only, {} look alike); \
         {} of {} counts of slabs as in slabinfo",
        count(follow.slab_pages_allocs),
        count(follow.slab_pages_frees),
        count(follow.told_by_object),
        count(follow.look_alikes),
        count(slab.followed_exact),
        count(slab.followed)
    ));
    let (model, kernel) = slab.min_orders();
    if model + kernel + follow.failed_slab_pages > 0 {
        line(format!(
            "least order      {} / {} slabs, kernel / model, for want of a larger block; {} requests \
             of the kernel failed",
            count(kernel),
            count(model),
            count(follow.failed_slab_pages)
        ));
    }
    line(format!(
        "without an event {} frees ({} until their slab went), {} allocations, {} slabs",
        count(follow.hidden_frees),
        count(follow.hidden_frees_with_slab),
        count(follow.hidden_allocs),
        count(follow.unseen_slabs)
    ));
    line(format!(
        "not explained    {} objects in unknown pages, {} frees without a name, {} contradictions",
        count(follow.unknown_objects),
        count(follow.unknown_frees),
        count(follow.contradictions)
    ));
    text
}

fn sites(slab: &SlabOutcome) -> String {
    let mut table = Table::new(["call site", "objects", "asked", "given", "waste"], 1);
    for site in slab.sites.iter().take(5) {
        table.row(vec![
            site.name.clone(),
            count(site.allocs),
            bytes(site.asked_bytes),
            bytes(site.given_bytes),
            bytes(site.given_bytes - site.asked_bytes),
        ]);
    }
    if table.is_empty() { String::new() } else { format!("\nMost wasted\n{}", table.render()) }
}

fn vmalloc(vmap: &VmapOutcome) -> String {
    let mut text = "\nvmalloc space: kernel / model\n".to_owned();
    let mut line = |text_line: String| {
        let _ = writeln!(text, "  {text_line}");
    };
    line(format!(
        "requests         {}, {:.2}% at the kernel's address ({} of {} not aligned), {} from pools",
        count(vmap.allocs),
        vmap.address_exact_percent(),
        count(vmap.unaligned_exact),
        count(vmap.unaligned),
        count(vmap.pool_hits)
    ));
    line(format!(
        "purges           {} / {} of {} / {} areas, {} for other reasons",
        count(vmap.purges_kernel),
        count(vmap.purges_model),
        count(vmap.purged_areas_kernel),
        count(vmap.purged_areas_model),
        count(vmap.purges_for_others)
    ));
    line(format!(
        "lazily freed     {} of {} frees with the kernel's number of pages",
        count(vmap.lazy_exact),
        count(vmap.frees)
    ));
    line(format!(
        "last sample      areas {} / {}, {} / {}, waiting {} / {}; {} of {} samples exact",
        count(vmap.areas_kernel),
        count(vmap.areas_model),
        bytes(vmap.bytes_kernel),
        bytes(vmap.bytes_model),
        count(vmap.lazy_kernel),
        count(vmap.lazy_model),
        count(vmap.exact_samples),
        count(vmap.samples)
    ));
    line(format!(
        "largest hole     {} / {}, {} without the pools; {} holes, {} areas in pools",
        bytes(vmap.largest_hole_kernel_bytes),
        bytes(vmap.largest_hole_model_bytes),
        bytes(vmap.largest_free_bytes),
        count(vmap.holes),
        count(vmap.pooled)
    ));
    line(format!(
        "not explained    {} frees of unknown areas, {} frees not seen",
        count(vmap.unknown_frees),
        count(vmap.hidden_frees)
    ));
    text
}

fn pages(outcome: &Outcome) -> String {
    let (model, own) = (&outcome.model, &outcome.model.own);
    let mut text = "\nPages under the layers\n".to_owned();
    let _ = writeln!(
        text,
        "  order error      mean {:.3}%, worst {:.3}%; {:.2}% of the other allocations at the \
         kernel's page",
        model.order_error_mean_percent,
        model.order_error_worst_percent,
        model.placement.exact_percent()
    );
    let _ = writeln!(
        text,
        "  the layers'      {} blocks taken, {} given back, {} not placed, {} failed",
        count(own.allocs),
        count(own.frees),
        count(own.unplaced),
        count(own.failures)
    );
    text
}

/// The page model without the layers, beside it.
fn alone(outcome: &StackOutcome) -> String {
    outcome.pages_alone.map_or_else(String::new, |(mean, worst)| {
        format!("  without layers   order error mean {mean:.3}%, worst {worst:.3}%\n")
    })
}

/// The baseline and the other policies beside each other.
fn policies(outcome: &StackOutcome) -> String {
    if outcome.policies.is_empty() {
        return String::new();
    }
    let mut table = Table::new(
        [
            "policy",
            "new slabs",
            "released",
            "slab pages",
            "sparse",
            "areas purged",
            "holes",
            "largest hole",
            "order error",
        ],
        1,
    );
    let mut row = |name: &str, run: &StackRun| {
        let sum = |of: fn(&CacheOutcome) -> u64| run.slab.caches.iter().map(of).sum::<u64>();
        let error = run.pages.as_ref().map(|pages| pages.model.order_error_mean_percent);
        table.row(vec![
            name.to_owned(),
            count(sum(|cache| cache.new_slabs_model)),
            count(sum(|cache| cache.released_slabs_model)),
            count(run.slab.pages_model),
            count(sum(|cache| cache.occupancy.sparse_slabs)),
            count(run.vmap.purged_areas_model),
            count(run.vmap.holes),
            bytes(run.vmap.largest_free_bytes),
            error.map_or_else(String::new, |error| format!("{error:.3}%")),
        ]);
    };
    row("baseline", &outcome.baseline);
    for run in &outcome.policies {
        row(&run.name, run);
    }
    let mut text = format!("\nPolicies\n{}", table.render());
    for run in &outcome.policies {
        let Some(apart) = &run.slab.apart else { continue };
        let _ = writeln!(
            text,
            "  {}: {} merged caches apart, {} more by name ({} objects), {} by function alone ({} \
             objects)",
            run.name,
            count(apart.merged_caches),
            count(apart.caches_by_name),
            count(apart.objects_by_name),
            count(apart.caches_by_function),
            count(apart.objects_by_function)
        );
    }
    text
}
