#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
use kmemlab_trace::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let recording = Recording::open(args[1].as_ref(), false).unwrap();
    let mut writer = RecordingWriter::create(args[2].as_ref(), recording.manifest().clone(), true).unwrap();
    let mut builder = EventBatchBuilder::new();
    let (first, last) = recording.span().unwrap();
    for turn in 0..args[3].parse::<u64>().unwrap() {
        for batch in recording.events().unwrap() {
            let batch = batch.unwrap();
            for mut event in batch.iter() {
                event.time.0 += turn * (last.0 - first.0);
                if event.has(Column::Name) { event.name = builder.name(batch.name(event.name)).unwrap(); }
                builder.push(&event);
            }
            writer.append_events(&mut builder).unwrap();
        }
    }
    writer.finish(recording.manifest().end.clone().unwrap()).unwrap();
}
