//! The smallest reader: prints the first 20 events of a recording.
//!
//! `cargo run --release -p kmemlab-trace --example print -- NAME.kmt`

use std::io::Write;
use std::path::Path;

use kmemlab_trace::{Column, Recording};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: print NAME.kmt")?;
    let recording = Recording::open(Path::new(&path), false)?;
    let mut out = std::io::stdout().lock();
    let mut left = 20;
    for batch in recording.events()? {
        let batch = batch?;
        for event in batch.iter().take(left) {
            left -= 1;
            let (time, cpu, pid) = (event.time, event.cpu, event.pid);
            write!(out, "{time} ns, cpu {cpu}, pid {pid}: {}", event.kind.name())?;
            if event.has(Column::PfnOrAddress) {
                write!(out, " {:#x}", event.pfn_or_address)?;
            }
            if let Some(order) = event.order() {
                write!(out, " order {order}")?;
            }
            if event.has(Column::Name) {
                write!(out, " {}", batch.name(event.name))?;
            }
            writeln!(out)?;
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}
