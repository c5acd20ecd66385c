use super::*;
use crate::root::scratch::Scratch;

const ZONEINFO: &str = "Node 0, zone      DMA
  pages free     3840
        spanned  4095
        present  3998
        managed  3840
        protection: (0, 3019, 6475)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count:    0
  start_pfn:           1
Node 0, zone    DMA32
  pages free     772917
        spanned  1044480
        present  782336
        managed  772917
        protection: (0, 0, 3456)
  pagesets
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        spanned  0
        present  0
        managed  0
        protection: (0, 0, 0)
";

fn host() -> Scratch {
    let scratch = Scratch::new();
    for (rel, text) in [
        ("proc/sys/kernel/hostname", "lab\n"),
        ("proc/sys/kernel/osrelease", "5.10.89\n"),
        ("proc/sys/kernel/version", "#1 SMP\n"),
        ("proc/sys/kernel/kptr_restrict", "1\n"),
        ("proc/sys/vm/swappiness", "60\n"),
        ("proc/sys/vm/dirty_ratio", "20\n"),
        ("proc/sys/vm/lowmem_reserve_ratio", "256\t256\t32\n"),
        ("proc/sys/vm/panic_on_oom", "0\n"),
        ("proc/cmdline", "quiet\n"),
        ("proc/zoneinfo", ZONEINFO),
        ("proc/buddyinfo", "Node 0, zone DMA 0 0 0 0 0 0 0 0 1 1 3\n"),
        ("proc/iomem", "00001000-0009fbff : System RAM\n00100000-bfffffff : System RAM\n"),
        ("sys/devices/system/cpu/online", "0-1,4\n"),
        ("sys/devices/system/cpu/possible", "0-7\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ] {
        scratch.write(rel, text);
    }
    let auxv: Vec<u8> =
        [16usize, 1, 6, 4096, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    scratch.write(AUXV, auxv);
    scratch
}

#[test]
fn the_facts_of_an_old_release_without_root() {
    let scratch = host();
    let host = Host::read(&scratch.0).unwrap();
    assert_eq!((host.name.as_str(), host.kernel_release.as_str()), ("lab", "5.10.89"));
    assert_eq!((host.page_size_bytes, host.orders), (4096, 11));
    assert_eq!(host.online_cpus, [Cpu(0), Cpu(1), Cpu(4)]);
    assert_eq!(host.possible_cpus.len(), 8);
    assert_eq!(host.nodes, [NodeId(0)]);
    assert_eq!((host.pageblock_order, host.migrate_types.len()), (None, 0));
    assert_eq!(host.zones.len(), 3);
    assert_eq!(
        host.zones[0],
        Zone {
            node: NodeId(0),
            name: "DMA".into(),
            start_pfn: Some(Pfn(1)),
            spanned_pages: 4095,
            present_pages: 3998,
            managed_pages: 3840,
            protection_pages: vec![0, 3019, 6475],
        }
    );
    assert_eq!(host.zones[2].span(), None);
    assert_eq!(host.setting("vm.swappiness"), Some("60"));
    assert_eq!(host.setting("vm.dirty_ratio"), Some("20"));
    assert_eq!(host.setting("vm.lowmem_reserve_ratio"), Some("256\t256\t32"));
    assert_eq!(host.setting("vm.panic_on_oom"), None);
    assert_eq!(host.setting("transparent_hugepage.enabled"), Some("madvise"));
    assert_eq!(host.setting("lockdown"), None);
}

#[test]
fn the_page_map_is_read_without_the_holes() {
    let scratch = host();
    let mut host = Host::read(&scratch.0).unwrap();
    assert_eq!(
        host.page_map_ranges(),
        [Pfn(1)..Pfn(0x9f), Pfn(0x100)..Pfn(0x1000), Pfn(0x1000)..Pfn(0xc_0000)]
    );
    host.ram.clear();
    assert_eq!(host.page_map_ranges(), [Pfn(1)..Pfn(0x1000), Pfn(0x1000)..Pfn(0x10_0000)]);
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let scratch = host();
    scratch.write("sys/devices/system/cpu/online", "x\n");
    let error = Host::read(&scratch.0).unwrap_err();
    assert!(error.to_string().contains("cpu/online"), "{error}");
    std::fs::remove_file(scratch.0.join("sys/devices/system/cpu/online")).unwrap();
    assert!(Host::read(&scratch.0).unwrap_err().is_missing());
    scratch.write(AUXV, [0u8; 16]);
    assert!(matches!(Host::read(&scratch.0), Err(Error::Parse { .. })));
}

#[test]
fn lists_and_chosen_words() {
    assert_eq!(parse_list("0\n").unwrap(), [0]);
    assert_eq!(parse_list("0-2,5,7-8").unwrap(), [0, 1, 2, 5, 7, 8]);
    for text in ["", "\n", "a", "1-", "3-1", "1,,2", "70000"] {
        assert!(parse_list(text).is_err(), "{text:?}");
    }
    assert_eq!(chosen("none [integrity] confidentiality\n"), "integrity");
    assert_eq!(chosen("2\n"), "2");
}
