//! The layers above pages: on the sample traces within their tolerance, on a live kernel as far as
//! a noisy host allows, and on recordings that lack half of what they need.

use std::path::{Path, PathBuf};

use kmemlab_replay::stack::{Cause, StackOptions, replay_stack};
use kmemlab_trace::Recording;
use kmemlab_trace::direct_map::{DirectMap, infer};
use serde_json::Value;

use crate::support::{
    Folder, Load, info, kmemlab, may_record, number, one_at_a_time, replay, sample_traces, skipped,
};
use crate::synthetic::{Ending, Synthetic};

#[track_caller]
fn stack(recording: &Path, more: &[&str]) -> Value {
    let path = recording.to_str().unwrap();
    kmemlab([&["replay", "--stack", "--json", path], more].concat()).done().json()
}

fn real(value: &Value, path: &str) -> f64 {
    let found = path.split('.').fold(value, |value, key| &value[key]);
    found.as_f64().unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

/// How far the stack may be from the kernel on a sample trace.
struct Tolerance {
    trace: &'static str,
    /// Caches (of those with new slabs) that may be off by more than a slab or 5 %.
    caches_off: usize,
    pages_error_percent: f64,
    order_error_percent: f64,
}

const TOLERANCES: [Tolerance; 2] = [
    Tolerance {
        trace: "fork-open",
        // maple_node: its objects are freed into sheaves by kfree_rcu, which no event tells.
        caches_off: 1,
        pages_error_percent: 0.05,
        order_error_percent: 0.006,
    },
    Tolerance {
        trace: "slab-churn",
        caches_off: 0,
        pages_error_percent: 0.05,
        order_error_percent: 0.15,
    },
];

fn sample(name: &str) -> Option<PathBuf> {
    sample_traces().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name))
}

/// |model - kernel| is more than a slab and more than so many percent.
fn is_off(cache: &Value, percent: u64) -> bool {
    let model = number(cache, "new_slabs_model");
    let kernel = number(cache, "new_slabs_kernel");
    let away = model.abs_diff(kernel);
    away > 1 && away * 100 > kernel * percent
}

#[test]
fn the_stack_follows_the_sample_traces() {
    for tolerance in TOLERANCES {
        let Some(path) = sample(tolerance.trace) else { continue };
        let told = stack(&path, &["--check"]);
        assert_eq!(told["direct_map_base"], "0xffff888000000000", "{}", tolerance.trace);
        assert_eq!(info(&path, &[])["direct_map_base"], told["direct_map_base"]);
        assert_eq!(number(&told, "residue.contradictions"), 0, "{told:#}");
        assert_eq!(number(&told, "residue.unknown_objects"), 0, "{told:#}");
        let caches = told["slab"]["caches"].as_array().unwrap();
        let off: Vec<&Value> = caches.iter().filter(|cache| is_off(cache, 5)).collect();
        assert!(off.len() <= tolerance.caches_off, "{}: {off:#?}", tolerance.trace);
        let most = |path: &str, limit: f64| {
            let found = real(&told, path);
            assert!(found <= limit, "{}: {path} is {found}, not {limit}", tolerance.trace);
        };
        most("slab.pages_error_percent", tolerance.pages_error_percent);
        most("pages.order_error_mean_percent", tolerance.order_error_percent);
        assert!(real(&told, "vmalloc.address_exact_percent") >= 95.0, "{told:#}");
        assert_eq!(told["vmalloc"]["purges_model"], told["vmalloc"]["purges_kernel"]);
        let of = |key| number(&told, &format!("vmalloc.{key}"));
        assert_eq!(of("exact_samples"), of("samples"), "areas and bytes as in vmallocinfo");
        assert_eq!(of("lazy_pages_exact"), of("frees"));
    }
}

/// All that a replay tells, without how fast it went.
fn without_speed(mut told: Value) -> Value {
    for key in ["events_per_second", "learning_ns", "spent_ns"] {
        assert!(told["stack"].as_object_mut().unwrap().remove(key).is_some(), "no {key}");
    }
    told
}

#[test]
fn the_stack_is_a_function_of_the_recording() {
    let Some(path) = sample("slab-churn") else { return };
    let more = ["--policy", "slab", "--policy", "slob+vmap-best-fit"];
    let first = without_speed(stack(&path, &more));
    assert_eq!(first, without_speed(stack(&path, &more)));
}

