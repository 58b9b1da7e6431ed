//! What the daemon tells the kernel programs: once at load ([`Settings`], [`Offsets`]) and while
//! they run ([`Admission`], [`Verdict`]).

use crate::limits;

/// Read-only data of the programs, set before they load. The verifier knows its values, so a
/// branch on it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Thread group id of the daemon, as the initial pid namespace has it; 0 traces it as well.
    pub self_tgid: u32,
    /// Bytes of payload captured at the head of each direction.
    pub head: u32,
    /// Turn records per connection; beyond, turns are counted.
    pub turns: u32,
    /// Bytes of payload captured at the begin of each turn, until the daemon has decided about the
    /// connection; 0 where nobody reads beyond the heads.
    pub payload: u32,
    /// 1 to report DNS messages over UDP.
    pub dns: u32,
    /// 1 where tracing programs cannot use socket storage: then closes are asked of `sock_ops`, and
    /// cookies stand in for the storage elsewhere.
    pub by_cookie: u32,
    /// Bytes in the data ring above which payload is left out.
    pub shed_above: u64,
    /// Bytes in a ring at which its reader is woken.
    pub wake_above: u64,
    /// Where the kernel keeps what no stable interface tells.
    pub offsets: Offsets,
}

impl Settings {
    /// What a program has if the daemon sets nothing.
    pub const DEFAULT: Self = Self {
        self_tgid: 0,
        head: limits::HEAD_DEFAULT,
        turns: limits::TURNS_DEFAULT,
        payload: 0,
        dns: 0,
        shed_above: limits::DATA_RING_DEFAULT as u64 / 4 * 3,
        wake_above: limits::WAKE_BYTES,
        by_cookie: 0,
        offsets: Offsets::UNKNOWN,
    };
}

/// Byte offsets in the running kernel's structures, read from its BTF by the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `struct sock.sk_err`.
    pub sk_err: u32,
    /// `struct sock.__sk_common.skc_cookie`.
    pub skc_cookie: u32,
    /// `struct tcp_sock.bytes_received`.
    pub tcp_bytes_received: u32,
    /// `struct tcp_sock.snd_nxt`.
    pub tcp_snd_nxt: u32,
    /// `struct tcp_sock.snd_una`.
    pub tcp_snd_una: u32,
    /// `struct tcp_sock.srtt_us`.
    pub tcp_srtt_us: u32,
    /// `struct tcp_sock.total_retrans`.
    pub tcp_total_retrans: u32,
    /// `struct task_struct.tgid`.
    pub task_tgid: u32,
    /// `struct task_struct.pid`.
    pub task_pid: u32,
    /// `struct task_struct.comm`.
    pub task_comm: u32,
    /// `struct linux_binprm.filename`.
    pub binprm_filename: u32,
    /// `struct task_struct.mm`.
    pub task_mm: u32,
    /// `struct mm_struct.arg_start`.
    pub mm_arg_start: u32,
    /// `struct mm_struct.arg_end`.
    pub mm_arg_end: u32,
}

impl Offsets {
    /// An offset that is not known.
    pub const ABSENT: u32 = u32::MAX;

    /// Nothing is known: the kernel has no BTF.
    pub const UNKNOWN: Self = Self {
        sk_err: Self::ABSENT,
        skc_cookie: Self::ABSENT,
        tcp_bytes_received: Self::ABSENT,
        tcp_snd_nxt: Self::ABSENT,
        tcp_snd_una: Self::ABSENT,
        tcp_srtt_us: Self::ABSENT,
        tcp_total_retrans: Self::ABSENT,
        task_tgid: Self::ABSENT,
        task_pid: Self::ABSENT,
        task_comm: Self::ABSENT,
        binprm_filename: Self::ABSENT,
        task_mm: Self::ABSENT,
        mm_arg_start: Self::ABSENT,
        mm_arg_end: Self::ABSENT,
    };
}

/// Which connections the kernel programs look at; entry 0 of a map, so that it can change while
/// they run. A connection is decided once, at its open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Admission {
    /// 1 to look at connections that this host opens.
    pub egress: u8,
    /// 1 to look at connections that this host accepts.
    pub ingress: u8,
    /// 1 to look at connections between addresses of the loopback net.
    pub loopback: u8,
    /// 1 where only what a port or prefix rule includes is looked at.
    pub default_deny: u8,
    /// 1 where there are port rules.
    pub ports: u8,
    /// 1 where there are prefix rules.
    pub prefixes: u8,
    /// Padding.
    pub pad: [u8; 2],
}

impl Admission {
    /// Everything is looked at.
    pub const ALL: Self = Self {
        egress: 1,
        ingress: 1,
        loopback: 1,
        default_deny: 0,
        ports: 0,
        prefixes: 0,
        pad: [0; 2],
    };
}

/// What a port or prefix rule says; an exclusion wins over an inclusion.
pub const RULE_INCLUDE: u8 = 1;
/// See [`RULE_INCLUDE`].
pub const RULE_EXCLUDE: u8 = 2;

/// Key of the prefix table: IPv4 prefixes are IPv4-mapped, 96 bits longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Prefix {
    /// Bits that count.
    pub len: u32,
    /// The address.
    pub address: [u8; 16],
}

/// What the daemon has decided about one connection; read at the begin of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Verdict {
    /// Generation it is about.
    pub generation: u32,
    /// How many turn records the connection may send in all.
    pub turns: u32,
    /// How many payload bytes of each turn are captured.
    pub payload: u32,
}
