//! What the recording did, cache by cache.

use super::outcome::Cause;

/// By cache: what the recording did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recorded {
    pub(super) slabs: u64,
    pub(super) made: u64,
    pub(super) released: u64,
    /// Slabs made of a lower order than the cache's, for want of memory.
    pub(super) least_slabs: u64,
    pub(super) events: u64,
    pub(super) hidden_frees: u64,
    pub(super) hidden_allocs: u64,
    pub(super) unseen_slabs: u64,
    pub(super) asked_bytes: u64,
    pub(super) given_bytes: u64,
}

impl Recorded {
    /// Why events are missing: objects in sheaves, whole slabs without one, or objects alone.
    pub(super) fn cause(&self, has_sheaves: bool) -> Cause {
        if has_sheaves && self.hidden_frees > 0 {
            Cause::Sheaf
        } else if self.unseen_slabs > 0 {
            Cause::HiddenThreads
        } else if self.hidden_allocs > 0 {
            Cause::Bulk
        } else if self.hidden_frees > 0 {
            Cause::KfreeRcu
        } else {
            Cause::Complete
        }
    }
}
