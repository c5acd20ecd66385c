//! Between the two passes: what the first one found is put in time.

use std::collections::BTreeMap;

use kmemlab_trace::reader::Recording;

use super::{First, Ground, Names, SLAB_KINDS, Step, step};
use crate::engine::{Options, ReplayError, Row, replay};
use crate::slab::caches::Site;
use crate::slab::learning::{Learning, SlabTraffic};
use crate::slab::overtaken::{Moments, Overtaking};
use crate::slab::trees::Ended;
use crate::slab::unseen::{Arrival, Came, LateSlab, Missing, Unseen, UnseenPages};

/// What came without an event, dated.
pub(super) fn unseen(
    recording: &Recording,
    ground: &Ground,
    learning: &mut Learning,
    found: Vec<Arrival>,
    until_sample: &[SlabTraffic],
) -> Result<Unseen, ReplayError> {
    let mut unseen = Unseen { slabs: learning.late_slabs(), arrivals: found, ..Unseen::default() };
    let freed = freed(learning);
    let is_told = unseen.slabs.iter().all(|slab| slab.is_taken) || !ground.has_pages;
    let pages =
        if is_told { UnseenPages::default() } else { unseen_pages(recording, &unseen.slabs)? };
    unseen.date(&pages);
    if let Some(sample) = ground.samples.first() {
        let late = unseen.slabs_until(sample.stamp.before.0);
        let most = u64::from(ground.machine.end);
        learning.count_nameless(&sample.rows, &ground.caches, until_sample, &late, most);
    }
    unseen.add(freed);
    unseen.add(learning.spent_unseen(&ground.caches, ground.machine.cpus, &unseen));
    Ok(unseen)
}

/// Frees that no event shows, and what is known of grace periods.
fn freed(learning: &mut Learning) -> Vec<Arrival> {
    let mut freed = std::mem::take(&mut learning.freed);
    let arrival = |node: &Ended, came| Arrival { at_ns: node.at_ns, cpu: node.cpu, came };
    let ended = learning.trees.ended.iter();
    freed.extend(ended.map(|node| arrival(node, Came::FreedTogether(node.address))));
    let replaced = learning.trees.replaced();
    freed.extend(replaced.iter().map(|node| arrival(node, Came::Freed(node.address))));
    if learning.sheaves.contains(&true) {
        freed.extend(learning.graces.take());
    }
    freed
}

/// What the mirror can tell of pages that left without an event.
fn unseen_pages(recording: &Recording, slabs: &[LateSlab]) -> Result<UnseenPages, ReplayError> {
    let mut samples: BTreeMap<u64, i64> = BTreeMap::new();
    let mut pages = UnseenPages::of(slabs);
    let options = Options { mirror_only: true, ..Options::default() };
    replay(recording, &options, &mut |row| match row {
        Row::Sample(sample) => {
            let free = (0u32..).zip(sample.free_blocks).map(|(order, n)| (*n << order) as i64);
            let sign = if sample.source == "kernel" { -1 } else { 1 };
            *samples.entry(sample.at_ns).or_default() += sign * free.sum::<i64>();
        }
        Row::Left { at_ns, pfn, migrate } => pages.note(pfn, migrate, at_ns, true),
        Row::Freed { at_ns, pfn, migrate } => pages.note(pfn, migrate, at_ns, false),
        Row::Residue(_) => {}
    })?;
    let of = |(at_ns, pages): (u64, i64)| Missing { at_ns, pages: pages.max(0).unsigned_abs() };
    pages.missing = samples.into_iter().map(of).collect();
    Ok(pages)
}

/// A pass between the two: which events do not stand where they took effect.
pub(super) fn moments(
    recording: &Recording,
    ground: &Ground,
    first: &First,
) -> Result<Moments, ReplayError> {
    let mut ground = ground.clone();
    let mut found = Overtaking::new(&ground.caches, &first.slabs, ground.machine.cpus);
    let mut follow = ground.follow();
    let places = &first.slabs.places;
    follow.start_from(&first.marks, places, &first.unseen, &ground.caches, &mut found);
    let mut names = Names::default();
    let mut arrivals = first.unseen.arrivals.as_slice();
    for batch in recording.events()? {
        let batch = batch?;
        names.read(&batch, &ground.caches);
        for event in batch.iter_only(SLAB_KINDS) {
            while let Some((next, rest)) = arrivals.split_first()
                && next.at_ns <= event.time.0
            {
                follow.arrive(next, &ground.caches, &mut found);
                arrivals = rest;
            }
            found.begin_event();
            let is_vector = ground.site(&event) == Site::Vector;
            let step = step(&mut follow, &mut ground, &event, &mut names, &mut found);
            if step != Step::SlabPages && !is_vector {
                found.end_event(&event);
            }
        }
    }
    Ok(found.into_moments())
}
