//! The screens over a made-up source, compared with the texts in `screens/` at both sizes.
//!
//! `UPDATE_GOLDEN=1 cargo test -p kmemlab-tui` writes the texts anew; read the difference.

// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used)]

mod fake;

use std::path::PathBuf;
use std::time::Duration;

use kmemlab_trace::unit::Nanos;
use kmemlab_tui::app::PromptKind;
use kmemlab_tui::theme::Colours;
use kmemlab_tui::view::slabs::Sort;
use kmemlab_tui::{
    Action, App, Format, Outline, Snapshot, Theme, Told, View, Work, ZoneState, view,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use fake::{Fake, SECOND, moment};

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];

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

/// The letters as keys would type them.
fn typed(text: &str) -> Vec<Action> {
    text.chars().map(Action::Type).collect()
}

#[test]
fn overview() {
    check_both("overview", 3, View::Overview, COLOUR, &[]);
    check_both("overview-first", 3, View::Overview, COLOUR, &[Action::First]);
    check_both("overview-plain", 3, View::Overview, PLAIN, &[Action::Back, Action::Play]);
    check_both("overview-many-zones", 16, View::Overview, COLOUR, &[Action::Down, Action::Down]);
}

#[test]
fn slabs_view() {
    check_both("slabs", 3, View::Slabs, COLOUR, &[]);
    let actions = [Action::Sort(Sort::Name), Action::First, Action::PageDown];
    check_both("slabs-by-name", 3, View::Slabs, PLAIN, &actions);
    let actions = [Action::First, Action::Mark, Action::Last, Action::Sort(Sort::PagesPerSlab)];
    check_both("slabs-by-pages-since-mark", 3, View::Slabs, COLOUR, &actions);
    check_both("slabs-exact", 3, View::Slabs, COLOUR, &[Action::Exact]);
}

#[test]
fn sites_view() {
    check_both("sites", 3, View::Sites, COLOUR, &[]);
    let actions = [Action::First, Action::Mark, Action::NextMark, Action::NextColumn, Action::Open];
    check_both("sites-growth-open", 3, View::Sites, PLAIN, &actions);
    let mut filter = vec![Action::Ask(PromptKind::Filter)];
    filter.extend(typed("SEQ_"));
    check_both("sites-filter", 3, View::Sites, COLOUR, &filter);
}

#[test]
fn blocks_view() {
    let to = [Action::NextZone, Action::Down, Action::CellForward];
    check_both("blocks", 3, View::Blocks, COLOUR, &to);
    check_both("blocks-letters", 3, View::Blocks, PLAIN, &[Action::MapMode, Action::NextMixed]);
}

#[test]
fn vmalloc_view() {
    check_both("vmalloc", 3, View::Vmalloc, COLOUR, &[]);
}

#[test]
fn compare_view() {
    check_both("compare", 3, View::Compare, COLOUR, &[]);
}

#[test]
fn latency_view() {
    check_both("latency", 3, View::Latency, COLOUR, &[]);
    check_both("latency-open", 3, View::Latency, PLAIN, &[Action::Down, Action::Open]);
}

#[test]
fn help_and_palette() {
    check_both("help-overview", 3, View::Overview, COLOUR, &[Action::Help]);
    check_both("help-slabs", 3, View::Slabs, PLAIN, &[Action::Help]);
    let mut palette = vec![Action::Ask(PromptKind::Command)];
    palette.extend(typed("sort"));
    check_both("palette", 3, View::Latency, COLOUR, &palette);
}

#[test]
fn nothing_told() {
    let mut app = App::new(Outline::default(), View::Overview);
    app.update(Action::Play);
    assert_eq!(app.wanted(), None);
    check("empty-80x24.txt", &view::text(&painted(&app, COLOUR, (80, 24))));

    let mut fake = Fake::new(2);
    let mut app = fake.app(View::Slabs, (80, 24));
    let why = "Slab caches cannot be read: /proc/slabinfo is for root; run sudo kmemlab top.";
    let untold = Snapshot {
        zones: vec![ZoneState::default()],
        slabs: Told::No(why.to_owned()),
        ..Snapshot::default()
    };
    app.show(untold);
    check("slabs-untold-80x24.txt", &view::text(&painted(&app, COLOUR, (80, 24))));
    app.update(Action::Go(View::Overview));
    app.update(Action::Back);
    app.fail("slabinfo.arrows is damaged at byte 17".to_owned());
    assert_eq!(app.wanted(), None);
    check("overview-untold-80x24.txt", &view::text(&painted(&app, COLOUR, (80, 24))));
    for view in View::ALL {
        let mut app = App::new(fake.outline.clone(), view);
        app.show(Snapshot::default());
        let text = view::text(&painted(&app, COLOUR, (80, 24)));
        let is_told = text.contains("Not told by this source.") || view == View::Overview;
        assert!(is_told, "{text}");
    }
}

