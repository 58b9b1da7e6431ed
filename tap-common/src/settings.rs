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
    /// `struct linux_binprm.file`.
    pub binprm_file: u32,
    /// `struct file.f_inode`.
    pub file_inode: u32,
    /// `struct inode.i_ino`.
    pub inode_ino: u32,
    /// `struct inode.i_generation`.
    pub inode_generation: u32,
    /// `struct inode.i_sb`.
    pub inode_sb: u32,
    /// `struct super_block.s_dev`.
    pub sb_dev: u32,
    /// `struct sock.sk_cgrp_data`.
    pub sk_cgroup: u32,
    /// `struct cgroup.kn`.
    pub cgroup_node: u32,
    /// `struct kernfs_node.id`.
    pub node_id: u32,
    /// Padding.
    pub pad: u32,
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
        binprm_file: Self::ABSENT,
        file_inode: Self::ABSENT,
        inode_ino: Self::ABSENT,
        inode_generation: Self::ABSENT,
        inode_sb: Self::ABSENT,
        sb_dev: Self::ABSENT,
        sk_cgroup: Self::ABSENT,
        cgroup_node: Self::ABSENT,
        node_id: Self::ABSENT,
        pad: 0,
    };
}

/// One generation of the rules on which connections are looked at; a connection is decided once, at
/// its open. Two stand in a map, so that the daemon fills one while the other is in force.
///
/// A rule is a bit. Each field that rules ask for has a table, whose entries say which rules hold as
/// far as that field goes; those that do not ask for it are in every entry. What holds in all of them
/// holds. So a look-up a field decides all rules at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Admission {
    /// Number of this generation; part of the keys of the tables that forget by age.
    pub generation: u32,
    /// 1 to look at connections that this host opens.
    pub egress: u8,
    /// 1 to look at connections that this host accepts.
    pub ingress: u8,
    /// 1 to look at connections between addresses of the loopback net.
    pub loopback: u8,
    /// Bits of [`field`]: the tables that are asked.
    pub fields: u8,
    /// Rules of which one must hold; 0 where all is looked at.
    pub include: u64,
    /// Rules of which none may hold.
    pub exclude: u64,
    /// Rules that ask for something besides, which only the daemon sees.
    pub partial: u64,
    /// Rules that hold of connections that this host accepts.
    pub of_ingress: u64,
    /// Rules that hold of connections that this host opens.
    pub of_egress: u64,
    /// Rules that ask for no port.
    pub no_port: Ends,
    /// Rules that ask for no prefix.
    pub no_prefix: Ends,
    /// Rules that ask for no user.
    pub no_user: u64,
    /// Rules that ask for no executable.
    pub no_executable: u64,
    /// Rules that ask for no cgroup.
    pub no_cgroup: u64,
}

impl Admission {
    /// Everything is looked at.
    pub const ALL: Self = Self {
        generation: 0,
        egress: 1,
        ingress: 1,
        loopback: 1,
        fields: 0,
        include: 0,
        exclude: 0,
        partial: 0,
        of_ingress: u64::MAX,
        of_egress: u64::MAX,
        no_port: Ends::ALL,
        no_prefix: Ends::ALL,
        no_user: u64::MAX,
        no_executable: u64::MAX,
        no_cgroup: u64::MAX,
    };
}

/// Bits of [`Admission::fields`].
pub mod field {
    /// Ports.
    pub const PORT: u8 = 1 << 0;
    /// Prefixes.
    pub const PREFIX: u8 = 1 << 1;
    /// Users.
    pub const USER: u8 = 1 << 2;
    /// Executables.
    pub const EXECUTABLE: u8 = 1 << 3;
    /// cgroups.
    pub const CGROUP: u8 = 1 << 4;
}

/// Rules, by the end whose port or address they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ends {
    /// Either end.
    pub either: u64,
    /// This host.
    pub local: u64,
    /// The peer.
    pub remote: u64,
}

impl Ends {
    /// Every rule.
    pub const ALL: Self = Self { either: u64::MAX, local: u64::MAX, remote: u64::MAX };
}

/// An address prefix: IPv4 prefixes are IPv4-mapped, 96 bits longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Prefix {
    /// Bits that count.
    pub len: u32,
    /// The address.
    pub address: [u8; 16],
}

/// Bytes of a key of the prefix table: which of the two generations, then the address.
pub const PREFIX_KEY: usize = 17;

/// Key of the port table: which of the two generations, and the port.
pub const fn port_key(slot: u32, port: u16) -> u32 {
    slot << 16 | port as u32
}

/// Key of the user table: which of the two generations, and the user's number.
pub const fn user_key(slot: u32, uid: u32) -> u64 {
    (slot as u64) << 32 | uid as u64
}

/// The file that a process runs, as the kernel knows it. A file that was removed does not leave its
/// number to another: the inode's own generation differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Executable {
    /// `inode.i_ino`.
    pub inode: u64,
    /// `inode.i_generation`.
    pub version: u32,
    /// `super_block.s_dev`; [`Executable::NUMBERED`] where the daemon made the number up.
    pub device: u32,
}

impl Executable {
    /// Not known.
    pub const UNKNOWN: Self = Self { inode: 0, version: 0, device: 0 };
    /// Device of what the daemon knows by a number of its own: the files of processes older than tap.
    pub const NUMBERED: u32 = u32::MAX;
}

/// Key of the table of executables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExecutableKey {
    /// The file.
    pub executable: Executable,
    /// [`Admission::generation`].
    pub generation: u64,
}

/// Key of the table of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CgroupKey {
    /// cgroup v2 id.
    pub id: u64,
    /// [`Admission::generation`].
    pub generation: u64,
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
    /// 1 where the rules refuse the connection, and nothing more of it is sent.
    pub refused: u32,
}
