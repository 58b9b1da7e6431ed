//! The stages of tap, in the order data flows through them.

pub mod config;
pub mod connection;
pub mod enrich;
pub mod protocol;
