//! Data frames and exports of kmemlab recordings.
