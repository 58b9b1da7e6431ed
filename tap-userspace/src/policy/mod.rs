//! Which finished connections are kept.

pub mod redact;
pub mod sample;