#[test]
fn every_policy_above_the_pages_runs_and_says_what_it_is() {
    let Some(path) = sample("slab-churn") else { return };
    let listed = kmemlab(["policies", "--json"]).done().json();
    for policy in listed["policies"].as_array().unwrap() {
        if !["slab", "vmap"].contains(&policy["role"].as_str().unwrap()) {
            continue;
        }
        let name = policy["name"].as_str().unwrap();
        let told = stack(&path, &["--policy", name]);
        let run = &told["policies"][0];
        assert_eq!(run["policies"][0]["name"], name, "{run:#}");
        assert!(number(run, "slab.pages_model") > 0, "{name}");
        assert_eq!(number(run, "pages.failures"), 0, "{name}");
        let baseline = ["slub", "vmap-recorded"].contains(&name);
        assert!(!baseline || run["slab"] == told["slab"], "{name} is the baseline");
    }
}

/// Slabs so large that the guest's broken memory has no block for them: they get the least order.
#[test]
fn large_slabs_fall_back_where_the_page_model_has_no_block() {
    let Some(path) = sample("guest-6.12") else { return };
    let told = stack(&path, &["--check", "--policy", "slub-tuned=max_order=9,min_objects=30000"]);
    let of = |run: &Value, key: &str| number(run, &format!("slab.{key}"));
    assert_eq!((of(&told, "min_order_model"), of(&told, "min_order_kernel")), (0, 0), "{told:#}");
    let run = &told["policies"][0];
    let (least, taken) = (of(run, "min_order_model"), number(run, "pages.allocs"));
    assert!(least > 0 && least <= taken, "{least} of {taken}");
}

/// Slabs of one page hold what the kernel's held: packed, or with the free room between.
#[test]
fn a_layer_may_begin_with_the_free_room_that_the_kernel_had() {
    let Some(path) = sample("fork-open") else { return };
    for name in ["slub-order0", "slab", "slob"] {
        let (compact, spread) = (format!("{name}=start=compact"), format!("{name}=start=spread"));
        let told = stack(&path, &["--policy", name, "--policy", &compact, "--policy", &spread]);
        let runs = told["policies"].as_array().unwrap();
        assert_eq!(runs[0]["slab"], runs[1]["slab"], "{name}: compact if nothing is said");
        let pages = |run: &Value| number(run, "slab.pages_model");
        assert!(pages(&runs[2]) > pages(&runs[1]), "{name}: {runs:#?}");
    }
    kmemlab(["replay", "--stack", path.to_str().unwrap(), "--policy", "slab=start=loose"])
        .refused(&["start=loose", "compact, spread"]);
}

#[test]
fn policies_above_the_pages_need_the_stack() {
    let Some(path) = sample("slab-churn") else { return };
    let path = path.to_str().unwrap();
    kmemlab(["replay", path, "--policy", "slob"]).refused(&["slob", "--stack"]);
    kmemlab(["replay", "--stack", path, "--policy", "slub-tuned=max_order=99"])
        .refused(&["max_order=99"]);
    kmemlab(["replay", "--stack", path, "--policy", "vmap-lazy=areas=3"]).refused(&["areas"]);
    // A recording made before the recorder told which caches are merged.
    kmemlab(["replay", "--stack", path, "--policy", "slub-tuned=merging=no"]).refused(&[
        "merging=no",
        "which slab caches are merged",
        "record again",
    ]);
    kmemlab(["replay", "--stack", path, "--rules", "latest"]).refused(&["latest", "no release"]);
}

