//! The layers above pages as a person reads them.

use std::fmt::Write;

use kmemlab_replay::stack::{StackOutcome, VmapOutcome};
use kmemlab_trace::Recording;

use crate::text::{Table, bytes, count};

/// The whole report.
pub(crate) fn render(recording: &Recording, outcome: &StackOutcome) -> String {
    let mut text = String::new();
    let host = &recording.manifest().host;
    let _ = writeln!(
        text,
        "{}: Linux {}, {} events, slab policy {}",
        recording.path().display(),
        host.kernel_release,
        count(outcome.events),
        outcome.slab.policy
    );
    match outcome.direct_map {
        Some(map) => {
            let _ = writeln!(
                text,
                "direct map at {:#x} ({} of {} votes)",
                map.base,
                count(map.votes),
                count(map.of)
            );
        }
        None => text.push_str("direct map not found\n"),
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text.push_str(&slab(outcome));
    text.push_str(&vmalloc(&outcome.vmap));
    let _ = writeln!(
        text,
        "\nspeed and state  {:.1} M events/s after a first pass of {:.1} s, {}",
        outcome.events_per_second() / 1e6,
        outcome.learning_ns as f64 / 1e9,
        bytes(outcome.slab.state_bytes)
    );
    text
}

fn slab(outcome: &StackOutcome) -> String {
    let (slab, follow) = (&outcome.slab, &outcome.follow);
    let mut text = String::from("\nSlab caches with new slabs: kernel / model\n");
    let mut table = Table::new(
        [
            "cache",
            "new slabs",
            "",
            "difference",
            "released",
            "",
            "slabs",
            "",
            "followed",
            "active objects",
            "",
            "hidden frees",
            "allocs",
        ],
        1,
    );
    let mut caches: Vec<_> = slab
        .caches
        .iter()
        .filter(|cache| cache.new_slabs_kernel + cache.new_slabs_model > 0)
        .collect();
    caches.sort_by_key(|cache| std::cmp::Reverse(cache.new_slabs_kernel));
    for cache in caches {
        let difference = cache.new_slabs_model as i64 - cache.new_slabs_kernel as i64;
        table.row(vec![
            cache.name.clone(),
            count(cache.new_slabs_kernel),
            count(cache.new_slabs_model),
            format!("{difference:+}"),
            count(cache.released_slabs_kernel),
            count(cache.released_slabs_model),
            count(cache.slabs_kernel),
            count(cache.slabs_model),
            count(cache.slabs_followed),
            count(cache.active_objects_kernel),
            count(cache.active_objects_model),
            count(cache.hidden_frees),
            count(cache.hidden_allocs),
        ]);
    }
    text.push_str(&table.render());
    let _ = writeln!(
        text,
        "  slab pages       error mean {:.3}%, worst {:.3}% over {} samples",
        slab.pages_error_percent, slab.pages_error_worst_percent, slab.samples
    );
    let _ = writeln!(
        text,
        "  page events      {} of {} caches and samples followed exactly, {} pages wrong",
        count(slab.followed_exact),
        count(slab.followed),
        count(slab.followed_wrong_pages)
    );
    let _ = writeln!(text, "  {follow:?}");
    text
}

fn vmalloc(vmap: &VmapOutcome) -> String {
    let mut text = format!("\nvmalloc space, policy {}: kernel / model\n", vmap.policy);
    let mut line = |text_line: String| {
        let _ = writeln!(text, "  {text_line}");
    };
    line(format!(
        "requests         {}, {:.2}% at the kernel's address, {} from pools",
        count(vmap.allocs),
        vmap.address_exact_percent(),
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
        "largest hole     {} / {} below the highest area; {} holes, {} areas in pools",
        bytes(vmap.largest_hole_kernel_bytes),
        bytes(vmap.largest_hole_model_bytes),
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
