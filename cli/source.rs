//! Where the screen's numbers come from: `/proc` now, or a recording, finished or growing.

mod cursor;
mod index;
pub(crate) mod live;
mod models;
mod names;
mod pair;
mod proc_rows;
pub(crate) mod recording;
mod sites;
mod stalls;
mod tables;
mod walk;
