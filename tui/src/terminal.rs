//! The terminal, taken and given back.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::ThreadId;

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();
/// The thread that paints.
static OWNER: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Holds the terminal in raw mode and on its second screen; gives it back when dropped, and before
/// the message of a panic is printed.
#[derive(Debug)]
pub(crate) struct Guard(());

impl Guard {
    pub(crate) fn new() -> io::Result<Self> {
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // The screen goes on without a thread of the background: nothing may be written
                // over it. Whoever started the thread tells.
                let owner = *OWNER.lock().unwrap_or_else(PoisonError::into_inner);
                let is_elsewhere = owner.is_some_and(|owner| owner != std::thread::current().id());
                if is_elsewhere && IS_TAKEN.load(Ordering::SeqCst) {
                    return;
                }
                give_back();
                next(panic);
            }));
        });
        *OWNER.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current().id());
        let guard = Self(());
        guard.take()?;
        Ok(guard)
    }

    /// Takes the terminal, again after [`Self::leave`].
    pub(crate) fn take(&self) -> io::Result<()> {
        // Set first: a half-taken terminal is given back too.
        IS_TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)
    }

    /// Gives the terminal back for a while.
    pub(crate) fn leave(&self) {
        give_back();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Errors have nowhere to go: the terminal may be gone.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = io::stdout().flush();
        let _ = disable_raw_mode();
    }
}
