//! Rights and limits of this process.

use super::{Check, NOT_PERMITTED, State};
use crate::error::Error;
use crate::host::{LOCKDOWN, ONLINE_CPUS, chosen, parse_list};
use crate::room;
use crate::root::Root;

const DAC_OVERRIDE: u32 = 1;
const DAC_READ_SEARCH: u32 = 2;
const IPC_LOCK: u32 = 14;
const SYS_ADMIN: u32 = 21;
const SYS_NICE: u32 = 23;
const SYS_RESOURCE: u32 = 24;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;

/// A recorder's rings without `CAP_IPC_LOCK`: 8 MiB and a control page for each processor.
const RING_KIB: u64 = 8196;
/// Files that a recorder holds beside those of its events.
const OTHER_FILES: u64 = 64;

const GRANT: &str = "setcap cap_perfmon,cap_syslog,cap_ipc_lock,cap_dac_read_search+ep \
                     \"$(command -v kmemlab)\"";

/// What `GRANT` grants.
const GRANTED: [u32; 4] = [PERFMON, SYSLOG, IPC_LOCK, DAC_READ_SEARCH];

/// Name, the capabilities of which any one does, how bad its lack is, what it is for.
const CAPABILITIES: &[(&str, &[u32], State, &str)] = &[
    // Kernels before 5.8 have no CAP_PERFMON.
    ("CAP_PERFMON", &[PERFMON, SYS_ADMIN], State::Fail, "opens tracepoints"),
    ("CAP_SYS_ADMIN", &[SYS_ADMIN], State::Warn, "mounts tracefs, sets sysctls"),
    ("CAP_IPC_LOCK", &[IPC_LOCK], State::Warn, "locks large rings"),
    ("CAP_SYSLOG", &[SYSLOG], State::Warn, "shows kernel addresses"),
    (
        "CAP_SYS_NICE",
        &[SYS_NICE],
        State::Warn,
        "lets the recorder run before a load that keeps it waiting",
    ),
    ("CAP_SYS_RESOURCE", &[SYS_RESOURCE], State::Warn, "raises limits"),
    (
        "CAP_DAC_READ_SEARCH",
        &[DAC_READ_SEARCH, DAC_OVERRIDE],
        State::Warn,
        "reads root's files in /proc",
    ),
];

/// What this process may do.
#[derive(Debug, Default)]
pub(super) struct Rights {
    effective: Option<u64>,
    bounding: u64,
    memlock: Option<Limit>,
    open_files: Option<Limit>,
}

/// A resource limit; `u64::MAX` is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limit {
    soft: u64,
    hard: u64,
}

impl Rights {
    pub(super) fn read(root: &Root) -> Self {
        let status = root.read("proc/self/status").unwrap_or_default();
        let limits = root.read("proc/self/limits").unwrap_or_default();
        let mask = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Self {
            effective: mask("CapEff:"),
            bounding: mask("CapBnd:").unwrap_or(0),
            memlock: limit(&limits, "Max locked memory"),
            open_files: limit(&limits, "Max open files"),
        }
    }

    fn has(&self, capability: u32) -> bool {
        self.effective.is_some_and(|mask| mask >> capability & 1 == 1)
    }

    fn may_ever_have(&self, capability: u32) -> bool {
        self.bounding >> capability & 1 == 1
    }

    fn may_sample(&self) -> bool {
        self.has(PERFMON) || self.has(SYS_ADMIN)
    }

    pub(super) fn may_see_addresses(&self) -> bool {
        self.has(SYSLOG)
    }

    /// Folders of tracefs are root's.
    pub(super) fn may_make_instances(&self) -> bool {
        self.has(DAC_OVERRIDE)
    }

    /// The command that gives the program its capabilities, unless the bounding set of this process
    /// (a container's, mostly) would take them away again.
    pub(super) fn grant(&self) -> Option<String> {
        let is_possible = GRANTED.iter().all(|capability| self.may_ever_have(*capability));
        is_possible.then(|| GRANT.to_owned())
    }
}

/// Soft and hard limit out of `/proc/self/limits`.
fn limit(limits: &str, name: &str) -> Option<Limit> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let mut value = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some(Limit { soft: value()?, hard: value()? })
}

pub(super) fn check(root: &Root, rights: &Rights, tracepoints: usize, checks: &mut Vec<Check>) {
    checks.push(paranoid(root, rights));
    capabilities(rights, checks);
    checks.push(lockdown(root));
    checks.push(rings(root));
    checks.push(locked_memory(rights));
    checks.push(open_files(root, rights, tracepoints));
    checks.push(perf_memory(root, rights));
}

fn paranoid(root: &Root, rights: &Rights) -> Check {
    let name = "kernel.perf_event_paranoid";
    match root.read("proc/sys/kernel/perf_event_paranoid") {
        Ok(text) => {
            let value = text.trim();
            let is_open = value.parse::<i32>().is_ok_and(|value| value < 0);
            let state = if is_open || rights.may_sample() { State::Ok } else { State::Fail };
            Check::new(
                name,
                state,
                value,
                Some("sysctl -w kernel.perf_event_paranoid=-1".to_owned()),
            )
        }
        Err(Error::Missing { .. }) => {
            Check::new(name, State::Fail, "this kernel has none: CONFIG_PERF_EVENTS is off", None)
        }
        Err(error) => Check::new(name, State::Fail, error.to_string(), None),
    }
}

