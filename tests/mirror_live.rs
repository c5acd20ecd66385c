//! The mirror on recordings of this machine: huge pages from the pool, gigantic pages, compaction,
//! forks and files.
//!
//! Other commands run meanwhile, and on some machines threads that no tracer shows: what they move
//! is told as residue of their own causes. The bounds below hold in spite of them.

use std::fs;

use serde_json::Value;

use crate::support::{
    Folder, at, info, kmemlab, may_record, number, one_at_a_time, replay, skipped,
};

/// Pages that a few refills of unseen threads may put wrong.
const NOISE_PAGES: u64 = 1024;
const GIGANTIC: &str = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages";

/// Puts a setting back when the test is over, however it ends.
struct Restored {
    path: &'static str,
    before: String,
}

impl Restored {
    fn of(path: &'static str) -> Self {
        Self { path, before: fs::read_to_string(path).unwrap() }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = fs::write(self.path, &self.before);
    }
}

/// Pages of the rows of residue with one of these causes that came to light there.
fn pages(replayed: &Value, evidence: &str, causes: &[&str]) -> u64 {
    let sums = at(replayed, "mirror.residue_by_cause").and_then(Value::as_array).unwrap();
    let fitting = sums.iter().filter(|sum| {
        sum["evidence"] == evidence && causes.contains(&sum["cause"].as_str().unwrap())
    });
    fitting.map(|sum| number(sum, "pages_over") + number(sum, "pages_under")).sum()
}

/// Records a script and replays it; what must hold after any workload is asserted here.
#[track_caller]
fn follow(folder: &Folder, script: &str) -> Value {
    let output = folder.join("live.kmt");
    let path = output.to_str().unwrap();
    let groups = "page,compaction,reclaim";
    let args = ["record", "--force", "--events", groups, "--snapshot-every", "50ms", "-o", path];
    kmemlab(args.into_iter().chain(["--", "sh", "-c", script])).done();
    let told = info(&output, &[]);
    assert_eq!(number(&told, "lost_events"), 0, "{told:#}");
    assert_eq!(number(&told, "command_exit_status"), 0, "{told:#}");
    let replayed = replay(&output, &["--check"]);
    let of = |key: &str| number(&replayed, &format!("mirror.{key}"));
    assert!(of("samples") > 0, "{replayed:#}");
    assert!(of("pcp_counts_compared") > 0, "{replayed:#}");
    // Few of them may be off, and of a short recording's few hundred some always are. Nothing tells
    // in which order the pages stood on the lists that waited there at the start.
    let untold = of("pcp_unknown_pages") + NOISE_PAGES;
    for (part, whole) in [("pcp_pops_at_head", "pcp_pops"), ("pcp_drains_at_tail", "pcp_drains")] {
        let (part, whole) = (of(part), of(whole));
        assert!(part * 10 + untold * 10 >= whole * 9, "{part} of {whole}: {replayed:#}");
    }
    // Each page of the last map that is wrong has a row.
    let reported = pages(&replayed, "map", &["page_reporting"]);
    let causes = ["unseen_allocation", "unseen_free", "direct_free", "isolation", "fast_search"];
    let wrong = pages(&replayed, "map", &causes);
    assert_eq!(wrong + reported, of("wrong_pages"), "pages without a row: {replayed:#}");
    assert!(wrong <= NOISE_PAGES, "{wrong} wrong pages: {replayed:#}");
    replayed
}

#[test]
fn forks_and_files_are_followed() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let folder = Folder::new("forks");
    let file = folder.join("file");
    let file = file.to_str().unwrap();
    let script = format!(
        "for n in $(seq 40); do /bin/true; cat /proc/self/maps >/dev/null; done; \
         head -c 64M /dev/zero >{file}; rm {file}; sleep 0.2"
    );
    let replayed = follow(&folder, &script);
    assert_eq!(number(&replayed, "mirror.residue.unsolved_isolations"), 0, "{replayed:#}");
}

#[test]
fn huge_pages_of_the_pool_come_and_go() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    let pool = Restored::of("/proc/sys/vm/nr_hugepages");
    let (more, before) = (pool.before.trim().parse::<u64>().unwrap() + 40, pool.before.trim());
    let script = format!(
        "echo {more} >{path}; sleep 0.2; echo {before} >{path}; sleep 0.2",
        path = pool.path
    );
    let replayed = follow(&Folder::new("pool"), &script);
    assert_eq!(pages(&replayed, "map", &["isolation"]), 0, "{replayed:#}");
}

#[test]
fn a_gigantic_page_is_isolated_and_freed_in_pageblocks() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    if fs::metadata(GIGANTIC).is_err() {
        return skipped("there are no pages of 1 GiB here");
    }
    let pool = Restored::of(GIGANTIC);
    let before: u64 = pool.before.trim().parse().unwrap();
    let marker = Folder::new("gigantic-marker");
    let got = marker.join("got");
    let script = format!(
        "echo {more} >{GIGANTIC}; cat {GIGANTIC} >{got}; sleep 0.3; \
         echo {before} >{GIGANTIC}; sleep 0.3",
        more = before + 1,
        got = got.to_str().unwrap()
    );
    let replayed = follow(&Folder::new("gigantic"), &script);
    if fs::read_to_string(&got).unwrap().trim() != (before + 1).to_string() {
        return skipped("no contiguous GiB could be had");
    }
    assert_eq!(pages(&replayed, "map", &["isolation"]), 0, "{replayed:#}");
    assert!(pages(&replayed, "event", &["unseen_allocation"]) <= NOISE_PAGES, "{replayed:#}");
}

#[test]
fn compaction_of_all_memory_is_followed() {
    let _one = one_at_a_time();
    if !may_record() {
        return;
    }
    // Memory full of file pages makes compaction move gigabytes, which is followed less well
    // (docs/model.md, known disagreements): what is claimed here is claimed of memory mostly free.
    fs::write("/proc/sys/vm/drop_caches", "3\n").unwrap();
    let script = "head -c 96M /dev/zero | tail -c 96M >/dev/null; \
                  echo 1 >/proc/sys/vm/compact_memory; sleep 0.2";
    let replayed = follow(&Folder::new("compaction"), script);
    let of = |key: &str| number(&replayed, &format!("mirror.residue.{key}"));
    assert!(of("missing_take_pages") <= NOISE_PAGES, "{replayed:#}");
    assert!(of("hidden_take_pages") <= NOISE_PAGES, "{replayed:#}");
}
