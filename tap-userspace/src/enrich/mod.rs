//! Who is behind a connection.

pub mod process;
pub mod listing;
pub mod sockets;
