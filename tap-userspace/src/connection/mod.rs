//! Events of the kernel side → finished connections.

pub mod identity;
pub mod model;
