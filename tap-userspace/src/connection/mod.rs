//! Records of the kernel side → finished connections.
//!
//! [`table`] holds the connections that are open and takes the records in; [`entry`] is one of
//! them; [`ending`] says how it ended; [`model`] is what comes out.

pub mod batches;
pub mod clock;
pub mod ending;
pub mod entry;
pub mod identity;
pub mod life;
pub mod model;
pub mod retold;
pub mod table;
#[cfg(test)]
mod table_tests;
pub mod transaction;