#[test]
fn playing_goes_with_time_and_stops_at_the_end() {
    let mut fake = Fake::new(1);
    let mut app = fake.app(View::Overview, (80, 24));
    let tick = Action::Elapsed(Duration::from_millis(250));
    app.update(tick);
    assert_eq!((app.step(), app.speed()), (40, None));
    // At the end, play starts over.
    app.update(Action::Play);
    assert_eq!((app.at(), app.speed()), (moment(0.002), Some(1)));
    (0..7).for_each(|_| app.update(tick));
    assert_eq!((app.at(), app.step()), (moment(1.752), 2));
    app.update(Action::Faster);
    app.update(Action::Faster);
    app.update(tick);
    assert_eq!((app.at(), app.speed()), (moment(2.752), Some(4)));
    app.update(Action::Slower);
    app.update(Action::Slower);
    // A long sleep is one second.
    app.update(Action::Elapsed(Duration::from_secs(3600)));
    assert_eq!(app.at(), moment(3.752));
    app.update(Action::Play);
    (0..40).for_each(|_| app.update(tick));
    assert_eq!((app.at(), app.speed()), (moment(3.752), None));
    (0..9).for_each(|_| app.update(Action::Faster));
    app.update(Action::Play);
    assert_eq!(app.speed(), Some(64));
    (0..4).for_each(|_| app.update(tick));
    assert_eq!((app.at(), app.speed()), (app.outline().end, None));
}

#[test]
fn every_way_to_move_in_time() {
    let mut fake = Fake::new(1);
    let mut app = fake.app(View::Slabs, (80, 24));
    app.update(Action::Forward);
    assert_eq!(app.step(), 40);
    app.update(Action::First);
    app.update(Action::Back);
    assert_eq!((app.at(), app.step()), (moment(0.002), 1));
    assert_eq!(app.wanted(), Some((moment(0.002), View::Slabs)));
    app.update(Action::NextMark);
    assert_eq!((app.at(), app.message()), (moment(5.0), Some("fallback")));
    app.update(Action::Back);
    assert_eq!(app.at(), moment(4.002));
    (0..3).for_each(|_| app.update(Action::NextMark));
    assert_eq!((app.at(), app.message()), (moment(20.25), Some("stall")));
    app.update(Action::PreviousMark);
    assert_eq!((app.at(), app.message()), (moment(12.3), Some("loss")));
    app.update(Action::MinuteForward);
    assert_eq!(app.at(), app.outline().end);
    app.update(Action::NextMark);
    assert_eq!(app.message(), Some("no mark there"));
    app.update(Action::Ask(PromptKind::Time));
    typed("+2.5s").into_iter().for_each(|letter| app.update(letter));
    app.update(Action::Accept);
    assert_eq!((app.at(), app.prompt()), (moment(2.5), None));
    app.update(Action::Ask(PromptKind::Command));
    typed("go 10s ago").into_iter().for_each(|letter| app.update(letter));
    app.update(Action::Accept);
    assert_eq!(app.at(), moment(29.002));
}

#[test]
fn a_live_screen_follows_its_end_until_one_steps_back() {
    let mut fake = Fake::new(1);
    fake.outline.is_live = true;
    fake.outline.work = Some(Work { what: "indexing".to_owned(), percent: 40 });
    let mut app = fake.app(View::Overview, (80, 24));
    let grow = |fake: &mut Fake, app: &mut App| {
        let next = Nanos(fake.outline.end.0 + SECOND);
        fake.outline.times.push(next);
        fake.outline.end = next;
        app.renew(fake.outline.clone());
    };
    grow(&mut fake, &mut app);
    assert_eq!((app.at(), app.is_following()), (fake.outline.end, true));
    app.update(Action::Play);
    assert!(!app.is_following(), "space pauses");
    grow(&mut fake, &mut app);
    assert_ne!(app.at(), fake.outline.end);
    app.update(Action::Last);
    assert!(app.is_following());
    app.update(Action::Back);
    grow(&mut fake, &mut app);
    assert!(!app.is_following());
}