fn capabilities(rights: &Rights, checks: &mut Vec<Check>) {
    if rights.effective.is_none() {
        let found = "/proc/self/status names none; check that /proc is mounted";
        let mend = Some("mount -t proc proc /proc".to_owned());
        checks.push(Check::new("capabilities", State::Fail, found, mend));
        return;
    }
    for (name, any_of, state, use_of_it) in CAPABILITIES {
        if any_of.iter().any(|capability| rights.has(*capability)) {
            checks.push(Check::new(*name, State::Ok, *use_of_it, None));
            continue;
        }
        let is_granted = any_of.iter().any(|capability| GRANTED.contains(capability));
        let mend = rights.grant().filter(|_| is_granted);
        let why = if !any_of.iter().any(|capability| rights.may_ever_have(*capability)) {
            "; this process's bounding set forbids it"
        } else if mend.is_none() {
            "; run as root where that is needed"
        } else {
            ""
        };
        checks.push(Check::new(*name, *state, format!("missing: it {use_of_it}{why}"), mend));
    }
}

fn lockdown(root: &Root) -> Check {
    let name = "lockdown";
    match root.read(LOCKDOWN) {
        Ok(text) => match chosen(&text) {
            "confidentiality" => {
                let found =
                    "confidentiality: no tracepoint may be opened; boot with lockdown=integrity";
                Check::new(name, State::Fail, found, None)
            }
            mode => Check::new(name, State::Ok, mode, None),
        },
        // Every securityfs has this file.
        Err(Error::Missing { .. }) if root.exists("sys/kernel/security/lsm") => {
            Check::new(name, State::Ok, "this kernel has none", None)
        }
        Err(Error::Missing { .. }) => Check::new(
            name,
            State::Warn,
            "not told: securityfs is not mounted",
            Some("mount -t securityfs nodev /sys/kernel/security".to_owned()),
        ),
        Err(Error::Denied { .. }) => Check::new(name, State::Warn, NOT_PERMITTED, None),
        Err(error) => Check::new(name, State::Warn, error.to_string(), None),
    }
}

/// What `record` takes when it is not told otherwise.
fn rings(root: &Root) -> Check {
    let cpus = online(root).unwrap_or(1);
    let mib = room::ring_bytes(room::available_bytes(root), cpus) >> 20;
    let found = format!("{mib} MiB for each of {cpus} processors, by the memory that is left");
    Check::new("rings", State::Ok, found, None)
}

fn online(root: &Root) -> Option<usize> {
    root.read(ONLINE_CPUS).ok().and_then(|text| parse_list(&text).ok()).map(|cpus| cpus.len())
}

fn locked_memory(rights: &Rights) -> Check {
    let name = "RLIMIT_MEMLOCK";
    let Some(Limit { soft, .. }) = rights.memlock else {
        return Check::new(name, State::Warn, "/proc/self/limits does not tell it", None);
    };
    if rights.has(IPC_LOCK) {
        return Check::new(name, State::Ok, "CAP_IPC_LOCK lifts it", None);
    }
    let state = if soft >= RING_KIB * 1024 { State::Ok } else { State::Warn };
    let mend = Some("prlimit --pid $$ --memlock=unlimited:unlimited".to_owned());
    Check::new(name, state, told(soft, "bytes"), mend)
}

fn open_files(root: &Root, rights: &Rights, tracepoints: usize) -> Check {
    let name = "RLIMIT_NOFILE";
    let Some(Limit { soft, hard }) = rights.open_files else {
        return Check::new(name, State::Warn, "/proc/self/limits does not tell it", None);
    };
    let cpus = online(root).unwrap_or(1) as u64;
    // An event and its counting twin for each tracepoint and processor.
    let needed = cpus * 2 * tracepoints as u64 + OTHER_FILES;
    let state = if soft >= needed { State::Ok } else { State::Warn };
    let mend = if hard >= needed {
        format!("ulimit -S -n {needed}")
    } else {
        format!("prlimit --pid $$ --nofile={needed}:{needed}")
    };
    Check::new(name, state, format!("{}; {needed} wanted", told(soft, "files")), Some(mend))
}

fn perf_memory(root: &Root, rights: &Rights) -> Check {
    let name = "kernel.perf_event_mlock_kb";
    let rel = "proc/sys/kernel/perf_event_mlock_kb";
    let Some(kib) = root.read(rel).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
        return Check::new(name, State::Warn, "this kernel does not tell it", None);
    };
    let is_enough = rights.has(IPC_LOCK) || kib >= RING_KIB;
    let state = if is_enough { State::Ok } else { State::Warn };
    let found = format!("{kib} KiB of ring for each processor without CAP_IPC_LOCK");
    Check::new(name, state, found, Some(format!("sysctl -w kernel.perf_event_mlock_kb={RING_KIB}")))
}

fn told(limit: u64, unit: &str) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { format!("{limit} {unit}") }
}
