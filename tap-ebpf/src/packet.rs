//! `cgroup_skb` on the root cgroup: every TCP segment with its socket, data from the IP header.
//!
//! Egress runs under the socket lock, mostly in process context; ingress in softirq before the
//! lock, so the two may interleave, on one CPU and across. Each writes its own direction only.
//! Sequence numbers from the wire are believed only near what `bpf_tcp_sock()` says.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_tcp_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_cgroup_id, bpf_sk_fullsock, bpf_tcp_sock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use tap_common::{
    counters::Event,
    limits::WINDOW_MAX,
    record::{RECEIVE, TRANSMIT, flags},
    state::{Direction, Socket, phase},
};

use crate::{
    admit::admit,
    dns, handshake,
    read::{self, FIN, RST, SYN, Segment},
    ring,
    socket::{self, tcp},
    state, tell,
    turn::{self, Bytes},
};

/// The only value that these programs return: 0 would drop the user's packet.
const PASS: i32 = 1;

/// A segment comes in.
#[cgroup_skb(ingress)]
fn tap_ingress(ctx: SkBuffContext) -> i32 {
    let _ = try_ingress(ctx.skb.skb);
    PASS
}

/// A segment goes out.
#[cgroup_skb(egress)]
fn tap_egress(ctx: SkBuffContext) -> i32 {
    let _ = try_egress(ctx.skb.skb);
    PASS
}

#[inline(always)]
fn try_ingress(skb: *mut __sk_buff) -> Option<()> {
    let sk = socket_of(skb)?;
    let state = match state::get(sk.cast()) {
        Some(state) => state,
        None => picked_up(skb, RECEIVE)?,
    };
    if state.phase != phase::TRACED {
        return None;
    }
    receive(skb, sk, state)
}

#[inline(always)]
fn try_egress(skb: *mut __sk_buff) -> Option<()> {
    let sk = socket_of(skb)?;
    let state = match state::get(sk.cast()) {
        Some(state) => state,
        None => picked_up(skb, TRANSMIT)?,
    };
    if state.phase != phase::TRACED {
        return None;
    }
    transmit(skb, sk, state)
}

/// The packet's socket, of whatever protocol; perhaps no full one, which has no storage.
#[inline(always)]
fn socket_of(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: a context field.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    (!sk.is_null()).then_some(sk)
}

/// The packet's full socket.
#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    let sk = socket_of(skb)?;
    // SAFETY: `sk` is not null, as the verifier asks.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    (!sk.is_null()).then_some(sk)
}

/// State of a connection that has none yet, if it is looked at.
#[inline(always)]
fn picked_up(skb: *mut __sk_buff, direction: usize) -> Option<&'static mut Socket> {
    let state = unknown(skb, direction)?;
    (welcome(state) != 0).then_some(state)
}

/// A packet of a socket without state: of a listener, of a connection older than tap (then its
/// state is made), or no TCP. A function of its own, so that its stack is given back.
#[inline(never)]
fn unknown(skb: *mut __sk_buff, direction: usize) -> Option<&'static mut Socket> {
    let sk = full_socket(skb)?;
    // SAFETY: fields of the full socket.
    let (protocol, tcp_state) = unsafe { ((*sk).protocol, (*sk).state) };
    if protocol != tcp::IPPROTO_TCP {
        dns::message(skb, protocol, direction);
        return None;
    }
    if tcp_state == tcp::LISTEN {
        if direction == RECEIVE {
            handshake::keep(skb);
        }
        return None;
    }
    if !tcp::is_connected(tcp_state) {
        return None;
    }
    pick_up(skb, sk)
}

/// Makes the state of a connection that was there before tap.
#[inline(always)]
fn pick_up(skb: *mut __sk_buff, sk: *mut bpf_sock) -> Option<&'static mut Socket> {
    let tcp = tcp_sock(sk)?;
    let Some(state) = state::get_or_create(sk) else {
        ring::count_event(Event::NoStorage);
        // SAFETY: `skb` is the context.
        tell::no_storage(unsafe { bpf_get_socket_cookie(skb.cast()) });
        return None;
    };
    let tuple = read::tuple_of_sock(sk);
    socket::begin(state, tuple, flags::PREEXISTING | flags::ESTABLISHED);
    // SAFETY: `skb` is the context, `tcp` was null-checked.
    unsafe {
        state.cookie = bpf_get_socket_cookie(skb.cast());
        // The stream begins, as far as tap is concerned, at the next byte of each direction.
        state.local_isn = (*tcp).snd_nxt.wrapping_sub(1);
        state.remote_isn = (*tcp).rcv_nxt.wrapping_sub(1);
        state.receive_base = (*tcp).bytes_received;
    }
    // SAFETY: a full socket.
    state.cgroup = unsafe { bpf_sk_cgroup_id(sk.cast()) };
    Some(state)
}

/// Decides about a connection that was just picked up, and tells of it. A function of its own beside
/// [`unknown`], not within: before 6.12 the stacks of three would be more than there is.
#[inline(never)]
fn welcome(state: &mut Socket) -> u32 {
    if !admit(state, state.cgroup) {
        state.phase = phase::IGNORED;
        return 0;
    }
    let now = state.opened_ns;
    socket::send_open(state, now);
    1
}

