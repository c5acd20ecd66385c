//! The layers above pages in a model's run: figures, the kernel's, and the error between them.

use std::path::{Path, PathBuf};

use kmemlab_replay::Outcome;
use kmemlab_replay::stack::{CacheOutcome, SlabOutcome, StackOutcome, StackRun, Sums, VmapOutcome};
use kmemlab_trace::Recording;
use kmemlab_trace::manifest::{self, ModelRun, StackFigures};

use super::{Samples, chosen, described, file_name, make_directory, write_one};

/// Writes the baseline and every other set of policies, each as `DIR/NAME.kmt`; answers the paths.
pub(crate) fn write_stack(
    recording: &Recording,
    outcome: &StackOutcome,
    samples: &Samples,
    directory: &Path,
    replace: bool,
) -> anyhow::Result<Vec<PathBuf>> {
    let baseline = pages_of(&outcome.baseline)?;
    make_directory(directory)?;
    let mut paths = Vec::new();
    for run in std::iter::once(&outcome.baseline).chain(&outcome.policies) {
        let path = directory.join(format!("{}.kmt", file_name(&run.name)));
        let told = ModelRun {
            policies: chosen(&run.chosen),
            stack: Some(stack_run(&outcome.baseline, run)),
            ..described(recording, baseline, &pages_of(run)?.model)
        };
        write_one(recording, told, samples.of(&run.name), &path, replace)?;
        paths.push(path);
    }
    Ok(paths)
}

fn pages_of(run: &StackRun) -> anyhow::Result<&Outcome> {
    run.pages.as_ref().ok_or_else(|| {
        anyhow::anyhow!(
            "the page model cannot run under the layers: page or object events are missing, so \
             there is no run to write; record with --events page,slab,vmalloc or leave out -o"
        )
    })
}

fn stack_run(baseline: &StackRun, run: &StackRun) -> manifest::StackRun {
    let starts_compact = run.slab.starts_compact;
    let mut told = manifest::StackRun { starts_compact, ..manifest::StackRun::default() };
    slab(&run.slab, &baseline.slab, &mut told);
    vmap(&run.vmap, &baseline.vmap, &mut told);
    told
}

fn slab(slab: &SlabOutcome, baseline: &SlabOutcome, told: &mut manifest::StackRun) {
    let sum = |slab: &SlabOutcome, of: fn(&CacheOutcome) -> u64| {
        Some(slab.caches.iter().map(of).fold(0, u64::saturating_add) as f64)
    };
    let (model, kernel, error) = (&mut told.model, &mut told.kernel, &mut told.error);
    // A policy without slabs (SLOB) has none to count, nor the objects from before in them. Its
    // pages are known all the same.
    let has_slabs = slab.caches.iter().any(|cache| cache.room > 0 && cache.pages_model > 0);
    if has_slabs {
        model.slab_new_slabs = sum(slab, |cache| cache.new_slabs_model);
        model.slab_released_slabs = sum(slab, |cache| cache.released_slabs_model);
        model.slab_partial_waste_bytes = sum(slab, CacheOutcome::partial_waste_bytes);
        model.slab_sparse_slabs = sum(slab, |cache| cache.occupancy.sparse_slabs);
        model.slab_ping_pong_slabs = sum(slab, |cache| cache.ping_pong);
    }
    kernel.slab_new_slabs = sum(slab, |cache| cache.new_slabs_kernel);
    kernel.slab_released_slabs = sum(slab, |cache| cache.released_slabs_kernel);
    error.slab_new_slabs =
        sum(baseline, |cache| cache.new_slabs_model.abs_diff(cache.new_slabs_kernel));
    error.slab_released_slabs =
        sum(baseline, |cache| cache.released_slabs_model.abs_diff(cache.released_slabs_kernel));
    kernel.slab_partial_waste_bytes = sum(slab, CacheOutcome::partial_waste_kernel_bytes);
    kernel.slab_sparse_slabs = sum(slab, |cache| cache.occupancy_kernel.sparse_slabs);
    kernel.slab_ping_pong_slabs = sum(slab, |cache| cache.ping_pong_kernel);
    error.slab_partial_waste_bytes = sum(baseline, |cache| {
        cache.partial_waste_bytes().abs_diff(cache.partial_waste_kernel_bytes())
    });
    if baseline.is_shrunk {
        // All that is free stands on the nodes' lists, which the kernel counts.
        error.slab_partial_waste_bytes = sum(baseline, CacheOutcome::listed_waste_error_bytes);
    }
    error.slab_sparse_slabs = sum(baseline, |cache| {
        cache.occupancy.sparse_slabs.abs_diff(cache.occupancy_kernel.sparse_slabs)
    });
    error.slab_ping_pong_slabs =
        sum(baseline, |cache| cache.ping_pong.abs_diff(cache.ping_pong_kernel));
    if slab.samples == 0 {
        return;
    }
    let mean = |sum: i64| sum as f64 / slab.samples as f64;
    let all = |figures: &mut StackFigures, of: fn(&Sums) -> i64, slab: &SlabOutcome| {
        figures.slab_pages_mean = Some(mean(of(&slab.sums.pages)));
        figures.slab_waste_mean_bytes = Some(mean(of(&slab.sums.waste_bytes)));
        figures.slab_utilisation_mean_percent = Some(mean(of(&slab.sums.utilisation_ppm)) / 1e4);
    };
    all(model, |sums| sums.model, slab);
    if !has_slabs {
        (model.slab_waste_mean_bytes, model.slab_utilisation_mean_percent) = (None, None);
    }
    all(kernel, |sums| sums.kernel, slab);
    all(error, |sums| sums.away, baseline);
}

fn vmap(vmap: &VmapOutcome, baseline: &VmapOutcome, told: &mut manifest::StackRun) {
    let number = |number: u64| Some(number as f64);
    let (model, kernel, error) = (&mut told.model, &mut told.kernel, &mut told.error);
    if vmap.allocs + vmap.frees + vmap.purges_kernel > 0 {
        model.vmap_purges = number(vmap.purges_model);
        kernel.vmap_purges = number(vmap.purges_kernel);
        error.vmap_purges = number(baseline.purges_model.abs_diff(baseline.purges_kernel));
    }
    if vmap.samples == 0 {
        return;
    }
    model.vmap_areas = number(vmap.areas_model);
    kernel.vmap_areas = number(vmap.areas_kernel);
    error.vmap_areas = number(baseline.areas_model.abs_diff(baseline.areas_kernel));
    model.vmap_size_bytes = number(vmap.bytes_model);
    kernel.vmap_size_bytes = number(vmap.bytes_kernel);
    error.vmap_size_bytes = number(baseline.bytes_model.abs_diff(baseline.bytes_kernel));
    model.vmap_largest_hole_bytes = number(vmap.largest_hole_model_bytes);
    kernel.vmap_largest_hole_bytes = number(vmap.largest_hole_kernel_bytes);
    let (hole, kernel_hole) =
        (baseline.largest_hole_model_bytes, baseline.largest_hole_kernel_bytes);
    error.vmap_largest_hole_bytes = number(hole.abs_diff(kernel_hole));
}
