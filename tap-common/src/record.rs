//! The records that cross the rings, in the order a connection's life gives them.
//!
//! A record begins with a [`Header`]. Data records are followed by [`Header::payload_len`] bytes
//! of payload; what stands behind those in the ring slot is stale and must not be read.
//! Addresses are in network byte order (an IPv4 address is IPv4-mapped), ports and everything
//! else in host byte order. Times are `bpf_ktime_get_ns`: `CLOCK_MONOTONIC` nanoseconds.

use crate::{limits::COMM_LEN, settings::Executable};

/// What a record is. The discriminants are the wire values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Open`]: a connection is established (life ring).
    Open = 1,
    /// [`Owner`]: a process used an accepted socket, and no record that goes on will tell (life
    /// ring).
    Owner = 2,
    /// [`Data`]: a turn began or a head went on (data ring).
    Data = 3,
    /// [`Close`]: a connection ended, or a connect failed (life ring).
    Close = 4,
    /// [`Process`]: a process executed a file (life ring).
    Exec = 5,
    /// [`Process`]: a process forked (life ring).
    Fork = 6,
    /// [`Process`]: a process exited (life ring).
    Exit = 7,
    /// [`Dns`]: a DNS message over UDP (data ring).
    Dns = 8,
}

impl Kind {
    /// Every kind, in the order of its value.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::Owner,
        Self::Data,
        Self::Close,
        Self::Exec,
        Self::Fork,
        Self::Exit,
        Self::Dns,
    ];

    /// The kind whose wire value is `value`.
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Open),
            2 => Some(Self::Owner),
            3 => Some(Self::Data),
            4 => Some(Self::Close),
            5 => Some(Self::Exec),
            6 => Some(Self::Fork),
            7 => Some(Self::Exit),
            8 => Some(Self::Dns),
            _ => None,
        }
    }

    /// Its name in metrics and in the accounting line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Owner => "owner",
            Self::Data => "data",
            Self::Close => "close",
            Self::Exec => "exec",
            Self::Fork => "fork",
            Self::Exit => "exit",
            Self::Dns => "dns",
        }
    }
}

/// Which of a connection's three number sequences a record belongs to. Ingress runs in softirq
/// before the socket lock and egress under it, so one sequence for all could not be kept without
/// a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    /// Open, owner and close.
    Life = 0,
    /// Data that this host received.
    Receive = 1,
    /// Data that this host sent.
    Transmit = 2,
}

/// Number of lanes.
pub const LANES: usize = 3;

/// Index of the receiving direction in every two-element array of this crate.
pub const RECEIVE: usize = 0;
/// Index of the sending direction in every two-element array of this crate.
pub const TRANSMIT: usize = 1;

/// Begins every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u8,
    /// A [`Lane`].
    pub lane: u8,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Bytes of payload behind the record's fixed part.
    pub payload_len: u32,
    /// The kernel's socket cookie; 0 for process records.
    pub cookie: u64,
    /// Which connection of this socket: a socket may connect again after a failed connect.
    pub generation: u32,
    /// Number of this record in its lane, from 0. A gap is a lost record.
    pub number: u32,
    /// When it happened.
    pub time_ns: u64,
}

/// Bits of [`Header::flags`], [`Connection::flags`] and the socket state's flags.
pub mod flags {
    /// This host opened the connection.
    pub const ACTIVE: u16 = 1 << 0;
    /// The connection is older than tap, or its opening was not seen.
    pub const PREEXISTING: u16 = 1 << 1;
    /// The three-way handshake was completed.
    pub const ESTABLISHED: u16 = 1 << 2;
    /// The peer's FIN was taken in.
    pub const FIN_RECEIVED: u16 = 1 << 3;
    /// Our FIN was sent.
    pub const FIN_SENT: u16 = 1 << 4;
    /// An RST of the peer was seen on the wire.
    pub const RST_RECEIVED: u16 = 1 << 5;
    /// Our RST was seen on the wire.
    pub const RST_SENT: u16 = 1 << 6;
    /// The record begins a turn (data records).
    pub const TURN: u16 = 1 << 7;
    /// Payload was wanted but not copied, for lack of room in the ring (data records).
    pub const SHED: u16 = 1 << 8;
    /// The close came from the second witness, so the totals are those of the socket state.
    pub const WITNESS: u16 = 1 << 9;
    /// The record was made by walking the socket storage: the connection is still open.
    pub const SNAPSHOT: u16 = 1 << 10;
    /// The connection's own SYN was seen, so its initial sequence number is the wire's.
    pub const SYN_SENT: u16 = 1 << 11;
    /// It was admitted by the second of the two generations of rules.
    pub const SECOND_RULES: u16 = 1 << 12;
    /// The daemon refused the connection, and the kernel side has taken that in: it sends no more
    /// (owner records).
    pub const REFUSED: u16 = 1 << 13;
}

