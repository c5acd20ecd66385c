//! The vmalloc address space: areas, holes, what is freed lazily, and the pools of 6.9 and later.
//!
//! [`space`] is the free space, [`layer`] decides where an area goes and when it comes back,
//! [`start`] is what a recording tells of the beginning, [`drive`] runs the one over the other.

pub mod drive;
pub mod layer;
mod reading;
pub mod rules;
pub mod samples;
pub mod space;
pub mod start;
