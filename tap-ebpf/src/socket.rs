//! `sock_ops` on the root cgroup: connect begun, established, closed. Runs under the socket lock.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        bpf_sock_ops,
    },
    helpers::generated::{
        bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skc_to_tcp_sock, bpf_sock_ops_cb_flags_set,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use tap_common::{
    counters::Event,
    record::{Kind, LANES, Lane, Open, Tuple, flags},
    state::{Direction, Socket, phase, undecided},
};

use crate::{
    admit::{self, admit},
    close::{self, Facts},
    handshake, read,
    ring::{self, Ring},
    state::{self, setting},
    tell,
};

/// States and numbers of TCP (include/net/tcp_states.h).
pub mod tcp {
    /// A listener.
    pub const LISTEN: u32 = 10;
    /// The end.
    pub const CLOSE: u32 = 7;
    /// `IPPROTO_TCP`.
    pub const IPPROTO_TCP: u32 = 6;

    /// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK or CLOSING.
    #[inline(always)]
    pub fn is_connected(state: u32) -> bool {
        matches!(state, 1 | 4 | 5 | 8 | 9 | 11)
    }
}

/// A socket changes. The answer 1 leaves the reply of other programs alone.
#[sock_ops]
fn tap_sock_ops(ctx: SockOpsContext) -> u32 {
    let _ = try_sock_ops(ctx.ops);
    1
}

#[inline(always)]
fn try_sock_ops(ops: *mut bpf_sock_ops) -> Option<()> {
    // SAFETY: context field.
    match unsafe { (*ops).op } {
        BPF_SOCK_OPS_STATE_CB => closed(ops),
        BPF_SOCK_OPS_TCP_CONNECT_CB => connect(ops),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ops, true),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ops, false),
        _ => None,
    }
}

/// State of the context's socket, made if it has none.
#[inline(always)]
fn state_of(ops: *mut bpf_sock_ops) -> Option<&'static mut Socket> {
    // SAFETY: the context's socket, null-checked.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    let state = state::get_or_create(sk);
    if state.is_none() {
        ring::count_event(Event::NoStorage);
        // SAFETY: `ops` is the context.
        tell::no_storage(unsafe { bpf_get_socket_cookie(ops.cast()) });
    }
    state
}

/// Begins a connection in `state`, whose owner the caller has put there or clears. A socket may connect again after a failed connect, with the
/// same cookie and storage: then it is the next generation.
#[inline(always)]
pub fn begin(state: &mut Socket, tuple: Tuple, flags: u16) {
    if state.phase != phase::NEW {
        state.generation = state.generation.wrapping_add(1);
    }
    state.directions[0] = Direction::FRESH;
    state.directions[1] = Direction::FRESH;
    state.sent = [0; LANES];
    state.turn_direction = Socket::NO_TURN;
    state.turn_limit = setting!(turns);
    state.payload = setting!(payload);
    state.undecided = if state.payload != 0 { undecided::PAYLOAD } else { 0 };
    state.sent_to = 0;
    state.receive_base = 0;
    state.local = tuple.local;
    state.remote = tuple.remote;
    state.local_port = tuple.local_port;
    state.remote_port = tuple.remote_port;
    // SAFETY: takes nothing.
    state.opened_ns = unsafe { bpf_ktime_get_ns() };
    state.cgroup = 0;
    state.local_isn = 0;
    state.remote_isn = 0;
    state.flags = flags;
    state.phase = phase::TRACED;
}

/// A SYN is about to be sent; process context.
#[inline(always)]
fn connect(ops: *mut bpf_sock_ops) -> Option<()> {
    let state = state_of(ops)?;
    let tuple = read::tuple_of_ops(ops);
    begin(state, tuple, flags::ACTIVE);
    identify(ops, state);
    state.cgroup = cgroup_of(ops);
    if admit(state, state.cgroup) {
        want_state_changes(ops);
    } else {
        state.phase = phase::IGNORED;
    }
    Some(())
}

