#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let recording = kmemlab_trace::Recording::open(args[1].as_ref(), false).unwrap();
    let start = std::time::Instant::now();
    let done = kmemlab_analyze::export_parquet(&recording, args[2].as_ref(), None, &kmemlab_analyze::ExportOptions { force: args.len() > 3 });
    match done {
        Err(error) => println!("ERROR {error}"),
        Ok(done) => for d in done { println!("{d:?}"); }
    }
    println!("{:?}", start.elapsed());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
}
