//! Who waited for memory, how long and why; and the moments that the time bar marks.

use kmemlab_trace::event::{Column, Event, Kind};
use kmemlab_trace::unit::Nanos;
use kmemlab_tui::parts::{Latency, Stall, StallClass, bucket_of};
use kmemlab_tui::{MarkKind, Marks};

use super::names::Names;
use super::sites::Numbered;

/// Why somebody waited. The numbers are what a [`Waited`] keeps.
const CAUSES: [&str; 6] = [
    "direct reclaim",
    "memcg reclaim",
    "node reclaim",
    "direct compaction",
    "kcompactd",
    "kswapd wake",
];
const DIRECT: u8 = 0;
const MEMCG: u8 = 1;
const NODE: u8 = 2;
const COMPACTION: u8 = 3;
const KCOMPACTD: u8 = 4;
const KSWAPD: u8 = 5;
/// No order told.
const NONE: u8 = u8::MAX;
/// Stalls that the list shows at most.
const LISTED: usize = 1000;

/// The events that tell of waiting and of what is worth a mark.
pub(super) const KINDS: u64 = Kind::DirectReclaimBegin.bit()
    | Kind::DirectReclaimEnd.bit()
    | Kind::MemcgReclaimBegin.bit()
    | Kind::MemcgReclaimEnd.bit()
    | Kind::NodeReclaimBegin.bit()
    | Kind::NodeReclaimEnd.bit()
    | Kind::CompactionTry.bit()
    | Kind::CompactionBegin.bit()
    | Kind::CompactionEnd.bit()
    | Kind::KcompactdWake.bit()
    | Kind::KswapdWakeup.bit()
    | Kind::KswapdWake.bit()
    | Kind::ExtFrag.bit()
    | Kind::OomVictim.bit()
    | Kind::PageAlloc.bit()
    | Kind::VmapAlloc.bit();

/// A stall as it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waited {
    begin: u64,
    end: u64,
    pid: u32,
    stack: u32,
    cause: u8,
    order: u8,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    at: u64,
    order: u8,
    stack: u32,
}

/// Pairs the beginnings with the ends.
#[derive(Debug, Default)]
pub(super) struct Finder {
    open: Numbered<u64, Open>,
    /// The order that each thread tries to compact for.
    wanted: Numbered<u32, u8>,
}

/// What was found, growing.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their ends.
    pub(super) stalls: Vec<Waited>,
    pub(super) marks: Marks,
}

impl Finder {
    pub(super) fn step(&mut self, event: &Event, found: &mut Found) {
        let at = event.time;
        match event.kind {
            // The bulk of the events: only failures matter.
            Kind::PageAlloc if event.has(Column::PfnOrAddress) => {}
            Kind::PageAlloc => found.marks.push(MarkKind::Failure, at),
            Kind::VmapAlloc if event.flag == 1 => found.marks.push(MarkKind::Failure, at),
            Kind::OomVictim => found.marks.push(MarkKind::Failure, at),
            Kind::ExtFrag => found.marks.push(MarkKind::Fallback, at),
            Kind::DirectReclaimBegin => self.begin(DIRECT, event, order(event), found),
            Kind::DirectReclaimEnd => self.end(DIRECT, event, found),
            Kind::MemcgReclaimBegin => self.begin(MEMCG, event, order(event), found),
            Kind::MemcgReclaimEnd => self.end(MEMCG, event, found),
            Kind::NodeReclaimBegin => self.begin(NODE, event, order(event), found),
            Kind::NodeReclaimEnd => self.end(NODE, event, found),
            Kind::CompactionTry | Kind::KcompactdWake => {
                let is_daemon = u8::from(event.kind == Kind::KcompactdWake) << 7;
                self.wanted.insert(event.pid.0, order(event).min(0x7f) | is_daemon);
            }
            Kind::CompactionBegin => {
                let wanted = self.wanted.get(&event.pid.0).copied();
                match wanted {
                    Some(wanted) if wanted & 0x80 == 0 => {
                        self.begin(COMPACTION, event, wanted, found);
                    }
                    other => {
                        let order = other.map_or(NONE, |wanted| wanted & 0x7f);
                        self.begin(KCOMPACTD, event, order, found);
                    }
                }
            }
            Kind::CompactionEnd => {
                self.end(COMPACTION, event, found);
                self.end(KCOMPACTD, event, found);
            }
            Kind::KswapdWakeup => {
                let open = Open { at: at.0, order: order(event), stack: stack(event) };
                self.open.entry(key(KSWAPD, event.node as u32)).or_insert(open);
            }
            Kind::KswapdWake => self.close(KSWAPD, event.node as u32, event, found),
            _ => {}
        }
    }

    fn begin(&mut self, cause: u8, event: &Event, order: u8, found: &mut Found) {
        let open = Open { at: event.time.0, order, stack: stack(event) };
        self.open.insert(key(cause, event.pid.0), open);
        if cause != KCOMPACTD {
            found.marks.push(MarkKind::Stall, event.time);
        }
    }

    fn end(&mut self, cause: u8, event: &Event, found: &mut Found) {
        self.close(cause, event.pid.0, event, found);
    }