/// The handshake is over.
#[inline(always)]
fn established(ops: *mut bpf_sock_ops, active: bool) -> Option<()> {
    let state = state_of(ops)?;
    let known = active && (state.phase == phase::TRACED || state.phase == phase::IGNORED);
    if !known {
        let tuple = read::tuple_of_ops(ops);
        // An active open that was not seen to begin is older than tap, by a handshake.
        let flags = if active { flags::ACTIVE | flags::PREEXISTING } else { 0 };
        state.tgid = 0;
        begin(state, tuple, flags);
        identify(ops, state);
        state.cgroup = cgroup_of(ops);
        if !admit(state, state.cgroup) {
            state.phase = phase::IGNORED;
        }
    }
    if state.phase == phase::IGNORED {
        return None;
    }
    want_state_changes(ops);
    // SAFETY: context fields; the helper takes nothing.
    let time = unsafe {
        if state.flags & flags::SYN_SENT == 0 {
            // With Fast Open `snd_nxt` is past the SYN's data; then the SYN was seen on egress.
            state.local_isn = (*ops).snd_nxt.wrapping_sub(1);
        }
        state.remote_isn = (*ops).rcv_nxt.wrapping_sub(1);
        if active { bpf_ktime_get_ns() } else { state.opened_ns }
    };
    state.flags |= flags::ESTABLISHED;
    send_open(state, time);
    if !active {
        handshake::join(state);
    }
    Some(())
}

/// Tells of a connection that is established.
#[inline(always)]
pub fn send_open(state: &mut Socket, time: u64) {
    let number = ring::number(state, Lane::Life);
    let ring = Ring::life();
    let Some(mut slot) = ring.reserve::<Open>(Kind::Open) else { return };
    slot.write(Open {
        header: ring::header(state, Kind::Open, Lane::Life, number, time),
        connection: state.connection(),
    });
    ring.submit(slot);
}

/// The cgroup that the context's socket is counted to, where rules ask for it; 0 where it cannot be
/// learned. An accepted socket has its listener's.
#[inline(always)]
fn cgroup_of(ops: *mut bpf_sock_ops) -> u64 {
    if !admit::asks_cgroup() {
        return 0;
    }
    // SAFETY: the context's socket, null-checked; the helper returns null if it is not TCP.
    let tcp = unsafe {
        let sk = (*ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return 0;
        }
        bpf_skc_to_tcp_sock(sk.cast())
    };
    if tcp.is_null() {
        return 0;
    }
    read::cgroup_of_sock(tcp.cast()).unwrap_or(0)
}

#[inline(always)]
fn identify(ops: *mut bpf_sock_ops, state: &mut Socket) {
    if state.cookie == 0 {
        // SAFETY: the context of the program.
        state.cookie = unsafe { bpf_get_socket_cookie(ops.cast()) };
    }
}

/// Asks for the state callback where [`crate::witness::tap_state`] cannot run: four calls per
/// connection cost more than that tracepoint, which no other program can clear. The set call
/// overwrites: what another program wants is kept.
#[inline(always)]
fn want_state_changes(ops: *mut bpf_sock_ops) {
    if setting!(by_cookie) == 0 {
        return;
    }
    // SAFETY: the context of the program.
    unsafe {
        let flags = (*ops).bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ops, flags as i32);
    }
}

/// The socket's state changed; only the change to CLOSE matters.
#[inline(always)]
fn closed(ops: *mut bpf_sock_ops) -> Option<()> {
    // SAFETY: context fields, each read at its own width.
    let (old, new, sk) = unsafe {
        let args = (&raw const (*ops).__bindgen_anon_1).cast::<u32>();
        (args.read_volatile(), args.add(1).read_volatile(), (*ops).__bindgen_anon_2.sk)
    };
    if new != tcp::CLOSE || sk.is_null() {
        return None;
    }
    let state = state::get(sk.cast())?;
    if state.phase != phase::TRACED {
        return None;
    }
    // SAFETY: context fields; the helper checks the socket and returns null if it is not TCP.
    let facts = unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk.cast());
        let error = if tcp.is_null() {
            None
        } else {
            read::field::<i32>(tcp.cast(), setting!(offsets.sk_err))
        };
        Facts {
            bytes_received: (*ops).bytes_received,
            send_next: Some((*ops).snd_nxt),
            send_unacknowledged: Some((*ops).snd_una),
            srtt: (*ops).srtt_us,
            retransmits: (*ops).total_retrans,
            error: error.unwrap_or(0),
            error_known: error.is_some(),
            old_state: old,
            flags: 0,
        }
    };
    close::close(state, &facts);
    Some(())
}
