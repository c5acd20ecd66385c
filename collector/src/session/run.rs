//! The first thread: drains the rings from the moment the events are on to the moment they are off.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use kmemlab_trace::unit::Nanos;

use super::{RecordOptions, SNAPSHOTS, SnapshotThread};
use crate::capture::{Backend, Count};
use crate::clock;
use crate::command::Running;
use crate::encode::{Encoded, Job, Started};
use crate::feed::Feeder;
use crate::merge::SLACK;
use crate::perf::priority::{Hurry, Spur};
use crate::perf::sys;
use crate::progress::{Control, Progress};
use crate::record_error::RecordError;
use crate::root::Root;
use crate::snapshots::{Ask, Shot};
use crate::tasks::{self, Task};

/// Rings are looked at this often even when none fills up.
const ROUND_TIME: Duration = Duration::from_millis(50);
/// Chunks behind which the second thread may be before it runs before everything ordinary, too.
const BACKLOG_MAX: usize = 16;
const PROGRESS_TIME: Duration = Duration::from_millis(500);

/// All that the first thread works with.
#[derive(Debug)]
pub(super) struct Run<'a, B: ?Sized> {
    pub(super) options: &'a RecordOptions,
    pub(super) control: &'a Control,
    pub(super) program: Option<PathBuf>,
    pub(super) backend: &'a mut B,
    pub(super) feeder: Feeder,
    /// The second thread: it is behind when others leave it no processor.
    pub(super) encoder: Spur<'a, Encoded>,
    pub(super) bytes: Arc<AtomicU64>,
}

/// How the capture went.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) reason: &'static str,
    pub(super) started: Nanos,
    pub(super) stopped: Nanos,
    pub(super) counts: Vec<Count>,
    pub(super) command_exit_status: Option<i32>,
    pub(super) cpu_before_ns: u64,
    /// Time for which writing kept the rings from being drained.
    pub(super) stalled: Duration,
    pub(super) error: Option<RecordError>,
}

/// Where a recording stands.
#[derive(Debug)]
enum Phase {
    /// The first snapshots are being taken.
    Opening,
    /// The command runs, or the time.
    Running { since: Instant },
    /// The last snapshots are being taken.
    Closing,
}

impl<B: Backend + ?Sized> Run<'_, B> {
    /// Turns the events on, drains until the recording is over, turns them off.
    pub(super) fn until_done(mut self, root: &Root, snapshots: &SnapshotThread) -> Ended {
        let mut ended = Ended { cpu_before_ns: sys::process_cpu_ns(), ..Ended::default() };
        // It copies for some milliseconds and sleeps again.
        let hurry = Hurry::begin();
        let mut command = None;
        let done = self.capture(root, snapshots, &mut ended, &mut command, &hurry);
        let stopped = self.stop(&mut ended);
        drop(hurry);
        self.encoder.set(false);
        ended.stalled = self.feeder.stalled();
        self.feeder.finish();
        ended.command_exit_status = command.and_then(Running::end);
        ended.error = done.and(stopped).err();
        ended
    }

    fn capture(
        &mut self,
        root: &Root,
        snapshots: &SnapshotThread,
        ended: &mut Ended,
        command: &mut Option<Running>,
        hurry: &Hurry,
    ) -> Result<(), RecordError> {
        let threads = tasks::own_threads(root);
        self.backend.start()?;
        ended.started = clock::now();
        let priority = hurry.describe();
        let started = Started { valid_from: ended.started, threads, priority };
        self.feeder.send(Job::Started(started));
        // A thread that is gone answers with an error where its answer is looked for.
        let _ = snapshots.asks.send(Ask::First);
        let mut phase = Phase::Opening;
        let mut meter = Meter::new();
        loop {
            self.backend.wait(ROUND_TIME)?;
            let fill = self.round();
            if self.feeder.is_closed() {
                return Ok(());
            }
            meter.tell(self, fill);
            let is_done = match snapshots.done.try_recv() {
                Ok(()) => true,
                Err(TryRecvError::Empty) => false,
                Err(TryRecvError::Disconnected) => {
                    let why = "it ended before the recording did".to_owned();
                    return Err(RecordError::Thread { thread: SNAPSHOTS, why });
                }
            };
            match phase {
                Phase::Opening if is_done => {
                    if let Some(program) = &self.program {
                        // Else the command would run before everything else too.
                        let start = || Running::start(program, &self.options.command);
                        *command = Some(hurry.pause(start)?);
                        self.tell_task(command);
                    }
                    phase = Phase::Running { since: Instant::now() };
                }
                Phase::Running { since } => {
                    if let Some(reason) = self.reason_to_stop(since, command) {
                        ended.reason = reason;
                        let _ = snapshots.asks.send(Ask::Last);
                        phase = Phase::Closing;
                    }
                }
                Phase::Closing if is_done => return Ok(()),
                Phase::Opening | Phase::Closing => {}
            }
        }
    }

    /// The command's own name, which is gone from `/proc` by the time of the last look.
    fn tell_task(&mut self, command: &Option<Running>) {
        if self.options.is_anonymous {
            return;
        }
        if let (Some(running), Some(program)) = (command, &self.program) {
            let task = Task::started(running.id(), &program.to_string_lossy());
            self.feeder.send(Job::Shot(Shot::Tasks(vec![task])));
        }
    }

    fn reason_to_stop(
        &self,
        since: Instant,
        command: &mut Option<Running>,
    ) -> Option<&'static str> {
        if self.control.is_stopped() {
            Some("signal")
        } else if command.as_mut().is_some_and(|running| running.status().is_some()) {
            Some("command")
        } else if self.options.duration.is_some_and(|duration| since.elapsed() >= duration) {
            Some("duration")
        } else {
            None
        }
    }

    /// Drains every ring once; returns how full the fullest was.
    fn round(&mut self) -> u8 {
        let start = clock::now();
        let fill = self.backend.drain(start, &mut self.feeder);
        self.feeder.finish_round(Nanos(start.0.saturating_sub(SLACK.0)));
        let backlog = self.feeder.backlog();
        let is_behind = if self.encoder.is_on() { backlog > 1 } else { backlog >= BACKLOG_MAX };
        self.encoder.set(is_behind);
        fill
    }

    fn stop(&mut self, ended: &mut Ended) -> Result<(), RecordError> {
        self.backend.stop()?;
        ended.stopped = clock::now();
        self.backend.drain(Nanos(u64::MAX), &mut self.feeder);
        ended.counts = self.backend.counts(&mut self.feeder)?;
        Ok(())
    }
}

/// Tells progress now and then.
#[derive(Debug)]
struct Meter {
    started: Instant,
    last: Instant,
    last_events: u64,
    fill: u8,
}

impl Meter {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, last_events: 0, fill: 0 }
    }

    fn tell<B: ?Sized>(&mut self, run: &Run<'_, B>, fill: u8) {
        self.fill = self.fill.max(fill);
        let since = self.last.elapsed();
        if since < PROGRESS_TIME {
            return;
        }
        let events = run.feeder.events();
        let rate = u128::from(events - self.last_events) * 1_000_000_000 / since.as_nanos().max(1);
        run.control.tell(&Progress {
            elapsed: self.started.elapsed(),
            events,
            events_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            lost: run.feeder.lost(),
            bytes: run.bytes.load(Ordering::Relaxed),
            ring_fill_percent: self.fill,
        });
        self.last = Instant::now();
        self.last_events = events;
        self.fill = 0;
    }
}
