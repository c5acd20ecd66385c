//! A thread that goes from processor to processor, to switch the events of each from there.

use std::io;

/// While it lives, this thread may be sent from processor to processor; then it may run where it
/// could before.
#[derive(Debug)]
pub(crate) struct Hopper {
    before: Option<libc::cpu_set_t>,
}

impl Hopper {
    #[allow(unsafe_code)]
    pub(crate) fn new() -> Self {
        // SAFETY: a cpu_set_t is an array of numbers, for which all zeros are a value.
        let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: the pointer and the size are those of a set that outlives the call. Thread 0 is
        // the calling thread.
        let done = unsafe { libc::sched_getaffinity(0, size, &raw mut before) };
        Self { before: (done == 0).then_some(before) }
    }

    /// Goes to that processor; `false` when this thread may not run there.
    #[allow(unsafe_code)]
    pub(crate) fn go(&self, cpu: u16) -> bool {
        if self.before.is_none() || usize::from(cpu) >= size_of::<libc::cpu_set_t>() * 8 {
            return false;
        }
        // SAFETY: as in `new`; the number was found to be within the set.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(usize::from(cpu), &mut set);
            set
        };
        set_affinity(&set).is_ok()
    }
}

impl Drop for Hopper {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = set_affinity(before);
        }
    }
}

#[allow(unsafe_code)]
fn set_affinity(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the pointer and the size are those of a set that outlives the call; the kernel only
    // reads it. Thread 0 is the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const *set) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
