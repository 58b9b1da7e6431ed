//! Connections whose bytes a test knows exactly, because it made them.

mod hello;
mod many;
mod uring;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

pub use self::{
    hello::client_hello,
    many::{Pace, Quick, quick_connections},
    uring::exchange as exchange_by_io_uring,
};
use crate::wait::PATIENCE;

/// The two ends of a connection. Addresses are as tap gives them: IPv4 never in its mapped form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub client: SocketAddr,
    /// Who accepted.
    pub server: SocketAddr,
}

impl Ends {
    /// From the client's socket.
    pub fn of_client(client: &TcpStream) -> Result<Self> {
        Ok(Self { client: canonical(client.local_addr()?), server: canonical(client.peer_addr()?) })
    }

    /// From the server's socket.
    pub fn of_server(server: &TcpStream) -> Result<Self> {
        Ok(Self { client: canonical(server.peer_addr()?), server: canonical(server.local_addr()?) })
    }
}

/// Without the IPv6 form of an IPv4 address, and without flow and scope.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection of which the test holds both ends.
#[derive(Debug)]
pub struct Connected {
    /// Who connected.
    pub client: TcpStream,
    /// Who accepted.
    pub server: TcpStream,
    /// Their addresses.
    pub ends: Ends,
}

impl Connected {
    /// Over the IPv4 loopback.
    pub fn new() -> Result<Self> {
        Self::to(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
    }

    /// Over `address`, whose port is chosen.
    pub fn over(address: &str) -> Result<Self> {
        Self::to(&TcpListener::bind((address, 0)).with_context(|| format!("listen at {address}"))?)
    }

    /// To a listener of the test's own.
    pub fn to(listener: &TcpListener) -> Result<Self> {
        let client = TcpStream::connect(listener.local_addr()?)?;
        Self::accepted(client, listener)
    }

    /// The server's end is taken from `listener`.
    pub fn accepted(client: TcpStream, listener: &TcpListener) -> Result<Self> {
        let (server, peer) = listener.accept()?;
        let ends = Ends::of_client(&client)?;
        ensure!(canonical(peer) == ends.client, "another program connected: {peer}");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(Self { client, server, ends })
    }

    /// The client sends `len` bytes and the server takes them in.
    pub fn send(&mut self, len: usize) -> Result<()> {
        pass(&mut self.client, &mut self.server, len).context("from client to server")
    }

    /// The server sends `len` bytes and the client takes them in.
    pub fn answer(&mut self, len: usize) -> Result<()> {
        pass(&mut self.server, &mut self.client, len).context("from server to client")
    }

    /// Both ends close in good order, the client first.
    pub fn close(mut self) -> Result<Ends> {
        end_writing(&self.client)?;
        ensure!(self.server.read(&mut [0; 64])? == 0, "bytes that nobody sent");
        end_writing(&self.server)?;
        ensure!(self.client.read(&mut [0; 64])? == 0, "bytes that nobody sent");
        Ok(self.ends)
    }
}

/// Sends a FIN; an end that has sent its own and seen the other's is not connected any more.
fn end_writing(stream: &TcpStream) -> Result<()> {
    match stream.shutdown(Shutdown::Write) {
        Err(error) if error.kind() != std::io::ErrorKind::NotConnected => Err(error.into()),
        _ => Ok(()),
    }
}

/// `len` bytes from one stream to the other, at the same time written and read.
pub fn pass(from: &mut TcpStream, to: &mut TcpStream, len: usize) -> Result<()> {
    thread::scope(|scope| {
        let writing = scope.spawn(|| write_pattern(from, len));
        let read = read_pattern(to, len);
        writing.join().expect("the writer does not panic").context("writing")?;
        read.context("reading")
    })
}

/// Size of the pieces that bulk data is written and read in.
const PIECE: usize = 64 << 10;

/// Writes `len` bytes.
pub fn write_pattern(to: &mut impl Write, len: usize) -> Result<()> {
    let piece = [b'.'; PIECE];
    let mut left = len;
    while left > 0 {
        let size = left.min(PIECE);
        to.write_all(&piece[..size])?;
        left -= size;
    }
    Ok(())
}

/// Reads exactly `len` bytes.
pub fn read_pattern(from: &mut impl Read, len: usize) -> Result<()> {
    let mut piece = vec![0; PIECE];
    let mut left = len;
    while left > 0 {
        let size = left.min(PIECE);
        from.read_exact(&mut piece[..size])
            .with_context(|| format!("{left} of {len} bytes left"))?;
        left -= size;
    }
    Ok(())
}

/// Reads to the end and says how much there was.
pub fn drain(from: &mut impl Read) -> Result<u64> {
    Ok(std::io::copy(from, &mut std::io::sink())?)
}

/// A port of the loopback on which nobody listens.
pub fn deaf_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Lets time pass that is part of the scenario itself: silence between turns, a slow server.
pub fn silence(time: Duration) {
    thread::sleep(time);
}
