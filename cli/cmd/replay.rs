//! `kmemlab replay`

use kmemlab_replay::policy::PolicySet;
use kmemlab_replay::residue::{ResidueKey, ResidueSum};
use kmemlab_replay::rules::{self, Rules};
use kmemlab_replay::{Comparison, ModelResult, Options, Outcome, Row, Speed, Unsure};
use kmemlab_trace::Recording;
use serde_json::{Value, json};

use crate::args::ReplayArgs;
use crate::exit::Answer;
use crate::json::rounded;
use crate::policy_file::set_of;
use crate::results::{self, Samples};

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<Answer> {
    let recording = Recording::open(&args.read.recording, args.read.salvage)?;
    if let Some(run) = &recording.manifest().model {
        anyhow::bail!(
            "{} is a model's run over {} and has no events; replay that recording, or `kmemlab \
             compare` the two",
            args.read.recording.display(),
            run.recording
        );
    }
    let rules = args.rules.as_deref().map(rules_of).transpose()?;
    let (recorded, _) = kmemlab_replay::rules_of(recording.manifest());
    let sets = args.policies.iter().map(|text| set_of(text, &rules.unwrap_or(recorded)));
    let policies = sets.collect::<anyhow::Result<Vec<_>>>()?;
    if args.stack {
        return super::replay_stack::run(&recording, args, policies, now);
    }
    if let Some(chosen) = policies.iter().find_map(PolicySet::above_pages) {
        anyhow::bail!("{} acts above the pages; add --stack to run it", chosen.name);
    }
    let check = args.check;
    let options = Options { rules, policies, clock: Some(now), check, ..Options::default() };
    let mut samples = Samples::default();
    let mut keep = |row: Row<'_>| {
        if let (Some(_), Row::Sample(row)) = (&args.output, row) {
            samples.keep(row);
        }
    };
    let mut outcome = kmemlab_replay::replay(&recording, &options, &mut keep)?;
    if let Some(directory) = &args.output {
        results::write(&recording, &outcome, &samples, directory, args.force)?;
    }
    outcome.notes.splice(0..0, recording.notes().iter().cloned());
    if args.rules.is_some() {
        let note = format!("rules of {} were forced, not the recorded release's", outcome.rules);
        outcome.notes.push(note);
    }
    if args.read.json {
        crate::json::print(&as_json(&outcome))?;
    } else {
        crate::exit::print(&super::replay_text::render(&recording, &outcome))?;
    }
    Ok(Answer::Yes)
}

pub(super) fn rules_of(release: &str) -> anyhow::Result<Rules> {
    let known: Vec<String> = rules::ALL.iter().map(Rules::name).collect();
    let is_release = release.starts_with(|c: char| c.is_ascii_digit()) && release.contains('.');
    anyhow::ensure!(
        is_release,
        "{release} is no release; rules are known for {}",
        known.join(", ")
    );
    Ok(Rules::of(release))
}

/// Processor time: on a busy machine the wall clock tells of others.
fn now() -> u64 {
    kmemlab_collector::clock::thread_cpu().0
}

/// The keys are documented in `docs/json.md`.
fn as_json(outcome: &Outcome) -> Value {
    json!({
        "rules": outcome.rules,
        "rules_by_probe": outcome.rules_by_probe,
        "events": outcome.events,
        "page_events": outcome.page_events,
        "lost_events": outcome.lost_events,
        "damaged_batches": outcome.damaged_batches,
        "unmatched_frees": outcome.mirror.residue.unmatched_frees,
        "unmatched_allocs": outcome.mirror.residue.unmatched_allocs,
        "span_ns": outcome.span_ns,
        "digest": format!("{:016x}", outcome.digest),
        "mirror": mirror(outcome),
        "model": model(&outcome.model),
        "policies": policies(outcome),
        "worst_sample": outcome.worst.as_ref().map(sample),
        "last_sample": outcome.last.as_ref().map(sample),
        "notes": outcome.notes,
    })
}

