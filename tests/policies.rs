//! Policies from the command line to the comparison.

use serde_json::Value;

use crate::support::{Folder, kmemlab, number, replay, sample_trace};

/// The policies of the page allocator; those above it need `--stack` (`stack.rs`).
fn all() -> Vec<String> {
    let listed: Value = kmemlab(["policies", "--json"]).done().json();
    let policies = listed["policies"].as_array().unwrap().iter();
    let of_pages = |policy: &&Value| policy["role"] != "slab" && policy["role"] != "vmap";
    policies.filter(of_pages).map(|policy| policy["name"].as_str().unwrap().to_owned()).collect()
}

/// Every policy runs over a sample trace without breaking a law, beside a baseline that it does not
/// change.
#[test]
fn every_policy_replays_a_sample_trace() {
    let trace = sample_trace("fork-open");
    let alone = replay(&trace, &[]);
    let names = all();
    assert!(names.len() >= 15, "{names:?}");
    let mut args = vec!["--check"];
    for name in &names {
        args.extend(["--policy", name.as_str()]);
    }
    let told = replay(&trace, &args);
    let runs = told["policies"].as_array().unwrap();
    assert_eq!(runs.len(), names.len());
    for key in ["order_error_mean_percent", "pfn_exact_percent", "refills", "drains"] {
        assert_eq!(alone["model"][key], told["model"][key], "{key}");
    }
    for run in runs {
        let name = run["name"].as_str().unwrap();
        assert_eq!(number(run, "allocs"), number(&told, "model.allocs"), "{name}");
        assert_eq!(number(run, "double_frees"), 0, "{name}");
    }
    // What the recorded kernel does anyway changes nothing.
    for same in ["highest-zone-first", "last-freed-first", "claim-then-steal", "percpu-auto"] {
        let run = runs.iter().find(|run| run["name"] == same).unwrap();
        assert_eq!(run["pfn_exact_percent"], told["model"]["pfn_exact_percent"], "{same}");
    }
}

#[test]
fn runs_are_written_and_compared_with_the_model_s_error() {
    let trace = sample_trace("pressure");
    let folder = Folder::new("policies");
    let out = folder.join("runs");
    let file = folder.join("tight.toml");
    std::fs::write(&file, "[percpu]\npolicy = \"percpu-off\"\n").unwrap();
    let (file, out_text) = (file.to_str().unwrap(), out.to_str().unwrap());
    let told = replay(&trace, &["--policy", file, "-o", out_text]);
    assert_eq!(told["policies"][0]["name"], "tight");
    let (base, tight) = (out.join("baseline.kmt"), out.join("tight.kmt"));
    let compare = |a: &std::path::Path, b: &std::path::Path| -> Value {
        kmemlab(["compare", "--json", a.to_str().unwrap(), b.to_str().unwrap()]).done().json()
    };
    // Against itself: nothing.
    let same = compare(&base, &base);
    assert!(same["metrics"].as_array().unwrap().iter().all(|m| m["verdict"] == "equal"));
    // The baseline against the kernel differs by the model's own error, and by no more.
    let own = compare(&trace, &base);
    assert_eq!(own["same_events"], true);
    for metric in own["metrics"].as_array().unwrap() {
        let verdict = metric["verdict"].as_str().unwrap();
        assert!(["equal", "within error"].contains(&verdict), "{metric}");
    }
    assert_eq!(own["order_difference_percent"], own["order_error_percent"]);
    // Without per-CPU lists there are no refills, which no error explains.
    let policies = compare(&base, &tight);
    let metrics = policies["metrics"].as_array().unwrap();
    let refills = metrics.iter().find(|metric| metric["name"] == "refills").unwrap();
    assert_eq!((refills["b"].as_f64(), refills["verdict"].as_str()), (Some(0.0), Some("other")));
    // A run has no events to replay, and is not overwritten unasked.
    kmemlab(["replay", base.to_str().unwrap()]).refused(&["is a model's run", "compare"]);
    kmemlab(["replay", trace.to_str().unwrap(), "-o", out_text]).refused(&["exists"]);
    let told = kmemlab(["info", "--json", base.to_str().unwrap()]).done().json();
    assert_eq!(told["origin"], "model");
}

#[test]
fn recordings_of_different_events_are_compared_without_an_error_bar() {
    let (a, b) = (sample_trace("fork-open"), sample_trace("slab-churn"));
    let args = ["compare", "--json", a.to_str().unwrap(), b.to_str().unwrap()];
    let told: Value = kmemlab(args).done().json();
    assert_eq!(told["same_events"], false);
    assert_eq!(told["order_difference_percent"], Value::Null);
    assert!(told["metrics"].as_array().unwrap().iter().all(|m| m["model_error"].is_null()));
    assert!(told["notes"][0].as_str().unwrap().contains("different events"), "{told:#}");
}

#[test]
fn bad_policies_are_refused_in_one_sentence() {
    let trace = sample_trace("fork-open");
    let folder = Folder::new("bad-policies");
    let file = folder.join("bad.toml");
    std::fs::write(&file, "[percpu]\npolicy = \"never-mix\"\n").unwrap();
    for (policy, part) in [
        ("nevermix", "did you mean never-mix?"),
        ("percpu-fixed=batch=0", "batch=0"),
        ("percpu-off+percpu-auto", "choose one"),
        ("missing.toml", "cannot be read"),
        (file.to_str().unwrap(), "is a policy of [fallback]"),
    ] {
        kmemlab(["replay", trace.to_str().unwrap(), "--policy", policy]).refused(&[part]);
    }
}

#[test]
fn the_screen_holds_two_policies_against_the_kernel() {
    let trace = sample_trace("pressure");
    let trace = trace.to_str().unwrap();
    let two = ["tui", "--once", trace, "--policy", "lowest-address", "--policy", "percpu-off"];
    let shown = kmemlab(two).done().stdout;
    assert!(shown.contains("A: lowest-address; B: percpu-off"), "{shown}");
    let one = ["tui", "--once", trace, "--policy", "percpu-off"];
    let shown = kmemlab(one).done().stdout;
    assert!(shown.contains("A: the baseline; B: percpu-off"), "{shown}");
    let three = ["tui", "--once", trace, "--policy", "slob"];
    kmemlab(three).refused(&["slob acts above the pages", "--stack"]);
}
