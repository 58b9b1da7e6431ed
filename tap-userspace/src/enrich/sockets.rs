//! The host's TCP sockets, of every network namespace, as `sock_diag` lists them (sock_diag(7)).
//! Comes in: netlink datagrams. Goes out: [`Socket`]s, with the cookie that the kernel programs
//! know them by.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use crate::probe::sys;

/// States of include/net/tcp_states.h whose sockets carry a connection, and LISTEN. One that is
/// still connecting is told by the kernel side when it has come to something.
const CONNECTED: [u8; 6] = [1, 4, 5, 8, 9, 11];
const LISTEN: u8 = 10;
const FIN_WAIT2: u8 = 5;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// State (include/net/tcp_states.h).
    pub state: u8,
    /// This host's end; IPv4 is never in its mapped form.
    pub local: (IpAddr, u16),
    /// The peer's end.
    pub remote: (IpAddr, u16),
    /// The kernel's cookie of it.
    pub cookie: u64,
    /// Its inode, as `/proc/<pid>/fd` shows it; 0 for a socket that no process holds.
    pub inode: u32,
}

impl Socket {
    /// Whether its socket is gone and only its addresses are kept until the peer ends too: such a
    /// `struct inet_timewait_sock` is listed as FIN_WAIT2 (inet_diag_dump_icsk,
    /// net/ipv4/inet_diag.c), but its close has been told and no other will come.
    const fn lingers(&self) -> bool {
        self.state == FIN_WAIT2 && self.inode == 0
    }

    /// Whether it waits for connections.
    pub const fn listens(&self) -> bool {
        self.state == LISTEN
    }
}

/// All sockets of the host that listen or carry a connection. A namespace that cannot be entered
/// is logged and left out.
pub fn host() -> Vec<Socket> {
    let mut sockets = list().unwrap_or_else(|error| {
        tracing::warn!(%error, "Sockets older than tap cannot be listed.");
        Vec::new()
    });
    let own = fs::metadata("/proc/self/ns/net").map_or(0, |own| own.ino());
    for (inode, path) in namespaces() {
        if inode == own {
            continue;
        }
        match list_in(path.clone()) {
            Ok(more) => sockets.extend(more),
            Err(error) => {
                let path = path.display();
                tracing::debug!(%path, %error, "A network namespace cannot be looked into.");
            }
        }
    }
    sockets
}

/// One path to each network namespace: by a process in it, or by its name.
fn namespaces() -> HashMap<u64, PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .map(|entry| entry.path().join("ns/net"));
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let named = named.map(|entry| entry.path());
    processes
        .chain(named)
        .filter_map(|path| Some((fs::metadata(&path).ok()?.ino(), path)))
        .collect()
}