fn mirror(outcome: &Outcome) -> Value {
    let mirror = &outcome.mirror;
    let (residue, hits) = (&mirror.residue, &mirror.pcp_hits);
    let (table, lists) = (&mirror.table, &mirror.pcp_counts);
    json!({
        "samples": mirror.samples,
        "exact_samples": mirror.exact_samples,
        "quiet_samples": mirror.quiet_samples,
        "exact_quiet_samples": mirror.exact_quiet_samples,
        "inexact_sample_pages": mirror.sample_wrong_pages,
        "wrong_pages": mirror.wrong_pages,
        "free_pages": mirror.free_pages,
        "mirror_only_pages": mirror.mirror_only_pages,
        "kernel_only_pages": mirror.kernel_only_pages,
        "pcp_pops": hits.pops,
        "pcp_pops_at_head": hits.at_head,
        "pcp_drains": hits.drains,
        "pcp_drains_at_tail": hits.at_tail,
        "residue": {
            "unmatched_frees": residue.unmatched_frees,
            "unmatched_allocs": residue.unmatched_allocs,
            "frees_from_before": residue.frees_from_before,
            "hidden_take_pages": residue.hidden_takes,
            "missing_take_pages": residue.missing_takes,
            "double_drains": residue.double_drains,
            "bulk_pages": residue.bulk_pages,
            "direct_free_pages": residue.direct_frees,
            "unsolved_isolations": residue.unsolved_isolations,
            "ambiguous_isolations": residue.ambiguous_isolations,
            "captured_pages": residue.captured_pages,
            "kept_frees": residue.kept_frees,
            "made_up_pages": residue.made_up_pages,
            "impossible_events": residue.impossible_events,
        },
        "residue_by_cause": table.sums.iter().map(residue_sum).collect::<Vec<_>>(),
        "hidden_refills": table.hidden_refills,
        "hidden_refill_pages": table.hidden_refill_pages,
        "hidden_drains": table.hidden_drains,
        "hidden_drain_pages": table.hidden_drain_pages,
        "pcp_counts_compared": lists.compared,
        "pcp_counts_equal": lists.equal,
        "pcp_counts_worst_pages": lists.worst_pages,
        "pcp_counts_wrong_pages": lists.wrong_pages,
        "pcp_unknown_pages": lists.unknown_pages,
        "new_pages": mirror.new_pages,
        "unsure": mirror.unsure.iter().map(unsure).collect::<Vec<_>>(),
        "state_bytes": mirror.state_bytes,
        "events_per_second": per_second(mirror.speed),
        "page_events_per_second": rounded(mirror.speed.page_events_per_second().round()),
    })
}

fn residue_sum((key, sum): (&ResidueKey, &ResidueSum)) -> Value {
    json!({
        "evidence": key.evidence.name(),
        "node": key.node,
        "zone": key.zone,
        "order": key.order,
        "cause": key.cause.name(),
        "rows": sum.rows,
        "pages_over": sum.pages_over,
        "pages_under": sum.pages_under,
        "first_ns": sum.first_ns,
        "last_ns": sum.last_ns,
    })
}

fn unsure(interval: &Unsure) -> Value {
    json!({
        "from_ns": interval.from_ns,
        "until_ns": interval.until_ns,
        "lost_events": interval.lost_events,
        "removed_pages": interval.removed_pages,
        "added_pages": interval.added_pages,
    })
}

fn policies(outcome: &Outcome) -> Value {
    let of = |run| super::replay_policies::as_json(run, &outcome.model, model(&run.result));
    outcome.policies.iter().map(of).collect()
}

fn model(model: &ModelResult) -> Value {
    let (kernel, own) = (&model.fallback.kernel, &model.fallback.model);
    let unusable: Vec<_> = model
        .unusable
        .iter()
        .map(|error| {
            json!({
                "order": error.order,
                "mean_points": rounded(error.mean_points),
                "worst_points": rounded(error.worst_points),
            })
        })
        .collect();
    let drift: Vec<_> = model
        .drift
        .iter()
        .map(|point| {
            json!({
                "since_ns": point.since_ns,
                "order_error_percent": rounded(point.order_error_percent),
            })
        })
        .collect();
    json!({
        "order_error_mean_percent": rounded(model.order_error_mean_percent),
        "order_error_worst_percent": rounded(model.order_error_worst_percent),
        "allocs": model.placement.allocs,
        "pfn_exact_percent": rounded(model.placement.exact_percent()),
        "order0_pfn_exact_percent": rounded(model.placement.order0_exact_percent()),
        "same_pageblock_percent": rounded(model.placement.same_block_percent()),
        "unusable_error": unusable,
        "fallbacks_kernel": {
            "whole_claims": kernel.whole_claims,
            "small_claims": kernel.small_claims,
            "steals": kernel.steals,
        },
        "fallbacks_model": {
            "whole_claims": own.whole_claims,
            "small_claims": own.small_claims,
            "steals": own.steals,
        },
        "failures": model.counts.all_failures(),
        "failures_kernel": model.kernel_failures,
        "kswapd_wakes": model.counts.kswapd_wakes,
        "kswapd_wakes_kernel": model.kernel_kswapd_wakes,
        "refills": model.moved.model_refills,
        "refills_kernel": model.moved.kernel_refills,
        "refills_equal_percent": rounded(model.moved.equal_refills_percent()),
        "drains": model.moved.model_drains,
        "drains_kernel": model.moved.kernel_drains,
        "drains_equal_percent": rounded(model.moved.equal_drains_percent()),
        "below_watermark": model.counts.below_watermark,
        "double_frees": model.counts.double_frees,
        "drift": drift,
        "state_bytes": model.state_bytes,
        "events_per_second": per_second(model.speed),
        "page_events_per_second": rounded(model.speed.page_events_per_second().round()),
    })
}

fn per_second(speed: Speed) -> Value {
    rounded(speed.events_per_second().round())
}

fn sample(comparison: &Comparison) -> Value {
    let zones: Vec<_> = comparison
        .zones
        .iter()
        .map(|zone| {
            json!({
                "node": zone.node,
                "zone": zone.zone,
                "kernel_free_blocks": zone.kernel,
                "mirror_free_blocks": zone.mirror,
                "model_free_blocks": zone.model,
            })
        })
        .collect();
    json!({ "time_ns": comparison.at_ns, "since_start_ns": comparison.since_ns, "zones": zones })
}