#[inline(always)]
fn tcp_sock(sk: *mut bpf_sock) -> Option<*mut bpf_tcp_sock> {
    // SAFETY: `sk` is a full socket; the helper returns null if it is not TCP.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    (!tcp.is_null()).then_some(tcp)
}

/// Headers of the segment; what cannot be read is counted.
#[inline(always)]
fn segment(skb: *mut __sk_buff) -> Option<Segment> {
    let segment = read::segment(skb);
    if segment.is_none() {
        ring::count_event(Event::Malformed);
        // SAFETY: a context field.
        tell::malformed(unsafe { (*skb).len });
    }
    segment
}

/// A segment that this host sends. The high-water mark is ours: transmissions of one socket are
/// serial.
#[inline(always)]
fn transmit(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &mut Socket) -> Option<()> {
    let segment = segment(skb)?;
    if segment.flags & SYN != 0 {
        state.local_isn = segment.sequence;
        state.flags |= flags::SYN_SENT;
    }
    if segment.flags & RST != 0 {
        state.flags |= flags::RST_SENT;
    }
    let position = state.sent_to;
    let ahead = ahead_of(&segment, state.local_isn, position);
    let end = ahead.wrapping_add(segment.payload as i32);
    if segment.flags & FIN != 0 {
        finish(&mut state.directions[TRANSMIT], at(position, end));
    }
    if segment.payload == 0 || end <= 0 {
        return None; // nothing, or a retransmission
    }
    // What of the segment was sent before is not new.
    let old = if ahead < 0 { ahead.unsigned_abs() } else { 0 };
    state.sent_to = at(position, end);
    turn::bytes(
        skb,
        sk,
        state,
        Bytes {
            direction: TRANSMIT,
            offset: at(position, ahead.wrapping_add(old as i32)),
            position,
            len: segment.payload.wrapping_sub(old),
            at: segment.payload_at.wrapping_add(old),
            now: 0,
        },
    );
    Some(())
}

/// A segment that comes in. What is in order is for the kernel to say (`rcv_nxt`,
/// `bytes_received`): the wire's own word would count what is forged.
#[inline(always)]
fn receive(skb: *mut __sk_buff, sk: *mut bpf_sock, state: &mut Socket) -> Option<()> {
    let segment = segment(skb)?;
    if segment.payload == 0 && segment.flags & (FIN | RST) == 0 {
        return None;
    }
    if state.flags & flags::ESTABLISHED == 0 {
        // The answer to our SYN. Its RST has no sequence number to check; data on it is not
        // counted before the kernel has taken the handshake.
        if segment.flags & RST != 0 {
            state.flags |= flags::RST_RECEIVED;
        }
        return None;
    }
    let tcp = tcp_sock(sk)?;
    // SAFETY: null-checked.
    let (next, received) = unsafe { ((*tcp).rcv_nxt, (*tcp).bytes_received) };
    let begin = segment.sequence.wrapping_add(u32::from(segment.flags & SYN != 0));
    let ahead_of_kernel = begin.wrapping_sub(next) as i32;
    if ahead_of_kernel > WINDOW_MAX as i32 || ahead_of_kernel < -(WINDOW_MAX as i32) {
        ring::count_event(Event::OutOfWindow);
        tell::out_of_window(state.cookie, begin, next);
        return None;
    }
    if segment.flags & RST != 0 {
        state.flags |= flags::RST_RECEIVED;
    }
    let position = received.wrapping_sub(state.receive_base);
    let ahead = ahead_of(&segment, state.remote_isn, position);
    let end = ahead.wrapping_add(segment.payload as i32);
    if segment.flags & FIN != 0 {
        finish(&mut state.directions[RECEIVE], at(position, end));
    }
    if segment.payload == 0 || ahead_of_kernel.wrapping_add(segment.payload as i32) <= 0 {
        return None; // nothing, or taken in before
    }
    turn::bytes(
        skb,
        sk,
        state,
        Bytes {
            direction: RECEIVE,
            offset: at(position, ahead),
            position,
            len: segment.payload,
            at: segment.payload_at,
            now: 0,
        },
    );
    Some(())
}

/// How far the segment's first payload byte lies ahead of stream position `position`, whose
/// initial sequence number is `isn`.
#[inline(always)]
fn ahead_of(segment: &Segment, isn: u32, position: u64) -> i32 {
    let syn = u32::from(segment.flags & SYN != 0);
    let begin = segment.sequence.wrapping_add(syn);
    begin.wrapping_sub(isn.wrapping_add(1)).wrapping_sub(position as u32) as i32
}

/// The stream position `ahead` of `position`.
#[inline(always)]
fn at(position: u64, ahead: i32) -> u64 {
    position.wrapping_add(i64::from(ahead) as u64)
}

/// Notes where the direction's payload ends.
#[inline(always)]
fn finish(direction: &mut Direction, position: u64) {
    direction.fin_at = position as u32;
    direction.fin = 1;
}
