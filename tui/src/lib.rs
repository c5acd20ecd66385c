//! Screens of kmemlab.
