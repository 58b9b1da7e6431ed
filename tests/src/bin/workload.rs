//! Programs that must be processes of their own: servers that fork or pass connections on, and a
//! client that is gone at once. A server prints its port, then its processes; to each client it
//! sends the id of the process that serves it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::ExitCode,
};

use anyhow::{Context, Result};
use tests::sys::{self, Fork};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *arguments {
        ["fork-per-connection"] => fork_per_connection(),
        ["fork-before-accept"] => fork_before_accept(),
        ["pass-connections"] => pass_connections(),
        ["brief", address] => brief(address),
        _ => Err(anyhow::anyhow!("no such program: {arguments:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The parent accepts, a child serves, as `inetd` and old servers do.
fn fork_per_connection() -> Result<()> {
    let listener = listen()?;
    loop {
        let (client, _) = listener.accept()?;
        if fork()? == Fork::Child {
            sys::die_with_parent(libc::SIGKILL)?;
            return serve(client);
        }
    }
}

/// Children accept from the parent's listener, as pre-forking servers do.
fn fork_before_accept() -> Result<()> {
    let listener = listen()?;
    for _ in 0..2 {
        if fork()? == Fork::Child {
            sys::die_with_parent(libc::SIGKILL)?;
            loop {
                serve(listener.accept()?.0)?;
            }
        }
    }
    forever()
}

/// The parent accepts and passes each connection to a child through a Unix socket.
fn pass_connections() -> Result<()> {
    let listener = listen()?;
    let (ours, theirs) = UnixStream::pair()?;
    if fork()? == Fork::Child {
        sys::die_with_parent(libc::SIGKILL)?;
        loop {
            serve(TcpStream::from(sys::receive_descriptor(&theirs)?))?;
        }
    }
    loop {
        let (client, _) = listener.accept()?;
        sys::send_descriptor(&ours, &client)?;
    }
}

/// Connects, asks, takes the answer and is gone.
fn brief(address: &str) -> Result<()> {
    let mut server = TcpStream::connect(address)?;
    println!("{}", server.local_addr()?);
    server.write_all(b"brief")?;
    server.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("port {}", listener.local_addr()?.port());
    Ok(listener)
}

fn fork() -> Result<Fork> {
    // SAFETY: this program has one thread.
    let forked = unsafe { sys::fork() }.context("fork")?;
    if let Fork::Parent(child) = forked {
        println!("child {child}");
    }
    Ok(forked)
}

/// Takes five bytes and answers with its own process id.
fn serve(mut client: TcpStream) -> Result<()> {
    client.read_exact(&mut [0; 5])?;
    client.write_all(std::process::id().to_string().as_bytes())?;
    Ok(())
}

/// Until it is killed.
fn forever() -> ! {
    loop {
        std::thread::park();
    }
}
