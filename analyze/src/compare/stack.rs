//! The layers above pages.

use kmemlab_trace::manifest::{StackFigures, StackRun};

use super::{Better, Metric, Side};

/// Reads a figure.
type Figure = fn(&StackFigures) -> Option<f64>;

const FIGURES: [(&str, &str, Figure, Better); 12] = [
    ("slab_pages_mean", "pages of slabs", |f| f.slab_pages_mean, Better::Lower),
    ("slab_waste_mean_bytes", "bytes of slabs unused", |f| f.slab_waste_mean_bytes, Better::Lower),
    (
        "slab_utilisation_mean_percent",
        "percent of slabs used",
        |f| f.slab_utilisation_mean_percent,
        Better::Higher,
    ),
    ("slab_new_slabs", "slabs made", |f| f.slab_new_slabs, Better::Lower),
    ("slab_released_slabs", "slabs given back", |f| f.slab_released_slabs, Better::Neither),
    (
        "slab_partial_waste_bytes",
        "bytes unused in partial slabs",
        |f| f.slab_partial_waste_bytes,
        Better::Lower,
    ),
    // Fewer objects hold memory fast, or they are gathered so that slabs soon become free.
    ("slab_sparse_slabs", "slabs nearly empty", |f| f.slab_sparse_slabs, Better::Neither),
    (
        "slab_ping_pong_slabs",
        "slabs made soon after one went",
        |f| f.slab_ping_pong_slabs,
        Better::Lower,
    ),
    ("vmap_purges", "purges of vmalloc", |f| f.vmap_purges, Better::Lower),
    ("vmap_areas", "areas of vmalloc", |f| f.vmap_areas, Better::Neither),
    ("vmap_size_bytes", "bytes of vmalloc areas", |f| f.vmap_size_bytes, Better::Neither),
    (
        "vmap_largest_hole_bytes",
        "largest hole in vmalloc",
        |f| f.vmap_largest_hole_bytes,
        Better::Higher,
    ),
];

/// The recorded kernel in place of a run.
pub(super) fn kernel_of(run: &StackRun) -> StackRun {
    StackRun { model: run.kernel, starts_compact: false, ..run.clone() }
}

/// Why differences of slabs say nothing of better or worse, if they do not: one side began with
/// full slabs, the other with those that the host had.
pub(super) fn note(a: &Side, b: &Side) -> Option<String> {
    let (one, two) = a.stack.as_ref().zip(b.stack.as_ref())?;
    (one.starts_compact != two.starts_compact).then(|| {
        let side = if one.starts_compact { "A" } else { "B" };
        format!(
            "the slab layer of {side} began with full slabs, not with the kernel's: differences of \
             slabs are the start's as well as the policy's, so none is called better or worse"
        )
    })
}

/// What both sides tell. The error bar is the baseline's, and the same in every run over one
/// recording.
pub(super) fn metrics(a: &Side, b: &Side, has_error: bool, metrics: &mut Vec<Metric>) {
    let Some((one, two)) = a.stack.as_ref().zip(b.stack.as_ref()) else {
        // Two recordings: their own samples.
        if let Some((a, b)) = a.slab_pages_mean.zip(b.slab_pages_mean) {
            metrics.push(metric(&FIGURES[0], a, b, None));
        }
        return;
    };
    for figure in &FIGURES {
        if let Some((a, b)) = figure.2(&one.model).zip(figure.2(&two.model)) {
            let error = figure.2(&one.error).filter(|_| has_error);
            let mut metric = metric(figure, a, b, error);
            if one.starts_compact != two.starts_compact && metric.name.starts_with("slab_") {
                metric.better = Better::Neither;
            }
            metrics.push(metric);
        }
    }
}

fn metric(
    (name, what, _, better): &(&str, &str, Figure, Better),
    a: f64,
    b: f64,
    error: Option<f64>,
) -> Metric {
    Metric { name: (*name).to_owned(), what: (*what).to_owned(), a, b, error, better: *better }
}
