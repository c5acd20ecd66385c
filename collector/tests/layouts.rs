//! Every fixture of every kernel release is understood, and no damage to one makes a reader panic.

use std::path::Path;

use kmemlab_collector::error::ParseError;
use kmemlab_collector::proc::{buddyinfo, pagetypeinfo, slabinfo, vmallocinfo, vmstat, zoneinfo};
use kmemlab_collector::root::Root;
use kmemlab_collector::tracefs::{Format, Tracefs};
use kmemlab_trace::unit::Cpu;

/// A reader reduced to its number of rows.
type Count = fn(&str) -> Result<usize, ParseError>;

const READERS: [(&str, Count); 6] = [
    (buddyinfo::PATH, |text| buddyinfo::parse(text).map(|rows| rows.len())),
    (pagetypeinfo::PATH, |text| pagetypeinfo::parse(text).map(|rows| rows.len())),
    (slabinfo::PATH, |text| slabinfo::parse(text).map(|rows| rows.len())),
    (vmallocinfo::PATH, |text| vmallocinfo::parse(text).map(|rows| rows.len())),
    (vmstat::PATH, |text| vmstat::parse(text).map(|rows| rows.len())),
    (zoneinfo::PATH, |text| zoneinfo::parse(text).map(|rows| rows.len())),
];

fn kernels() -> Vec<Root> {
    let folder = Root::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels"));
    let releases = folder.names("").into_iter();
    let kernels: Vec<Root> = releases.map(|release| Root::new(folder.join(&release))).collect();
    assert!(!kernels.is_empty());
    kernels
}

/// System and event of every tracepoint of a release.
fn tracepoints(kernel: &Root) -> Vec<(String, String)> {
    let systems = kernel.names("events").into_iter();
    let events = |system: String| {
        let events = kernel.names(&format!("events/{system}")).into_iter();
        events.map(move |event| (system.clone(), event))
    };
    systems.flat_map(events).collect()
}

#[test]
fn every_proc_file_of_every_release_is_understood() {
    for kernel in kernels() {
        for (path, count) in READERS {
            let text = kernel.read(path).unwrap();
            let rows = count(&text).unwrap_or_else(|error| panic!("{:?} {error}", kernel.path()));
            assert!(rows > 0, "{path}");
        }
    }
}

#[test]
fn every_tracepoint_of_every_release_is_understood() {
    for kernel in kernels() {
        let tracefs = Tracefs::at(kernel.clone());
        let tracepoints = tracepoints(&kernel);
        assert!(tracepoints.len() > 50, "{:?}", kernel.path());
        for (system, event) in tracepoints {
            let format = tracefs.format(&system, &event).unwrap().unwrap();
            assert_eq!(format.name, event);
            assert!(format.id > 0);
            for common in ["common_type", "common_flags", "common_preempt_count", "common_pid"] {
                assert!(format.field(common).is_some(), "{event} {common}");
            }
            assert!(!format.print_fmt.is_empty(), "{event}");
        }
    }
}

#[test]
fn a_fixture_of_6_18_number_by_number() {
    let kernel = Root::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/6.18"));
    let buddies = buddyinfo::parse(&kernel.read(buddyinfo::PATH).unwrap()).unwrap();
    let names: Vec<&str> = buddies.iter().map(|row| row.zone.as_str()).collect();
    assert_eq!(names, ["DMA", "DMA32", "Normal"]);
    assert!(buddies.iter().all(|row| row.free_blocks.len() == 11));

    let blocks = pagetypeinfo::parse_whole(&kernel.read(pagetypeinfo::PATH).unwrap()).unwrap();
    assert_eq!(blocks.pageblock_order.0, 9);
    assert_eq!(
        blocks.migrate_types,
        ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate"]
    );
    assert_eq!(blocks.rows.len(), 3 * 5 * 11 + 3 * 5);

    let zones = zoneinfo::parse(&kernel.read(zoneinfo::PATH).unwrap()).unwrap();
    let value = |zone, cpu: Option<u16>, key| {
        let cpu = cpu.map(Cpu);
        let found = zones.iter().find(|row| row.zone == zone && row.cpu == cpu && row.key == key);
        found.map(|row| row.value)
    };
    assert_eq!(value("DMA", None, "spanned"), Some(4095));
    assert_eq!(value("DMA", None, "start_pfn"), Some(1));
    assert_eq!(value("DMA", Some(1), "pcp_high_min"), Some(24));
    assert_eq!(value("DMA32", Some(0), "pcp_high_max"), Some(48_307));
    assert_eq!(value("Normal", None, "boost"), Some(0));
    assert_eq!(value("Device", None, "protection_4"), Some(0));
    assert!(value("", None, "nr_kernel_stack").is_some());
    // A number of the zone, not of the node, though the node has one of a like name.
    assert!(value("Normal", None, "nr_free_pages").is_some());
    assert!(value("", None, "nr_free_pages").is_none());

    let areas = vmallocinfo::parse(&kernel.read(vmallocinfo::PATH).unwrap()).unwrap();
    assert_eq!(vmallocinfo::addresses(&areas), vmallocinfo::Addresses::Real);
    assert!(areas.iter().any(|area| area.flags == "unpurged vm_area" && area.caller.is_none()));
    assert!(areas.iter().any(|area| area.pages == Some(4)));
}

