//! Payload on the handshake's last segment (a lost ACK, `TCP_DEFER_ACCEPT`) or on the SYN (TCP
//! Fast Open): it passes `cgroup_skb` with the listener as its socket and never with the child.
//! It is kept by 4-tuple until `sock_ops` names the child, in the same softirq.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_skb_load_bytes},
    macros::map,
    maps::LruHashMap,
};
use tap_common::{
    limits::{HANDSHAKE_PAYLOAD, HANDSHAKES},
    record::{Kind, RECEIVE, Tuple, flags},
    state::{Socket, undecided},
};

use crate::{
    read::{self, SYN},
    ring::{self, Ring},
    turn::{self, Bytes, Slot},
};

#[repr(C)]
struct Kept {
    time_ns: u64,
    /// Sequence number of the first payload byte.
    sequence: u32,
    /// Bytes that the segment held.
    segment_len: u32,
    /// Bytes kept.
    len: u32,
    pad: u32,
    payload: [u8; HANDSHAKE_PAYLOAD],
}

/// An entry is made from this: a value of 2 KiB does not fit the stack.
static EMPTY: Kept = Kept {
    time_ns: 0,
    sequence: 0,
    segment_len: 0,
    len: 0,
    pad: 0,
    payload: [0; HANDSHAKE_PAYLOAD],
};

#[map]
static HANDSHAKE: LruHashMap<Tuple, Kept> = LruHashMap::with_max_entries(HANDSHAKES, 0);

/// Keeps the payload of a segment that came to a listener.
#[inline(always)]
pub fn keep(skb: *mut __sk_buff) -> Option<()> {
    let segment = read::segment(skb)?;
    if segment.payload == 0 {
        return None;
    }
    let tuple = tuple(skb, segment.tcp_at, segment.addresses_at)?;
    HANDSHAKE.insert(&tuple, &EMPTY, 0).ok()?;
    let kept = HANDSHAKE.get_ptr_mut(&tuple)?;
    let len = read::length::<HANDSHAKE_PAYLOAD>(segment.payload);
    // SAFETY: the entry is ours until `sock_ops` takes it in this same softirq; a reuse of it by
    // the LRU can only mix the payloads of two forged segments. `len` fits `payload`.
    unsafe {
        (*kept).time_ns = bpf_ktime_get_ns();
        (*kept).sequence = segment.sequence.wrapping_add(u32::from(segment.flags & SYN != 0));
        (*kept).segment_len = segment.payload;
        let to = (&raw mut (*kept).payload).cast::<c_void>();
        let failed = bpf_skb_load_bytes(skb.cast(), segment.payload_at, to, len);
        (*kept).len = if failed == 0 { len } else { 0 };
    }
    Some(())
}

/// Ends of a packet as the socket that receives it sees them.
#[inline(always)]
pub fn tuple(skb: *mut __sk_buff, ports_at: u32, addresses_at: u32) -> Option<Tuple> {
    let mut tuple =
        Tuple { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, pad: 0 };
    let load = |at: u32, to: *mut c_void, len: u32| {
        // SAFETY: the destinations below have room for `len`.
        (unsafe { bpf_skb_load_bytes(skb.cast(), at, to, len) } == 0).then_some(())
    };
    let mut ports = [0u8; 4];
    load(ports_at, ports.as_mut_ptr().cast(), 4)?;
    tuple.remote_port = u16::from_be_bytes([ports[0], ports[1]]);
    tuple.local_port = u16::from_be_bytes([ports[2], ports[3]]);
    if addresses_at == 12 {
        tuple.remote[10] = 0xff;
        tuple.remote[11] = 0xff;
        tuple.local[10] = 0xff;
        tuple.local[11] = 0xff;
        // SAFETY: the last four of sixteen bytes.
        unsafe {
            load(12, tuple.remote.as_mut_ptr().add(12).cast(), 4)?;
            load(16, tuple.local.as_mut_ptr().add(12).cast(), 4)?;
        }
    } else {
        load(8, tuple.remote.as_mut_ptr().cast(), 16)?;
        load(24, tuple.local.as_mut_ptr().cast(), 16)?;
    }
    Some(tuple)
}

/// Gives a connection that was just established what came with its handshake.
#[inline(always)]
pub fn join(state: &mut Socket) {
    let tuple = state.tuple();
    let Some(kept) = HANDSHAKE.get_ptr(&tuple) else { return };
    // SAFETY: see `keep`.
    let (now, sequence, segment_len, len) =
        unsafe { ((*kept).time_ns, (*kept).sequence, (*kept).segment_len, (*kept).len) };
    let offset = sequence.wrapping_sub(state.remote_isn.wrapping_add(1));
    // A first segment begins the stream; anything else is a leftover or forged.
    if offset == 0 {
        let bytes =
            Bytes { direction: RECEIVE, offset: 0, position: 0, len: segment_len, at: 0, now };
        turn::begins(state, &bytes);
        if state.undecided & undecided::PAYLOAD != 0 && len >= 4 {
            // SAFETY: see `keep`; the payload is longer.
            turn::recognise(state, unsafe {
                (&raw const (*kept).payload).cast::<[u8; 4]>().read()
            });
        }
        state.directions[RECEIVE].left = state.payload.saturating_sub(segment_len);
        let mut data = turn::record(state, &bytes, 0);
        data.header.number = ring::number(state, turn::lane(RECEIVE));
        data.header.flags |= flags::TURN;
        let ring = Ring::data();
        if let Some(mut slot) = ring.reserve::<Slot<HANDSHAKE_PAYLOAD>>(Kind::Data) {
            let to = slot.as_mut_ptr();
            let len = if len as usize > HANDSHAKE_PAYLOAD { 0 } else { len };
            // SAFETY: `len` fits both; the helper copies all or fails. A plain copy of this size
            // costs the verifier 33,000 instructions.
            unsafe {
                (&raw mut (*to).data).write(data);
                let from = (&raw const (*kept).payload).cast();
                let failed = bpf_probe_read_kernel((&raw mut (*to).payload).cast(), len, from);
                (&raw mut (*to).data.header.payload_len).write(if failed == 0 { len } else { 0 });
            }
            ring.submit(slot);
        }
    }
    let _ = HANDSHAKE.remove(&tuple);
}
