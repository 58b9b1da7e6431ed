//! Events of the kernel side → finished connections.

pub mod clock;
pub mod identity;
pub mod model;
