//! What the kernel keeps for each socket (socket-local storage), freed with the socket.
//!
//! The daemon sees it only through the snapshot walk, as [`crate::record::Close`] records. With
//! the kernel's own header of 72 bytes it fits one object of 256: a larger one costs each new
//! socket the zeroing of 512.

use crate::record::{Connection, LANES, Tuple};

/// One direction of a connection. Each is written by its own side only: receive by the ingress
/// program (softirq), transmit by the egress program (under the socket lock).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Direction {
    /// When its last payload byte went.
    pub last_ns: u64,
    /// Position at which turn records stopped; `u64::MAX` while they have not.
    pub cut_at: u64,
    /// Turns that began.
    pub turns: u32,
    /// Low half of the position behind the last payload byte before the FIN.
    pub fin_at: u32,
    /// 1 once a FIN is seen.
    pub fin: u32,
    /// Payload bytes of the current turn that are still to be captured.
    pub left: u32,
}

impl Direction {
    /// Before any byte.
    pub const FRESH: Self =
        Self { last_ns: 0, cut_at: u64::MAX, turns: 0, fin_at: 0, fin: 0, left: 0 };
}

/// Value of the socket storage. What every segment asks for stands in the first cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Socket {
    /// Where the connection stands, see [`phase`].
    pub phase: u8,
    /// `RECEIVE` or `TRANSMIT`: the direction of the current turn; [`Socket::NO_TURN`] before any.
    pub turn_direction: u8,
    /// Bits of [`crate::record::flags`].
    pub flags: u16,
    /// A [`Verdict`](crate::settings::Verdict)'s turns, or the setting's.
    pub turn_limit: u32,
    /// Initial sequence number of this host.
    pub local_isn: u32,
    /// Initial sequence number of the peer.
    pub remote_isn: u32,
    /// Stream position behind the last byte that was sent. (For receive the kernel's
    /// `bytes_received` is the position.)
    pub sent_to: u64,
    /// Position of the stream's begin in the kernel's `bytes_received`: not 0 for a connection
    /// older than tap.
    pub receive_base: u64,
    /// Process that owns the socket; 0 while it is not proven. Before the SYN, the process that
    /// called connect.
    pub tgid: u32,
    /// Payload bytes captured of each turn, as the verdict or the setting has it.
    pub payload: u32,
    /// Records tried in each lane.
    pub sent: [u32; LANES],
    /// Which connection of this socket.
    pub generation: u16,
    /// What of it the daemon has still to decide, see [`undecided`].
    pub undecided: u16,
    /// The socket's cookie.
    pub cookie: u64,
    /// The two directions.
    pub directions: [Direction; 2],
    /// cgroup v2 id; 0 while not known.
    pub cgroup: u64,
    /// When the connection began.
    pub opened_ns: u64,
    /// Address of this host.
    pub local: [u8; 16],
    /// Address of the peer.
    pub remote: [u8; 16],
    /// Port of this host.
    pub local_port: u16,
    /// Port of the peer.
    pub remote_port: u16,
    /// User of the process that called connect; holds where `tgid` was known at the open.
    pub uid: u32,
}

impl Socket {
    /// No turn has begun.
    pub const NO_TURN: u8 = 2;

    /// Its ends.
    #[inline(always)]
    pub const fn tuple(&self) -> Tuple {
        Tuple {
            local: self.local,
            remote: self.remote,
            local_port: self.local_port,
            remote_port: self.remote_port,
            pad: 0,
        }
    }

    /// The connection so far, as records tell it.
    #[inline(always)]
    pub const fn connection(&self) -> Connection {
        Connection {
            tuple: self.tuple(),
            opened_ns: self.opened_ns,
            cgroup: self.cgroup,
            tgid: self.tgid,
            local_isn: self.local_isn,
            remote_isn: self.remote_isn,
            flags: self.flags,
            pad: 0,
        }
    }
}

/// Bits of [`Socket::undecided`].
pub mod undecided {
    /// How much of each turn is captured.
    pub const PAYLOAD: u16 = 1 << 0;
    /// Whether it is looked at.
    pub const ADMISSION: u16 = 1 << 1;
}

/// Values of [`Socket::phase`].
pub mod phase {
    /// The storage was made but no connection begun (a connect call that has not sent yet).
    pub const NEW: u8 = 0;
    /// Looked at.
    pub const TRACED: u8 = 1;
    /// Not looked at, by the admission rules.
    pub const IGNORED: u8 = 2;
    /// Its close was reported.
    pub const CLOSED: u8 = 3;
}