/// Rules of the recorded release change nothing; those of another are told row by row.
#[test]
fn the_stack_runs_under_the_rules_of_another_release() {
    let Some(path) = sample("fork-open") else { return };
    let own = without_speed(stack(&path, &[]));
    assert_eq!(
        own["rules"],
        serde_json::json!({"pages": "6.18", "slab": "6.18", "vmalloc": "6.14"})
    );
    let mut same = without_speed(stack(&path, &["--rules", "6.18"]));
    assert!(same["notes"].to_string().contains("slabs and kmalloc of 6.18 (0 of"), "{same:#}");
    same["notes"] = own["notes"].clone();
    assert_eq!(own, same, "the recorded release's rules, forced");
    let old = stack(&path, &["--check", "--rules", "5.10"]);
    assert_eq!(
        old["rules"],
        serde_json::json!({"pages": "5.10", "slab": "5.10", "vmalloc": "5.10"})
    );
    assert_eq!(old["residue"], own["residue"], "events mean what they meant");
    let made = |told: &Value, name: &str| {
        let caches = told["slab"]["caches"].as_array().unwrap();
        caches.iter().find(|cache| cache["name"] == name).map(|it| number(it, "events"))
    };
    assert_eq!(made(&old, "kmalloc-cg-64"), made(&own, "kmalloc-cg-64"), "as recorded");
    let slabs = |told: &Value, name: &str| {
        let caches = told["slab"]["caches"].as_array().unwrap().clone();
        let of = |cache: &Value| number(cache, "new_slabs_model");
        caches
            .iter()
            .filter(|it| it["name"].as_str().unwrap().starts_with(name))
            .map(of)
            .sum::<u64>()
    };
    assert_eq!(slabs(&old, "kmalloc-cg-"), 0, "5.10 has none");
    assert!(slabs(&old, "kmalloc-") > slabs(&own, "kmalloc-"), "accounted ones go there too");
    let pool_hits = |told: &Value| number(told, "vmalloc.pool_hits");
    assert!(pool_hits(&own) > 0 && pool_hits(&old) == 0, "5.10 has no pools");
    let text = kmemlab(["replay", "--stack", "--rules", "6.1", path.to_str().unwrap()]).done();
    let text = text.stdout;
    assert!(text.contains("pages of 5.18, slabs and kmalloc of 5.16"), "{text}");
}

#[test]
fn without_objects_the_pages_are_replayed_with_a_note() {
    let folder = Folder::new("stack-pages");
    let recording = Synthetic::write(&folder.join("pages.kmt"), Ending::Clean);
    let told = stack(&recording.path, &[]);
    let notes = told["notes"].to_string();
    assert!(notes.contains("direct map could not be inferred"), "{told:#}");
    assert!(notes.contains("no vmalloc events are recorded"), "{told:#}");
    assert_eq!(number(&told, "recognised.page_allocs"), 0);
    assert_eq!(told["direct_map_base"], Value::Null);
    let plain = replay(&recording.path, &[]);
    for key in ["order_error_mean_percent", "pfn_exact_percent"] {
        assert_eq!(told["pages"][key], plain["model"][key], "the layers ask for nothing");
    }
    let Some(path) = sample("pressure") else { return };
    let told = stack(&path, &[]);
    assert!(told["notes"].to_string().contains("no object events are recorded"), "{told:#}");
}

/// Older recordings have none; a wrong one is told and not followed.
#[test]
fn a_stored_base_of_the_direct_map_is_held_against_the_events() {
    let Some(path) = sample("slab-churn") else { return };
    let told = info(&path, &[]);
    assert_eq!(told["direct_map_is_stored"], false);
    assert_eq!(told["direct_map_found_by"], "slab pages", "{told:#}");
    let folder = Folder::new("stack-base");
    let copy = folder.join("copy.kmt");
    crate::synthetic::copy(&path, &copy);
    let recording = kmemlab_trace::Recording::open(&copy, false).unwrap();
    let mut manifest = recording.manifest().clone();
    let mut map = infer(&recording, u64::MAX).unwrap().unwrap();
    let store = |manifest: &mut kmemlab_trace::Manifest, map: &DirectMap| {
        manifest.set_direct_map(map);
        kmemlab_trace::writer::amend(&copy, manifest).unwrap();
    };
    store(&mut manifest, &map);
    assert_eq!(info(&copy, &[])["direct_map_is_stored"], true);
    assert!(!stack(&copy, &[])["notes"].to_string().contains("direct map begins"));
    map.base += 1 << 30;
    store(&mut manifest, &map);
    let told = stack(&copy, &[]);
    assert!(told["notes"].to_string().contains("direct map begins at 0xffff8880400"), "{told:#}");
    assert_eq!(told["direct_map_base"], "0xffff888000000000", "the events are followed");
}

