//! What tap is told to do: by its file and by its environment.

pub mod file;
