//! The attach plan: one row per kernel program, in the order they are attached. The loader is one
//! loop over it.

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `sock_ops` of the root cgroup.
    SockOps,
    /// `cgroup_skb`, either way, of the root cgroup.
    Packets(Way),
    /// `cgroup/connect4` or `connect6` of the root cgroup.
    Connect,
    /// `cgroup/sock_release` of the root cgroup.
    Release,
    /// A tracepoint with BTF-typed arguments (`tp_btf`), which can reach socket storage from 5.11.
    Typed(&'static str),
    /// A raw tracepoint.
    Raw(&'static str),
    /// An iterator; loaded, and attached when it is read.
    Iterator(&'static str),
}

/// Direction of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To this host.
    In,
    /// From this host.
    Out,
}

/// What it means if a program cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// tap cannot run.
    Required,
    /// tap runs without it.
    Optional,
    /// Stands in where the named program did not load.
    InsteadOf(&'static str),
}

/// One program.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in the object.
    pub program: &'static str,
    /// Its hook.
    pub hook: Hook,
    /// Whether it must be there.
    pub need: Need,
    /// What is lost without it.
    pub without: &'static str,
}

/// Every program. Witnesses and owners come before the packets, so that the first connection that
/// is picked up from the wire has them.
pub const PLAN: &[Row] = &[
    Row {
        program: "tap_exec",
        hook: Hook::Raw("sched_process_exec"),
        need: Need::Optional,
        without: "programs that live for milliseconds have no name",
    },
    Row {
        program: "tap_fork",
        hook: Hook::Raw("sched_process_fork"),
        need: Need::Optional,
        without: "children that never execute a file and live for milliseconds have no name",
    },
    Row {
        program: "tap_exit",
        hook: Hook::Raw("sched_process_exit"),
        need: Need::Optional,
        without: "processes are forgotten by age only",
    },
    Row {
        program: "tap_state",
        hook: Hook::Typed("inet_sock_set_state"),
        need: Need::Optional,
        without: "closes of connections older than tap are found late, by the snapshot",
    },
    Row {
        program: "tap_state_by_cookie",
        hook: Hook::Raw("inet_sock_set_state"),
        need: Need::InsteadOf("tap_state"),
        without: "closes of connections older than tap are found late, by the snapshot",
    },
    Row {
        program: "tap_read",
        hook: Hook::Typed("tcp_rcv_space_adjust"),
        need: Need::Optional,
        without: "accepted connections get their owner only when they close",
    },
    Row {
        program: "tap_read_by_cookie",
        hook: Hook::Raw("tcp_rcv_space_adjust"),
        need: Need::InsteadOf("tap_read"),
        without: "accepted connections get their owner only when they close",
    },
    Row {
        program: "tap_release",
        hook: Hook::Release,
        need: Need::Optional,
        without: "accepted connections that nobody reads from have no owner",
    },
    Row {
        program: "tap_connect4",
        hook: Hook::Connect,
        need: Need::Required,
        without: "clients have no owner",
    },
    Row {
        program: "tap_connect6",
        hook: Hook::Connect,
        need: Need::Optional,
        without: "clients over IPv6 have no owner",
    },
    Row {
        program: "tap_sock_ops",
        hook: Hook::SockOps,
        need: Need::Required,
        without: "connections are not seen to open",
    },
    Row {
        program: "tap_egress",
        hook: Hook::Packets(Way::Out),
        need: Need::Required,
        without: "what is sent is not seen",
    },
    Row {
        program: "tap_ingress",
        hook: Hook::Packets(Way::In),
        need: Need::Required,
        without: "what is received is not seen",
    },
    Row {
        program: "tap_snapshot",
        hook: Hook::Iterator("bpf_sk_storage_map"),
        need: Need::Optional,
        without: "connections open at exit have the counts of their last record only",
    },
];
