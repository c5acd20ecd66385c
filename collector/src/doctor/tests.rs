use super::*;
use crate::root::scratch::Scratch;

const FORMAT: &str = "name: x\nID: 7\nformat:\n\
    \tfield:unsigned long pfn;\toffset:8;\tsize:8;\tsigned:0;\n";
const ALL_RIGHTS: &str = "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n";
const NO_RIGHTS: &str = "CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n";
const CONTAINER: &str = "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n";
const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
    Max open files            1024                 524288               files     \n\
    Max locked memory         8388608              unlimited            bytes     \n";
const WANTED: &[(&str, &str, &[&str])] =
    &[("kmem", "mm_page_alloc", &["pfn"]), ("vmalloc", "alloc_vmap_area", &["addr", "size"])];

/// A host on which nothing is wrong.
fn healthy() -> Scratch {
    let scratch = Scratch::new();
    for (rel, text) in [
        ("sys/kernel/tracing/events/kmem/mm_page_alloc/format", FORMAT),
        (
            "sys/kernel/tracing/events/vmalloc/alloc_vmap_area/format",
            &format!(
                "{FORMAT}field:long addr; offset:16; size:8; signed:0;\n\
                 field:long size; offset:24; size:8; signed:0;\n"
            ),
        ),
        ("sys/kernel/tracing/instances/.keep", ""),
        ("sys/kernel/tracing/kprobe_events", ""),
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("proc/sys/kernel/perf_event_paranoid", "2\n"),
        ("proc/sys/kernel/perf_event_mlock_kb", "516\n"),
        ("proc/sys/kernel/kptr_restrict", "1\n"),
        ("proc/self/status", ALL_RIGHTS),
        ("proc/self/limits", LIMITS),
        ("proc/kpageflags", "12345678"),
        ("proc/kallsyms", "0000000000000000 A __per_cpu_start\nffffffff81000000 T _text\n"),
        ("proc/vmallocinfo", "0xffffc90000000000-0xffffc90000005000 20480 f+0x1/0x2 vmap\n"),
        (
            "proc/slabinfo",
            "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> <objperslab> \
             <pagesperslab> : slabdata <active_slabs> <num_slabs>\npid 1 2 3 4 5 : slabdata 6 7\n",
        ),
        (
            "proc/pagetypeinfo",
            "Page block order: 9\nPages per block: 512\nNumber of blocks type Unmovable Movable\n\
             Node 0, zone DMA 1 7\n",
        ),
    ] {
        scratch.write(rel, text);
    }
    scratch
}

fn find(checks: &[Check], name: &str) -> Check {
    checks.iter().find(|check| check.name == name).cloned().unwrap()
}

/// State, part of what was found, and the mend of one check.
#[track_caller]
fn expect(scratch: &Scratch, name: &str, state: State, found: &str, mend: Option<&str>) {
    let check = find(&check(&scratch.0, WANTED), name);
    assert_eq!(check.state, state, "{check:?}");
    assert!(check.found.contains(found), "{check:?}");
    assert_eq!(check.mend.as_deref(), mend, "{check:?}");
}

const GRANT: Option<&str> = Some(
    "setcap cap_perfmon,cap_syslog,cap_ipc_lock,cap_dac_read_search+ep \"$(command -v kmemlab)\"",
);

#[test]
fn a_healthy_host_has_nothing_to_mend() {
    let scratch = healthy();
    let checks = check(&scratch.0, WANTED);
    assert_eq!(checks.len(), 1 + 2 + 1 + 1 + 1 + 7 + 5 + 5);
    for check in checks {
        assert_eq!((check.state, &check.mend), (State::Ok, &None), "{check:?}");
    }
}

#[test]
fn an_empty_host_says_what_to_do_first() {
    let scratch = Scratch::new();
    let mount = Some("mount -t tracefs nodev /sys/kernel/tracing");
    expect(&scratch, "tracefs", State::Fail, "found no events folder", mount);
    expect(&scratch, "capabilities", State::Fail, "", Some("mount -t proc proc /proc"));
    expect(&scratch, "kernel.perf_event_paranoid", State::Fail, "CONFIG_PERF_EVENTS", None);
    expect(&scratch, "/proc/kpageflags", State::Warn, "CONFIG_PROC_PAGE_MONITOR", None);
    let securityfs = Some("mount -t securityfs nodev /sys/kernel/security");
    expect(&scratch, "lockdown", State::Warn, "securityfs is not mounted", securityfs);
}

#[test]
fn tracepoints_that_this_kernel_lacks() {
    let scratch = healthy();
    let events = scratch.0.join("sys/kernel/tracing/events");
    scratch.write("sys/kernel/tracing/events/vmalloc/alloc_vmap_area/format", FORMAT);
    expect(&scratch, "vmalloc:alloc_vmap_area", State::Warn, "no field addr, size", None);
    std::fs::remove_dir_all(events.join("vmalloc")).unwrap();
    expect(&scratch, "vmalloc:alloc_vmap_area", State::Warn, "this kernel has none", None);
    std::fs::remove_dir_all(events.join("kmem")).unwrap();
    expect(&scratch, "kmem:mm_page_alloc", State::Fail, "this kernel has none", None);
    std::fs::remove_file(scratch.0.join("sys/kernel/tracing/kprobe_events")).unwrap();
    expect(&scratch, "kprobes", State::Warn, "CONFIG_KPROBE_EVENTS", None);
}

