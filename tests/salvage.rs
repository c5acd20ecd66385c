//! `--salvage` and recordings that were cut off: what is whole is read, the rest is counted.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Folder, info, kmemlab, number, replay};
use crate::synthetic::{BATCHES, EVENTS_A_BATCH, Ending, Synthetic, cut, files, flip};

const SALVAGE: &[&str] = &["--salvage"];

fn harmed(folder: &Folder, ending: Ending) -> (Synthetic, PathBuf) {
    let synthetic = Synthetic::write(&folder.join("harmed.kmt"), ending);
    let events = synthetic.path.join("events.arrows");
    (synthetic, events)
}

/// Flips a bit in the midst of one batch of events.
fn harm_batch(synthetic: &Synthetic, events: &Path, batch: usize) {
    flip(events, (synthetic.borders[batch] + synthetic.borders[batch + 1]) / 2);
}

#[test]
fn a_damaged_batch_is_passed_over_and_counted() {
    let folder = Folder::new("salvage");
    let (synthetic, events) = harmed(&folder, Ending::Clean);
    let whole = info(&synthetic.path, &[]);
    assert_eq!(number(&whole, "events"), Synthetic::events());
    assert_eq!(number(&whole, "damaged_batches"), 0);
    harm_batch(&synthetic, &events, BATCHES as usize - 1);
    kmemlab([Path::new("info"), &synthetic.path]).refused(&["events.arrows", "--salvage"]);
    let left = Synthetic::events() - EVENTS_A_BATCH;
    let salvaged = info(&synthetic.path, SALVAGE);
    assert_eq!(number(&salvaged, "events"), left);
    assert_eq!(number(&salvaged, "damaged_batches"), 1);
    let salvaged = replay(&synthetic.path, SALVAGE);
    assert_eq!(number(&salvaged, "events"), left);
    assert_eq!(number(&salvaged, "damaged_batches"), 1, "replay does not tell what it left out");
}

#[test]
fn a_lost_schema_takes_all_with_it() {
    let folder = Folder::new("schema");
    let (synthetic, events) = harmed(&folder, Ending::Clean);
    flip(&events, 20);
    let salvaged = info(&synthetic.path, SALVAGE);
    assert_eq!(number(&salvaged, "events"), 0);
    assert!(number(&salvaged, "damaged_batches") >= BATCHES);
    replay(&synthetic.path, SALVAGE);
}

#[test]
fn a_damaged_table_is_counted_too() {
    let folder = Folder::new("tables");
    let (synthetic, _) = harmed(&folder, Ending::Clean);
    let buddyinfo = synthetic.path.join("snapshots/buddyinfo.arrows");
    flip(&buddyinfo, fs::metadata(&buddyinfo).unwrap().len() * 3 / 4);
    for told in [info(&synthetic.path, SALVAGE), replay(&synthetic.path, SALVAGE)] {
        assert_eq!(number(&told, "events"), Synthetic::events());
        assert_eq!(number(&told, "damaged_batches"), 1, "buddyinfo lost a batch in silence");
    }
}

#[test]
fn a_missing_or_damaged_index_leaves_what_stands_before() {
    let folder = Folder::new("index");
    let (synthetic, _) = harmed(&folder, Ending::Clean);
    let index = synthetic.path.join("index.arrows");
    let bytes = fs::read(&index).unwrap();
    cut(&index, bytes.len() as u64 / 2);
    let salvaged = info(&synthetic.path, SALVAGE);
    assert!(number(&salvaged, "events") < Synthetic::events());
    assert!(number(&salvaged, "events") > 0);
    assert!(notes(&salvaged).contains("the index is damaged"), "{salvaged:#}");
    replay(&synthetic.path, SALVAGE);
}

fn notes(told: &Value) -> String {
    told["notes"].to_string()
}

