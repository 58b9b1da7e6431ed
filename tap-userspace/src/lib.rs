//! The stages of tap, in the order data flows through them.

pub mod connection;
pub mod enrich;
pub mod protocol;

pub mod policy;
pub mod telemetry;

pub mod export;

pub mod config;
