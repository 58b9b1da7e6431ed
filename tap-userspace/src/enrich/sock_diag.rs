//! The kernel's own list of TCP sockets, by `sock_diag` netlink. In: nothing but the network
//! namespace of the calling thread. Out: each [`Socket`] and [`Listener`] of it.
//!
//! Layouts are those of include/uapi/linux/{netlink,inet_diag,tcp}.h, which never change; a kernel
//! may append. Every length is checked before it is used.
#![forbid(unsafe_code)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, netlink, recv, send,
    socket_with, sockopt,
};

/// Sockets of one namespace that are listed; the rest is not, and [`Dump::cut`] says so.
pub const SOCKETS_MAX: usize = 1 << 20;

/// An open TCP connection, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its cookie, the same that BPF programs see.
    pub cookie: u64,
    /// This host's address and port, never IPv4-mapped.
    pub local: (IpAddr, u16),
    /// The peer's address and port, never IPv4-mapped.
    pub peer: (IpAddr, u16),
    /// Its inode; 0 where no process has it open.
    pub inode: u32,
    /// Whose it is.
    pub uid: u32,
    /// TCP state (include/net/tcp_states.h).
    pub state: u8,
    /// `tcpi_bytes_acked`: counts SYN and FIN where they were acknowledged.
    pub bytes_acked: u64,
    /// `tcpi_bytes_received`: counts the peer's FIN.
    pub bytes_received: u64,
    /// `tcpi_rtt`: smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// `tcpi_total_retrans`.
    pub retransmits: u32,
}

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its cookie.
    pub cookie: u64,
    /// Where it listens; the unspecified address for any.
    pub local: (IpAddr, u16),
    /// Its inode.
    pub inode: u32,
    /// Whose it is.
    pub uid: u32,
}

/// The TCP sockets of one network namespace.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Connections in every state but LISTEN and TIME_WAIT that have a full socket: of half-open
    /// requests and of what lingers after its close there is nothing to trace.
    pub sockets: Vec<Socket>,
    /// Listening sockets.
    pub listeners: Vec<Listener>,
    /// Whether there are more than [`SOCKETS_MAX`].
    pub cut: bool,
    /// Messages that could not be understood.
    pub malformed: u32,
}

/// Lists the TCP sockets of the calling thread's network namespace.
pub fn dump() -> io::Result<Dump> {
    let netlink = open()?;
    let mut dump = Dump::default();
    for (number, family) in [AF_INET, AF_INET6].into_iter().enumerate() {
        let sequence = u32::try_from(number).unwrap_or(0) + 1;
        send(&netlink, &request(family, sequence), SendFlags::empty())?;
        receive(&netlink, sequence, &mut dump)?;
    }
    Ok(dump)
}

/// For the fuzzer: any bytes as one answer of the kernel.
#[doc(hidden)]
pub fn fuzz_sock_diag(bytes: &[u8]) {
    let mut dump = Dump::default();
    let _ends = take_messages(bytes, 1, &mut dump);
    assert!(dump.sockets.len() + dump.listeners.len() <= bytes.len() / (HEADER + MESSAGE));
}

// === Netlink ===

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel fills at most this much of one answer (netlink_dump, net/netlink/af_netlink.c).
const ANSWER_MAX: usize = 64 << 10;
/// A dump that stalls this long has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A netlink socket connected to the kernel, so that no process can answer in its place.
fn open() -> io::Result<OwnedFd> {
    let netlink = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    sockopt::set_socket_timeout(&netlink, sockopt::Timeout::Recv, Some(PATIENCE))?;
    connect(&netlink, &netlink::SocketAddrNetlink::new(0, 0))?;
    Ok(netlink)
}

fn receive(netlink: &OwnedFd, sequence: u32, dump: &mut Dump) -> io::Result<()> {
    let mut answer = vec![0; ANSWER_MAX];
    loop {
        let (_, length) = recv(netlink, &mut answer[..], RecvFlags::TRUNC)?;
        let Some(answer) = answer.get(..length) else {
            return Err(io::Error::other(format!("a sock_diag answer of {length} bytes")));
        };
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if take_messages(answer, sequence, dump)? {
            return Ok(());
        }
    }
}

