//! Which connections are looked at, and what of finished connections and exchanges may leave: the
//! rules of `capture`, the head sampler, redaction, and the processors of the configuration's
//! pipelines. Comes in: connections, spans and log records; goes out: those that are kept, as the
//! processors leave them.

pub mod actions;
pub mod admission;
pub mod attributes;
pub mod chain;
pub mod condition;
pub mod connection;
pub mod data;
pub mod expression;
pub mod filter;
pub mod glob;
pub mod group;
pub mod matching;
pub mod memory;
pub mod metrics;
pub mod order;
pub mod pattern;
pub mod probability;
pub mod processor;
pub mod redact;
pub mod redaction;
pub mod sample;
pub mod sources;
pub mod stage;
pub mod tail;
pub mod transform;
