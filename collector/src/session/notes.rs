//! What a recording tells of itself in whole sentences.

use std::time::Duration;

use kmemlab_trace::manifest;

use crate::encode::Encoded;

/// A recorder that stood still for less did not lose events by it.
const STALLED_SECONDS: f64 = 0.05;

/// Events that fired and neither came nor were told of as lost: some kernels drop the softirq
/// events of certain threads behind perf's back, and only the counters see them. They are lost as
/// well; the note says how many of the lost are of this kind.
pub(super) fn count_silent(records: &mut [manifest::TracepointRecord]) -> Option<String> {
    let mut named = Vec::new();
    for record in records {
        let (Some(counted), Some(recorded), Some(lost)) =
            (record.counted, record.recorded, record.lost)
        else {
            continue;
        };
        let silent = counted.saturating_sub(recorded + lost);
        if silent > 0 {
            record.lost = Some(lost + silent);
            named.push(format!("{silent} {}", record.name));
        }
    }
    (!named.is_empty()).then(|| {
        format!(
            "of the lost events the kernel dropped some in silence, only its counters saw them: {}",
            named.join(", ")
        )
    })
}

/// What to do against losses next time.
pub(super) fn loss_note(lost: u64, ring_bytes: u64, stalled: Duration) -> Option<String> {
    let seconds = stalled.as_secs_f64();
    let larger = (ring_bytes >> 20).max(1) * 4;
    match lost {
        0 => None,
        _ if seconds >= STALLED_SECONDS => Some(format!(
            "{lost} events were lost, as for {seconds:.1} s they came faster than they could be written: \
             record fewer (--events page), or onto a faster disk"
        )),
        _ => Some(format!(
            "{lost} events were lost, as the rings had no room for them: record with larger ones \
             (--ring {larger}M), or fewer events (--events page)"
        )),
    }
}

pub(super) fn encode_notes(encoded: &Encoded) -> Vec<String> {
    let mut notes = Vec::new();
    if encoded.undecoded > 0 {
        notes.push(format!("{} records could not be decoded", encoded.undecoded));
    }
    if encoded.stacks_refused > 0 {
        let refused = encoded.stacks_refused;
        notes.push(format!(
            "{refused} events have no call chain: there are too many different ones"
        ));
    }
    let (found, lost) = encoded.chains;
    if lost > 0 {
        notes.push(format!("{lost} of {} sampled call chains found no event", found + lost));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_names_the_option_that_helps() {
        let told = |lost, stalled_ms| loss_note(lost, 8 << 20, Duration::from_millis(stalled_ms));
        assert_eq!(told(0, 900), None);
        assert!(told(7, 0).unwrap().contains("(--ring 32M)"));
        let behind = told(7, 900).unwrap();
        assert!(behind.contains("0.9 s") && behind.contains("(--events page)"), "{behind}");
    }
}
