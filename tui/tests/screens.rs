//! The screens over a made-up source, compared with the texts in `screens/` at both sizes.
//!
//! `UPDATE_GOLDEN=1 cargo test -p kmemlab-tui` writes the texts anew; read the difference.

// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use kmemlab_trace::snapshot::SlabRow;
use kmemlab_trace::unit::{Nanos, NodeId};
use kmemlab_tui::history::History;
use kmemlab_tui::source::SourceError;
use kmemlab_tui::theme::Colours;
use kmemlab_tui::view::slabs::Sort;
use kmemlab_tui::{
    About, Action, App, Loss, Outline, SlabSample, Snapshot, Source, Theme, View, ZoneState, view,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

const SECOND: u64 = 1_000_000_000;
const SNAPSHOTS: u64 = 40;
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];

/// Memory that falls to pieces second by second.
#[derive(Debug)]
struct Fake {
    outline: Outline,
    zones: usize,
}

impl Fake {
    fn new(zones: usize) -> Self {
        let about = About {
            version: "1.2.3".to_owned(),
            name: "monday.kmt".to_owned(),
            host: "build7, Linux 6.12.0".to_owned(),
            page_size_bytes: 4096,
            start: Nanos(1000 * SECOND),
            start_realtime_ns: 1_700_000_000 * SECOND,
            notes: vec![
                "the recorder was cut off before it finished".to_owned(),
                "the kernel counted 27 events that it did not deliver".to_owned(),
            ],
        };
        let mut fake = Self { outline: Outline { about, ..Outline::default() }, zones };
        for index in 0..SNAPSHOTS {
            let at = Nanos((1000 + index) * SECOND + 2_000_000);
            fake.outline.times.push(at);
            fake.outline.history.push(at, &blocks(index));
        }
        let mut by_snapshot = vec![0; SNAPSHOTS as usize];
        by_snapshot[12] = 1_217_340;
        by_snapshot[39] = 7;
        fake.outline.loss = Loss { events: 1_217_347, gaps: 130, cpus: 2, by_snapshot };
        fake
    }

    fn app(&mut self, view: View, (width, height): (u16, u16)) -> App {
        let mut app = App::new(self.outline.clone(), view);
        app.update(Action::Resize(width, height));
        self.settle(&mut app);
        app
    }

    fn settle(&mut self, app: &mut App) {
        if let Some(index) = app.wanted() {
            app.show(index, self.load(index).unwrap());
        }
    }
}

fn blocks(index: u64) -> Vec<u64> {
    let small = 400 + index * 9000;
    vec![small, small / 3, small / 7, 900, 451, 208, 77, 31, 12, 6, 60u64.saturating_sub(index * 2)]
}

impl Source for Fake {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn load(&mut self, index: usize) -> Result<Snapshot, SourceError> {
        let at = self.outline.times[index];
        let told = ["DMA", "DMA32", "Normal", "Movable"].into_iter().cycle();
        let zones = told.take(self.zones).enumerate().map(|(number, zone)| {
            let is_dma = number % 4 == 0;
            let small = vec![0, 1, 0, 2, 1, 1, 1, 0, 1, 1, 3];
            ZoneState {
                node: NodeId(number as u16 / 4),
                zone: zone.to_owned(),
                free_blocks: if is_dma { small } else { blocks(index as u64) },
                managed: Some([3840, 2_000_000, 6_000_000, 90_000_000][number % 4]),
                // Not told; above, between and below the watermarks.
                free: [None, Some(824_000), Some(15_000), Some(12_000)][number % 4],
                min: Some(if is_dma { 60 } else { 11_310 }),
                low: Some(if is_dma { 75 } else { 14_137 }),
                high: Some(if is_dma { 90 } else { 16_964 }),
                percpu: (number > 0).then_some(1234),
            }
        });
        let caches = (0..60).map(|number| SlabRow {
            cache: format!("{}-{number}", ["dentry", "kmalloc", "Acpi-State"][number as usize % 3]),
            active_objects: number * 3700 * (1 + index as u64) % 90_001,
            objects: 90_001,
            object_size_bytes: 8 << (number % 10),
            objects_per_slab: 4096 >> (number % 10),
            pages_per_slab: 1 << (number % 4),
            active_slabs: number * 91,
            slabs: number * 97,
        });
        let slabs = SlabSample { at: Nanos(at.0 + 11_000_000), rows: caches.collect() };
        Ok(Snapshot { at, zones: zones.collect(), slabs: Some(slabs) })
    }
}

