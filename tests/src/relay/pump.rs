//! The thread that carries frames: two packet sockets, and a queue of frames held back.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    mem::size_of,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Counts, Policy, Side, Verdict};
use crate::{netns::Namespace, sys};

/// Largest frame: the MTU of 1500 and an Ethernet header, with a margin.
const FRAME: usize = 2048;
/// How long the thread sleeps at most before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(20);

/// The running thread; it ends when dropped.
pub struct Pump {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Carries frames between the interfaces `left` and `right` of `namespace`.
    pub fn start(
        namespace: &Namespace,
        policy: Box<dyn Policy>,
        counts: Arc<Counts>,
    ) -> Result<Self> {
        let sockets = namespace.run(|| Ok([port("left")?, port("right")?]))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut state = State { sockets, policy, counts, held: BinaryHeap::new(), order: 0 };
        let thread = thread::Builder::new().name("relay".into()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    state.turn();
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A frame held back: when it is due, its place in line, where it goes.
type Held = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct State {
    sockets: [OwnedFd; 2],
    policy: Box<dyn Policy>,
    counts: Arc<Counts>,
    held: BinaryHeap<Held>,
    order: u64,
}

impl State {
    /// Waits for frames or for one that is due, and carries all there are.
    fn turn(&mut self) {
        self.wait();
        let mut buffer = [0; FRAME];
        for (from, side) in [Side::Left, Side::Right].into_iter().enumerate() {
            while let Some(len) = receive(&self.sockets[from], &mut buffer) {
                self.carry(side, 1 - from, &buffer[..len]);
            }
        }
        let now = Instant::now();
        while self.held.peek().is_some_and(|Reverse(first)| first.0 <= now) {
            if let Some(Reverse((_, _, to, frame))) = self.held.pop() {
                self.send(to, &frame);
            }
        }
    }

    fn carry(&mut self, side: Side, to: usize, frame: &[u8]) {
        let counts = Arc::clone(&self.counts);
        counts.seen.fetch_add(1, Ordering::Relaxed);
        match (self.policy)(side, frame) {
            Verdict::Pass => self.send(to, frame),
            Verdict::Drop => drop(counts.dropped.fetch_add(1, Ordering::Relaxed)),
            Verdict::Twice => {
                counts.doubled.fetch_add(1, Ordering::Relaxed);
                self.send(to, frame);
                self.send(to, frame);
            }
            Verdict::Late(by) => {
                counts.delayed.fetch_add(1, Ordering::Relaxed);
                self.order += 1;
                self.held.push(Reverse((Instant::now() + by, self.order, to, frame.to_vec())));
            }
            Verdict::After(forged) => {
                counts.forged.fetch_add(forged.len() as u64, Ordering::Relaxed);
                forged.iter().for_each(|frame| self.send(to, frame));
                self.send(to, frame);
            }
        }
    }

    /// A frame that the kernel does not take is one more that is lost: TCP sends it again.
    fn send(&self, to: usize, frame: &[u8]) {
        // SAFETY: pointer and length describe `frame`.
        unsafe {
            libc::send(
                self.sockets[to].as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
            )
        };
    }

    fn wait(&self) {
        let due = self.held.peek().map_or(NAP, |Reverse(first)| {
            first.0.saturating_duration_since(Instant::now()).min(NAP)
        });
        let mut ready = [0, 1].map(|index: usize| libc::pollfd {
            fd: self.sockets[index].as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        let millis = i32::try_from(due.as_millis()).unwrap_or(0);
        // SAFETY: pointer and count describe `ready`. An interrupted wait is a short one.
        unsafe { libc::poll(ready.as_mut_ptr(), 2, millis) };
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8; FRAME]) -> Option<usize> {
    // SAFETY: pointer and length describe `buffer`.
    let len = unsafe {
        libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), FRAME, libc::MSG_DONTWAIT)
    };
    usize::try_from(len).ok().filter(|len| *len > 0)
}

/// A packet socket on `interface` of the calling thread's namespace.
fn port(interface: &str) -> Result<OwnedFd> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(every))?;
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
    sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name is a string with its NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: pointer and length describe `address`.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("bind to {interface}"));
    }
    Ok(socket)
}
