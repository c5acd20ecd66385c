//! What a recording tells of people and machines, as opposed to allocators: the one list of it.
//!
//! `record --anonymous` never writes it, and `scrub` takes it out again.

use crate::format::{TASKS, TableSpec};
use crate::manifest::Manifest;

/// How much of it a recording holds: [`Manifest::privacy`].
pub const ANONYMOUS: &str = "anonymous";
/// As above, and no address in it is the kernel's own.
pub const SCRUBBED: &str = "scrubbed";

/// Whether a table has nothing but names of programs.
#[must_use]
pub fn is_private(table: &TableSpec) -> bool {
    table.file == TASKS.file
}

impl Manifest {
    /// Leaves out the host's name, all command lines, and the file's name that a model's run tells.
    pub fn leave_names_out(&mut self) {
        self.host.name.clear();
        self.host.kernel_command_line.clear();
        self.command.clear();
        self.command_line.clear();
        if let Some(model) = &mut self.model {
            model.recording.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ModelRun;

    #[test]
    fn no_name_is_left() {
        let mut manifest = Manifest::default();
        manifest.host.name = "SECRET-host".to_owned();
        manifest.host.kernel_command_line = "root=SECRET".to_owned();
        manifest.host.kernel_release = "6.18".to_owned();
        manifest.command = vec!["SECRET".to_owned()];
        manifest.command_line = vec!["-o".to_owned(), "SECRET.kmt".to_owned()];
        let recording = "SECRET.kmt".to_owned();
        manifest.model = Some(ModelRun { recording, ..ModelRun::default() });
        manifest.leave_names_out();
        let text = serde_json::to_string(&manifest).unwrap();
        assert!(!text.contains("SECRET") && text.contains("6.18"), "{text}");
        assert!(is_private(&TASKS) && !is_private(&crate::format::STACKS));
    }
}
