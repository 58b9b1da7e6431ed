//! Who is behind a connection.

pub mod dns;
pub mod listing;
pub mod names;
pub mod process;
pub mod sockets;