#[test]
fn the_cursor_stops_at_both_ends() {
    let mut fake = Fake::new(1);
    let mut app = fake.app(View::Slabs, (80, 24));
    (0..99).for_each(|_| app.update(Action::PageDown));
    // 60 caches, 13 lines.
    assert_eq!((app.table_state().selected, app.table_state().scroll), (59, 47));
    app.update(Action::Up);
    assert_eq!((app.table_state().selected, app.table_state().scroll), (58, 47));
    app.update(Action::Resize(80, 100));
    assert_eq!(app.table_state().scroll, 0);
    (0..99).for_each(|_| app.update(Action::PageUp));
    assert_eq!(app.table_state().selected, 0);
}

#[test]
fn an_export_has_the_rows_of_the_screen_in_their_order() {
    let mut fake = Fake::new(2);
    let mut app = fake.app(View::Sites, (80, 24));
    app.update(Action::Ask(PromptKind::Filter));
    typed("seq_").into_iter().for_each(|letter| app.update(letter));
    app.update(Action::Accept);
    assert_eq!(app.take_export(), None);
    app.update(Action::Export);
    let (format, table, order) = app.take_export().unwrap();
    assert_eq!(format, Format::Csv);
    assert_eq!(app.take_export(), None);
    let text = table.csv(&order);
    assert_eq!(text.lines().count(), 9, "{text}");
    assert!(text.starts_with("live_bytes,live_bytes_since_mark,call_site,cache,"), "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("33640000,,seq_read_iter+0x11c,"), "{text}");
    for view in [View::Overview, View::Blocks] {
        let mut app = fake.app(view, (80, 24));
        app.update(Action::Export);
        let (_, table, order) = app.take_export().unwrap();
        assert_eq!(table.rows.len(), order.len());
        assert!(order.len() > 20);
    }
}

#[test]
fn chosen_columns_stand_alone_and_a_hidden_one_still_sorts() {
    let mut fake = Fake::new(1);
    let names = ["cache", "objects", "nothing"].map(str::to_owned).to_vec();
    let mut app = App::new(fake.outline.clone(), View::Slabs).with_columns(View::Slabs, names);
    app.update(Action::Resize(100, 24));
    fake.settle(&mut app);
    app.update(Action::Sort(Sort::ActiveObjects));
    let text = view::text(&painted(&app, COLOUR, (100, 24)));
    let titles = text.lines().nth(8).unwrap();
    assert_eq!(titles.split_whitespace().collect::<Vec<_>>(), ["NAME", "OBJS", "by", "ACTIVE"]);
    assert!(text.lines().nth(9).unwrap().contains("dentry-45"), "{text}");
}

#[test]
fn without_colour_no_cell_has_any_and_without_unicode_all_is_ascii() {
    let mut fake = Fake::new(5);
    for view in View::ALL {
        let mut app = fake.app(view, (120, 40));
        for _ in 0..2 {
            let buf = painted(&app, PLAIN, (120, 40));
            for cell in &buf.content {
                assert!(cell.symbol().is_ascii(), "{cell:?}");
                let reset = ratatui::style::Color::Reset;
                assert_eq!((cell.fg, cell.bg), (reset, reset));
            }
            app.update(Action::Help);
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
    for zones in [0, 3, 40] {
        let mut fake = Fake::new(zones);
        for view in View::ALL {
            let mut app = fake.app(view, (80, 24));
            for action in [Action::Resize(80, 24), Action::Open, Action::Help] {
                app.update(action);
                for width in (1..=300).filter(|width| *width <= 30 || width % 29 == 0) {
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
    let outline = Outline { times: vec![Nanos(5)], ..Outline::default() };
    draw(&App::new(outline, View::Overview), 80, 24);
}