#[test]
fn a_live_host_is_followed() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("stack-live");
    let output = folder.join("live.kmt");
    let load = Load::start();
    let path = output.to_str().unwrap();
    kmemlab(["record", "--slab-detail", "--ring", "32M", "-d", "2s", "-o", path]).done();
    drop(load);
    let told = stack(&output, &["--policy", "slub-tuned=merging=no"]);
    let apart = &told["policies"][0]["slab"]["apart"];
    assert_eq!(told["slab"]["apart"], Value::Null);
    if !apart.is_null() {
        // Every object of the baseline is served, from more caches.
        assert!(number(apart, "merged_caches") > 0, "{apart:#}");
        let live = |run: &Value| {
            let caches = run["slab"]["caches"].as_array().unwrap().clone();
            (caches.len(), caches.iter().map(|cache| number(cache, "events")).sum::<u64>())
        };
        let (own, others) = (live(&told), live(&told["policies"][0]));
        let made = number(apart, "caches_by_name") + number(apart, "caches_by_function");
        assert_eq!((own.0 as u64 + made, own.1), (others.0 as u64, others.1), "{apart:#}");
    }
    let notes = &info(&output, &[])["notes"];
    assert!(notes.to_string().contains("--slab-detail"), "the manifest says it: {notes:#}");
    assert!(told["direct_map_base"].is_string(), "{:#}", told["residue"]);
    let facts = info(&output, &[]);
    assert_eq!(facts["direct_map_is_stored"], true, "{facts:#}");
    assert_eq!(facts["direct_map_base"], told["direct_map_base"]);
    assert!(number(&facts, "direct_map_votes") * 100 >= number(&facts, "direct_map_votes_of") * 80);
    let objects = number(&told, "residue.object_events");
    assert!(objects > 1000, "{:#}", told["residue"]);
    assert!(number(&told, "residue.unknown_objects") * 1000 <= objects, "{:#}", told["residue"]);
    assert!(number(&told, "residue.contradictions") * 1000 <= objects, "{:#}", told["residue"]);
    let caches = told["slab"]["caches"].as_array().unwrap();
    assert!(caches.iter().any(|cache| number(cache, "slabs_kernel") > 0));
    for cache in caches.iter().filter(|cache| cache["cause"].is_null()) {
        // A cache whose every event was seen; other tests shake the host, so not to the last slab.
        let is_busy = number(cache, "new_slabs_kernel") >= 100;
        assert!(!is_busy || !is_off(cache, 5), "{cache:#}");
    }
    let of = |key| number(&told, &format!("vmalloc.{key}"));
    // A free that is being told while the file is read is one area more or less.
    let away = of("areas_model").abs_diff(of("areas_kernel"));
    assert!(away <= 2, "{:#}", told["vmalloc"]);
    // An area that is being built while the file is read is not in it (6.14 and later); its
    // allocation was told of before the recording began. One for each processor's thread.
    assert!(of("unknown_frees") <= 2, "{:#}", told["vmalloc"]);
    if of("allocs") >= 100 {
        assert!(real(&told, "vmalloc.address_exact_percent") >= 95.0, "{:#}", told["vmalloc"]);
    }
}

#[test]
fn objects_without_pages_are_replayed_with_a_note() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("stack-objects");
    let output = folder.join("objects.kmt");
    let path = output.to_str().unwrap();
    kmemlab(["record", "--events", "slab", "-d", "500ms", "-o", path]).done();
    let told = stack(&output, &[]);
    let notes = told["notes"].to_string();
    assert!(notes.contains("no page events are recorded"), "{told:#}");
    assert!(notes.contains("no vmalloc events are recorded"), "{told:#}");
    assert!(number(&told, "residue.object_events") > 0, "{told:#}");
    assert_eq!(told["pages"], Value::Null);
}