/// The two ends of a connection as its socket sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tuple {
    /// This host's address; IPv4 as `::ffff:a.b.c.d`.
    pub local: [u8; 16],
    /// The peer's address.
    pub remote: [u8; 16],
    /// This host's port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// Padding.
    pub pad: u32,
}

/// The connection so far; both [`Open`] and [`Close`] carry it, so that one makes up for the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Connection {
    /// Its ends.
    pub tuple: Tuple,
    /// When the connect began, or the handshake ended on the accepting side, or the connection was
    /// first seen.
    pub opened_ns: u64,
    /// cgroup v2 id of the socket; 0 if not known.
    pub cgroup: u64,
    /// Process (thread group) that owns the socket; 0 if not proven.
    pub tgid: u32,
    /// Initial sequence number of this host.
    pub local_isn: u32,
    /// Initial sequence number of the peer.
    pub remote_isn: u32,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Padding.
    pub pad: u16,
}

/// A connection is established. Kind [`Kind::Open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Open {
    /// [`Header::time_ns`] is when it was established.
    pub header: Header,
    /// The connection.
    pub connection: Connection,
}

/// A process used the socket. Kind [`Kind::Owner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Its cookie names the socket.
    pub header: Header,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// Its name at that moment.
    pub comm: [u8; COMM_LEN],
}

/// Bytes of one direction. Kind [`Kind::Data`]; payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Data {
    /// [`flags::TURN`] where a turn begins.
    pub header: Header,
    /// Where in the direction's stream the payload begins.
    pub offset: u64,
    /// Bytes of the direction that were in order before this segment: where a turn begins.
    pub position: u64,
    /// When the direction's byte before these went; 0 if they are its first. So the end of a turn
    /// is known even where its last bytes were not captured.
    pub previous_ns: u64,
    /// Bytes of payload that the segment held; more than `payload_len` where not all was copied.
    pub segment_len: u32,
    /// Number of the turn in its direction, from 1.
    pub turn: u32,
    /// Process that owns the socket; 0 while it is not proven.
    pub tgid: u32,
    /// Padding.
    pub pad: u32,
}

/// A connection ended. Kind [`Kind::Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Close {
    /// [`Header::time_ns`] is when the socket's state became CLOSE.
    pub header: Header,
    /// The whole connection, so that a lost open is made up for.
    pub connection: Connection,
    /// Payload bytes received and sent, each byte once.
    pub bytes: [u64; 2],
    /// Turns that began, received and sent, recorded or only counted.
    pub turns: [u32; 2],
    /// Where recording of turns stopped for good, by direction; [`u64::MAX`] if it never did.
    pub cut_at: [u64; 2],
    /// When the last byte went in each direction; 0 if none did.
    pub last_ns: [u64; 2],
    /// Records that this connection tried to send in each lane, this one included.
    pub sent: [u32; LANES],
    /// Smoothed round-trip time in microseconds (the kernel's `srtt_us` is eight times it).
    pub srtt_us: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// `sk_err` at the end; 0 without error or where it cannot be read.
    pub error: u16,
    /// TCP state before CLOSE (include/net/tcp_states.h).
    pub old_state: u8,
    /// Whether `error` could be read.
    pub error_known: u8,
    /// Bytes sent (SYN and FIN included) that the peer never acknowledged.
    pub unacknowledged: u32,
    /// Padding.
    pub pad: u32,
}

/// A DNS message that crossed UDP port 53. Kind [`Kind::Dns`]; the message follows as payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Dns {
    /// Its cookie names the socket; its lane the direction.
    pub header: Header,
    /// The two ends, of which one has port 53.
    pub tuple: Tuple,
}

/// A process was born, changed its program, or ended. Kinds [`Kind::Exec`], [`Kind::Fork`],
/// [`Kind::Exit`]; at exec the file name and the arguments, each with its NUL, follow as payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Process {
    /// Cookie 0.
    pub header: Header,
    /// The process (the child, at fork).
    pub tgid: u32,
    /// Its parent, where known (at fork).
    pub parent: u32,
    /// Its name.
    pub comm: [u8; COMM_LEN],
    /// What it runs (at exec).
    pub executable: Executable,
    /// Its effective user.
    pub uid: u32,
    /// Padding.
    pub pad: u32,
}
