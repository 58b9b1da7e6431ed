//! stand-in
pub mod resource;
