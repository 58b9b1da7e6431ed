//! What the kernel programs and the daemon share: the records that cross the rings, the settings
//! the daemon gives the programs, the counters they keep, and every limit.
//!
//! Everything here is plain `repr(C)` with explicit padding. Whether both sides agree is asserted
//! at compile time in [`layout`]. A change of any size, offset or meaning raises [`ABI_VERSION`].
#![no_std]
#![forbid(unsafe_code)]

pub mod counters;
pub mod layout;
pub mod limits;
pub mod record;
pub mod settings;
pub mod state;

/// Version of everything in this crate that crosses the kernel line or stands in a recording.
pub const ABI_VERSION: u32 = 3;
