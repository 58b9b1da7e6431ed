//! Harness of the end-to-end tests: it starts the real daemon on the live kernel, real programs
//! to trace, and a real OTLP receiver that says what arrived.

pub mod netns;
pub mod receiver;
pub mod relay;
pub mod span;
pub mod sys;
pub mod wait;
