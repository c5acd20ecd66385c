//! The system calls that perf rings need and no crate of ours wraps.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// `PERF_EVENT_IOC_SET_OUTPUT`: `_IO('$', 5)`.
const SET_OUTPUT: libc::c_ulong = 0x2405;

/// Makes the records of one event go to the ring of another event of the same processor.
#[allow(unsafe_code)]
pub(super) fn redirect(event: &File, ring_owner: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the length of the call, and this request takes a
    // descriptor as its argument and touches no memory of ours.
    let done = unsafe { libc::ioctl(event.as_raw_fd(), SET_OUTPUT as _, ring_owner.as_raw_fd()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until one of the descriptors can be read. A signal ends the wait too.
#[allow(unsafe_code)]
pub(crate) fn wait_readable(fds: &[RawFd], at_most: Duration) -> io::Result<()> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the pointer and the count are those of a vector that outlives the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) };
    if ready >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// While it lives, the limit of open files is as high as it goes without further rights. Files that
/// are open stay open when it is put back, and a command that is recorded starts with its own
/// limit.
#[derive(Debug)]
pub(super) struct OpenFiles {
    before: libc::rlimit,
}

impl OpenFiles {
    #[allow(unsafe_code)]
    pub(super) fn raise() -> Self {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a whole rlimit that outlives the call.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) };
        set_open_files(libc::rlimit { rlim_cur: before.rlim_max, rlim_max: before.rlim_max });
        Self { before }
    }

    /// How many there may be now.
    pub(super) fn limit(&self) -> u64 {
        self.before.rlim_max
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        set_open_files(self.before);
    }
}

#[allow(unsafe_code)]
fn set_open_files(limit: libc::rlimit) {
    // A limit of nothing is what a failed question left: it must not become the limit.
    if limit.rlim_max > 0 {
        // SAFETY: the pointer is to a whole rlimit that outlives the call, which only reads it.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// CPU time of the whole process so far, in nanoseconds.
#[allow(unsafe_code)]
pub(crate) fn process_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000) + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Asks a process to end.
#[allow(unsafe_code)]
pub(crate) fn terminate(pid: u32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: no memory is passed. The caller has not waited for this child yet, so that the
        // number cannot be another process's.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}