/// Lists in another namespace, on a thread that ends there.
fn list_in(namespace: PathBuf) -> io::Result<Vec<Socket>> {
    std::thread::spawn(move || {
        sys::enter_namespace(&File::open(namespace)?, libc::CLONE_NEWNET)?;
        list()
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the listing thread panicked")))
}

/// Lists the sockets of the calling thread's network namespace.
pub fn list() -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut failed = None;
        sys::sock_diag(&request(family as u8), |datagram| match parse(datagram, &mut sockets) {
            Ok(over) => over,
            Err(error) => {
                failed = Some(error);
                true
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(sockets)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (include/uapi/linux/inet_diag.h).
fn request(family: u8) -> [u8; 72] {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const FLAGS: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let states: u32 = CONNECTED.iter().chain([&LISTEN]).map(|state| 1 << state).sum();
    let mut request = [0; 72];
    request[..4].copy_from_slice(&72u32.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    request[16] = family;
    request[17] = libc::IPPROTO_TCP as u8;
    request[20..24].copy_from_slice(&states.to_ne_bytes());
    request
}

/// Takes the sockets out of one datagram; says whether the dump is over.
fn parse(datagram: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
    const DONE: u16 = libc::NLMSG_DONE as u16;
    const ERROR: u16 = libc::NLMSG_ERROR as u16;
    let mut rest = datagram;
    while let Some(len) = word(rest, 0) {
        let len = len as usize;
        if len < 16 || len > rest.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut off"));
        }
        let message = &rest[16..len];
        match half(rest, 4) {
            Some(DONE) => return Ok(true),
            Some(ERROR) => {
                let errno = word(message, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
            }
            _ => sockets.extend(socket(message).filter(|socket| !socket.lingers())),
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct inet_diag_msg`.
fn socket(message: &[u8]) -> Option<Socket> {
    let family = i32::from(*message.first()?);
    let port = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| {
        let bytes: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
        match family {
            libc::AF_INET => {
                Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])))
            }
            libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()),
            _ => None,
        }
    };
    let cookie = u64::from(word(message, 44)?) | u64::from(word(message, 48)?) << 32;
    Some(Socket {
        state: *message.get(1)?,
        local: (address(8)?, port(4)?),
        remote: (address(24)?, port(6)?),
        cookie,
        inode: word(message, 68)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Which process holds each of these socket inodes: one walk over `/proc/*/fd`. Of several
/// holders the one with the smallest pid is named: mostly it is the one that made the socket.
pub fn holders(inodes: &HashSet<u32>) -> HashMap<u32, u32> {
    let mut holders = HashMap::new();
    if inodes.is_empty() {
        return holders;
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Some(inode) = fs::read_link(file.path()).ok().as_deref().and_then(socket_inode)
            else {
                continue;
            };
            if inodes.contains(&inode) {
                let holder = holders.entry(inode).or_insert(pid);
                *holder = pid.min(*holder);
            }
        }
    }
    holders
}

/// The inode of `socket:[123]`.
fn socket_inode(link: &std::path::Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Reads any bytes as the kernel's answer, and as a link of `/proc/<pid>/fd`.
#[doc(hidden)]
pub fn fuzz_sockets(bytes: &[u8]) {
    let mut sockets = Vec::new();
    let _ = parse(bytes, &mut sockets);
    assert!(sockets.len() <= bytes.len() / 72, "each socket takes its message");
    let _ = socket_inode(std::path::Path::new(&*String::from_utf8_lossy(bytes)));
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd as _,
    };

    use super::*;

    fn cookie_of(stream: &TcpStream) -> u64 {
        let mut cookie = 0u64;
        let mut len = 8;
        #[expect(unsafe_code, reason = "getsockopt(SO_COOKIE) for the truth")]
        // SAFETY: the option is eight bytes.
        let failed = unsafe {
            let to = (&raw mut cookie).cast();
            libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, 57, to, &raw mut len)
        };
        assert_eq!(failed, 0);
        cookie
    }

    #[test]
    fn a_connection_is_listed_with_cookie_and_holder() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let all = list().unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(all.iter().any(|socket| socket.listens() && socket.local.1 == port));
            for stream in [&client, &server] {
                let local = stream.local_addr().unwrap();
                let is = |socket: &&Socket| {
                    socket.local == (local.ip(), local.port()) && !socket.listens()
                };
                let found = all.iter().find(is).unwrap();
                assert_eq!(found.cookie, cookie_of(stream));
                assert_eq!(found.remote.1, stream.peer_addr().unwrap().port());
                let holders = holders(&HashSet::from([found.inode]));
                assert_eq!(holders.get(&found.inode), Some(&std::process::id()));
            }
        }
    }

    #[test]
    fn what_lingers_after_its_close_is_not_listed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let address = client.local_addr().unwrap();
        drop(client);
        let listed = |end: fn(&Socket) -> (IpAddr, u16)| {
            list().unwrap().iter().any(|socket| end(socket) == (address.ip(), address.port()))
        };
        // The server has not closed: its end is there, that of the client lingers.
        assert!(listed(|socket| socket.remote));
        // Until the server's delayed acknowledgement it is in FIN_WAIT1.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while listed(|socket| socket.local) {
            assert!(std::time::Instant::now() < deadline, "it is listed for good");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(server);
    }

    #[test]
    fn bad_datagrams_are_refused() {
        let mut sockets = Vec::new();
        assert!(!parse(&[], &mut sockets).unwrap());
        assert!(parse(&[255, 0, 0, 0, 20, 0], &mut sockets).is_err());
        assert!(parse(&[3, 0, 0, 0], &mut sockets).is_err());
        let mut done = [0; 16];
        done[0] = 16;
        done[4] = libc::NLMSG_DONE as u8;
        assert!(parse(&done, &mut sockets).unwrap());
        let mut short = [0; 40];
        short[0] = 40;
        short[4] = 20;
        assert!(!parse(&short, &mut sockets).unwrap());
        assert!(sockets.is_empty());
        let mut error = [0; 20];
        error[0] = 20;
        error[4] = libc::NLMSG_ERROR as u8;
        error[16..].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(parse(&error, &mut sockets).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
