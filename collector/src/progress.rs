//! How a recording is watched and ended from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How a recording stands, about twice a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Since the events were turned on.
    pub elapsed: Duration,
    /// Events so far.
    pub events: u64,
    /// Events a second, since the last time this was told.
    pub events_per_second: u64,
    /// Events that the rings dropped so far.
    pub lost: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// How full the fullest ring was at most, since the last time this was told.
    pub ring_fill_percent: u8,
}

/// What to do with progress.
type Watch = dyn Fn(&Progress) + Send + Sync;

/// Ends a recording and watches it; may be shared with a signal handler.
#[derive(Clone, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    watch: Option<Arc<Watch>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("stop", &self.is_stopped()).finish_non_exhaustive()
    }
}

impl Control {
    /// A control that watches nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls this about twice a second. It must come back soon: the rings wait for it.
    #[must_use]
    pub fn on_progress(mut self, watch: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Ends the recording in good order: last snapshots, counts, symbols.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The flag behind [`Control::stop`], for a signal handler to set.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Whether the recording was asked to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn tell(&self, progress: &Progress) {
        if let Some(watch) = &self.watch {
            watch(progress);
        }
    }
}
