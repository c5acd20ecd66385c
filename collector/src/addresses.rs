//! The kernel's addresses, shown to the recorder for the moment of one read.
//!
//! `kernel.kptr_restrict` is set to 1, at which root sees addresses, and put back. A recorder
//! killed in that moment cannot put it back: it leaves the old value in a file, from which the next
//! one does.

use std::fs;

use crate::root::Root;

/// The setting.
const KPTR_RESTRICT: &str = "proc/sys/kernel/kptr_restrict";
/// Where the old value is kept while the setting is changed; gone after a restart, as is the
/// change.
const KEPT: &str = "run/kmemlab.kptr_restrict";

/// Addresses are shown while this lives.
#[derive(Debug)]
pub(crate) struct ShownAddresses<'a> {
    root: &'a Root,
    before: Option<String>,
}

impl<'a> ShownAddresses<'a> {
    pub(crate) fn ask(root: &'a Root) -> Self {
        let before = root.read(KPTR_RESTRICT).ok().map(|text| text.trim().to_owned());
        let before = before.filter(|value| value != "1");
        if let Some(before) = &before {
            // Without it a kill in the next millisecond leaves the setting changed; no more than
            // that.
            let _ = fs::write(root.join(KEPT), before);
        }
        // Refused, the addresses are not shown, and that is noticed where they are read.
        let before = before.filter(|_| fs::write(root.join(KPTR_RESTRICT), "1\n").is_ok());
        Self { root, before }
    }
}

impl Drop for ShownAddresses<'_> {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        match fs::write(self.root.join(KPTR_RESTRICT), format!("{before}\n")) {
            Ok(()) => drop(fs::remove_file(self.root.join(KEPT))),
            Err(error) => {
                log::error!("kernel.kptr_restrict could not be put back to {before}: {error}");
            }
        }
    }
}

/// Puts back what a recorder changed that was killed before it could.
pub(crate) fn put_back_after_kill(root: &Root) {
    let Ok(before) = root.read(KEPT) else { return };
    let is_shown = root.read(KPTR_RESTRICT).is_ok_and(|value| value.trim() == "1");
    let is_value = matches!(before.trim(), "0" | "2");
    if !is_shown || !is_value || fs::write(root.join(KPTR_RESTRICT), before).is_ok() {
        let _ = fs::remove_file(root.join(KEPT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    fn value(scratch: &Scratch) -> String {
        scratch.0.read(KPTR_RESTRICT).unwrap().trim().to_owned()
    }

    #[test]
    fn kptr_restrict_is_put_back() {
        let scratch = Scratch::new();
        for before in ["0", "1", "2"] {
            scratch.write(KPTR_RESTRICT, format!("{before}\n"));
            let shown = ShownAddresses::ask(&scratch.0);
            assert_eq!(value(&scratch), "1");
            drop(shown);
            assert_eq!(value(&scratch), before);
        }
    }

    #[test]
    fn what_a_killed_recorder_left_is_put_back_once() {
        let scratch = Scratch::new();
        scratch.write(KPTR_RESTRICT, "2\n");
        scratch.write(KEPT, "");
        std::mem::forget(ShownAddresses::ask(&scratch.0));
        assert_eq!(value(&scratch), "1");
        put_back_after_kill(&scratch.0);
        assert_eq!(value(&scratch), "2");
        // Somebody else's choice is left alone.
        scratch.write(KPTR_RESTRICT, "1\n");
        put_back_after_kill(&scratch.0);
        assert_eq!(value(&scratch), "1");
    }
}
