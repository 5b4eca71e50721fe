//! Wires, and what they have to come to: `vectors.txt`, its reader, and what runs it.
//!
//! The format is described in `README.md`. There is no allocation and no standard library in here, so that the tests
//! of the host, the fuzz corpora and the firmware of the emulated board read one file by the same code:
//!
//! ```
//! use longwire_vectors::{Cut, Setup, Space, cases};
//!
//! let (mut rx, mut tx) = ([0; 4096], [0; 1024]);
//! let mut inflater = longwire_embassy::Inflater::<32768>::new();
//! let mut space = Space { rx: &mut rx, tx: &mut tx, inflate: &mut inflater };
//! let case = cases().next().unwrap();
//! case.run(&Setup::whole(), &mut space)?;
//! case.run(&Setup { cut: Cut::Every(1), ..Setup::whole() }, &mut space)?;
//! # Ok::<(), longwire_vectors::Wrong>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod bytes;
mod file;
mod handshake;
mod run;
mod sse;
mod ws;

pub use bytes::Bytes;
pub use file::{Case, Line, Vector, cases, vectors};
pub use run::{Cut, SETUPS, Setup, Space, Wrong};

/// The vectors.
pub const FILE: &str = include_str!("../vectors.txt");
