//! The model against the kernel on every sample trace, within the tolerance that stands beside the
//! trace; and the generated pages that tell of it.
//!
//! A tolerance that has become more than twice too wide fails too: tighten it.
//! `UPDATE_DOCS=1 cargo test --release --test suite fidelity` rewrites the pages.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use kmemlab_replay::stack::{CacheOutcome, StackOptions, StackOutcome, replay_stack};
use kmemlab_replay::{Options, Outcome, replay};
use kmemlab_trace::Recording;

/// `NAME.toml` beside `NAME.kmt`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    about: About,
    expect: Expect,
}

/// Where the trace comes from.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    workload: String,
    recipe: String,
    kernel: String,
    machine: String,
    date: String,
    lost_events: u64,
}

/// What is tolerated.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    mirror_inexact_samples_max: u64,
    mirror_wrong_pages_max: u64,
    model_order_error_mean_percent_max: f64,
    model_order_error_worst_percent_max: f64,
    model_pfn_exact_percent_min: f64,
    model_same_pageblock_percent_min: f64,
}

struct Result {
    name: String,
    sample: Sample,
    outcome: Outcome,
    stack: StackOutcome,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn samples() -> Vec<Result> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(root().join("sample-traces"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "kmt"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(path.with_extension("toml"))
                .unwrap_or_else(|error| panic!("{} has no .toml: {error}", path.display()));
            let recording = Recording::open(&path, false).unwrap();
            let options = Options { check: true, ..Options::default() };
            let outcome = replay(&recording, &options, &mut |_| {}).unwrap();
            let stack = replay_stack(&recording, &StackOptions::default(), &mut |_, _| {});
            let stack = stack.unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            Result { name, sample: toml::from_str(&text).unwrap(), outcome, stack }
        })
        .collect()
}

#[test]
fn every_sample_trace_is_replayed_within_its_tolerance() {
    let mut failures = String::new();
    for Result { name, sample, outcome, .. } in samples() {
        let (expect, mirror, model) = (&sample.expect, &outcome.mirror, &outcome.model);
        let mut most = |what: &str, found: f64, limit: f64, slack: f64| {
            if found > limit {
                let _ =
                    writeln!(failures, "{name}: {what} is {found}, at most {limit} is tolerated");
            } else if limit > 2.0 * found + slack {
                let _ = writeln!(failures, "{name}: {what} is {found}: tighten its limit {limit}");
            }
        };
        let inexact = mirror.samples - mirror.exact_samples;
        most(
            "mirror's inexact samples",
            inexact as f64,
            expect.mirror_inexact_samples_max as f64,
            0.5,
        );
        let wrong = mirror.wrong_pages.expect("a sample trace ends with a page map");
        most("mirror's wrong pages", wrong as f64, expect.mirror_wrong_pages_max as f64, 2.0);
        most(
            "model's mean order error",
            model.order_error_mean_percent,
            expect.model_order_error_mean_percent_max,
            0.05,
        );
        most(
            "model's worst order error",
            model.order_error_worst_percent,
            expect.model_order_error_worst_percent_max,
            0.1,
        );
        let away = 100.0 - model.placement.exact_percent();
        most(
            "share away from the kernel's page",
            away,
            100.0 - expect.model_pfn_exact_percent_min,
            0.5,
        );
        let away = 100.0 - model.placement.same_block_percent();
        let limit = 100.0 - expect.model_same_pageblock_percent_min;
        most("share away from the kernel's pageblock", away, limit, 0.5);
        most("lost events", outcome.lost_events as f64, sample.about.lost_events as f64, 0.5);
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn the_pages_about_fidelity_tell_what_the_traces_give_now() {
    let results = samples();
    if results.is_empty() && !is_update() {
        return crate::support::skipped("there are no sample-traces/*.kmt to tell of");
    }
    let table = table(&results);
    check(&root().join("docs/fidelity.md"), &page(&results, &table));
    let readme = root().join("README.md");
    let text = std::fs::read_to_string(&readme).unwrap();
    let (begin, end) = ("<!-- fidelity:begin -->\n", "<!-- fidelity:end -->");
    let (before, rest) = text.split_once(begin).expect("README.md has the fidelity markers");
    let (_, after) = rest.split_once(end).expect("README.md has the fidelity markers");
    check(&readme, &format!("{before}{begin}{table}{end}{after}"));
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1")
}

fn check(path: &Path, wanted: &str) {
    let found = std::fs::read_to_string(path).unwrap_or_default();
    if found == wanted {
        return;
    }
    if is_update() {
        std::fs::write(path, wanted).unwrap();
        return;
    }
    panic!(
        "{} is stale: run UPDATE_DOCS=1 cargo test --release --test suite fidelity",
        path.display()
    );
}

fn table(results: &[Result]) -> String {
    let mut text = String::from(
        "| trace | events | lost | mirror: exact samples | mirror: wrong pages of free | \
         order error, mean / worst | at the kernel's page | in its pageblock |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for Result { name, outcome, .. } in results {
        let (mirror, model) = (&outcome.mirror, &outcome.model);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} of {} | {} of {} | {:.2} % / {:.2} % | {:.1} % | {:.1} % |",
            outcome.events,
            outcome.lost_events,
            mirror.exact_samples,
            mirror.samples,
            mirror.wrong_pages.unwrap_or(0),
            mirror.free_pages,
            model.order_error_mean_percent,
            model.order_error_worst_percent,
            model.placement.exact_percent(),
            model.placement.same_block_percent(),
        );
    }
    text
}

