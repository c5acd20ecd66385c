//! What a replay starts from: the first page map and the first numbers of `/proc/zoneinfo`.

use kmemlab_trace::format;
use kmemlab_trace::reader::{Recording, ZoneSample};
use kmemlab_trace::unit::Cpu;

use super::ReplayError;
use crate::limits;
use crate::machine::{Machine, ZoneSpan};
use crate::model::{Start, Watermarks};
use crate::policy::percpu::PerCpu;
use crate::rules::PcpHigh;
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
    if !seed.is_empty() {
        return Ok(seed);
    }
    let Some(sample) = recording.buddyinfo()?.next().transpose()? else {
        notes.push(
            "no page map and no sample of /proc/buddyinfo: the replay starts from an empty machine, \
             so its counts mean nothing; record as root on a kernel with /proc/kpageflags"
                .to_owned(),
        );
        return Ok(seed);
    };
    let (seed, homeless_pages) = Seed::made_up(machine, &sample);
    notes.push(
        "no page map: the free blocks of the first /proc/buddyinfo stand at made-up places, so the \
         counts are right at the start and drift wherever pages merge with neighbours that nobody \
         knows, and no place means anything; record as root on a kernel with /proc/kpageflags"
            .to_owned(),
    );
    if homeless_pages > 0 {
        notes.push(format!("{homeless_pages} free pages found no place of their own"));
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
    let host = &recording.manifest().host;
    let fraction = recording.manifest().setting("vm.percpu_pagelist_high_fraction");
    let is_set_by_hand = fraction.is_some_and(|text| text.trim() != "0");
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
            // 6.7 to 6.12 tune the limit between two that /proc does not tell.
            let (least, most) = if is_set_by_hand || high == 0 {
                (high, high)
            } else {
                let (least, most) =
                    limits::high(zone.managed, mark("low"), host.cpus.len() as u64, &machine.rules);
                (least as i64, most as i64)
            };
            let limit = |key: &str, computed: i64| match of(cpu, key) {
                0 if machine.rules.pcp_high == PcpHigh::Auto => computed,
                0 => high,
                limit => limit,
            };
            start.pcps.push(PerCpu {
                count: of(cpu, "pcp_count"),
                high,
                high_min: limit("pcp_high_min", least),
                high_max: limit("pcp_high_max", most),
                batch: of(cpu, "pcp_batch").max(1),
                ..PerCpu::default()
            });
        }
    }
    Ok(start)
}

/// The lengths of the per-CPU lists when the kernel counted them next after the start, in pages:
/// when, and by zone and processor.
pub(super) fn next_counts(
    recording: &Recording,
    machine: &Machine,
    since: u64,
) -> Result<Option<(u64, Vec<i64>)>, ReplayError> {
    for sample in recording.zoneinfo()? {
        let sample = sample?;
        if sample.stamp.before.0 <= since {
            continue;
        }
        let mut counts = Vec::new();
        for zone in &machine.zones {
            for cpu in (0..machine.cpus).map(|cpu| Some(Cpu(cpu as u16))) {
                let count = sample.value(zone.node, &zone.name, cpu, "pcp_count");
                counts.push(count.unwrap_or(0));
            }
        }
        return Ok(Some((sample.stamp.before.0, counts)));
    }
    Ok(None)
}
