//! Harness of the end-to-end tests: it starts the real daemon on the live kernel, real programs
//! to trace, and a real OTLP receiver that says what arrived.

pub mod bpf;
pub mod expect;
pub mod netns;
pub mod process;
pub mod programs;
pub mod receiver;
pub mod record;
pub mod relay;
pub mod scene;
pub mod span;
pub mod stage;
pub mod sys;
pub mod tap;
pub mod wait;
pub mod workload;
