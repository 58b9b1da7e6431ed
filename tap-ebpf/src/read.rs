//! Bounded reads: the running kernel's structures by offsets from its BTF, and packets.

use core::{
    arch::asm,
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_ops},
    helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes},
};
use tap_common::{
    record::Tuple,
    settings::{Executable, Offsets},
};

use crate::state::setting;

/// Reads a `T` at `offset` behind `base`; `None` where the offset is not known.
#[inline(always)]
pub fn field<T: Copy>(base: *const c_void, offset: u32) -> Option<T> {
    if offset == Offsets::ABSENT {
        return None;
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the source and fills the whole destination or fails.
    unsafe {
        let from = base.cast::<u8>().add(offset as usize).cast();
        let failed = bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        (failed == 0).then(|| value.assume_init())
    }
}

/// The cgroup v2 id that a socket of the kernel is counted to.
#[inline(always)]
pub fn cgroup_of_sock(sk: *const c_void) -> Option<u64> {
    // `struct sock_cgroup_data` begins with a pointer. Before 5.15 its lowest bits are marks; with
    // the first set it is none (include/linux/cgroup-defs.h).
    let cgroup: u64 = field(sk, setting!(offsets.sk_cgroup))?;
    if cgroup & 1 != 0 || cgroup == 0 {
        return None;
    }
    let cgroup = (cgroup & !3) as *const c_void;
    let node: *const c_void = field(cgroup, setting!(offsets.cgroup_node))?;
    field(node, setting!(offsets.node_id))
}

/// The file that a program about to run is read from.
#[inline(always)]
pub fn executable_of(bprm: *const c_void) -> Option<Executable> {
    let file: *const c_void = field(bprm, setting!(offsets.binprm_file))?;
    let inode: *const c_void = field(file, setting!(offsets.file_inode))?;
    let sb: *const c_void = field(inode, setting!(offsets.inode_sb))?;
    Some(Executable {
        inode: field(inode, setting!(offsets.inode_ino))?,
        version: field(inode, setting!(offsets.inode_generation))?,
        device: field(sb, setting!(offsets.sb_dev))?,
    })
}

/// `AF_INET6` (include/linux/socket.h).
pub const AF_INET6: u32 = 10;

/// An IPv4 address, as the kernel has it in network byte order, IPv4-mapped.
#[inline(always)]
fn mapped(address: u32) -> [u8; 16] {
    words([0, 0, 0xffff_u32.to_be(), address])
}

/// Four words in network byte order as the 16 bytes they are.
#[inline(always)]
fn words(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute(words) }
}

/// Loads one word of a context or socket at a fixed offset. The compiler would add up the address
/// first where two fields are chosen between, and the verifier answers "dereference of modified
/// ctx ptr" or "pointer arithmetic on sock prohibited".
macro_rules! word {
    ($base:expr, $type:ty, $field:ident $(+ $more:expr)?) => {{
        let base = $base;
        let word: u64;
        // SAFETY: the field is one of the structure that `base` points at; the verifier checks it.
        unsafe {
            asm!(
                "{word} = *(u32 *)({base} + {offset})",
                word = out(reg) word,
                base = in(reg) base,
                offset = const offset_of!($type, $field) $(+ $more)?,
                options(readonly, nostack),
            );
        }
        word as u32
    }};
}

/// Loads four words, as [`word!`].
macro_rules! words {
    ($base:expr, $type:ty, $field:ident) => {
        words([
            word!($base, $type, $field),
            word!($base, $type, $field + 4),
            word!($base, $type, $field + 8),
            word!($base, $type, $field + 12),
        ])
    };
}

/// Ends of the connection that `sock_ops` is called for.
#[inline(always)]
pub fn tuple_of_ops(ops: *mut bpf_sock_ops) -> Tuple {
    let local_port = word!(ops, bpf_sock_ops, local_port) as u16;
    // "Stored in network byte order" (include/uapi/linux/bpf.h): in the upper half.
    let remote_port = word!(ops, bpf_sock_ops, remote_port).swap_bytes() as u16;
    let (local, remote) = if word!(ops, bpf_sock_ops, family) == AF_INET6 {
        (words!(ops, bpf_sock_ops, local_ip6), words!(ops, bpf_sock_ops, remote_ip6))
    } else {
        (mapped(word!(ops, bpf_sock_ops, local_ip4)), mapped(word!(ops, bpf_sock_ops, remote_ip4)))
    };
    Tuple { local, remote, local_port, remote_port, pad: 0 }
}

/// Ends of the connection of a full socket.
#[inline(always)]
pub fn tuple_of_sock(sk: *const bpf_sock) -> Tuple {
    let local_port = word!(sk, bpf_sock, src_port) as u16;
    // SAFETY: a field of a full socket; in network byte order, 2 bytes wide since 5.17 and read as
    // such before.
    let remote_port = u16::from_be(unsafe { (&raw const (*sk).dst_port).read_volatile() });
    let (local, remote) = if word!(sk, bpf_sock, family) == AF_INET6 {
        (words!(sk, bpf_sock, src_ip6), words!(sk, bpf_sock, dst_ip6))
    } else {
        (mapped(word!(sk, bpf_sock, src_ip4)), mapped(word!(sk, bpf_sock, dst_ip4)))
    };
    Tuple { local, remote, local_port, remote_port, pad: 0 }
}

