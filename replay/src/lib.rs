//! Mirror and model of the Linux page allocator.