    fn close(&mut self, cause: u8, who: u32, event: &Event, found: &mut Found) {
        let Some(open) = self.open.remove(&key(cause, who)) else { return };
        found.stalls.push(Waited {
            begin: open.at,
            end: event.time.0,
            pid: event.pid.0,
            stack: open.stack,
            cause,
            order: open.order,
        });
    }
}

fn key(cause: u8, who: u32) -> u64 {
    u64::from(cause) << 32 | u64::from(who)
}

fn order(event: &Event) -> u8 {
    event.order().map_or(NONE, |order| order.0)
}

fn stack(event: &Event) -> u32 {
    event.stack().map_or(u32::MAX, |stack| stack.0)
}

impl Found {
    /// How many stalls had ended by then.
    pub(super) fn until(&self, at: Nanos) -> usize {
        self.stalls.partition_point(|stall| stall.end <= at.0)
    }

    /// The first so many of them, reckoned up.
    pub(super) fn latency(&self, count: usize, names: &Names) -> Latency {
        let stalls = &self.stalls[..count.min(self.stalls.len())];
        let mut by_class: std::collections::BTreeMap<(u8, u8), Vec<u64>> =
            std::collections::BTreeMap::new();
        for stall in stalls {
            by_class
                .entry((stall.cause, stall.order))
                .or_default()
                .push(stall.end.saturating_sub(stall.begin));
        }
        let classes = by_class.into_iter().map(|((cause, order), mut spans)| {
            spans.sort_unstable();
            class(cause, order, &spans)
        });
        let classes = classes.collect();
        let listed = stalls.iter().rev().take(LISTED).map(|stall| Stall {
            at: Nanos(stall.begin),
            nanos: stall.end.saturating_sub(stall.begin),
            cause: CAUSES[usize::from(stall.cause)],
            order: (stall.order != NONE).then_some(stall.order),
            pid: stall.pid,
            command: names.task(stall.pid),
            stack: names.chain(stall.stack),
        });
        Latency { classes, stalls: listed.collect() }
    }
}

fn class(cause: u8, order: u8, sorted: &[u64]) -> StallClass {
    let percentile = |hundredths: usize| {
        let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0)
    };
    let mut class = StallClass {
        cause: CAUSES[usize::from(cause)],
        order: (order != NONE).then_some(order),
        count: sorted.len() as u64,
        total_ns: sorted.iter().fold(0, |sum, span| sum.saturating_add(*span)),
        p50_ns: percentile(50),
        p99_ns: percentile(99),
        max_ns: sorted.last().copied().unwrap_or(0),
        ..StallClass::default()
    };
    sorted.iter().for_each(|nanos| class.histogram[bucket_of(*nanos)] += 1);
    class
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmemlab_trace::unit::{Cpu, Pid};

    #[test]
    fn beginnings_meet_their_ends_by_thread() {
        let event = |kind, at, pid, order: u8| {
            let mut event = Event::new(kind, Nanos(at), Cpu(0), Pid(pid));
            event.order = order;
            event.present = Column::Order.bit() | Column::PfnOrAddress.bit();
            event
        };
        let mut finder = Finder::default();
        let mut found = Found::default();
        for event in [
            event(Kind::DirectReclaimBegin, 1_000, 5, 0),
            event(Kind::DirectReclaimBegin, 2_000, 6, 3),
            event(Kind::CompactionTry, 2_500, 7, 9),
            event(Kind::CompactionBegin, 2_600, 7, 0),
            event(Kind::DirectReclaimEnd, 3_000, 5, 0),
            event(Kind::CompactionEnd, 5_600, 7, 0),
            event(Kind::DirectReclaimEnd, 9_000, 6, 0),
            event(Kind::DirectReclaimEnd, 9_500, 8, 0),
            event(Kind::CompactionBegin, 10_000, 9, 0),
            event(Kind::CompactionEnd, 10_500, 9, 0),
        ] {
            finder.step(&event, &mut found);
        }
        assert_eq!(found.until(Nanos(8_999)), 2);
        let latency = found.latency(usize::MAX, &Names::default());
        let told: Vec<_> = latency
            .classes
            .iter()
            .map(|class| (class.cause, class.order, class.count, class.max_ns))
            .collect();
        assert_eq!(
            told,
            [
                ("direct reclaim", Some(0), 1, 2_000),
                ("direct reclaim", Some(3), 1, 7_000),
                ("direct compaction", Some(9), 1, 3_000),
                ("kcompactd", None, 1, 500),
            ]
        );
        assert_eq!(latency.stalls[0].pid, 9);
        assert_eq!(found.marks.count(MarkKind::Stall), 3);
    }

    #[test]
    fn percentiles_are_of_real_stalls() {
        let spans: Vec<u64> = (1..=200).map(|n| n * 1_000).collect();
        let class = class(DIRECT, NONE, &spans);
        assert_eq!((class.p50_ns, class.p99_ns, class.max_ns), (100_000, 198_000, 200_000));
        assert_eq!(class.histogram.iter().sum::<u64>(), 200);
    }
}
