//! Which threads there are, and what they are called.

use std::collections::BTreeSet;

use kmemlab_trace::format::TASKS;
use kmemlab_trace::snapshot::Stamp;
use kmemlab_trace::table::Cell;
use kmemlab_trace::writer::RecordingWriter;

use crate::clock;
use crate::root::Root;

/// Letters that the kernel keeps of a thread's name.
const NAME_LETTERS: usize = 15;

/// A thread and its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Task {
    pub(crate) thread: u32,
    pub(crate) process: u32,
    pub(crate) command: String,
}

impl Task {
    /// The first thread of a program that was just started.
    pub(crate) fn started(process: u32, program: &str) -> Self {
        let name = program.rsplit('/').next().unwrap_or(program);
        let command = name.chars().take(NAME_LETTERS).collect();
        Self { thread: process, process, command }
    }
}

/// The threads seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    tasks: BTreeSet<Task>,
    is_anonymous: bool,
}

impl Seen {
    /// Nothing seen yet; an anonymous recording never will see any.
    pub(crate) fn new(is_anonymous: bool) -> Self {
        Self { tasks: BTreeSet::new(), is_anonymous }
    }

    /// The threads that are there now and were not seen before under this name.
    pub(crate) fn scan(&mut self, root: &Root) -> Vec<Task> {
        let mut fresh = Vec::new();
        if self.is_anonymous {
            return fresh;
        }
        for process in numbers(root, "proc") {
            for thread in numbers(root, &format!("proc/{process}/task")) {
                // It may have ended since its folder was listed.
                let comm = root.read(&format!("proc/{process}/task/{thread}/comm"));
                let Ok(comm) = comm else { continue };
                let command = comm.trim_end_matches('\n').to_owned();
                let task = Task { thread, process, command };
                if self.tasks.insert(task.clone()) {
                    fresh.push(task);
                }
            }
        }
        fresh
    }
}

/// The threads of this process.
pub(crate) fn own_threads(root: &Root) -> Vec<u32> {
    numbers(root, "proc/self/task")
}

fn numbers(root: &Root, folder: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        root.names(folder).iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Writes threads into the recording.
pub(crate) fn write(
    tasks: &[Task],
    writer: &mut RecordingWriter,
) -> Result<(), kmemlab_trace::Error> {
    for task in tasks {
        let cells = [
            Cell::U64(u64::from(task.thread)),
            Cell::U64(u64::from(task.process)),
            Cell::Str(&task.command),
        ];
        writer.row(&TASKS, &cells)?;
    }
    let now = clock::now();
    writer.flush_table(&TASKS, Stamp { before: now, after: now })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::scratch::Scratch;

    #[test]
    fn each_thread_and_name_once() {
        let scratch = Scratch::new();
        scratch.write("proc/7/task/7/comm", "sh\n");
        scratch.write("proc/7/task/8/comm", "wor ker\n");
        scratch.write("proc/uptime", "");
        let mut seen = Seen::default();
        assert_eq!(seen.scan(&scratch.0).len(), 2);
        scratch.write("proc/7/task/7/comm", "true\n");
        let task = Task { thread: 7, process: 7, command: "true".into() };
        assert_eq!(seen.scan(&scratch.0), std::slice::from_ref(&task));
        assert_eq!(Task::started(7, "/bin/true"), task);
    }
}