fn page(results: &[Result], table: &str) -> String {
    let mut text = format!(
        "# Fidelity\n\n\
         Generated by `UPDATE_DOCS=1 cargo test --release --test suite fidelity`; a test fails when it\n\
         is stale. Every number is what `kmemlab replay` prints for the sample trace.\n\n\
         ## All traces\n\n{table}\n"
    );
    for Result { name, sample, outcome, stack } in results {
        let about = &sample.about;
        let _ = writeln!(
            text,
            "## {name}\n\n{} Recorded on {} ({}, {}) by `{}`.\n",
            about.workload, about.kernel, about.machine, about.date, about.recipe
        );
        details(&mut text, outcome);
        layers(&mut text, stack);
    }
    // One line end at the end of the page.
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The layers above the pages: caches whose new slabs are near the kernel's, objects, areas.
fn layers(text: &mut String, stack: &StackOutcome) {
    let (slab, vmap) = (&stack.baseline.slab, &stack.baseline.vmap);
    let off =
        |model: u64, kernel: u64, percent: u64| model.abs_diff(kernel) * 100 > kernel * percent;
    let busy = slab.caches.iter().filter(|cache| cache.new_slabs_kernel >= 100);
    let near = busy.clone().filter(|c| !off(c.new_slabs_model, c.new_slabs_kernel, 2)).count();
    let calm = slab.caches.iter().filter(|cache| cache.new_slabs_kernel < 100);
    let close = calm.clone().filter(|c| {
        let (model, kernel) = (c.new_slabs_model, c.new_slabs_kernel);
        model.abs_diff(kernel) <= 1 || !off(model, kernel, 5)
    });
    let is_exact = |c: &&CacheOutcome| c.active_objects_model == c.active_objects_kernel;
    let exact = slab.caches.iter().filter(is_exact).count();
    let _ = writeln!(text, "| above the pages (`replay --stack`) | |\n|---|---|");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    row("caches of 100 new slabs or more, within 2 %", format!("{near} of {}", busy.count()));
    row(
        "other caches, within a slab or 5 %",
        format!("{} of {}", close.count(), calm.clone().count()),
    );
    row("caches with the kernel's active objects", format!("{exact} of {}", slab.caches.len()));
    row(
        "slab pages, error mean / worst",
        format!("{:.2} / {:.2} %", slab.pages_error_percent, slab.pages_error_worst_percent),
    );
    row(
        "vmalloc purges, kernel / model",
        format!("{} / {}", vmap.purges_kernel, vmap.purges_model),
    );
    row(
        "vmalloc areas at the kernel's address",
        format!("{:.1} % of {}", vmap.address_exact_percent(), vmap.allocs),
    );
    row(
        "readings of `/proc/vmallocinfo` met exactly",
        format!("{} of {}", vmap.exact_samples, vmap.samples),
    );
    text.push('\n');
}

fn details(text: &mut String, outcome: &Outcome) {
    let (mirror, model) = (&outcome.mirror, &outcome.model);
    let (residue, hits) = (&mirror.residue, &mirror.pcp_hits);
    let _ = writeln!(text, "| metric | value |\n|---|---|");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    row(
        "unmatched frees, allocations",
        format!("{}, {}", residue.unmatched_frees, residue.unmatched_allocs),
    );
    row("allocations at their list's head", format!("{} of {}", hits.at_head, hits.pops));
    row("drains at their list's tail", format!("{} of {}", hits.at_tail, hits.drains));
    row(
        "pages found without an event: bulk, direct frees, hidden",
        format!("{}, {}, {}", residue.bulk_pages, residue.direct_frees, residue.hidden_takes),
    );
    row(
        "per-CPU list lengths equal to `/proc/zoneinfo`, worst difference",
        format!(
            "{} of {}, {} pages",
            mirror.pcp_counts.equal, mirror.pcp_counts.compared, mirror.pcp_counts.worst_pages
        ),
    );
    row(
        "hidden refills, pages",
        format!("{}, {}", mirror.table.hidden_refills, mirror.table.hidden_refill_pages),
    );
    row(
        "order-0 allocations at the kernel's page",
        format!("{:.2} %", model.placement.order0_exact_percent()),
    );
    for error in &model.unusable {
        row(
            &format!("unusable free space index, order {}, mean / worst", error.order),
            format!("{:.2} / {:.2} points", error.mean_points, error.worst_points),
        );
    }
    let (kernel, own) = (&model.fallback.kernel, &model.fallback.model);
    row(
        "fallbacks, kernel / model: whole claims, small claims, steals",
        format!(
            "{} / {}, {} / {}, {} / {}",
            kernel.whole_claims,
            own.whole_claims,
            kernel.small_claims,
            own.small_claims,
            kernel.steals,
            own.steals
        ),
    );
    row(
        "refills, kernel / model, of equal size",
        format!(
            "{} / {}, {:.1} %",
            model.moved.kernel_refills,
            model.moved.model_refills,
            model.moved.equal_refills_percent()
        ),
    );
    row(
        "drains, kernel / model, of equal size",
        format!(
            "{} / {}, {:.1} %",
            model.moved.kernel_drains,
            model.moved.model_drains,
            model.moved.equal_drains_percent()
        ),
    );
    row(
        "failed requests, kernel / model",
        format!("{} / {}", model.kernel_failures, model.counts.all_failures()),
    );
    row(
        "wakes of kswapd, kernel / model",
        format!("{} / {}", model.kernel_kswapd_wakes, model.counts.kswapd_wakes),
    );
    let drift: Vec<String> = model
        .drift
        .iter()
        .map(|point| {
            format!("{:.1} s: {:.2} %", point.since_ns as f64 / 1e9, point.order_error_percent)
        })
        .collect();
    row("order error over time", drift.join(", "));
    text.push('\n');
}
