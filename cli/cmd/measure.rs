//! `kmemlab tui --measure`: how fast the screen is over a recording.

use std::fmt::Write;
use std::time::{Duration, Instant};

use kmemlab_tui::{Action, App, Source, View};

use crate::config::Config;
use crate::exit::Answer;
use crate::source::recording::RecordingSource;

/// Jumps measured in each view.
const JUMPS: u64 = 40;
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];
/// Frames painted for one figure.
const FRAMES: u32 = 20;

/// Opens the source, goes through it and prints what took how long.
pub(super) fn run(
    open: impl Fn() -> anyhow::Result<RecordingSource>,
    config: &Config,
) -> anyhow::Result<Answer> {
    let begun = Instant::now();
    let mut source = open()?;
    let app = self::app(&mut source, config, View::Overview)?;
    let _ = kmemlab_tui::frame_time(&app, &config.theme, SIZES[1], 1);
    let first = begun.elapsed();
    source.finish(View::Overview);
    let indexed = begun.elapsed();
    // The screen shows its moment anew when the work is done.
    source.refresh().map_err(anyhow::Error::from_boxed)?;
    self::app(&mut source, config, View::Overview)?;
    let mut text = String::new();
    let (checkpoints, bytes) = source.memory();
    writeln!(text, "first screen            {:>9.1} ms", milliseconds(first))?;
    writeln!(text, "gone through            {:>9.2} s", indexed.as_secs_f64())?;
    writeln!(
        text,
        "checkpoints             {checkpoints:>9}  {:.0} MiB",
        bytes as f64 / 1048576.0
    )?;
    writeln!(
        text,
        "\n{:<12}{:>12}{:>12}{:>12}{:>14}{:>14}",
        "view", "jump p50 ms", "p99 ms", "max ms", "80x24 ms", "200x60 ms"
    )?;
    for view in View::ALL.into_iter().filter(|view| *view != View::Compare) {
        let mut spans = jumps(&mut source, view)?;
        spans.sort_unstable();
        let at = |hundredths: usize| spans[(spans.len() - 1) * hundredths / 100];
        let mut app = self::app(&mut source, config, view)?;
        let frames = SIZES.map(|(width, height)| {
            app.update(Action::Resize(width, height));
            kmemlab_tui::frame_time(&app, &config.theme, (width, height), FRAMES)
        });
        let [p50, p99, max] = [at(50), at(99), at(100)].map(milliseconds);
        let [small, large] = frames.map(milliseconds);
        let name = view.name();
        writeln!(text, "{name:<12}{p50:>12.1}{p99:>12.1}{max:>12.1}{small:>14.3}{large:>14.3}")?;
    }
    crate::exit::print(&text)?;
    Ok(Answer::Yes)
}

fn app(source: &mut RecordingSource, config: &Config, view: View) -> anyhow::Result<App> {
    let mut app = config.apply(App::new(source.outline().clone(), view));
    if let Some((at, view)) = app.wanted() {
        app.show(source.load(at, view).map_err(anyhow::Error::from_boxed)?);
    }
    Ok(app)
}

/// Times of jumps all over the recording, the same at every run.
fn jumps(source: &mut RecordingSource, view: View) -> anyhow::Result<Vec<Duration>> {
    let (begin, end) = (source.outline().begin.0, source.outline().end.0);
    let mut spans = Vec::new();
    let mut seed = 1u64;
    for _ in 0..JUMPS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = begin + (seed >> 11) % (end - begin).max(1);
        let begun = Instant::now();
        source.load(kmemlab_trace::unit::Nanos(at), view).map_err(anyhow::Error::from_boxed)?;
        spans.push(begun.elapsed());
    }
    Ok(spans)
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
