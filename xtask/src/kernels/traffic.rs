//! The traffic of a guest: connections whose every byte both ends count themselves. Runs inside the
//! guest; what it prints, a line of JSON for each end, is what the daemon's spans are held against.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

/// A lost segment is sent again within seconds, not minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do in the guest.
#[derive(clap::Subcommand)]
pub enum Traffic {
    /// Accept connections and answer each as it asks.
    Serve {
        /// Where to listen.
        address: SocketAddr,
        /// How many connections.
        count: usize,
        /// A file to make when it listens.
        #[arg(long)]
        ready: PathBuf,
    },
    /// Open connections, all at once, each of its own size.
    Drive {
        /// Where to connect.
        address: SocketAddr,
        /// How many connections.
        count: usize,
        /// How many times the usual sizes.
        #[arg(long)]
        factor: u64,
    },
}

/// One end's own account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whether this end connected.
    pub client: bool,
    /// Its address.
    pub local: SocketAddr,
    /// The other's.
    pub peer: SocketAddr,
    /// Bytes written.
    pub sent: u64,
    /// Bytes read.
    pub received: u64,
}

/// Does it and prints the ledger.
pub fn run(traffic: &Traffic) -> Result<()> {
    let ends = match traffic {
        Traffic::Serve { address, count, ready } => {
            let listener = TcpListener::bind(address)
                .with_context(|| format!("cannot listen at {address}"))?;
            File::create(ready).with_context(|| format!("cannot write {}", ready.display()))?;
            let streams = (0..*count).map(|_| listener.accept().map(|(stream, _)| stream));
            at_once(streams, |_, stream| serve(stream))?
        }
        Traffic::Drive { address, count, factor } => {
            let streams = (0..*count).map(|_| TcpStream::connect(address));
            at_once(streams, |i, stream| drive(stream, i as u64, *factor))?
        }
    };
    for end in ends {
        println!("{}", serde_json::to_string(&end)?);
    }
    Ok(())
}

fn at_once(
    streams: impl Iterator<Item = std::io::Result<TcpStream>>,
    each: impl Fn(usize, TcpStream) -> Result<End> + Sync,
) -> Result<Vec<End>> {
    let each = &each;
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (i, stream) in streams.enumerate() {
            let stream = stream.context("no connection")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            running.push(scope.spawn(move || each(i, stream)));
        }
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a connection panicked"))?)
            .collect()
    })
}

/// Says how much answer it wants, sends its request and half-closes, takes in the answer.
fn drive(mut stream: TcpStream, i: u64, factor: u64) -> Result<End> {
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let request = (101 + 997 * i) * factor;
    let answer = (51 + 4_099 * i) * factor;
    stream.write_all(&answer.to_le_bytes())?;
    send(&mut stream, request)?;
    stream.shutdown(Shutdown::Write)?;
    let received = receive(&mut stream)?;
    Ok(End { client: true, local, peer, sent: 8 + request, received })
}

/// Takes in a request to its end, then answers with as much as was asked for.
fn serve(mut stream: TcpStream) -> Result<End> {
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    let answer = u64::from_le_bytes(answer);
    let received = 8 + receive(&mut stream)?;
    send(&mut stream, answer)?;
    Ok(End { client: false, local, peer, sent: answer, received })
}

fn send(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let piece = [b'.'; 8192];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(piece.len() as u64);
        stream.write_all(&piece[..size as usize])?;
        left -= size;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream) -> Result<u64> {
    let mut buffer = [0; 8192];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(total),
            size => total += size as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_count_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0).unwrap());
        let client = drive(TcpStream::connect(address).unwrap(), 3, 2).unwrap();
        let server = server.join().unwrap();
        assert_eq!((client.sent, client.received), (8 + 2 * 3_092, 2 * 12_348));
        assert_eq!((server.received, server.sent), (client.sent, client.received));
        assert_eq!((server.local, server.peer), (client.peer, client.local));
    }
}
