//! What a replay starts from: the first page map and the first numbers of `/proc/zoneinfo`.

use kmemlab_trace::format;
use kmemlab_trace::reader::{Recording, ZoneSample};
use kmemlab_trace::unit::Cpu;

use super::ReplayError;
use crate::machine::{Machine, ZoneSpan};
use crate::model::{Start, Watermarks};
use crate::policy::percpu::PerCpu;
use crate::seeding::Seed;

/// The first page map.
pub(super) fn seed(
    recording: &Recording,
    machine: &Machine,
    notes: &mut Vec<String>,
) -> Result<Seed, ReplayError> {
    let mut seed = Seed::new(machine);
    for run in recording.page_map(&format::PAGEMAP_FIRST)? {
        seed.add(&run?, machine);
    }
    if seed.is_empty() {
        notes.push(
            "no page map: the replay starts from an empty machine, so its counts mean nothing; \
             record as root on a kernel with /proc/kpageflags"
                .to_owned(),
        );
    }
    Ok(seed)
}

/// Watermarks and the limits of the per-CPU lists, as the first `/proc/zoneinfo` after `since` told
/// them.
pub(super) fn numbers(
    recording: &Recording,
    machine: &Machine,
    since: u64,
) -> Result<Start, ReplayError> {
    let mut start = Start { cpus: machine.cpus, ..Start::default() };
    let factor = recording.manifest().setting("vm.watermark_boost_factor");
    start.boost_factor = factor.and_then(|text| text.trim().parse().ok()).unwrap_or(15_000);
    let mut sample: Option<ZoneSample> = None;
    for next in recording.zoneinfo()? {
        let next = next?;
        let managed = |zone: &ZoneSpan| next.value(zone.node, &zone.name, None, "managed");
        let zones = machine.zones.iter().map(|zone| managed(zone).unwrap_or(0).max(0) as u64);
        start.managed.push((next.stamp.before.0, zones.collect()));
        if sample.as_ref().is_none_or(|known| known.stamp.before.0 < since) {
            sample = Some(next);
        }
    }
    start.since_ns = sample.as_ref().map_or(since, |sample| sample.stamp.after.0.max(since));
    for zone in &machine.zones {
        let of = |cpu: Option<Cpu>, key: &str| {
            let sample: Option<&ZoneSample> = sample.as_ref();
            sample.and_then(|sample| sample.value(zone.node, &zone.name, cpu, key)).unwrap_or(0)
        };
        let mark = |key: &str| (of(None, key) - of(None, "boost")).max(0) as u64;
        start.marks.push(Watermarks {
            min: mark("min"),
            low: mark("low"),
            high: mark("high"),
            boost: of(None, "boost").max(0) as u64,
        });
        for cpu in 0..machine.cpus {
            let cpu = Some(Cpu(cpu as u16));
            let high = of(cpu, "pcp_high");
            let limit = |key: &str| match of(cpu, key) {
                0 => high,
                limit => limit,
            };
            start.pcps.push(PerCpu {
                count: of(cpu, "pcp_count"),
                high,
                high_min: limit("pcp_high_min"),
                high_max: limit("pcp_high_max"),
                batch: of(cpu, "pcp_batch").max(1),
                ..PerCpu::default()
            });
        }
    }
    Ok(start)
}
