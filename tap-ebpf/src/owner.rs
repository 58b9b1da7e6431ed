//! Which process: hooks that run in the context of the process that uses the socket.
//!
//! * `cgroup/connect4`, `cgroup/connect6`: the client, before its SYN.
//! * `tcp_rcv_space_adjust(struct sock *sk)` (net/ipv4/tcp_input.c): called by `tcp_recvmsg` under
//!   the socket lock for every read that took bytes; the first one names an accepted socket's owner.
//! * `cgroup/sock_release` (`inet_release`): the last close of a socket that nobody read.
//!
//! Short of one of these the owner is not known. The listener's owner is never taken for it.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    },
    macros::{btf_tracepoint, cgroup_sock, cgroup_sock_addr, map, raw_tracepoint},
    maps::LruHashMap,
    programs::{BtfTracePointContext, RawTracePointContext, SockAddrContext, SockContext},
};
use tap_common::{
    limits,
    record::{Header, Kind, Lane, Owner, flags},
    state::{Socket, phase},
};

use crate::{
    read,
    ring::{self, Ring},
    socket::tcp,
    state::{self, setting},
};

/// The only value that the cgroup programs return: 0 would refuse the call.
const ALLOW: i32 = 1;

/// `SOCK_STREAM`.
const STREAM: u32 = 1;

/// A program connects over IPv4.
#[cgroup_sock_addr(connect4)]
fn tap_connect4(ctx: SockAddrContext) -> i32 {
    let _ = try_connect(ctx.sock_addr);
    ALLOW
}

/// A program connects over IPv6.
#[cgroup_sock_addr(connect6)]
fn tap_connect6(ctx: SockAddrContext) -> i32 {
    let _ = try_connect(ctx.sock_addr);
    ALLOW
}

#[inline(always)]
fn try_connect(address: *mut bpf_sock_addr) -> Option<()> {
    // SAFETY: context fields; the socket is null-checked.
    let sk = unsafe {
        if (*address).type_ != STREAM || (*address).protocol != tcp::IPPROTO_TCP {
            return None;
        }
        (*address).__bindgen_anon_1.sk
    };
    if sk.is_null() {
        return None;
    }
    let state = state::get_or_create(sk)?;
    state.tgid = tgid();
    state.uid = bpf_get_current_uid_gid() as u32;
    if state.cookie == 0 {
        // SAFETY: the context of the program.
        state.cookie = unsafe { bpf_get_socket_cookie(address.cast()) };
    }
    Some(())
}

/// A program took bytes from a socket.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn tap_read(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    if let Some(state) = state::get(sk.cast_mut()) {
        used(state);
    }
    0
}

/// A socket's last file descriptor is closed.
#[cgroup_sock(sock_release)]
fn tap_release(ctx: SockContext) -> i32 {
    let sk: *mut bpf_sock = ctx.sock;
    if let Some(state) = state::get(sk.cast()) {
        used(state);
    }
    ALLOW
}

/// The current process uses the socket: the first to do so owns its connection.
#[inline(always)]
fn used(state: &mut Socket) {
    if state.tgid != 0 || state.phase != phase::TRACED {
        return;
    }
    let tgid = tgid();
    state.tgid = tgid;
    if tgid != setting!(self_tgid) {
        return; // the next record of the connection tells
    }
    // The daemon's own server: seen before its owner was known.
    state.phase = phase::IGNORED;
    let number = ring::number(state, Lane::Life);
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    send(ring::header(state, Kind::Owner, Lane::Life, number, now));
}

/// The daemon has refused the connection: nothing more of it is sent, which it is told, so that it
/// forgets it. Not from process context always, so no process is named.
#[inline(always)]
pub fn refuse(state: &mut Socket) {
    state.phase = phase::IGNORED;
    let number = ring::number(state, Lane::Life);
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut header = ring::header(state, Kind::Owner, Lane::Life, number, now);
    header.flags = flags::REFUSED;
    let ring = Ring::life();
    let Some(mut slot) = ring.reserve::<Owner>(Kind::Owner) else { return };
    slot.write(Owner { header, tgid: 0, tid: 0, comm: [0; limits::COMM_LEN] });
    ring.submit(slot);
}

#[inline(always)]
fn send(header: Header) {
    let comm = bpf_get_current_comm().unwrap_or_default();
    let id = bpf_get_current_pid_tgid();
    let ring = Ring::life();
    let Some(mut slot) = ring.reserve::<Owner>(Kind::Owner) else { return };
    slot.write(Owner { header, tgid: (id >> 32) as u32, tid: id as u32, comm });
    ring.submit(slot);
}

#[inline(always)]
fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Cookies whose owner was reported, where [`tap_read`] does not load.
#[map]
static OWNED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(limits::WITNESSES, 0);

/// As [`tap_read`], for kernels whose tracing programs cannot see the socket storage (5.10): by
/// the cookie that stands in the socket.
#[raw_tracepoint(tracepoint = "tcp_rcv_space_adjust")]
fn tap_read_by_cookie(ctx: RawTracePointContext) -> i32 {
    let _ = try_read_by_cookie(&ctx);
    0
}

#[inline(always)]
fn try_read_by_cookie(ctx: &RawTracePointContext) -> Option<()> {
    let sk: *const c_void = ctx.arg(0);
    let cookie: u64 = read::field(sk, setting!(offsets.skc_cookie))?;
    // SAFETY: a plain integer.
    if cookie == 0 || unsafe { OWNED.get(&cookie) }.is_some() {
        return None;
    }
    OWNED.insert(&cookie, &tgid(), 0).ok()?;
    let _ = ctx.as_ptr();
    send(Header {
        kind: Kind::Owner as u8,
        lane: Lane::Life as u8,
        flags: 0,
        payload_len: 0,
        cookie,
        generation: u32::MAX,
        number: u32::MAX,
        // SAFETY: takes nothing.
        time_ns: unsafe { bpf_ktime_get_ns() },
    });
    Some(())
}
