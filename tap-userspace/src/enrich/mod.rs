//! Who is behind a connection.

pub mod listing;
pub mod process;
pub mod sockets;
