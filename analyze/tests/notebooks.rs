//! Every exported file opens in pyarrow, pandas and DuckDB, with the same rows and nulls in all.

// Helpers of a test may stop it, as tests may.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "parquet")]

mod small_recording;

use std::process::Command;

use kmemlab_analyze::{ExportOptions, export_parquet};
use small_recording::Folder;

const SCRIPT: &str = r#"
import sys, pathlib
import pyarrow.parquet, pandas, duckdb
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.parquet")):
    table = pyarrow.parquet.read_table(path)
    names = table.column_names
    arrow = [table.num_rows] + [table[name].null_count for name in names]
    frame = pandas.read_parquet(path)
    assert list(frame.columns) == names, path
    pandas.read_parquet(path, dtype_backend="pyarrow").memory_usage(deep=True)
    pandas_counts = [len(frame)] + [int(frame[name].isna().sum()) for name in names]
    nulls = ", ".join(f'count(*) - count("{name}")' for name in names)
    duck = list(duckdb.sql(f"select count(*), {nulls} from '{path}'").fetchall()[0])
    assert arrow == pandas_counts == duck, (path, arrow, pandas_counts, duck)
    print(path.name, *(f"{name}={count}" for name, count in zip(["rows"] + names, arrow)))
metadata = pyarrow.parquet.read_metadata(pathlib.Path(sys.argv[1]) / "events.parquet").metadata
for key in sorted(key for key in metadata if key.startswith(b"kmemlab.")):
    print(key.decode(), metadata[key].decode())
"#;

/// What is missing of Python and the packages.
fn missing() -> Option<String> {
    let import = ["-c", "import pyarrow, pandas, duckdb"];
    match Command::new("python3").args(import).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("cannot run python3: {error}")),
    }
}

#[test]
fn every_file_opens_in_pyarrow_pandas_and_duckdb() {
    if let Some(found) = missing() {
        let told = format!("python3 with pyarrow, pandas and duckdb expected, found: {found}");
        // CI installs them: there a test that tests nothing is a failure.
        assert!(std::env::var_os("CI").is_none(), "{told}");
        eprintln!("not tested: {told}");
        return;
    }
    let folder = Folder::new("notebooks");
    let recording = small_recording::write(&folder.0.join("small.kmt"));
    let out = folder.0.join("export");
    let rows = small_recording::replayed();
    let done = export_parquet(&recording, &out, Some(&rows), &ExportOptions::default()).unwrap();
    let python = Command::new("python3").arg("-c").arg(SCRIPT).arg(&out).output().unwrap();
    let said = String::from_utf8_lossy(&python.stdout);
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    for done in &done {
        let start = format!("{} rows={} ", done.file, done.rows);
        assert!(said.lines().any(|line| line.starts_with(&start)), "{start} in {said}");
    }
    // Seven events: three have a page frame, two an address, one a stack, none a sixth number.
    for nulls in [" kind=0 ", " pfn=4 ", " address=5 ", " stack_id=6 ", " name=5 ", " arg_5=7"] {
        let events = said.lines().find(|line| line.starts_with("events.parquet ")).unwrap();
        assert!(format!("{events} ").contains(nulls), "{nulls} in {events}");
    }
    for line in [
        "kmemlab.kernel_release 6.18.0",
        "kmemlab.lost_events 2",
        "kmemlab.columns.compaction:mm_compaction_begin pfn=zone_start end_pfn=zone_end arg_0=migrate_pfn arg_1=free_pfn flag=sync",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} in {said}");
    }
}