/// `wanted`, which is not 0, or `N` (a power of two) if it is more, in a form that the verifier
/// knows to be 1..=N: of `n & MASK` it says "invalid zero-sized read".
#[inline(always)]
pub fn length<const N: usize>(wanted: u32) -> u32 {
    let mut less = u64::from(if wanted as usize > N { N as u32 } else { wanted }) - 1;
    // SAFETY: a register moved to itself; it hides what the compiler knows, or it would drop the
    // mask below. (An empty template would give two lines to one instruction: "Invalid line_info".)
    unsafe { asm!("{0} = {0}", inout(reg) less, options(nomem, nostack)) };
    (less as u32 & (N as u32 - 1)) + 1
}

/// What a TCP segment's headers say.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Sequence number of its first byte (of the SYN, where it has one).
    pub sequence: u32,
    /// TCP flags: [`FIN`], [`SYN`], [`RST`], ….
    pub flags: u8,
    /// Where its payload begins in the packet.
    pub payload_at: u32,
    /// Bytes of payload; by the packet's true length, as BIG TCP has an IP length of 0.
    pub payload: u32,
    /// Where the addresses stand in the packet: 12 (IPv4) or 8 (IPv6).
    pub addresses_at: u32,
    /// Where the TCP header begins.
    pub tcp_at: u32,
}

/// TCP flag (RFC 9293 §3.1).
pub const FIN: u8 = 1;
/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;

const IPPROTO_TCP: u8 = 6;

/// Reads the headers of `skb`, whose data begins at the IP header. The kernel has pulled them into
/// the linear part before it looked for the socket (`tcp_v4_rcv`, `ip_queue_xmit`), so direct
/// access does.
#[inline(always)]
pub fn segment(skb: *mut __sk_buff) -> Option<Segment> {
    // SAFETY: context fields; every packet access below is checked against `data_end`, and the
    // verifier refuses the program if one is not.
    unsafe {
        let data = (*skb).data as usize;
        let end = (*skb).data_end as usize;
        if data + 40 > end {
            return None;
        }
        let first = *(data as *const u8);
        let (tcp_at, addresses_at) = match first >> 4 {
            4 => {
                if *((data + 9) as *const u8) != IPPROTO_TCP {
                    return None;
                }
                (u32::from(first & 0xf) * 4, 12)
            }
            6 => (behind_ipv6(data, end)?, 8),
            _ => return None,
        };
        // The bound is for the verifier: an offset into a packet must have one.
        if tcp_at > 256 {
            return None;
        }
        let tcp = data + tcp_at as usize;
        if tcp + 20 > end {
            return None;
        }
        let sequence = u32::from_be((tcp as *const u32).add(1).read_unaligned());
        let payload_at = tcp_at + u32::from(*((tcp + 12) as *const u8) >> 4) * 4;
        let flags = *((tcp + 13) as *const u8);
        let payload = (*skb).len.checked_sub(payload_at)?;
        Some(Segment { sequence, flags, payload_at, payload, addresses_at, tcp_at })
    }
}

/// What a UDP packet's headers say.
#[derive(Clone, Copy)]
pub struct Datagram {
    /// Where the UDP header begins.
    pub udp_at: u32,
    /// Where the addresses stand: 12 (IPv4) or 8 (IPv6).
    pub addresses_at: u32,
    /// Bytes of payload; at least one.
    pub payload: u32,
}

/// Reads the headers of a UDP packet without IPv6 extension headers.
#[inline(always)]
pub fn datagram(skb: *mut __sk_buff) -> Option<Datagram> {
    let mut first = [0u8; 1];
    // SAFETY: one byte of room; the helper fails where there is none.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, first.as_mut_ptr().cast(), 1) } != 0 {
        return None;
    }
    let (udp_at, addresses_at) = match first[0] >> 4 {
        4 => (u32::from(first[0] & 0xf) * 4, 12),
        6 => (40, 8),
        _ => return None,
    };
    // SAFETY: a context field.
    let payload = unsafe { (*skb).len }.checked_sub(udp_at + 8)?;
    (payload != 0).then_some(Datagram { udp_at, addresses_at, payload })
}

/// Where TCP begins in an IPv6 packet: behind at most three extension headers.
///
/// # Safety
/// `data` to `end` is the packet of the program's context and holds 40 bytes.
#[inline(always)]
unsafe fn behind_ipv6(data: usize, end: usize) -> Option<u32> {
    // SAFETY: the caller checked the fixed header.
    let mut next = unsafe { *((data + 6) as *const u8) };
    let mut at = 40u32;
    for _ in 0..3 {
        if next == IPPROTO_TCP {
            return Some(at);
        }
        // Hop-by-hop, routing, destination options (RFC 8200 §4.1). A fragment never gets here.
        if next != 0 && next != 43 && next != 60 {
            return None;
        }
        // The bound is for the verifier, as above.
        if at > 200 {
            return None;
        }
        let header = data + at as usize;
        if header + 8 > end {
            return None;
        }
        // SAFETY: checked against `end` just above.
        unsafe {
            next = *(header as *const u8);
            at += (u32::from(*((header + 1) as *const u8)) + 1) * 8;
        }
    }
    (next == IPPROTO_TCP).then_some(at)
}
