//! Which of the recorder's threads runs before what is recorded.
//!
//! A nice value weighs a thread against those of its own session or control group only: a load that
//! was started elsewhere takes its share all the same. A thread of the real-time class runs before
//! all ordinary ones, whoever started them; it must sleep again soon.

use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

/// The lowest of the real-time class: what the host itself runs there goes first.
const REAL_TIME: libc::c_int = 1;
/// The next best.
const NICE: libc::c_int = -20;

/// Policy, priority and nice value of the calling thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Standing {
    policy: libc::c_int,
    priority: libc::c_int,
    nice: libc::c_int,
}

impl Standing {
    #[allow(unsafe_code)]
    fn read() -> Self {
        let mut param = libc::sched_param { sched_priority: 0 };
        // SAFETY: the pointer is to a whole parameter that outlives the call; the other calls pass
        // no memory. Thread 0 is the calling thread: Linux keeps all of this by thread.
        let (policy, nice) = unsafe {
            libc::sched_getparam(0, &raw mut param);
            (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0))
        };
        Self { policy, priority: param.sched_priority, nice }
    }

    /// What the kernel refuses stays as it is.
    #[allow(unsafe_code)]
    fn take(self) {
        let param = libc::sched_param { sched_priority: self.priority };
        // SAFETY: as in `Standing::read`.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, self.nice);
            libc::sched_setscheduler(0, self.policy, &raw const param);
        }
    }
}

/// While it lives, this thread runs before all ordinary ones, as far as the kernel allows. What the
/// thread starts inherits that.
#[derive(Debug)]
pub(crate) struct Hurry {
    before: Standing,
    now: Standing,
}

impl Hurry {
    pub(crate) fn begin() -> Self {
        let before = Standing::read();
        let wanted = Standing { policy: libc::SCHED_RR, priority: REAL_TIME, nice: NICE };
        wanted.take();
        Self { before, now: Standing::read() }
    }

    /// How it runs, in words.
    pub(crate) fn describe(&self) -> String {
        match self.now {
            Standing { policy: libc::SCHED_RR, priority, .. } => format!("SCHED_RR {priority}"),
            Standing { nice, .. } => format!("nice {nice}"),
        }
    }

    /// Does something as the thread was before, such as starting a process.
    pub(crate) fn pause<T>(&self, work: impl FnOnce() -> T) -> T {
        self.before.take();
        let done = work();
        self.now.take();
        done
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.before.take();
    }
}

/// Makes another thread run before all ordinary ones, and lets it off again.
#[derive(Debug)]
pub(crate) struct Spur<'a, T> {
    thread: &'a JoinHandle<T>,
    is_on: bool,
}

impl<'a, T> Spur<'a, T> {
    pub(crate) fn of(thread: &'a JoinHandle<T>) -> Self {
        Self { thread, is_on: false }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Where the kernel refuses, the thread stays as it is.
    #[allow(unsafe_code)]
    pub(crate) fn set(&mut self, is_on: bool) {
        if self.is_on == is_on {
            return;
        }
        self.is_on = is_on;
        let (policy, sched_priority) =
            if is_on { (libc::SCHED_RR, REAL_TIME) } else { (libc::SCHED_OTHER, 0) };
        let param = libc::sched_param { sched_priority };
        // SAFETY: a thread that has not been joined keeps its number, also after its end, and only
        // the owner of the handle, which is borrowed here, can join it. The parameter outlives the
        // call.
        unsafe {
            libc::pthread_setschedparam(self.thread.as_pthread_t(), policy, &raw const param);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_hurry_ends_and_pauses() {
        let own = Standing::read();
        let hurry = Hurry::begin();
        assert_eq!(Standing::read(), hurry.now);
        assert_eq!(hurry.pause(Standing::read), own);
        assert_eq!(Standing::read(), hurry.now);
        let told = hurry.describe();
        assert!(told == "SCHED_RR 1" || told.starts_with("nice "), "{told}");
        drop(hurry);
        // Without the right to do so nobody comes back from a hurry that could not begin either.
        assert_eq!(Standing::read(), own);
    }

    #[test]
    fn another_thread_is_spurred_and_let_off() {
        let (ask, asked) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            while asked.recv().is_ok() {
                tell.send(Standing::read()).unwrap();
            }
        });
        let standing = || {
            ask.send(()).unwrap();
            told.recv().unwrap()
        };
        let before = standing();
        let may = { Hurry::begin().now.policy == libc::SCHED_RR };
        let mut spur = Spur::of(&thread);
        spur.set(true);
        assert!(spur.is_on());
        assert_eq!(standing().policy == libc::SCHED_RR, may);
        spur.set(false);
        assert_eq!(standing(), before);
        drop(ask);
        thread.join().unwrap();
    }
}
