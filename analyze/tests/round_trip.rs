//! What is exported is what was recorded, value by value.

// Helpers of a test may stop it, as tests may.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "parquet")]

mod small_recording;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kmemlab_analyze::{EVENT_COLUMNS, Error, ExportOptions, export_parquet};
use kmemlab_trace::Recording;
use polars::prelude::{DataFrame, ParquetReader, SerReader};
use small_recording::{Folder, replayed};

fn read(folder: &Path, name: &str) -> DataFrame {
    ParquetReader::new(File::open(folder.join(name)).unwrap()).finish().unwrap()
}

/// A column as text, null as an empty one: what a person compares.
fn cells(frame: &DataFrame, column: &str) -> Vec<String> {
    let series = frame.column(column).unwrap().as_materialized_series();
    series
        .iter()
        .map(|value| if value.is_null() { String::new() } else { value.str_value().into_owned() })
        .collect()
}

fn export(name: &str) -> (Folder, DataFrame) {
    let folder = Folder::new(name);
    let recording = small_recording::write(&folder.0.join("small.kmt"));
    let out = folder.0.join("deep/export");
    let rows = replayed();
    export_parquet(&recording, &out, Some(&rows), &ExportOptions::default()).unwrap();
    let events = read(&out, "events.parquet");
    (folder, events)
}

#[test]
fn columns_are_the_documented_ones_in_their_order() {
    let (_folder, events) = export("columns");
    let names: Vec<String> =
        events.get_column_names().iter().map(|name| name.to_string()).collect();
    let documented: Vec<&str> = EVENT_COLUMNS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, documented);
}

#[test]
fn what_every_event_has() {
    let (_folder, events) = export("fixed");
    // The second batch starts at 5 s: its times are absolute too.
    let times = ["1000", "1007", "1500", "5000000000", "5000000100", "5000000100", "5000000101"];
    assert_eq!(cells(&events, "time_ns"), times);
    assert_eq!(cells(&events, "cpu"), ["1", "1", "1", "1", "1", "0", "1"]);
    assert_eq!(cells(&events, "pid"), ["42"; 7]);
    let kinds = [
        "kmem:mm_page_alloc",
        "kmem:mm_page_alloc",
        "kmem:mm_page_alloc_extfrag",
        "kmem:kmem_cache_alloc",
        "vmalloc:purge_vmap_area_lazy",
        "compaction:mm_compaction_begin",
        "kmem:mm_setup_per_zone_lowmem_reserve",
    ];
    assert_eq!(cells(&events, "kind"), kinds);
    let contexts = ["softirq", "task", "task", "hardirq", "task", "task", "task"];
    assert_eq!(cells(&events, "context"), contexts);
    let recorder = ["false", "false", "false", "true", "false", "false", "false"];
    assert_eq!(cells(&events, "is_recorder"), recorder);
    assert_eq!(cells(&events, "preempt_depth"), ["2", "0", "0", "0", "0", "0", "0"]);
}

#[test]
fn page_frames_and_addresses_are_apart() {
    let (_folder, events) = export("wide");
    // The second allocation failed: it has no page.
    assert_eq!(cells(&events, "pfn"), ["4096", "", "8192", "", "", "1048576", ""]);
    assert_eq!(cells(&events, "end_pfn"), ["", "", "", "", "", "2097152", ""]);
    let object = 0xffff_8881_0000_1000u64.to_string();
    let (start, end) = (0xffff_c900_0000_0000u64.to_string(), 0xffff_c900_0000_3000u64.to_string());
    assert_eq!(cells(&events, "address"), ["", "", "", &object, &start, "", ""]);
    assert_eq!(cells(&events, "end_address"), ["", "", "", "", &end, "", ""]);
}

#[test]
fn what_some_events_have() {
    let (_folder, events) = export("sparse");
    assert_eq!(cells(&events, "order"), ["3", "3", "0", "", "", "", ""]);
    assert_eq!(cells(&events, "fallback_order"), ["", "", "9", "", "", "", ""]);
    assert_eq!(cells(&events, "gfp_flags"), ["3264", "2048", "", "", "", "", ""]);
    // Type 7 has no name in the manifest.
    assert_eq!(cells(&events, "migrate_type"), ["Movable", "7", "Unmovable", "", "", "", ""]);
    assert_eq!(cells(&events, "fallback_migrate_type"), ["", "", "Movable", "", "", "", ""]);
    assert_eq!(cells(&events, "flag"), ["", "", "true", "false", "", "false", ""]);
    assert_eq!(cells(&events, "node"), ["", "", "", "-1", "", "", "0"]);
    assert_eq!(cells(&events, "name"), ["", "", "", "dentry", "", "", "DMA32"]);
    assert_eq!(cells(&events, "other_name"), ["", "", "", "", "", "", "Normal"]);
    assert_eq!(cells(&events, "stack_id"), ["", "", "", "3", "", "", ""]);
    assert_eq!(cells(&events, "bytes_requested"), ["", "", "", "190", "", "", ""]);
    assert_eq!(cells(&events, "bytes_allocated"), ["", "", "", "192", "", "", ""]);
    assert_eq!(cells(&events, "arg_0"), ["", "", "", "", "-5", "1049000", "0"]);
    assert_eq!(cells(&events, "arg_1"), ["", "", "", "", "", "2097000", ""]);
    assert_eq!(cells(&events, "arg_5"), [""; 7]);
}