/// Takes the messages of one answer; true after the last one of the dump.
fn take_messages(mut bytes: &[u8], sequence: u32, dump: &mut Dump) -> io::Result<bool> {
    while let Some(length) = u32_at(bytes, 0) {
        let length = length as usize;
        let (Some(message), Some(kind)) = (bytes.get(HEADER..length), u16_at(bytes, 4)) else {
            dump.malformed += 1;
            return Ok(false);
        };
        if u32_at(bytes, 8) == Some(sequence) {
            match kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return Err(error(message)),
                SOCK_DIAG_BY_FAMILY => take_socket(message, dump),
                _ => {}
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct nlmsgerr`: a negative errno.
fn error(message: &[u8]) -> io::Error {
    let errno = u32_at(message, 0).map_or(0, u32::cast_signed).wrapping_neg();
    io::Error::from_raw_os_error(errno)
}

// === inet_diag ===

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;
const INET_DIAG_INFO: u16 = 2;
/// Length of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// Every state's bit but that of TIME_WAIT.
const STATES: u32 = 0x0fff & !(1 << TIME_WAIT);

fn request(family: u8, sequence: u32) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + 1] = IPPROTO_TCP;
    bytes[HEADER + 2] = 1 << (INET_DIAG_INFO - 1);
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&STATES.to_ne_bytes());
    bytes
}

fn take_socket(message: &[u8], dump: &mut Dump) {
    if dump.sockets.len() + dump.listeners.len() >= SOCKETS_MAX {
        dump.cut = true;
        return;
    }
    let Some(head) = message.first_chunk::<MESSAGE>() else {
        dump.malformed += 1;
        return;
    };
    let ends = (address(head[0], &head[8..24]), address(head[0], &head[24..40]));
    let (Some(local), Some(peer)) = ends else {
        dump.malformed += 1;
        return;
    };
    let number = |at| u32_at(head, at).unwrap_or(0);
    let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let cookie = u64::from(number(44)) | u64::from(number(48)) << 32;
    let (uid, inode) = (number(64), number(68));
    let state = head[1];
    if state == LISTEN {
        dump.listeners.push(Listener { cookie, local: (local, port(4)), inode, uid });
        return;
    }
    // Requests and what waits for the end of TIME_WAIT have no tcp_info.
    let Some(info) = attribute(&message[MESSAGE..], INET_DIAG_INFO) else { return };
    // struct tcp_info; an older kernel's is shorter.
    dump.sockets.push(Socket {
        cookie,
        local: (local, port(4)),
        peer: (peer, port(6)),
        inode,
        uid,
        state,
        rtt_us: u32_at(info, 68).unwrap_or(0),
        retransmits: u32_at(info, 100).unwrap_or(0),
        bytes_acked: u64_at(info, 120).unwrap_or(0),
        bytes_received: u64_at(info, 128).unwrap_or(0),
    });
}

/// The payload of the first attribute (`struct nlattr`) of type `wanted`.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let payload = bytes.get(4..length)?;
        if kind == wanted {
            return Some(payload);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => bytes.first_chunk().map(|four: &[u8; 4]| Ipv4Addr::from(*four).into()),
        AF_INET6 => {
            let six: &[u8; 16] = bytes.first_chunk()?;
            Some(IpAddr::V6(Ipv6Addr::from(*six)).to_canonical())
        }
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd, unix::fs::MetadataExt},
    };

    use super::*;
    use crate::protocol::noise::Noise;

    fn inode(fd: &impl AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        std::fs::metadata(path).expect("an open file").ino()
    }

    fn check_a_connection(listen: &str, connect: &str) {
        let listener = TcpListener::bind(listen).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let mut client = TcpStream::connect((connect, port)).expect("a connection");
        let (mut server, _) = listener.accept().expect("its other end");
        client.write_all(&[7; 1000]).expect("sent");
        server.read_exact(&mut [0; 1000]).expect("received");
        server.write_all(&[7; 300]).expect("sent");
        client.read_exact(&mut [0; 300]).expect("received");

        let dump = dump().expect("a dump");
        assert_eq!(dump.malformed, 0);
        assert!(!dump.cut);
        let connect: IpAddr = connect.parse().expect("an address");
        for (end, received) in [(&client, 300), (&server, 1000)] {
            let cookie = sockopt::socket_cookie(end).expect("a cookie");
            let found: Vec<&Socket> =
                dump.sockets.iter().filter(|socket| socket.cookie == cookie).collect();
            let [found] = found[..] else { panic!("{} with the cookie", found.len()) };
            let local = end.local_addr().expect("an address");
            let peer = end.peer_addr().expect("an address");
            assert_eq!(found.local, (local.ip().to_canonical(), local.port()));
            assert_eq!(found.peer, (peer.ip().to_canonical(), peer.port()));
            assert_eq!(found.local.0, connect);
            assert_eq!(u64::from(found.inode), inode(end));
            assert_eq!(found.state, 1);
            assert_eq!(found.bytes_received, received);
            assert!(found.rtt_us > 0);
        }
        let cookie = sockopt::socket_cookie(&listener).expect("a cookie");
        let found = dump.listeners.iter().find(|listener| listener.cookie == cookie);
        let found = found.expect("the listener");
        assert_eq!(found.local.1, port);
        assert_eq!(u64::from(found.inode), inode(&listener));
    }

    #[test]
    fn a_connection_is_listed_with_its_cookie() {
        check_a_connection("127.0.0.1:0", "127.0.0.1");
    }

    #[test]
    fn ipv4_over_an_ipv6_socket_is_ipv4() {
        if TcpListener::bind("[::1]:0").is_err() {
            eprintln!("Skipped: no IPv6 here.");
            return;
        }
        check_a_connection("[::1]:0", "::1");
        check_a_connection("[::]:0", "127.0.0.1");
    }

    /// An answer with one socket.
    fn answer() -> Vec<u8> {
        let mut bytes = vec![0; HEADER + MESSAGE];
        bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        bytes[HEADER] = AF_INET;
        bytes[HEADER + 1] = 1;
        bytes[HEADER + 4..HEADER + 8].copy_from_slice(&[0x1f, 0x90, 0, 80]);
        bytes[HEADER + 8..HEADER + 12].copy_from_slice(&[10, 0, 0, 1]);
        bytes[HEADER + 24..HEADER + 28].copy_from_slice(&[10, 0, 0, 2]);
        bytes.extend_from_slice(&[5, 0, 9, 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(&[140, 0, 2, 0]);
        let mut info = [0; 136];
        info[120] = 9;
        bytes.extend_from_slice(&info);
        let length = u32::try_from(bytes.len()).expect("small");
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn answers_begin_with_bad_bytes() {
        let mut dump = Dump::default();
        for bad in [&b""[..], &[1, 2, 3], &[0; 4], &[0; 16], &[255; 16], &[16; 20]] {
            assert!(!take_messages(bad, 1, &mut dump).expect("no end"));
        }
        assert_eq!((dump.sockets.len(), dump.malformed), (0, 4));
        assert!(!take_messages(&answer(), 2, &mut dump).expect("another's answer"));
        assert!(dump.sockets.is_empty());
        assert!(!take_messages(&answer().repeat(2), 1, &mut dump).expect("two"));
        assert_eq!(dump.sockets.len(), 2);
        let socket = dump.sockets[0];
        assert_eq!(socket.local, ("10.0.0.1".parse().expect("an address"), 8080));
        assert_eq!(socket.peer, ("10.0.0.2".parse().expect("an address"), 80));
        assert_eq!(socket.bytes_acked, 9);
        let mut done = answer();
        done[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        assert!(take_messages(&done, 1, &mut dump).expect("the end"));
        let mut failed = answer();
        failed[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        failed[HEADER..HEADER + 4].copy_from_slice(&(-2i32).to_ne_bytes());
        let error = take_messages(&failed, 1, &mut dump).expect_err("an error");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for end in 0..answer().len() {
            let mut dump = Dump::default();
            take_messages(&answer()[..end], 1, &mut dump).expect("no end");
            assert!(dump.sockets.is_empty());
        }
    }

    #[test]
    fn noise_is_never_trouble() {
        let mut noise = Noise::new(0x7461_7004);
        for _ in 0..100_000 {
            let mut bytes = answer();
            noise.stir(&mut bytes);
            fuzz_sock_diag(&bytes);
        }
    }
}
