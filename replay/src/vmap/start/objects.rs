//! Objects of the cache `vmap_area`: an area from a pool has one, an area from the free space needs
//! one.

use std::collections::HashMap;

use kmemlab_trace::event::Event;

/// Threads that took an object for an area and have not got the area yet, and on which processor
/// they first did. That is the one whose pool had nothing (`node_alloc`): the thread may be on
/// another when the area's event comes.
#[derive(Debug, Default)]
pub struct Objects {
    cpus: HashMap<u32, u16>,
}

impl Objects {
    /// A thread took an object.
    pub fn took(&mut self, event: &Event) {
        self.cpus.entry(event.pid.0).or_insert(event.cpu.0);
    }

    /// A thread got an area: on which processor it took an object for it, if it did.
    pub fn of(&mut self, event: &Event) -> Option<usize> {
        self.cpus.remove(&event.pid.0).map(usize::from)
    }
}
