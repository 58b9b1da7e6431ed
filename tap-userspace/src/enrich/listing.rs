//! Connections that were there before tap, and who owns sockets that nobody has been seen to use:
//! the host's list of sockets joined with `/proc/*/fd`.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use tap_common::record::{Connection, Header, Kind, Lane, Open, Tuple, flags};

use super::sockets::{self, Socket};
use crate::connection::clock;

/// What was found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Where somebody listens.
    pub listeners: Vec<(IpAddr, u16)>,
    /// Connections, as the kernel programs would have told of them; a proven owner stands in
    /// `connection.tgid`.
    pub connections: Vec<Open>,
}

/// Lists the host on threads of its own, when asked: a host may have very many sockets.
#[derive(Debug)]
pub struct Lister {
    sender: SyncSender<Listing>,
    receiver: Receiver<Listing>,
    busy: bool,
}

impl Default for Lister {
    fn default() -> Self {
        let (sender, receiver) = sync_channel(1);
        Self { sender, receiver, busy: false }
    }
}

impl Lister {
    /// Asks for a listing, unless one is being made.
    pub fn ask(&mut self) {
        if self.busy {
            return;
        }
        let sender = self.sender.clone();
        let made = move || {
            // Nobody takes it if tap ends first.
            drop(sender.send(host()));
        };
        match std::thread::Builder::new().name("tap-list".into()).spawn(made) {
            Ok(_) => self.busy = true,
            Err(error) => tracing::warn!(%error, "The host's sockets are not listed."),
        }
    }

    /// A listing that was made.
    pub fn take(&mut self) -> Option<Listing> {
        let listing = self.receiver.try_recv().ok()?;
        self.busy = false;
        Some(listing)
    }
}

/// Lists the host.
pub fn host() -> Listing {
    let all = sockets::host();
    let (listening, connected): (Vec<&Socket>, Vec<&Socket>) =
        all.iter().partition(|socket| socket.listens());
    let inodes: HashSet<_> =
        connected.iter().map(|socket| socket.inode).filter(|inode| *inode != 0).collect();
    let holders = sockets::holders(&inodes);
    let now = clock::monotonic();
    Listing {
        listeners: listening.iter().map(|socket| socket.local).collect(),
        connections: connected.iter().map(|socket| open(socket, &holders, now)).collect(),
    }
}

fn open(socket: &Socket, holders: &HashMap<u32, u32>, now: u64) -> Open {
    Open {
        header: Header {
            kind: Kind::Open as u8,
            lane: Lane::Life as u8,
            flags: 0,
            payload_len: 0,
            cookie: socket.cookie,
            generation: 0,
            number: 0,
            time_ns: now,
        },
        connection: Connection {
            tuple: Tuple {
                local: octets(socket.local.0),
                remote: octets(socket.remote.0),
                local_port: socket.local.1,
                remote_port: socket.remote.1,
                pad: 0,
            },
            opened_ns: now,
            cgroup: 0,
            tgid: holders.get(&socket.inode).copied().unwrap_or(0),
            local_isn: 0,
            remote_isn: 0,
            flags: flags::PREEXISTING | flags::ESTABLISHED,
            pad: 0,
        },
    }
}

/// An address as the records have it.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}