#[test]
fn rights_can_be_granted_unless_a_container_forbids_it() {
    let scratch = healthy();
    scratch.write("proc/self/status", NO_RIGHTS);
    let paranoid = Some("sysctl -w kernel.perf_event_paranoid=-1");
    expect(&scratch, "kernel.perf_event_paranoid", State::Fail, "2", paranoid);
    expect(&scratch, "CAP_PERFMON", State::Fail, "opens tracepoints", GRANT);
    expect(&scratch, "CAP_SYSLOG", State::Warn, "addresses", GRANT);
    expect(&scratch, "CAP_SYS_RESOURCE", State::Warn, "run as root", None);
    scratch.write("proc/self/status", CONTAINER);
    expect(&scratch, "CAP_PERFMON", State::Fail, "bounding set forbids it", None);
    // CAP_SYS_ADMIN alone does for kernels before 5.8, which have no CAP_PERFMON.
    scratch.write("proc/self/status", "CapEff:\t0000000000200000\n");
    expect(&scratch, "CAP_PERFMON", State::Ok, "", None);
    expect(&scratch, "kernel.perf_event_paranoid", State::Ok, "2", None);
}

#[test]
fn limits_and_the_commands_that_raise_them() {
    let scratch = healthy();
    scratch.write("proc/self/status", NO_RIGHTS);
    let memlock = Some("prlimit --pid $$ --memlock=unlimited:unlimited");
    expect(&scratch, "RLIMIT_MEMLOCK", State::Warn, "8388608 bytes", memlock);
    let perf = Some("sysctl -w kernel.perf_event_mlock_kb=8196");
    expect(&scratch, "kernel.perf_event_mlock_kb", State::Warn, "516 KiB", perf);
    expect(&scratch, "RLIMIT_NOFILE", State::Ok, "1024 files; 80 wanted", None);
    scratch.write("sys/devices/system/cpu/online", "0-511\n");
    expect(&scratch, "RLIMIT_NOFILE", State::Warn, "2112 wanted", Some("ulimit -S -n 2112"));
    scratch.write(
        "proc/self/limits",
        "Max open files 1024 1024 files\nMax locked memory unlimited unlimited bytes\n",
    );
    let nofile = Some("prlimit --pid $$ --nofile=2112:2112");
    expect(&scratch, "RLIMIT_NOFILE", State::Warn, "1024 files", nofile);
    expect(&scratch, "RLIMIT_MEMLOCK", State::Ok, "unlimited", None);
}

#[test]
fn rings_are_as_large_as_memory_allows() {
    let scratch = healthy();
    expect(&scratch, "rings", State::Ok, "8 MiB for each of 4 processors", None);
    scratch.write("proc/meminfo", "MemAvailable: 23068672 kB\n");
    expect(&scratch, "rings", State::Ok, "64 MiB for each of 4 processors", None);
}

#[test]
fn lockdown_is_not_none_because_it_is_not_told() {
    let scratch = healthy();
    scratch.write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    expect(&scratch, "lockdown", State::Fail, "boot with lockdown=integrity", None);
    std::fs::remove_file(scratch.0.join("sys/kernel/security/lockdown")).unwrap();
    scratch.write("sys/kernel/security/lsm", "capability\n");
    expect(&scratch, "lockdown", State::Ok, "this kernel has none", None);
}

#[test]
fn addresses_that_the_kernel_hides() {
    let scratch = healthy();
    let show = Some("sysctl -w kernel.kptr_restrict=1");
    scratch.write("proc/vmallocinfo", "0x62dc0626-0xd23594cc 20480 f+0x1/0x2 vmap\n");
    expect(&scratch, "/proc/vmallocinfo", State::Warn, "hashes", show);
    scratch.write("proc/vmallocinfo", "0x0-0x0 20480 f+0x1/0x2 vmap\n");
    scratch.write("proc/kallsyms", "0000000000000000 T _text\n");
    scratch.write("proc/sys/kernel/kptr_restrict", "2\n");
    expect(&scratch, "/proc/vmallocinfo", State::Warn, "zeros", show);
    expect(&scratch, "/proc/kallsyms", State::Warn, "zeros", show);
    scratch.write("proc/sys/kernel/kptr_restrict", "1\n");
    scratch.write("proc/self/status", NO_RIGHTS);
    expect(&scratch, "/proc/vmallocinfo", State::Warn, "zeros", GRANT);
    expect(&scratch, "/proc/kallsyms", State::Warn, "zeros", GRANT);
    scratch.write("proc/vmallocinfo", "garbage\n");
    expect(&scratch, "/proc/vmallocinfo", State::Warn, "line 1: expected", None);
    scratch.write("proc/kpageflags", "123");
    expect(&scratch, "/proc/kpageflags", State::Warn, "expected to read", None);
}
