//! `kmemlab export`

use crate::args::ExportArgs;
use crate::exit::Answer;

#[cfg(not(feature = "export"))]
pub(crate) fn run(_args: &ExportArgs) -> anyhow::Result<Answer> {
    anyhow::bail!(
        "this kmemlab was built with --no-default-features and cannot write Parquet; build it with \
         `cargo build --release` (the first time takes some minutes)"
    )
}

#[cfg(feature = "export")]
pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<Answer> {
    use crate::text::{Table, bytes, count};
    use kmemlab_analyze::{ComparisonRow, ExportOptions, MisfitRow, Replayed, export_parquet};
    use kmemlab_replay::Row;
    use kmemlab_trace::Recording;
    use serde_json::json;

    let recording = Recording::open(&args.read.recording, args.read.salvage)?;
    let mut replayed = Replayed::default();
    if recording.has(&kmemlab_trace::format::BUDDYINFO) {
        let mut keep = |row: Row<'_>| match row {
            Row::Sample(row) => {
                for (order, free_blocks) in row.free_blocks.iter().enumerate() {
                    replayed.comparison.push(ComparisonRow {
                        source: row.source.to_owned(),
                        time_ns: row.at_ns,
                        node: row.node,
                        zone: row.zone.to_owned(),
                        order: order as u16,
                        free_blocks: *free_blocks,
                    });
                }
            }
            Row::Residue(row) => replayed.residue.push(MisfitRow {
                evidence: row.evidence.name(),
                time_ns: row.at_ns,
                node: row.node,
                zone: row.zone.to_owned(),
                order: row.order.into(),
                pfn: row.pfn.map(u64::from),
                cause: row.cause.name(),
                blocks: row.blocks,
            }),
            Row::Left { .. } | Row::Freed { .. } => {}
        };
        let options = kmemlab_replay::Options::default();
        kmemlab_replay::replay(&recording, &options, &mut keep)?;
        replayed.slabs = slabs(&recording)?;
    }
    let replayed = (!replayed.comparison.is_empty()).then_some(&replayed);
    let options = ExportOptions { force: args.force };
    let files = export_parquet(&recording, &args.parquet, replayed, &options)?;
    if args.read.json {
        let files: Vec<_> = files
            .iter()
            .map(|file| {
                json!({
                    "file": file.file,
                    "rows": file.rows,
                    "missing_rows": file.missing_rows,
                    "size_bytes": file.bytes,
                })
            })
            .collect();
        crate::json::print(&json!({ "files": files }))?;
    } else {
        let mut table = Table::new(["file", "rows", "size"], 1);
        for file in &files {
            table.row(vec![file.file.clone(), count(file.rows), bytes(file.bytes)]);
        }
        let mut text = table.render();
        for file in files.iter().filter(|file| file.missing_rows > 0) {
            let missing = count(file.missing_rows);
            text += &format!("{} lacks {missing} rows of damaged batches\n", file.file);
        }
        crate::exit::print(&text)?;
    }
    Ok(Answer::Yes)
}

/// The slab layer's caches at every sample, the kernel's beside the model's; none without events
/// of objects.
#[cfg(feature = "export")]
fn slabs(
    recording: &kmemlab_trace::Recording,
) -> anyhow::Result<Vec<kmemlab_analyze::SlabComparisonRow>> {
    use kmemlab_analyze::SlabComparisonRow;
    use kmemlab_replay::stack::{StackOptions, replay_stack};
    use kmemlab_trace::event::Kind;
    use kmemlab_trace::format;

    let manifest = recording.manifest();
    let recorded = manifest.tracepoints.iter().any(|it| it.name == Kind::CacheAlloc.name());
    if !recorded || !recording.has(&format::SLABINFO) {
        return Ok(Vec::new());
    }
    let options = StackOptions { without_pages: true, keep_rows: true, ..StackOptions::default() };
    let outcome = replay_stack(recording, &options, &mut |_, _| {})?;
    if outcome.follow.object_events == 0 {
        return Ok(Vec::new());
    }
    let page_bytes = manifest.host.page_size_bytes;
    let slab = &outcome.baseline.slab;
    let mut rows = Vec::new();
    for row in &slab.rows {
        let Some(cache) = slab.caches.get(row.cache) else { continue };
        for (source, count) in [("kernel", row.kernel), ("model", row.model)] {
            rows.push(SlabComparisonRow {
                source,
                time_ns: row.at_ns,
                cache: cache.name.clone(),
                slabs: count.slabs,
                pages: count.pages,
                active_objects: count.active_objects,
                waste_bytes: count.waste_bytes(row.object_bytes, page_bytes),
                utilisation_ppm: count.utilisation_ppm(row.object_bytes, page_bytes),
            });
        }
    }
    Ok(rows)
}
