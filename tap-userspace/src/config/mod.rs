//! Where settings come from: the configuration file and the `OTEL_*` environment.
//!
//! A file's way: [`load`] reads it, [`tree`] makes values with their places of it, [`expand`] puts in
//! what `${…}` stands for, [`read`] makes the types of [`file`] and the other blocks.

pub mod blocks;
pub mod capture;
pub mod environment;
pub mod expand;
pub mod exporters;
pub mod file;
pub mod http_capture;
pub mod load;
pub mod pipelines;
pub mod place;
pub mod processors;
pub mod read;
pub mod reload;
pub mod schema;
pub mod service;
pub mod show;
pub mod tree;
pub mod values;
