//! Where settings come from: the configuration file and the `OTEL_*` environment.

pub mod environment;
pub mod exporters;
pub mod file;
pub mod http_capture;
pub mod pipelines;
pub mod place;
pub mod processors;
pub mod service;
