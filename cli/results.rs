//! Runs of models, written as recordings of their own.

use std::path::{Path, PathBuf};

use kmemlab_replay::policy::Chosen;
use kmemlab_replay::{ModelResult, Outcome, SampleRow};
use kmemlab_trace::manifest::{
    End, Manifest, ModelError, ModelRun, PolicyChoice, RunCounts, UnusableBar,
};
use kmemlab_trace::snapshot::{BuddyRow, Stamp};
use kmemlab_trace::unit::{Nanos, NodeId};
use kmemlab_trace::{Recording, RecordingWriter, format};

mod stack;

pub(crate) use stack::write_stack;

/// Samples of the models, gathered while they run.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    sources: Vec<(String, Vec<(u64, BuddyRow)>)>,
}

impl Samples {
    /// Keeps a row, unless it is the kernel's or the mirror's.
    pub(crate) fn keep(&mut self, row: SampleRow<'_>) {
        self.keep_as(row.source, row);
    }

    /// The same, under another name.
    pub(crate) fn keep_as(&mut self, name: &str, row: SampleRow<'_>) {
        if row.source == "kernel" || row.source == "mirror" {
            return;
        }
        let known = self.sources.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            self.sources.push((name.to_owned(), Vec::new()));
            self.sources.len() - 1
        });
        let free_blocks = row.free_blocks.to_vec();
        let buddy = BuddyRow { node: NodeId(row.node), zone: row.zone.to_owned(), free_blocks };
        self.sources[index].1.push((row.at_ns, buddy));
    }

    fn of(&self, source: &str) -> &[(u64, BuddyRow)] {
        let found = self.sources.iter().find(|(name, _)| name == source);
        found.map_or(&[], |(_, rows)| rows)
    }
}

/// Writes the baseline and every other set of policies, each as `DIR/NAME.kmt`; answers the paths.
pub(crate) fn write(
    recording: &Recording,
    outcome: &Outcome,
    samples: &Samples,
    directory: &Path,
    replace: bool,
) -> anyhow::Result<Vec<PathBuf>> {
    make_directory(directory)?;
    let mut paths = Vec::new();
    let baseline = ("model", "baseline", Vec::new(), &outcome.model);
    let others = outcome.policies.iter().map(|run| {
        let name = run.policies.name.as_str();
        (name, name, chosen(&run.policies.chosen), &run.result)
    });
    for (source, name, policies, result) in std::iter::once(baseline).chain(others) {
        let path = directory.join(format!("{}.kmt", file_name(name)));
        let run = ModelRun { policies, ..described(recording, outcome, result) };
        write_one(recording, run, samples.of(source), &path, replace)?;
        paths.push(path);
    }
    Ok(paths)
}

fn make_directory(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| {
        anyhow::anyhow!("cannot create {}: {error}; give another directory", directory.display())
    })
}

/// What differs from the recorded kernel's own.
fn chosen(policies: &[Chosen]) -> Vec<PolicyChoice> {
    let choice = |chosen: &Chosen| PolicyChoice {
        role: chosen.role.name().to_owned(),
        name: chosen.name.clone(),
        params: chosen.params.given().to_vec(),
    };
    policies.iter().map(choice).collect()
}

/// A set's name as a file's.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.+=".contains(c) { c } else { '_' };
    name.chars().map(plain).collect()
}

fn described(recording: &Recording, outcome: &Outcome, result: &ModelResult) -> ModelRun {
    let baseline = &outcome.model;
    let name = recording.path().file_name().map(|name| name.to_string_lossy().into_owned());
    ModelRun {
        recording: name.unwrap_or_default(),
        recording_crc32: recording.manifest().end.as_ref().map_or(0, |end| end.index_crc32),
        began_ns: outcome.began_ns,
        rules: outcome.rules.clone(),
        policies: Vec::new(),
        counts: model_counts(result),
        kernel_counts: kernel_counts(result),
        error: ModelError {
            order_error_mean_percent: baseline.order_error_mean_percent,
            order_error_worst_percent: baseline.order_error_worst_percent,
            order_difference_percent: baseline.order_difference_percent,
            baseline_counts: model_counts(baseline),
            unusable: baseline
                .unusable_index
                .iter()
                .map(|index| UnusableBar {
                    order: index.order,
                    mean_points: index.error_mean_points,
                    worst_points: index.error_worst_points,
                })
                .collect(),
        },
        stack: None,
    }
}

fn model_counts(result: &ModelResult) -> RunCounts {
    RunCounts {
        whole_claims: result.fallback.model.whole_claims,
        small_claims: result.fallback.model.small_claims,
        steals: result.fallback.model.steals,
        failures: result.counts.all_failures(),
        kswapd_wakes: result.counts.kswapd_wakes,
        refills: result.moved.model_refills,
        drains: result.moved.model_drains,
        splits: result.work.splits,
        merges: result.work.merges,
        lists_scanned: result.work.lists_scanned,
    }
}

fn kernel_counts(result: &ModelResult) -> RunCounts {
    RunCounts {
        whole_claims: result.fallback.kernel.whole_claims,
        small_claims: result.fallback.kernel.small_claims,
        steals: result.fallback.kernel.steals,
        failures: result.kernel_failures,
        kswapd_wakes: result.kernel_kswapd_wakes,
        refills: result.moved.kernel_refills,
        drains: result.moved.kernel_drains,
        ..RunCounts::default()
    }
}

fn write_one(
    recording: &Recording,
    run: ModelRun,
    rows: &[(u64, BuddyRow)],
    path: &Path,
    replace: bool,
) -> anyhow::Result<()> {
    let kernel = recording.manifest();
    let manifest = Manifest {
        format_version: format::VERSION,
        tool: concat!("kmemlab ", env!("CARGO_PKG_VERSION")).to_owned(),
        origin: "model".to_owned(),
        started_realtime_ns: kernel.started_realtime_ns,
        started_monotonic_ns: kernel.started_monotonic_ns,
        clock: kernel.clock.clone(),
        host: kernel.host.clone(),
        snapshot_every_ns: kernel.snapshot_every_ns,
        events_valid_from_ns: kernel.events_valid_from_ns,
        model: Some(run),
        ..Manifest::default()
    };
    let mut writer = RecordingWriter::create(path, manifest, replace)?;
    let mut last = 0;
    for sample in rows.chunk_by(|a, b| a.0 == b.0) {
        last = sample[0].0;
        let stamp = Stamp { before: Nanos(last), after: Nanos(last) };
        let zones: Vec<BuddyRow> = sample.iter().map(|(_, row)| row.clone()).collect();
        writer.buddyinfo(stamp, &zones)?;
    }
    let end = End { reason: "replay".to_owned(), monotonic_ns: last, ..End::default() };
    writer.finish(end)?;
    Ok(())
}
