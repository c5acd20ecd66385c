//! The layers above pages: on the sample traces within their tolerance, on a live kernel as far as
//! a noisy host allows, and on recordings that lack half of what they need.

use std::path::{Path, PathBuf};

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
        order_error_percent: 0.01,
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

#[test]
fn policies_above_the_pages_need_the_stack() {
    let Some(path) = sample("slab-churn") else { return };
    let path = path.to_str().unwrap();
    kmemlab(["replay", path, "--policy", "slob"]).refused(&["slob", "--stack"]);
    kmemlab(["replay", "--stack", path, "--policy", "slub-tuned=max_order=99"])
        .refused(&["max_order=99"]);
    kmemlab(["replay", "--stack", path, "--policy", "vmap-lazy=areas=3"]).refused(&["areas"]);
    kmemlab(["replay", "--stack", path, "--rules", "6.1"]).refused(&["--stack", "--rules"]);
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
    let told = stack(&output, &[]);
    let notes = &info(&output, &[])["notes"];
    assert!(notes.to_string().contains("--slab-detail"), "the manifest says it: {notes:#}");
    assert!(told["direct_map_base"].is_string(), "{:#}", told["residue"]);
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
    assert_eq!(of("unknown_frees"), 0, "{:#}", told["vmalloc"]);
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
