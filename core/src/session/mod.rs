//! (being written)

pub mod backoff;