fn painted(app: &App, theme: Theme, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(app, &theme, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn check(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/screens").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == golden,
        "{} differs; if it should, write it anew with UPDATE_GOLDEN=1. Now:\n{text}",
        path.display()
    );
}

fn check_both(name: &str, zones: usize, view: View, theme: Theme, actions: &[Action]) {
    let mut fake = Fake::new(zones);
    for size in SIZES {
        let mut app = fake.app(view, size);
        for action in actions {
            app.update(*action);
            fake.settle(&mut app);
        }
        let text = view::text(&painted(&app, theme, size));
        check(&format!("{name}-{}x{}.txt", size.0, size.1), &text);
    }
}

const COLOUR: Theme = Theme::new(Colours::Many, true);
const PLAIN: Theme = Theme::new(Colours::None, false);

#[test]
fn overview() {
    check_both("overview", 3, View::Overview, COLOUR, &[]);
    check_both("overview-first", 3, View::Overview, COLOUR, &[Action::First]);
    check_both("overview-plain", 3, View::Overview, PLAIN, &[Action::Back, Action::Play]);
    check_both("overview-many-zones", 16, View::Overview, COLOUR, &[Action::Down, Action::Down]);
}

#[test]
fn slabs() {
    check_both("slabs", 3, View::Slabs, COLOUR, &[]);
    let actions = [Action::Sort(Sort::Name), Action::First, Action::PageDown];
    check_both("slabs-by-name", 3, View::Slabs, PLAIN, &actions);
    check_both("slabs-by-pages", 3, View::Slabs, COLOUR, &[Action::Sort(Sort::PagesPerSlab)]);
}

#[test]
fn help() {
    check_both("help-overview", 3, View::Overview, COLOUR, &[Action::Help]);
    check_both("help-slabs", 3, View::Slabs, PLAIN, &[Action::Help]);
}

#[test]
fn nothing_told() {
    let mut app = App::new(Outline::default(), View::Overview);
    app.update(Action::Play);
    assert_eq!(app.wanted(), None);
    check("empty-80x24.txt", &view::text(&painted(&app, COLOUR, (80, 24))));

    let mut fake = Fake::new(2);
    let mut app = fake.app(View::Slabs, (80, 24));
    app.show(39, Snapshot { zones: vec![ZoneState::default()], ..Snapshot::default() });
    check("slabs-untold-80x24.txt", &view::text(&painted(&app, COLOUR, (80, 24))));
    app.update(Action::Go(View::Overview));
    app.update(Action::Back);
    app.fail(38, "slabinfo.arrows is damaged at byte 17".to_owned());
    assert_eq!(app.wanted(), None);
    check("overview-untold-80x24.txt", &view::text(&painted(&app, COLOUR, (80, 24))));
}

#[test]
fn playing_goes_a_snapshot_a_second_and_stops_at_the_end() {
    let mut fake = Fake::new(1);
    let mut app = fake.app(View::Overview, (80, 24));
    let tick = Action::Elapsed(Duration::from_millis(250));
    app.update(tick);
    assert_eq!((app.at(), app.is_playing()), (39, false));
    // At the end, play starts over.
    app.update(Action::Play);
    assert_eq!((app.at(), app.is_playing()), (0, true));
    (0..7).for_each(|_| app.update(tick));
    assert_eq!(app.at(), 1);
    app.update(tick);
    assert_eq!(app.at(), 2);
    // A long sleep is one step.
    app.update(Action::Elapsed(Duration::from_secs(3600)));
    assert_eq!(app.at(), 3);
    app.update(Action::Play);
    (0..40).for_each(|_| app.update(tick));
    assert_eq!((app.at(), app.is_playing()), (3, false));
    app.update(Action::Last);
    app.update(Action::Back);
    app.update(Action::Play);
    (0..4).for_each(|_| app.update(tick));
    assert_eq!((app.at(), app.is_playing()), (39, false));
    assert_eq!(app.wanted(), Some(39).filter(|_| app.snapshot().is_none()));
}

#[test]
fn steps_stop_at_both_ends_and_scrolling_at_the_last_page() {
    let mut fake = Fake::new(1);
    let mut app = fake.app(View::Slabs, (80, 24));
    app.update(Action::Forward);
    assert_eq!(app.at(), 39);
    app.update(Action::First);
    app.update(Action::Back);
    assert_eq!(app.at(), 0);
    assert_eq!(app.wanted(), Some(0));
    (0..99).for_each(|_| app.update(Action::PageDown));
    // 60 caches, 13 lines.
    assert_eq!(app.scroll(), 47);
    app.update(Action::Up);
    assert_eq!(app.scroll(), 46);
    app.update(Action::Resize(80, 100));
    assert_eq!(app.scroll(), 0);
}

#[test]
fn without_colour_no_cell_has_any_and_without_unicode_all_is_ascii() {
    let mut fake = Fake::new(5);
    for view in View::ALL {
        let mut app = fake.app(view, (120, 40));
        app.update(Action::Help);
        let buf = painted(&app, PLAIN, (120, 40));
        for cell in &buf.content {
            assert!(cell.symbol().is_ascii(), "{cell:?}");
            let reset = ratatui::style::Color::Reset;
            assert_eq!((cell.fg, cell.bg), (reset, reset));
        }
    }
}

#[test]
fn any_size_is_painted_without_panic() {
    let draw = |app: &App, width, height| {
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        view::draw(app, &COLOUR, area, &mut buf);
    };
    for zones in [0, 1, 3, 40] {
        let mut fake = Fake::new(zones);
        for view in View::ALL {
            let mut app = fake.app(view, (80, 24));
            for help in [false, true] {
                if help {
                    app.update(Action::Help);
                }
                for width in (1..=300).filter(|width| *width <= 30 || width % 13 == 0) {
                    for height in (1..=100).filter(|height| *height <= 30 || height % 9 == 1) {
                        app.update(Action::Resize(width, height));
                        app.update(Action::PageDown);
                        draw(&app, width, height);
                    }
                }
                draw(&app, 300, 100);
            }
        }
    }
    draw(&App::new(Outline::default(), View::Slabs), 1, 1);
    let mut outline = Outline { times: vec![Nanos(5)], ..Outline::default() };
    outline.history = History::default();
    draw(&App::new(outline, View::Overview), 80, 24);
}
