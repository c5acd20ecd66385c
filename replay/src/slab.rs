//! The slab layer: objects asked for and given back, and the slabs that hold them.
//!
//! [`follow`] reads the recorded addresses: which page allocations were slabs, which objects were
//! there before, which events are missing. [`learning`] makes the start of that. A
//! [`policy::SlabPolicy`] then serves the same requests by its own rules, and its counts are
//! compared with `/proc/slabinfo`.

pub mod ahead;
pub mod aliases;
pub mod caches;
pub mod classic;
pub mod follow;
mod frames;
pub mod geometry;
pub mod graces;
pub mod learning;
mod numbers;
pub mod overtaken;
pub mod policy;
pub mod role;
pub mod rules;
pub mod samples;
pub mod slob;
pub mod slub;
pub mod trees;
pub mod unseen;

pub use kmemlab_trace::gfp;
