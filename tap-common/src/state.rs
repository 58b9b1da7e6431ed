//! What the kernel keeps for each socket (socket-local storage), freed with the socket.
//!
//! The daemon sees it only through the snapshot walk, as [`crate::record::Close`] records.

use crate::record::{Connection, LANES};

/// One direction of a connection. Each is written by its own side only: receive by the ingress
/// program (softirq), transmit by the egress program (under the socket lock).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Direction {
    /// When its last payload byte went.
    pub last_ns: u64,
    /// Stream position behind the last byte that was sent; unused for receive, where the kernel's
    /// `bytes_received` is the position.
    pub position: u64,
    /// Position behind the last payload byte before the FIN; `u64::MAX` until a FIN is seen.
    pub fin_at: u64,
    /// Position at which turn records stopped; `u64::MAX` while they have not.
    pub cut_at: u64,
    /// Turns that began.
    pub turns: u32,
    /// Padding.
    pub pad: u32,
}

/// Value of the socket storage.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Socket {
    /// The connection so far.
    pub connection: Connection,
    /// The socket's cookie.
    pub cookie: u64,
    /// The two directions.
    pub directions: [Direction; 2],
    /// Records tried in each lane; 64 bits wide for the one atomic add that every kernel has.
    pub sent: [u64; LANES],
    /// Which connection of this socket.
    pub generation: u32,
    /// `RECEIVE` or `TRANSMIT`: the direction of the current turn; [`Socket::NO_TURN`] before any.
    pub turn_direction: u32,
    /// A [`Verdict`](crate::settings::Verdict)'s turns, or the setting's.
    pub turn_limit: u32,
    /// Position of the stream's begin in the kernel's `bytes_received`: not 0 for a connection
    /// older than tap.
    pub receive_base: u64,
    /// Where the connection stands, see [`phase`].
    pub phase: u32,
    /// Process that called connect on this socket.
    pub connecting: u32,
}

impl Socket {
    /// No turn has begun.
    pub const NO_TURN: u32 = 2;
}

/// Values of [`Socket::phase`].
pub mod phase {
    /// The storage was made but no connection begun (a connect call that has not sent yet).
    pub const NEW: u32 = 0;
    /// Looked at.
    pub const TRACED: u32 = 1;
    /// Not looked at, by the admission rules.
    pub const IGNORED: u32 = 2;
    /// Its close was reported.
    pub const CLOSED: u32 = 3;
}
