//! The loop: keys in, snapshots in, screen out.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::app::{Action, App, Format};
use crate::keys;
use crate::source::{Source, SourceError};
use crate::table::Table;
use crate::terminal::Guard;
use crate::theme::Theme;
use crate::view;

/// How long a key is waited for before the stop flag is looked at again.
const WAIT: Duration = Duration::from_millis(100);

/// Writes the rows of a table somewhere, in that order; says where.
pub type Export<'a> = &'a dyn Fn(Format, &Table, &[usize]) -> Result<String, SourceError>;

/// What only the program around the screen can do.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Set from outside (by a signal) to leave.
    pub stop: &'a AtomicBool,
    /// Stops the process until it is continued; the terminal is given back around the call.
    pub suspend: fn() -> io::Result<()>,
    /// Exports a table.
    pub export: Export<'a>,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("stop", self.stop).finish_non_exhaustive()
    }
}

/// Shows a source on the terminal until the user leaves.
///
/// # Errors
/// The terminal cannot be used. It is given back on every way out.
pub fn run(
    source: &mut dyn Source,
    theme: &Theme,
    mut app: App,
    host: &Host<'_>,
) -> Result<(), SourceError> {
    let guard = Guard::new()?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let size = terminal.size()?;
    app.update(Action::Resize(size.width, size.height));
    let mut is_stale = true;
    let mut then = Instant::now();
    while !app.is_done() && !host.stop.load(Ordering::Relaxed) {
        is_stale |= refresh(&mut app, source);
        is_stale |= settle(&mut app, source);
        if is_stale {
            terminal.draw(|frame| view::draw(&app, theme, frame.area(), frame.buffer_mut()))?;
            is_stale = false;
        }
        let mut wait = WAIT;
        // All keys that wait are taken before the next frame: a held arrow does not lag behind.
        while !app.is_done() && event::poll(wait)? {
            wait = Duration::ZERO;
            is_stale = true;
            let action = match event::read()? {
                Event::Key(key) if app.prompt().is_some() => keys::prompt_action(&key),
                Event::Key(key) => app.keys().action(&key, app.view()),
                Event::Resize(width, height) => Some(Action::Resize(width, height)),
                _ => None,
            };
            match action {
                Some(Action::Suspend) => {
                    guard.leave();
                    (host.suspend)()?;
                    guard.take()?;
                    terminal.clear()?;
                }
                Some(action) => app.update(action),
                None => {}
            }
            // What the next key does may rest on what this one asked for.
            settle(&mut app, source);
        }
        export(&mut app, host);
        let now = Instant::now();
        app.update(Action::Elapsed(now - then));
        then = now;
    }
    Ok(())
}

fn export(app: &mut App, host: &Host<'_>) {
    if let Some((format, table, order)) = app.take_export() {
        let said = (host.export)(format, &table, &order).unwrap_or_else(|error| error.to_string());
        app.say(said);
    }
}

/// Takes in what is new in the source; tells whether anything is.
fn refresh(app: &mut App, source: &mut dyn Source) -> bool {
    match source.refresh() {
        Ok(false) => false,
        Ok(true) => {
            app.renew(source.outline().clone());
            true
        }
        Err(error) => {
            app.say(error.to_string());
            true
        }
    }
}

/// Gets the app what it wants; tells whether it wanted anything.
fn settle(app: &mut App, source: &mut dyn Source) -> bool {
    if let Some((at, view)) = app.wanted_mark() {
        app.show_mark(source.load(at, view).ok());
    }
    let Some((at, view)) = app.wanted() else { return false };
    match source.load(at, view) {
        Ok(snapshot) => app.show(snapshot),
        Err(error) => app.fail(error.to_string()),
    }
    true
}

/// The first screen as a text without colour.
///
/// # Errors
/// The snapshot cannot be read.
pub fn once(
    source: &mut dyn Source,
    theme: &Theme,
    mut app: App,
    width: u16,
    height: u16,
) -> Result<String, SourceError> {
    app.update(Action::Resize(width, height));
    if let Some((at, view)) = app.wanted() {
        app.show(source.load(at, view)?);
    }
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view::draw(&app, &theme.without_colour(), area, &mut buf);
    Ok(view::text(&buf))
}

/// How long it takes to paint a frame of that size: the mean of some.
#[must_use]
pub fn frame_time(app: &App, theme: &Theme, (width, height): (u16, u16), frames: u32) -> Duration {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    let begun = Instant::now();
    for _ in 0..frames.max(1) {
        buf.reset();
        view::draw(app, theme, area, &mut buf);
    }
    begun.elapsed() / frames.max(1)
}
