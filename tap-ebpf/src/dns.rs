//! DNS messages over UDP port 53, which name the peers of later connections. Everything else of UDP
//! passes with one look at its ports.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes},
};
use tap_common::{
    limits::{DNS_MAX, PAYLOAD_MEDIUM},
    record::{Dns, Header, Kind, Lane, RECEIVE, Tuple},
};

use crate::{handshake, read, ring::Ring, state::setting};

/// A DNS record with room for `N` bytes of message.
#[repr(C)]
struct Slot<const N: usize> {
    dns: Dns,
    message: [u8; N],
}

const IPPROTO_UDP: u32 = 17;
const PORT: u16 = 53;

/// A packet of a socket that is not TCP.
#[inline(always)]
pub fn message(skb: *mut __sk_buff, protocol: u32, direction: usize) -> Option<()> {
    if protocol != IPPROTO_UDP || setting!(dns) == 0 {
        return None;
    }
    let datagram = read::datagram(skb)?;
    let mut tuple = handshake::tuple(skb, datagram.udp_at, datagram.addresses_at)?;
    if tuple.local_port != PORT && tuple.remote_port != PORT {
        return None;
    }
    if direction != RECEIVE {
        // Read as the receiver sees it.
        tuple = Tuple {
            local: tuple.remote,
            remote: tuple.local,
            local_port: tuple.remote_port,
            remote_port: tuple.local_port,
            pad: 0,
        };
    }
    let header = Header {
        kind: Kind::Dns as u8,
        lane: if direction == RECEIVE { Lane::Receive as u8 } else { Lane::Transmit as u8 },
        flags: 0,
        payload_len: 0,
        // SAFETY: the context of the program.
        cookie: unsafe { bpf_get_socket_cookie(skb.cast()) },
        generation: 0,
        number: 0,
        // SAFETY: takes nothing.
        time_ns: unsafe { bpf_ktime_get_ns() },
    };
    let dns = Dns { header, tuple };
    if datagram.payload as usize <= PAYLOAD_MEDIUM {
        send::<PAYLOAD_MEDIUM>(skb, &dns, datagram.payload, datagram.udp_at + 8);
    } else {
        send::<DNS_MAX>(skb, &dns, datagram.payload, datagram.udp_at + 8);
    }
    Some(())
}

#[inline(always)]
fn send<const N: usize>(skb: *mut __sk_buff, dns: &Dns, payload: u32, at: u32) {
    let ring = Ring::data();
    let Some(mut slot) = ring.reserve::<Slot<N>>(Kind::Dns) else { return };
    let len = read::length::<N>(payload);
    let to = slot.as_mut_ptr();
    // SAFETY: the slot is `Slot<N>` in size; `len` is 1..=N; the helper fills all or fails.
    unsafe {
        (&raw mut (*to).dns).write(*dns);
        let failed = bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*to).message).cast(), len);
        (&raw mut (*to).dns.header.payload_len).write(if failed == 0 { len } else { 0 });
    }
    ring.submit(slot);
}
