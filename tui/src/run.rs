//! The loop: keys in, snapshots in, screen out.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::app::{Action, App, View};
use crate::keys;
use crate::source::{Source, SourceError};
use crate::terminal::Guard;
use crate::theme::Theme;
use crate::view;

/// How long a key is waited for before the stop flag is looked at again.
const WAIT: Duration = Duration::from_millis(100);

/// What only the program around the screen can do.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Set from outside (by a signal) to leave.
    pub stop: &'a AtomicBool,
    /// Stops the process until it is continued; the terminal is given back around the call.
    pub suspend: fn() -> io::Result<()>,
}

/// Shows a source on the terminal until the user leaves.
///
/// # Errors
/// The terminal cannot be used. It is given back on every way out.
pub fn run(
    source: &mut dyn Source,
    theme: &Theme,
    view: View,
    host: &Host<'_>,
) -> Result<(), SourceError> {
    let guard = Guard::new()?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut app = App::new(source.outline().clone(), view);
    let size = terminal.size()?;
    app.update(Action::Resize(size.width, size.height));
    let mut is_stale = true;
    let mut then = Instant::now();
    while !app.is_done() && !host.stop.load(Ordering::Relaxed) {
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
            match event::read()? {
                Event::Key(key) => match keys::action(&key, app.view()) {
                    Some(Action::Suspend) => {
                        guard.leave();
                        (host.suspend)()?;
                        guard.take()?;
                        terminal.clear()?;
                    }
                    Some(action) => app.update(action),
                    None => {}
                },
                Event::Resize(width, height) => app.update(Action::Resize(width, height)),
                _ => {}
            }
        }
        let now = Instant::now();
        app.update(Action::Elapsed(now - then));
        then = now;
    }
    Ok(())
}

/// Gets the app what it wants; tells whether it wanted anything.
fn settle(app: &mut App, source: &mut dyn Source) -> bool {
    let Some(index) = app.wanted() else { return false };
    match source.load(index) {
        Ok(snapshot) => app.show(index, snapshot),
        Err(error) => app.fail(index, error.to_string()),
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
    view: View,
    width: u16,
    height: u16,
) -> Result<String, SourceError> {
    let mut app = App::new(source.outline().clone(), view);
    app.update(Action::Resize(width, height));
    if let Some(index) = app.wanted() {
        app.show(index, source.load(index)?);
    }
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view::draw(&app, &theme.without_colour(), area, &mut buf);
    Ok(view::text(&buf))
}
