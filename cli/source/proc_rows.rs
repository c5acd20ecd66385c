//! Rows of `/proc` as the screen wants them.

use kmemlab_trace::snapshot::{BuddyRow, VmstatRow, ZoneRow};
use kmemlab_trace::unit::NodeId;
use kmemlab_tui::{Pressure, ZoneState};

/// Counters of `/proc/vmstat` that tell of pressure: a name for the screen, and how the keys that
/// it sums up begin.
const COUNTERS: [(&str, &[&str]); 6] = [
    ("allocstall", &["allocstall"]),
    ("compact_stall", &["compact_stall"]),
    ("compact_fail", &["compact_fail"]),
    ("direct_scan", &["pgscan_direct"]),
    ("kswapd_scan", &["pgscan_kswapd"]),
    ("oom_kill", &["oom_kill"]),
];

/// Sums of the counters of the screen.
pub(super) type Counted = [u64; COUNTERS.len()];

/// The counters of the screen out of the file's rows.
pub(super) fn counted(rows: &[VmstatRow]) -> Counted {
    let sum = |keys: &[&str]| {
        let fits = |row: &&VmstatRow| keys.iter().any(|key| row.key.starts_with(key));
        rows.iter().filter(fits).map(|row| row.value).fold(0, u64::wrapping_add)
    };
    COUNTERS.map(|(_, keys)| sum(keys))
}

/// What was counted a second between two readings.
pub(super) fn rates(before: &Counted, now: &Counted, span_ns: u64) -> Vec<(&'static str, u64)> {
    let rate = |(index, (name, _)): (usize, &(&'static str, _))| {
        let counted = u128::from(now[index].saturating_sub(before[index])) * 1_000_000_000;
        (*name, u64::try_from(counted.div_ceil(u128::from(span_ns.max(1)))).unwrap_or(u64::MAX))
    };
    COUNTERS.iter().enumerate().map(rate).collect()
}

/// The zones of `/proc/buddyinfo` with what `/proc/zoneinfo` says of them; the latter's zones where
/// the former was not told.
pub(super) fn zones(buddy: &[BuddyRow], rows: &[ZoneRow]) -> Vec<ZoneState> {
    if buddy.is_empty() {
        let managed = rows.iter().filter(|row| row.key == "managed" && row.value > 0);
        return managed.map(|row| zone_state(row.node, &row.zone, rows)).collect();
    }
    let state = |row: &BuddyRow| ZoneState {
        free_blocks: row.free_blocks.clone(),
        ..zone_state(row.node, &row.zone, rows)
    };
    buddy.iter().map(state).collect()
}

fn zone_state(node: NodeId, zone: &str, rows: &[ZoneRow]) -> ZoneState {
    let mut state = ZoneState { node, zone: zone.to_owned(), ..ZoneState::default() };
    for row in rows.iter().filter(|row| row.node == node && row.zone == zone) {
        let Ok(value) = u64::try_from(row.value) else { continue };
        match (row.key.as_str(), row.cpu) {
            ("managed", None) => state.managed = Some(value),
            ("free", None) => state.free = Some(value),
            ("min", None) => state.min = Some(value),
            ("low", None) => state.low = Some(value),
            ("high", None) => state.high = Some(value),
            ("pcp_count", Some(_)) => state.percpu = Some(state.percpu.unwrap_or(0) + value),
            _ => {}
        }
    }
    state
}

/// `/proc/pressure/memory`: the averages over ten seconds.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let average = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let value = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
        let (whole, hundredths) = value.split_once('.')?;
        Some(whole.parse::<u32>().ok()? * 100 + hundredths.parse::<u32>().ok()?)
    };
    Some(Pressure { some: average("some")?, full: average("full")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_by_name() {
        let text = "some avg10=1.25 avg60=0.03 avg300=0.00 total=1798807\n\
                    full avg10=0.07 avg60=0.00 avg300=0.00 total=1699497\n";
        assert_eq!(pressure(text), Some(Pressure { some: 125, full: 7 }));
        assert_eq!(pressure("some avg10=x\n"), None);
    }

    #[test]
    fn counters_are_summed_over_zones_and_told_a_second() {
        let row = |key: &str, value| VmstatRow { key: key.to_owned(), value };
        let then = counted(&[row("allocstall_normal", 5), row("allocstall_dma", 1)]);
        let now = counted(&[row("allocstall_normal", 9), row("allocstall_dma", 2)]);
        assert_eq!(rates(&then, &now, 2_000_000_000)[0], ("allocstall", 3));
        assert_eq!(rates(&now, &then, 0)[0], ("allocstall", 0));
    }
}