#[test]
fn the_name_of_a_slab_cache_is_where_6_18_put_it() {
    let kernel = Root::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/6.18"));
    let format = Tracefs::at(kernel).format("kmem", "kmem_cache_alloc").unwrap().unwrap();
    let name = format.field("name").unwrap();
    assert!(name.is_data_loc && !name.is_array);
    assert_eq!((name.type_text.as_str(), name.offset, name.size), ("__data_loc char[]", 24, 4));
}

/// A kernel release's files.
fn kernel(release: &str) -> Root {
    Root::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(release))
}

#[test]
fn what_differs_between_6_1_and_6_12_and_6_18_is_in_their_files() {
    for (release, has_vmalloc, has_fast_isolate, has_wmarks, has_high_min) in [
        ("6.1", false, false, false, false),
        ("6.12", true, true, false, false),
        ("6.18", true, true, true, true),
    ] {
        let kernel = kernel(release);
        let tracefs = Tracefs::at(kernel.clone());
        let has = |system: &str, event: &str| tracefs.format(system, event).unwrap().is_some();
        assert_eq!(has("vmalloc", "alloc_vmap_area"), has_vmalloc, "{release}");
        let fast_isolate = has("compaction", "mm_compaction_fast_isolate_freepages");
        assert_eq!(fast_isolate, has_fast_isolate, "{release}");
        assert_eq!(has("kmem", "mm_setup_per_zone_wmarks"), has_wmarks, "{release}");

        let format = |event| tracefs.format("kmem", event).unwrap().unwrap();
        assert_eq!(format("mm_page_alloc").field("gfp_flags").unwrap().size, 8, "{release}");
        assert!(format("mm_page_alloc_zone_locked").field("percpu_refill").is_some());
        let zones = zoneinfo::parse(&kernel.read(zoneinfo::PATH).unwrap()).unwrap();
        let says = |key: &str| zones.iter().any(|row| row.zone == "DMA32" && row.key == key);
        assert_eq!(says("pcp_high_min"), has_high_min, "{release}");
        for key in ["pcp_count", "pcp_high", "pcp_batch", "boost", "managed"] {
            assert!(says(key), "{release} {key}");
        }
    }
}

#[test]
fn a_cut_anywhere_is_an_error_or_ends_a_line_and_never_a_panic() {
    for kernel in kernels() {
        for (path, count) in READERS {
            let text = kernel.read(path).unwrap();
            let ends = (0..text.len()).filter(|end| *end < 3000 || end % 97 == 0);
            for end in ends {
                let result = count(&text[..end]);
                assert!(result.is_err() || text[..end].ends_with('\n'), "{path} cut at {end}");
            }
        }
        for (system, event) in tracepoints(&kernel) {
            let tracefs = Tracefs::at(kernel.clone());
            let text = tracefs.format_text(&system, &event).unwrap().unwrap();
            let print_fmt = text.find("print fmt:").unwrap();
            for end in 0..print_fmt {
                let is_whole = Format::parse(&text[..end]).is_ok();
                assert!(!is_whole || text[..end].trim_end().ends_with(';'), "{event} cut at {end}");
            }
        }
    }
}

#[test]
fn words_swapped_for_garbage_never_make_a_reader_panic() {
    for kernel in kernels() {
        for (path, count) in READERS {
            let text = kernel.read(path).unwrap();
            for (index, _) in text.match_indices(char::is_whitespace).step_by(37) {
                for garbage in ["\u{fffd}", "-", "[", "99999999999999999999", ",", "\n"] {
                    let damaged = format!("{}{garbage}{}", &text[..index], &text[index..]);
                    // Only a panic is a failure: a wrong word in a name may still be a name.
                    let _ = count(&damaged);
                }
            }
        }
    }
}

#[test]
fn every_reader_refuses_an_empty_text_and_a_foreign_one() {
    let foreign = "MemTotal:       24671896 kB\n";
    for (path, count) in READERS {
        for text in ["", "\n", "\0\0\0\0", foreign, "Node\n", "Node 0, zone\n", "# name\n"] {
            assert!(count(text).is_err(), "{path} took {text:?}");
        }
    }
    for text in ["", "\n", foreign] {
        assert!(Format::parse(text).is_err());
    }
}
