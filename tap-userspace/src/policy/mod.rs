//! Which finished connections are kept.

pub mod sample;
