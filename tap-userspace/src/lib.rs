//! The stages of tap, in the order data flows through them: the kernel side's records become
//! connections, connections become spans, spans leave the host. `pipeline` wires them.
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "loading programs and the system calls of it")]
pub mod probe;

pub mod source;

pub mod connection;

pub mod protocol;

pub mod enrich;

pub mod policy;

pub mod telemetry;

pub mod export;

pub mod admin;
pub mod cli;
pub mod config;
pub mod observe;
pub mod pipeline;
