//! The connections that are older than tap, and whose they are. In: the network namespaces and the
//! open files that `/proc` shows. Out: every TCP socket of the host ([`host_sockets`]), and the
//! process of each socket inode ([`owners`]).
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use hashbrown::{HashMap, HashSet};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sock_diag::{self, Dump};

/// Network namespaces that are visited.
const NAMESPACES_MAX: usize = 8192;
/// Ways into one namespace that are remembered: processes end while the list is made.
const WAYS_MAX: usize = 4;
/// Open files that are looked at in search of owners.
const FILES_MAX: usize = 8 << 20;

/// One network namespace with its TCP sockets.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Inode of the namespace, its name in `/proc/PID/ns/net`.
    pub inode: u64,
    /// Its sockets.
    pub dump: Dump,
}

/// The TCP sockets of the host.
#[derive(Debug, Default)]
pub struct HostSockets {
    /// Each namespace that could be visited.
    pub namespaces: Vec<Namespace>,
    /// Those that could not: inode and reason. Entering another one needs CAP_SYS_ADMIN.
    pub failed: Vec<(u64, io::Error)>,
}

/// Lists the TCP sockets of all network namespaces in which a process lives or that have a name
/// (`ip netns`). The calling thread stays in its own: a thread of its own goes round and ends.
pub fn host_sockets() -> io::Result<HostSockets> {
    std::thread::Builder::new()
        .name("tap-namespaces".to_owned())
        .spawn(visit_all)?
        .join()
        .map_err(|_| io::Error::other("the thread that visits the namespaces panicked"))
}

fn visit_all() -> HostSockets {
    let mut found = HostSockets::default();
    // Our own comes first, where no leave is needed; once this thread has left, it is like others.
    let own = fs::metadata("/proc/thread-self/ns/net").map_or(0, |meta| meta.ino());
    match sock_diag::dump() {
        Ok(dump) => found.namespaces.push(Namespace { inode: own, dump }),
        Err(error) => found.failed.push((own, error)),
    }
    let mut namespaces = namespaces();
    namespaces.remove(&own);
    for (inode, ways) in namespaces {
        match visit(inode, &ways) {
            Ok(dump) => found.namespaces.push(Namespace { inode, dump }),
            Err(error) => found.failed.push((inode, error)),
        }
    }
    found
}

/// Enters the namespace `inode` by the first of `ways` that still leads to it.
fn visit(inode: u64, ways: &[PathBuf]) -> io::Result<Dump> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for way in ways {
        let entered = File::open(way).and_then(|namespace| {
            // The pid may be another process's by now.
            if namespace.metadata()?.ino() != inode {
                return Err(io::ErrorKind::NotFound.into());
            }
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(())
        });
        match entered {
            Ok(()) => return sock_diag::dump(),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The network namespaces of the host, by inode, with ways into each.
fn namespaces() -> BTreeMap<u64, Vec<PathBuf>> {
    let processes = pids(Path::new("/proc")).map(|(_, dir)| dir.join("ns/net"));
    // Named ones may have no process; tap may run in a container, hence pid 1's root.
    let named = ["/proc/1/root/run/netns", "/run/netns"]
        .into_iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flat_map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()));
    let mut namespaces: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for path in processes.chain(named) {
        // Follows the magic link, so this is the inode of the namespace itself.
        let Ok(meta) = fs::metadata(&path) else { continue };
        let room = namespaces.len() < NAMESPACES_MAX;
        match namespaces.get_mut(&meta.ino()) {
            Some(ways) if ways.len() < WAYS_MAX => ways.push(path),
            Some(_) => {}
            None if room => {
                namespaces.insert(meta.ino(), vec![path]);
            }
            None => {}
        }
    }
    namespaces
}

/// The processes that have the sockets with these inodes open, in one pass over all open files of
/// the host; the inodes of sockets are the same in every network namespace. Of several processes
/// it is the one with the lowest pid. Files of other users are seen with CAP_SYS_PTRACE only.
pub fn owners(inodes: &HashSet<u32>) -> HashMap<u32, u32> {
    owners_in(Path::new("/proc"), inodes)
}

/// As [`owners`], with `/proc` at `proc_root`.
pub fn owners_in(proc_root: &Path, inodes: &HashSet<u32>) -> HashMap<u32, u32> {
    let mut owners: HashMap<u32, u32> = HashMap::new();
    let wanted = inodes.len() - usize::from(inodes.contains(&0));
    let mut files_left = FILES_MAX;
    let mut processes: Vec<(u32, PathBuf)> = pids(proc_root).collect();
    processes.sort_unstable();
    for (pid, dir) in processes {
        if owners.len() == wanted || files_left == 0 {
            break;
        }
        let Ok(files) = fs::read_dir(dir.join("fd")) else { continue };
        for file in files.filter_map(Result::ok).take(files_left) {
            files_left -= 1;
            let Some(inode) = fs::read_link(file.path()).ok().and_then(|link| socket_inode(&link))
            else {
                continue;
            };
            if inode != 0 && inodes.contains(&inode) {
                owners.entry(inode).or_insert(pid);
            }
        }
    }
    owners
}

