//! A request and an answer by io_uring: no read, write, send or receive call is made.

use std::{
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, ensure};
use io_uring::{IoUring, opcode, squeue, types};

use super::{Connected, Ends};

/// The client sends `request` bytes, the server answers `answer` bytes.
pub fn exchange(request: usize, answer: usize) -> Result<Ends> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connected = Connected::to(&listener)?;
    let mut ring = IoUring::new(8).context("io_uring")?;
    pass(&mut ring, &connected.client, &connected.server, request)?;
    pass(&mut ring, &connected.server, &connected.client, answer)?;
    connected.close()
}

fn pass(ring: &mut IoUring, from: &TcpStream, to: &TcpStream, len: usize) -> Result<()> {
    let source = vec![b'u'; len];
    let mut sink = vec![0_u8; len];
    let (mut sent, mut received) = (0, 0);
    while received < len {
        if sent < len {
            let rest = &source[sent..];
            let entry =
                opcode::Send::new(types::Fd(from.as_raw_fd()), rest.as_ptr(), rest.len() as u32);
            sent += complete(ring, &entry.build()).context("send")?;
        }
        let rest = &mut sink[received..sent];
        let entry =
            opcode::Recv::new(types::Fd(to.as_raw_fd()), rest.as_mut_ptr(), rest.len() as u32);
        received += complete(ring, &entry.build()).context("receive")?;
    }
    ensure!(sink == source, "io_uring brought other bytes");
    Ok(())
}

/// Submits one operation and waits for it; how many bytes it moved.
fn complete(ring: &mut IoUring, entry: &squeue::Entry) -> Result<usize> {
    // SAFETY: the operation's buffer outlives it: its completion is waited for right here.
    unsafe { ring.submission().push(entry) }.context("the queue is full")?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().context("no completion")?;
    let moved = usize::try_from(done.result());
    moved.map_err(|_| std::io::Error::from_raw_os_error(-done.result()).into())
}
