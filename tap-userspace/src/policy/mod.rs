//! Which finished connections are kept, and what of exchanges may leave.

pub mod condition;
pub mod redact;
pub mod sample;
