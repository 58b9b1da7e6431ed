//! Network namespaces of a test's own. Each is nameless and kept by one descriptor, so that the
//! kernel removes it, with its interfaces and routes, however the test process ends.

mod offload;

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::sys;

/// A network namespace with its loopback up.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// A new one.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            sys::new_network().context("a new network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let file = made.join().map_err(|_| anyhow!("the thread of a new namespace panicked"))??;
        let namespace = Self(Arc::new(file));
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Does `work` on a thread that is inside. Sockets made there stay inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                sys::enter_network(&*self.0).context("entering a network namespace")?;
                work()
            });
            // A panic of the work (a failed assertion) is the test's own.
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A program that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let namespace = Arc::clone(&self.0);
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || sys::enter_network(&*namespace)) };
        command
    }

    /// Runs `ip` with `arguments` (separated by spaces) inside.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let output = self.command("ip").args(arguments.split_whitespace()).output();
        let output = output.context("running ip (package iproute2)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {arguments}: {}", said.trim());
        Ok(())
    }

    /// Sets a sysctl of the namespace, `net.ipv4.tcp_syn_retries` for example.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| fs::write(&path, value).with_context(|| format!("writing {value:?} to {path}")))
    }

    /// Has an interface send what the wire would carry: whole checksums, segments of the MTU.
    pub fn offload_off(&self, interface: &str) -> Result<()> {
        self.run(|| offload::disable(interface))
    }

    /// Where `ip` and others find it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Joins two namespaces by a cable (veth), each end with its name, and brings it up.
pub fn cable(left: (&Namespace, &str), right: (&Namespace, &str)) -> Result<()> {
    let path = right.0.path();
    left.0.ip(&format!("link add name {} type veth peer name {} netns {path}", left.1, right.1))?;
    left.0.ip(&format!("link set dev {} up", left.1))?;
    right.0.ip(&format!("link set dev {} up", right.1))
}

/// A number no other network of this test run has: 10.77.N.0/24 and fd77:N::/64.
pub fn number() -> u8 {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Two namespaces with a cable between them, `10.77.N.1` and `10.77.N.2`, interface `eth0` each.
#[derive(Debug)]
pub struct Pair {
    /// Has `10.77.N.1` and `fd77:N::1`.
    pub left: Namespace,
    /// Has `10.77.N.2` and `fd77:N::2`.
    pub right: Namespace,
    /// N.
    pub number: u8,
}

impl Pair {
    /// A new pair.
    pub fn new() -> Result<Self> {
        let (left, right) = (Namespace::new()?, Namespace::new()?);
        cable((&left, "eth0"), (&right, "eth0"))?;
        Self::addressed(left, right)
    }

    /// Two namespaces whose `eth0` is there already get their addresses.
    pub(crate) fn addressed(left: Namespace, right: Namespace) -> Result<Self> {
        let number = number();
        for (namespace, host) in [(&left, 1), (&right, 2)] {
            namespace.ip(&format!("addr add 10.77.{number}.{host}/24 dev eth0"))?;
            namespace.ip(&format!("addr add fd77:{number}::{host}/64 dev eth0 nodad"))?;
        }
        Ok(Self { left, right, number })
    }

    /// The IPv4 address whose last byte is `host`.
    pub fn address(&self, host: u8) -> std::net::IpAddr {
        std::net::Ipv4Addr::new(10, 77, self.number, host).into()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::stage::as_root;

    #[test]
    fn a_pair_is_joined_and_apart_from_the_host() {
        as_root(|| {
            let pair = Pair::new()?;
            let listener = pair.right.run(|| Ok(TcpListener::bind((pair.address(2), 0))?))?;
            let address = listener.local_addr()?;
            assert!(TcpListener::bind(address).is_err(), "the address is the host's");
            let mut client = pair.left.run(|| Ok(TcpStream::connect(address)?))?;
            client.write_all(b"hello")?;
            drop(client);
            let mut got = String::new();
            listener.accept()?.0.read_to_string(&mut got)?;
            assert_eq!(got, "hello");
            Ok(())
        });
    }

    #[test]
    fn a_sysctl_is_the_namespaces_own() {
        as_root(|| {
            let path = "/proc/sys/net/ipv4/tcp_syn_retries";
            let before = fs::read_to_string(path)?;
            let namespace = Namespace::new()?;
            namespace.sysctl("net.ipv4.tcp_syn_retries", "2")?;
            assert_eq!(namespace.run(|| Ok(fs::read_to_string(path)?))?.trim(), "2");
            assert_eq!(fs::read_to_string(path)?, before);
            Ok(())
        });
    }
}