/// `socket:[12345]`.
fn socket_inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The processes that `/proc` shows, with their directories.
fn pids(proc_root: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    fs::read_dir(proc_root)
        .into_iter()
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd, unix::fs::symlink},
        process::{Command, Stdio},
    };

    use rustix::net::sockopt::socket_cookie;

    use super::*;

    fn inode(fd: &impl AsRawFd) -> u32 {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        u32::try_from(fs::metadata(path).expect("an open file").ino()).expect("32 bits")
    }

    fn connection() -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("one")).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        (listener, client, server)
    }

    fn find(host: &HostSockets, cookie: u64) -> Option<(u64, sock_diag::Socket)> {
        host.namespaces.iter().find_map(|namespace| {
            let socket = namespace.dump.sockets.iter().find(|socket| socket.cookie == cookie)?;
            Some((namespace.inode, *socket))
        })
    }

    #[test]
    fn links_of_sockets() {
        assert_eq!(socket_inode(Path::new("socket:[123]")), Some(123));
        for other in [
            "",
            "socket:[",
            "socket:[]",
            "socket:[-1]",
            "pipe:[1]",
            "/socket:[1]",
            "socket:[99999999999]",
        ] {
            assert_eq!(socket_inode(Path::new(other)), None);
        }
    }

    #[test]
    fn owners_of_a_fixture() {
        let root = tempfile::TempDir::new().expect("a directory");
        for (pid, fd, link) in [
            ("12", "0", "socket:[5]"),
            ("7", "1", "socket:[5]"),
            ("7", "2", "pipe:[6]"),
            ("x", "0", "socket:[8]"),
        ] {
            let dir = root.path().join(pid).join("fd");
            fs::create_dir_all(&dir).expect("made");
            symlink(link, dir.join(fd)).expect("linked");
        }
        fs::create_dir(root.path().join("9")).expect("made");
        let owners = owners_in(root.path(), &HashSet::from([5, 6, 8, 0]));
        assert_eq!(owners, HashMap::from([(5, 7)]));
        assert!(owners_in(Path::new("/nowhere"), &HashSet::from([5])).is_empty());
    }

    #[test]
    fn own_connections_are_found_with_their_owner() {
        let (listener, client, server) = connection();
        let host = host_sockets().expect("a list");
        let inodes = HashSet::from([inode(&client), inode(&server), inode(&listener)]);
        for end in [&client, &server] {
            let (_, socket) = find(&host, socket_cookie(end).expect("one")).expect("listed");
            assert_eq!(socket.inode, inode(end));
        }
        let owners = owners(&inodes);
        assert_eq!(owners.len(), 3);
        assert!(owners.values().all(|pid| *pid == std::process::id()));
    }

    /// A namespace with a connection and a process in it.
    struct Elsewhere {
        namespace: u64,
        ends: (TcpListener, TcpStream, TcpStream),
        process: std::process::Child,
    }

    impl Elsewhere {
        /// A thread leaves for a new namespace and starts a process there, by which `/proc` shows
        /// it; the thread ends, what it opened stays.
        fn new() -> Result<Self, String> {
            let thread = std::thread::spawn(|| {
                #[expect(deprecated, reason = "its danger is in FILES, not in NEWNET")]
                rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
                    .map_err(|error| format!("no new network namespace: {error}"))?;
                let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
                if !up.is_ok_and(|status| status.success()) {
                    return Err("no `ip` to bring up the new namespace's loopback".to_owned());
                }
                let process = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn();
                Ok(Self {
                    namespace: fs::metadata("/proc/thread-self/ns/net").expect("one").ino(),
                    ends: connection(),
                    process: process.map_err(|error| format!("no `sleep`: {error}"))?,
                })
            });
            thread.join().expect("no panic")
        }
    }

    #[test]
    fn a_connection_of_another_network_namespace() {
        let mut elsewhere = match Elsewhere::new() {
            Ok(elsewhere) => elsewhere,
            Err(reason) => {
                eprintln!("Skipped: {reason}.");
                return;
            }
        };
        let here = fs::metadata("/proc/thread-self/ns/net").expect("one").ino();
        assert_ne!(here, elsewhere.namespace);
        let host = host_sockets().expect("a list");
        let (listener, client, server) = &elsewhere.ends;
        for end in [client, server] {
            let found = find(&host, socket_cookie(end).expect("one"));
            let (namespace, socket) = found.expect("listed");
            assert_eq!(namespace, elsewhere.namespace);
            assert_eq!(socket.inode, inode(end));
            assert_eq!(socket.local, {
                let local = end.local_addr().expect("one");
                (local.ip(), local.port())
            });
        }
        let there = host.namespaces.iter().find(|one| one.inode == elsewhere.namespace);
        let listeners = &there.expect("visited").dump.listeners;
        assert_eq!(listeners.len(), 1);
        assert_eq!(listeners[0].inode, inode(listener));
        assert_eq!(owners(&HashSet::from([inode(client)])).len(), 1);
        // The visitor was another thread: this one is where it was.
        assert_eq!(fs::metadata("/proc/thread-self/ns/net").expect("one").ino(), here);
        elsewhere.process.kill().expect("killed");
        elsewhere.process.wait().expect("ended");
    }
}
