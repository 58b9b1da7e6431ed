//! stand-in
pub mod environment;
pub mod file;
