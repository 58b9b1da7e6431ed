//! Processes: what `/proc` said of them when they were first seen.

/// A process that owns a connection's local end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// `process.pid`.
    pub pid: u32,
    /// `process.executable.path`; empty where it could not be learned.
    pub executable: String,
    /// `process.executable.name`.
    pub name: String,
    /// `process.command_args`.
    pub args: Vec<String>,
    /// `process.owner`: user name, else uid.
    pub owner: String,
}
