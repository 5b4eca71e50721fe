//! Real-time connections for Linux servers: one log, one cursor, one URL, four transports.

pub mod hub;
