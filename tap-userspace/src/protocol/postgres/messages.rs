//! Framing and fields of PostgreSQL's messages.
#![forbid(unsafe_code)]

use crate::protocol::frames::Size;
use crate::protocol::sql::{NAME_MAX, READ_MAX, truncate};

/// Longest name of a statement or portal that is remembered: PostgreSQL's own names are 63 bytes.
pub const KEY_MAX: usize = 128;
/// Bytes of a message that are kept: Parse's statement name and text.
pub const KEEP_MAX: usize = HEADER + KEY_MAX + 1 + READ_MAX;
/// The server takes no longer startup packet (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_MAX: u32 = 10_000;
/// Bytes of it that are kept: the database is among the first parameters.
const STARTUP_KEEP: usize = 1024;
/// No message is longer than PostgreSQL's largest allocation (1 GiB), with its header.
const LEN_MAX: u32 = 1 << 30;
const HEADER: usize = 5;

/// How the client's next message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Without a type byte.
    Startup,
    /// The server's one byte is due, whether it will encrypt.
    Answer,
    /// With a type byte.
    Ready,
}

/// Size of the client's message.
pub fn client_size(stage: Stage, head: &[u8]) -> Size {
    if stage != Stage::Ready {
        let Some((len, rest)) = head.split_first_chunk() else { return Size::More };
        let Some(code) = rest.first_chunk() else { return Size::More };
        let len = u32::from_be_bytes(*len);
        let fine = match u32::from_be_bytes(*code) {
            SSL_REQUEST | GSS_REQUEST => len == 8,
            CANCEL_REQUEST => (12..=1024).contains(&len),
            version => version >> 16 == 3 && (9..=STARTUP_MAX).contains(&len),
        };
        let keep = STARTUP_KEEP;
        return if fine { Size::Of { len: u64::from(len), keep } } else { Size::Bad };
    }
    let Some((kind, _)) = head.split_first() else { return Size::More };
    let (range, keep) = match kind {
        b'Q' => (5..=LEN_MAX, HEADER + READ_MAX),
        b'P' => (8..=LEN_MAX, KEEP_MAX),
        b'B' => (12..=LEN_MAX, HEADER + 2 * (KEY_MAX + 1)),
        b'E' => (9..=LEN_MAX, HEADER + KEY_MAX + 1),
        b'D' | b'C' => (6..=LEN_MAX, HEADER + KEY_MAX + 2),
        b'H' | b'S' | b'X' | b'c' => (4..=4, HEADER),
        b'F' | b'd' | b'f' | b'p' => (4..=LEN_MAX, HEADER),
        _ => return Size::Bad,
    };
    typed(head, range, keep)
}

/// Size of the server's message.
pub fn server_size(head: &[u8]) -> Size {
    let Some((kind, _)) = head.split_first() else { return Size::More };
    let (range, keep) = match kind {
        b'1' | b'2' | b'3' | b'n' | b'I' | b's' | b'c' => (4..=4, HEADER),
        b'Z' => (5..=5, HEADER + 1),
        b'K' => (8..=264, HEADER),
        b'C' => (5..=1024, HEADER),
        b'S' => (6..=LEN_MAX, HEADER + 40),
        // Severity twice, then the code.
        b'E' => (5..=LEN_MAX, HEADER + 64),
        b'R' | b'N' | b'A' | b'T' | b't' | b'D' | b'd' | b'G' | b'H' | b'W' | b'V' | b'v' => {
            (4..=LEN_MAX, HEADER)
        }
        _ => return Size::Bad,
    };
    typed(head, range, keep)
}

fn typed(head: &[u8], range: std::ops::RangeInclusive<u32>, keep: usize) -> Size {
    let Some((_, rest)) = head.split_first() else { return Size::More };
    let Some(len) = rest.first_chunk() else { return Size::More };
    let len = u32::from_be_bytes(*len);
    if range.contains(&len) { Size::Of { len: u64::from(len) + 1, keep } } else { Size::Bad }
}

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// A message without a type byte.
#[derive(Debug)]
pub enum First {
    /// SSLRequest or GSSENCRequest.
    Encrypt,
    Cancel,
    Startup {
        database: Option<String>,
    },
}

/// Reads a message whose size was found fine.
pub fn startup(head: &[u8]) -> First {
    let Some((header, mut rest)) = head.split_first_chunk::<8>() else { return First::Cancel };
    let [.., a, b, c, d] = *header;
    match u32::from_be_bytes([a, b, c, d]) {
        SSL_REQUEST | GSS_REQUEST => return First::Encrypt,
        CANCEL_REQUEST => return First::Cancel,
        _ => {}
    }
    let mut database = None;
    while let Some((name, after)) = text(rest)
        && let Some((value, after)) = text(after)
        && !name.is_empty()
    {
        if name == b"database" {
            let mut value = String::from_utf8_lossy(value).into_owned();
            truncate(&mut value, NAME_MAX);
            value.shrink_to_fit();
            database = Some(value);
        }
        rest = after;
    }
    First::Startup { database }
}

/// A string up to its zero, and what follows.
pub fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], bytes.get(end + 1..)?))
}

/// Name and value of a ParameterStatus.
pub fn named(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = text(body)?;
    Some((name, text(rest)?.0))
}

/// A field of an ErrorResponse: `C` is the SQLSTATE.
pub fn field(body: &[u8], kind: u8) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        let (first, after) = rest.split_first()?;
        let (value, after) = text(after)?;
        if *first == kind {
            let fine = value.len() == 5 && value.iter().all(u8::is_ascii_alphanumeric);
            return fine.then_some(value);
        }
        rest = after;
    }
}