#[test]
fn runs_of_the_stack_are_written_and_compared_with_its_error() {
    let Some(trace) = sample("slab-churn") else { return };
    let folder = Folder::new("stack-runs");
    let out = folder.join("runs");
    let out_text = out.to_str().unwrap();
    let policies = ["--policy", "slub-order0", "--policy", "slob", "--policy", "slab"];
    let told = stack(&trace, &[&["-o", out_text], &policies[..]].concat());
    let base = out.join("baseline.kmt");
    let compare = |a: &Path, b: &Path| -> Value {
        kmemlab(["compare", "--json", a.to_str().unwrap(), b.to_str().unwrap()]).done().json()
    };
    let metric = |compared: &Value, name: &str| -> Option<Value> {
        let mut metrics = compared["metrics"].as_array().unwrap().iter();
        metrics.find(|metric| metric["name"] == name).cloned()
    };
    // The baseline against the kernel differs by the stack's own error, and by no more.
    let own = compare(&trace, &base);
    let names = ["slab_pages_mean", "slab_waste_mean_bytes", "slab_new_slabs", "vmap_areas"];
    for name in names {
        let metric = metric(&own, name).unwrap();
        assert!(metric["a"].as_f64().unwrap() > 0.0, "{metric}");
        assert!(
            ["equal", "within error"].contains(&metric["verdict"].as_str().unwrap()),
            "{own:#}"
        );
    }
    for name in ["slab_sparse_slabs", "slab_partial_waste_bytes", "slab_ping_pong_slabs"] {
        let metric = metric(&own, name).unwrap();
        assert!(
            ["equal", "within error"].contains(&metric["verdict"].as_str().unwrap()),
            "{metric:#}"
        );
    }
    // Smaller slabs: more of them. The layer began with full ones, which is no merit of the policy.
    let smaller = compare(&base, &out.join("slub-order0.kmt"));
    let made = metric(&smaller, "slab_new_slabs").unwrap();
    assert_eq!(made["verdict"], "other", "{made}");
    assert!(made["difference"].as_f64() > made["model_error"].as_f64(), "{made}");
    assert!(smaller["notes"].to_string().contains("of B began with full slabs"), "{smaller:#}");
    let caches = told["slab"]["caches"].as_array().unwrap();
    let told: u64 = caches.iter().map(|cache| number(cache, "new_slabs_model")).sum();
    assert_eq!(made["a"].as_f64(), Some(told as f64));
    assert!(metric(&smaller, "slab_sparse_slabs").unwrap()["model_error"].is_number());
    // SLOB has no slabs of a cache, and what was there before is told by its pages alone.
    let slob = compare(&base, &out.join("slob.kmt"));
    assert!(
        metric(&slob, "slab_sparse_slabs").is_none() && metric(&slob, "slab_new_slabs").is_none()
    );
    assert!(metric(&slob, "slab_pages_mean").unwrap()["b"].as_f64().unwrap() > 0.0);
    kmemlab(["replay", "--stack", trace.to_str().unwrap(), "-o", out_text]).refused(&["exists"]);
}

#[test]
fn an_export_tells_the_caches_where_objects_were_recorded() {
    if !cfg!(feature = "export") {
        return skipped("kmemlab export, which this build lacks");
    }
    for (name, has_slabs) in [("slab-churn", true), ("pressure", false)] {
        let Some(path) = sample(name) else { continue };
        let folder = Folder::new(&format!("stack-export-{name}"));
        let out = folder.join("out");
        let args = ["export", "--json", "--parquet", out.to_str().unwrap(), path.to_str().unwrap()];
        let told: Value = kmemlab(args).done().json();
        let rows = |file: &str| {
            let mut files = told["files"].as_array().unwrap().iter();
            files.find(|it| it["file"] == file).map(|it| number(it, "rows"))
        };
        // Every cache at every sample, in the kernel and in the model.
        let kernel = rows("slabinfo.parquet").map(|rows| rows * 2);
        assert_eq!(rows("slab_comparison.parquet"), kernel.filter(|_| has_slabs), "{told:#}");
        assert!(rows("slab_comparison.parquet").is_some() == has_slabs, "{told:#}");
    }
}

#[test]
fn a_layer_holds_as_many_objects_as_the_kernel_where_every_event_is_seen() {
    let options = StackOptions { without_pages: true, ..StackOptions::default() };
    let mut events = 0;
    for trace in sample_traces() {
        let recording = Recording::open(&trace, false).unwrap();
        let outcome = replay_stack(&recording, &options, &mut |_, _| {}).unwrap();
        let caches = &outcome.baseline.slab.caches;
        let complete: Vec<_> =
            caches.iter().filter(|cache| cache.cause == Cause::Complete).collect();
        for cache in complete {
            let (held, kernel) = (cache.occupancy.live, cache.occupancy_kernel.live);
            events += cache.events;
            assert_eq!(held, kernel, "{} of {}", cache.name, trace.display());
        }
    }
    assert!(events > 100_000, "{events} events only");
}
