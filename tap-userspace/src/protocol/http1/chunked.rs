//! `Transfer-Encoding: chunked` (RFC 9112 §7.1). In: bytes cut anywhere. Out: how many of them were
//! payload, where the body ends, and the trailer section. The payload is counted,
//! and given to whoever asks for it.
#![forbid(unsafe_code)]

/// Most bytes of a trailer section: gRPC-Web and `Server-Timing` need a few hundred; a head's own
/// limit is commonly 8 to 64 KiB.
pub const TRAILERS_MAX: usize = 16 << 10;

/// Where in a chunked body the next byte stands.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    trailers: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// In a chunk's size; whether a digit was there.
    Size(u64, bool),
    /// Behind the size, up to the line's end: extensions, which say nothing of the framing.
    Line(u64),
    /// So many bytes of the chunk are still to come.
    Data(u64),
    /// Behind a chunk's data: the line end; whether its CR was there.
    DataEnd(bool),
    /// In the trailer section; where its last line begins.
    Trailers(usize),
}

/// What a piece of a chunked body was.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the body, framing included; fewer than were given where it ended.
    pub wire: usize,
    /// Payload bytes.
    pub payload: u64,
    /// How it stands behind them.
    pub stand: Stand,
}

/// Whether the body goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Stand {
    /// It goes on.
    More,
    /// It is over; this is the trailer section with its empty line, or nothing where it had none.
    End(Vec<u8>),
    /// This is no chunked body.
    Broken,
}

impl Decoder {
    /// At a body's first byte.
    pub const fn new() -> Self {
        Self { state: State::Size(0, false), trailers: Vec::new() }
    }

    /// Takes in the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Progress {
        self.take_with(bytes, |_| {})
    }

    /// The same; `keep` is given the payload.
    pub fn take_with(&mut self, bytes: &[u8], mut keep: impl FnMut(&[u8])) -> Progress {
        let mut rest = bytes;
        let mut payload = 0;
        let mut stand = Stand::More;
        while stand == Stand::More {
            let Some((&byte, behind)) = rest.split_first() else { break };
            match self.state {
                State::Size(size, any) => match (char::from(byte).to_digit(16), byte) {
                    // A size beyond 64 bits.
                    (Some(_), _) if size >> 60 != 0 => stand = Stand::Broken,
                    (Some(digit), _) => {
                        self.state = State::Size(size << 4 | u64::from(digit), true);
                        rest = behind;
                    }
                    // Space before the extension is "bad white space", which is to be read.
                    (None, b' ' | b'\t' | b';' | b'\r' | b'\n') if any => {
                        self.state = State::Line(size);
                    }
                    (None, _) => stand = Stand::Broken,
                },
                State::Line(size) => match memchr::memchr(b'\n', rest) {
                    Some(at) => {
                        rest = rest.get(at + 1..).unwrap_or_default();
                        self.state = if size == 0 { State::Trailers(0) } else { State::Data(size) };
                    }
                    None => rest = &[],
                },
                State::Data(size) => {
                    let here = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
                    payload += here as u64;
                    keep(rest.get(..here).unwrap_or_default());
                    rest = rest.get(here..).unwrap_or_default();
                    self.data(size, here as u64);
                }
                State::DataEnd(cr) => match byte {
                    b'\r' if !cr => {
                        self.state = State::DataEnd(true);
                        rest = behind;
                    }
                    b'\n' => {
                        self.state = State::Size(0, false);
                        rest = behind;
                    }
                    _ => stand = Stand::Broken,
                },
                State::Trailers(line) => {
                    if self.trailers.is_empty() && rest.starts_with(b"\r\n") {
                        rest = rest.get(2..).unwrap_or_default();
                        stand = Stand::End(Vec::new());
                    } else {
                        stand = self.trailer(line, &mut rest);
                    }
                }
            }
        }
        Progress { wire: bytes.len() - rest.len(), payload, stand }
    }

    fn data(&mut self, size: u64, passed: u64) {
        let left = size.saturating_sub(passed);
        self.state = if left == 0 { State::DataEnd(false) } else { State::Data(left) };
    }

    /// Keeps the trailer section's bytes up to the next line end.
    fn trailer(&mut self, line: usize, rest: &mut &[u8]) -> Stand {
        let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
        let (here, behind) = rest.split_at(end.unwrap_or(rest.len()));
        // The bound is on the bytes kept, so that it does not depend on where pieces were cut.
        let room = TRAILERS_MAX.saturating_sub(self.trailers.len());
        if here.len() > room {
            *rest = rest.get(room..).unwrap_or_default();
            return Stand::Broken;
        }
        self.trailers.extend_from_slice(here);
        *rest = behind;
        if end.is_none() {
            return Stand::More;
        }
        if matches!(self.trailers.get(line..), Some(b"\n" | b"\r\n")) {
            let section = std::mem::take(&mut self.trailers);
            return Stand::End(if line == 0 { Vec::new() } else { section });
        }
        self.state = State::Trailers(self.trailers.len());
        Stand::More
    }

    /// Passes over `count` bytes that nobody captured; `false` where they are not all payload of
    /// one chunk, so that what follows cannot be told.
    pub fn miss(&mut self, count: u64) -> bool {
        match self.state {
            State::Data(size) if count <= size => {
                self.data(size, count);
                true
            }
            _ => false,
        }
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.trailers.capacity()
    }
}
