//! What tap knows → OpenTelemetry: spans as OTLP protobuf, the resource, tap's own metrics.

pub mod attributes;
pub mod child;
pub mod cloud;
pub mod eventstore;
pub mod life;
pub mod limits;
pub mod log;
pub mod meter;
pub mod metric;
pub mod protobuf;
pub mod resource;
pub mod semconv;
pub mod span;
