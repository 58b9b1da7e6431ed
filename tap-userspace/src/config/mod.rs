//! What tap is told.

pub mod environment;
