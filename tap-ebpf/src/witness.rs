//! `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
//! (net/ipv4/af_inet.c): the close of every connection, also of one older than tap, and whatever
//! other programs do to `sock_ops` callbacks.
//!
//! Kernels whose tracing programs cannot see the socket storage (5.10) tell closes by `sock_ops`;
//! there this hook, by cookie, is the second witness. In `tcp_set_state` the callback comes first,
//! so what it reported is known here.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tap_common::{
    record::{Close, Connection, Header, Kind, Lane, Tuple, flags},
    state::phase,
};

use crate::{
    close::{self, CLOSED, Facts},
    read,
    ring::Ring,
    socket::tcp,
    state::{self, setting},
};

/// A socket's state changes.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tap_state(ctx: BtfTracePointContext) -> i32 {
    let new: i32 = ctx.arg(2);
    if new as u32 != tcp::CLOSE {
        return 0;
    }
    let sk: *const c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    if let Some(state) = state::get(sk.cast_mut())
        && state.phase == phase::TRACED
    {
        close::close(state, &facts(sk, old as u32, 0));
    }
    0
}

/// What can be read of the socket by offsets.
#[inline(always)]
pub fn facts(sk: *const c_void, old_state: u32, flags: u16) -> Facts {
    let error = read::field(sk, setting!(offsets.sk_err));
    Facts {
        bytes_received: read::field(sk, setting!(offsets.tcp_bytes_received)).unwrap_or(0),
        send_next: read::field(sk, setting!(offsets.tcp_snd_nxt)),
        send_unacknowledged: read::field(sk, setting!(offsets.tcp_snd_una)),
        srtt: read::field(sk, setting!(offsets.tcp_srtt_us)).unwrap_or(0),
        retransmits: read::field(sk, setting!(offsets.tcp_total_retrans)).unwrap_or(0),
        error: error.unwrap_or(0),
        error_known: error.is_some(),
        old_state,
        flags,
    }
}

/// As [`tap_state`], for kernels whose tracing programs cannot see the socket storage (5.10): it
/// tells the daemon that the socket with this cookie is closed, and what the socket itself says.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn tap_state_by_cookie(ctx: RawTracePointContext) -> i32 {
    let _ = try_state_by_cookie(&ctx);
    0
}

#[inline(always)]
fn try_state_by_cookie(ctx: &RawTracePointContext) -> Option<()> {
    let new: i32 = ctx.arg(2);
    if new as u32 != tcp::CLOSE {
        return None;
    }
    let sk: *const c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let cookie: u64 = read::field(sk, setting!(offsets.skc_cookie))?;
    if cookie == 0 {
        return None; // nobody asked for it, so no program of ours saw this socket
    }
    // SAFETY: a plain integer.
    if unsafe { CLOSED.get(&cookie) }.is_some() {
        let _ = CLOSED.remove(&cookie);
        return None;
    }
    let facts = facts(sk, old as u32, flags::WITNESS);
    let ring = Ring::life();
    let mut slot = ring.reserve::<Close>(Kind::Close)?;
    // SAFETY: takes nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    slot.write(Close {
        header: Header {
            kind: Kind::Close as u8,
            lane: Lane::Life as u8,
            flags: flags::WITNESS,
            payload_len: 0,
            cookie,
            generation: u32::MAX,
            number: u32::MAX,
            time_ns,
        },
        connection: Connection {
            tuple: Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, pad: 0 },
            opened_ns: 0,
            cgroup: 0,
            tgid: 0,
            local_isn: 0,
            remote_isn: 0,
            flags: flags::WITNESS,
            pad: 0,
        },
        bytes: [facts.bytes_received, facts.send_next.unwrap_or(0).into()],
        turns: [0; 2],
        cut_at: [u64::MAX; 2],
        last_ns: [0; 2],
        sent: [0; 3],
        srtt_us: facts.srtt >> 3,
        retransmits: facts.retransmits,
        error: facts.error as u16,
        old_state: old as u8,
        error_known: u8::from(facts.error_known),
        unacknowledged: facts.unacknowledged(),
        pad: 0,
    });
    ring.submit(slot);
    Some(())
}