#[test]
fn tables_keep_their_rows_and_absent_ones_give_no_file() {
    let (folder, _) = export("tables");
    let out = folder.0.join("deep/export");
    let mut files: Vec<String> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "buddyinfo",
        "comparison",
        "events",
        "pagemap_first",
        "pagetypeinfo",
        "residue",
        "slab_comparison",
        "symbols",
    ];
    assert_eq!(files, expected.map(|name| format!("{name}.parquet")));
    let buddy = read(&out, "buddyinfo.parquet");
    assert_eq!(cells(&buddy, "read_start_ns"), ["900", "900", "2000", "2000"]);
    assert_eq!(cells(&buddy, "read_end_ns"), ["950", "950", "2050", "2050"]);
    assert_eq!(cells(&buddy, "zone"), ["Normal"; 4]);
    assert_eq!(cells(&buddy, "order"), ["0", "1", "0", "1"]);
    assert_eq!(cells(&buddy, "free_blocks"), ["900", "3", "2000", "3"]);
    let types = read(&out, "pagetypeinfo.parquet");
    assert_eq!(cells(&types, "order"), ["10", ""]);
    assert_eq!(cells(&types, "is_lower_bound"), ["true", "false"]);
    let map = read(&out, "pagemap_first.parquet");
    assert_eq!(cells(&map, "page_use"), ["page_table"]);
    assert_eq!(cells(&read(&out, "symbols.parquet"), "symbol"), ["__alloc_pages", ""]);
    let comparison = read(&out, "comparison.parquet");
    assert_eq!(cells(&comparison, "source"), ["kernel", "model"]);
    assert_eq!(cells(&comparison, "free_blocks"), ["3", "4"]);
    let residue = read(&out, "residue.parquet");
    assert_eq!(cells(&residue, "cause"), ["hidden_refill"]);
    assert_eq!(cells(&residue, "pfn"), [""]);
    assert_eq!(cells(&residue, "blocks"), ["-15"]);
    let slabs = read(&out, "slab_comparison.parquet");
    assert_eq!(cells(&slabs, "cache"), ["dentry"]);
    assert_eq!(cells(&slabs, "waste_bytes"), ["-896"]);
    assert_eq!(cells(&slabs, "utilisation_ppm"), ["1054687"]);
}

#[test]
fn files_are_told_and_are_their_owners_alone() {
    let folder = Folder::new("told");
    let recording = small_recording::write(&folder.0.join("small.kmt"));
    let out = folder.0.join("export");
    let done = export_parquet(&recording, &out, None, &ExportOptions::default()).unwrap();
    let rows: Vec<(&str, u64)> = done.iter().map(|done| (done.file.as_str(), done.rows)).collect();
    let expected = [
        ("events.parquet", 7),
        ("buddyinfo.parquet", 4),
        ("pagetypeinfo.parquet", 2),
        ("pagemap_first.parquet", 1),
        ("symbols.parquet", 2),
    ];
    assert_eq!(rows, expected);
    for done in &done {
        let meta = fs::metadata(out.join(&done.file)).unwrap();
        assert_eq!(meta.len(), done.bytes);
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert_eq!(done.missing_rows, 0);
    }
}

#[test]
fn an_export_is_replaced_as_a_whole_and_only_by_force() {
    let (folder, _) = export("force");
    let recording = Recording::open(&folder.0.join("small.kmt"), false).unwrap();
    let out = folder.0.join("deep/export");
    fs::write(out.join("mine.txt"), "kept").unwrap();
    let error = export_parquet(&recording, &out, None, &ExportOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Exists { path } if path.ends_with("events.parquet")),
        "{error}"
    );
    export_parquet(&recording, &out, None, &ExportOptions { force: true }).unwrap();
    assert_eq!(read(&out, "events.parquet").height(), 7);
    assert!(!out.join("comparison.parquet").exists());
    assert!(!out.join("slab_comparison.parquet").exists());
    assert!(out.join("mine.txt").exists());
}

#[test]
fn a_failed_export_leaves_nothing_and_a_killed_one_is_written_over() {
    let folder = Folder::new("failed");
    let path = folder.0.join("small.kmt");
    let recording = small_recording::write(&path);
    let out = folder.0.join("export");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("events.parquet.partial"), "left by a killed export").unwrap();
    let symbols = path.join("symbols.arrows");
    let whole = fs::read(&symbols).unwrap();
    fs::write(&symbols, &whole[..whole.len() / 2]).unwrap();
    let error = export_parquet(&recording, &out, None, &ExportOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Recording(_)), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    // With salvage the rest is exported, and what is missing is told.
    let recording = Recording::open(&path, true).unwrap();
    let done = export_parquet(&recording, &out, None, &ExportOptions::default()).unwrap();
    let symbols = done.iter().find(|done| done.file == "symbols.parquet").unwrap();
    assert_eq!((symbols.rows, symbols.missing_rows), (0, 2));
}

#[test]
fn a_file_in_the_way_and_a_place_that_cannot_be_written_are_told() {
    let folder = Folder::new("told-why");
    let recording = small_recording::write(&folder.0.join("small.kmt"));
    let file = folder.0.join("file");
    fs::write(&file, "").unwrap();
    let options = ExportOptions::default();
    let error = export_parquet(&recording, &file, None, &options).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a directory for the Parquet files was expected; give another name")
    );
    // Not even root may make a directory in /proc.
    let error = export_parquet(&recording, Path::new("/proc/export"), None, &options).unwrap_err();
    assert!(error.to_string().starts_with("cannot create /proc/export: "), "{error}");
}