#[test]
fn a_recording_cut_off_is_read_up_to_its_last_whole_batch() {
    let folder = Folder::new("cut-off");
    let (synthetic, events) = harmed(&folder, Ending::CutOff);
    let told = info(&synthetic.path, &[]);
    assert_eq!(told["ended_cleanly"], false);
    assert!(told["ended_by"].is_null(), "{told:#}");
    assert!(notes(&told).contains("cut off"), "{told:#}");
    assert_eq!(number(&told, "events"), Synthetic::events());
    replay(&synthetic.path, &[]);
    for whole in [8, 3, 0] {
        for bytes in [synthetic.borders[whole] + 9, synthetic.borders[whole]] {
            cut(&events, bytes);
            let told = info(&synthetic.path, &[]);
            assert_eq!(number(&told, "events"), whole as u64 * EVENTS_A_BATCH, "{bytes} bytes");
            assert_eq!(told["ended_cleanly"], false);
            assert_eq!(number(&replay(&synthetic.path, &[]), "events"), number(&told, "events"));
        }
    }
}

/// After a power loss a file may have its length and not yet its bytes.
#[test]
fn zeros_at_the_end_of_a_recording_cut_off_are_no_damage() {
    let folder = Folder::new("zeros");
    let (synthetic, events) = harmed(&folder, Ending::CutOff);
    let size = fs::metadata(&events).unwrap().len();
    cut(&events, synthetic.borders[7] + 100);
    cut(&events, size);
    let told = info(&synthetic.path, &[]);
    assert_eq!(number(&told, "events"), 7 * EVENTS_A_BATCH);
    assert_eq!(number(&told, "damaged_batches"), BATCHES - 7, "what is left out is told");
}

/// Of a recording cut off, nothing but `index.crc` vouches for the index.
#[test]
fn an_index_is_read_up_to_its_first_part_that_is_not_vouched_for() {
    let folder = Folder::new("index-crc");
    let (synthetic, _) = harmed(&folder, Ending::CutOff);
    let (index, checksums) =
        (synthetic.path.join("index.arrows"), synthetic.path.join("index.crc"));
    let whole = fs::read(&checksums).unwrap();
    // The schema, the streams' beginnings, then a part for each batch.
    let parts = 2 + BATCHES;
    assert_eq!(whole.len() as u64, 20 * parts);
    let left = |batches: u64| {
        let told = info(&synthetic.path, &[]);
        assert_eq!(number(&told, "events"), batches * EVENTS_A_BATCH);
        replay(&synthetic.path, SALVAGE);
    };
    for (bytes, batches) in [(parts * 20 - 1, BATCHES - 1), (4 * 20, 2), (3 * 20, 1), (25, 0)] {
        cut(&checksums, bytes);
        left(batches);
        cut(&checksums, parts * 20);
        left(batches);
        fs::write(&checksums, &whole).unwrap();
    }
    let part = |number: usize| {
        let offset = whole[20 * number..20 * number + 8].try_into().unwrap();
        u64::from_le_bytes(offset)
    };
    flip(&index, part(9) + 40);
    left(7);
}

/// The manifest vouches for the index of a recording that ended.
#[test]
fn a_lost_checksum_of_a_whole_index_costs_nothing() {
    let folder = Folder::new("no-crc");
    let (synthetic, _) = harmed(&folder, Ending::Clean);
    fs::remove_file(synthetic.path.join("index.crc")).unwrap();
    kmemlab([Path::new("info"), &synthetic.path]).refused(&["index.crc"]);
    let salvaged = info(&synthetic.path, SALVAGE);
    assert_eq!(number(&salvaged, "events"), Synthetic::events());
    assert!(notes(&salvaged).contains("index.crc is damaged"), "{salvaged:#}");
}

/// Whatever file of it was cut: what was written before is still there.
#[test]
fn any_cut_file_of_a_recording_cut_off_can_be_read() {
    let folder = Folder::new("any-cut");
    let original = Synthetic::write(&folder.join("whole.kmt"), Ending::CutOff).path;
    for file in files(&original).into_iter().filter(|file| !file.ends_with("manifest.json")) {
        let harmed = folder.join("harmed.kmt");
        let _ = fs::remove_dir_all(&harmed);
        crate::synthetic::copy(&original, &harmed);
        let size = fs::metadata(harmed.join(&file)).unwrap().len();
        cut(&harmed.join(&file), size / 2);
        let told = info(&harmed, &[]);
        assert!(number(&told, "events") > 0, "{}", file.display());
        replay(&harmed, &[]);
    }
}
