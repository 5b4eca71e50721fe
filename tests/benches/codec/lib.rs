//! Everything is in the benchmark: `cargo bench`.
