//! Many connections in quick succession, over several addresses of the loopback net.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// How fast they follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as it goes.
    Full,
    /// So many a second.
    PerSecond(u32),
}

/// Many connections to one port.
#[derive(Clone, Copy, Debug)]
pub struct Quick {
    /// How many.
    pub count: u32,
    /// How fast.
    pub pace: Pace,
    /// Bytes that each client sends.
    pub request: usize,
    /// Bytes that the server answers.
    pub answer: usize,
}

/// Makes them one after the other and gives the server's port. Each is closed in good order, by
/// the client first.
pub fn quick_connections(quick: Quick) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    thread::scope(|scope| {
        let server = scope.spawn(move || serve(&listener, quick));
        connect(port, quick).context("the clients")?;
        server.join().expect("the server does not panic").context("the server")
    })?;
    Ok(port)
}

fn connect(port: u16, quick: Quick) -> Result<()> {
    let request = vec![b'q'; quick.request];
    let mut answer = vec![0; quick.answer];
    let started = Instant::now();
    for number in 0..quick.count {
        if let Pace::PerSecond(rate) = quick.pace {
            let due = Duration::from_secs(1) * number / rate;
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
        // Sixteen addresses, so that ports in TIME_WAIT do not run out.
        let host = Ipv4Addr::new(127, 0, 2, 1 + (number % 16) as u8);
        let mut client = TcpStream::connect(SocketAddr::from((host, port)))?;
        client.write_all(&request)?;
        client.read_exact(&mut answer)?;
    }
    Ok(())
}

fn serve(listener: &TcpListener, quick: Quick) -> Result<()> {
    let answer = vec![b'a'; quick.answer];
    let mut request = vec![0; quick.request];
    for _ in 0..quick.count {
        let (mut server, _) = listener.accept()?;
        server.read_exact(&mut request)?;
        server.write_all(&answer)?;
        ensure!(server.read(&mut [0])? == 0, "more than was asked for");
    }
    Ok(())
}
