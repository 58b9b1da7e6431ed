//! Who is behind a connection.
#![forbid(unsafe_code)]

pub mod process;
pub mod sock_diag;
pub mod sockets;
