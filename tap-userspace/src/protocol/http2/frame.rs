//! Frames of HTTP/2 (RFC 9113 §4, §6). In: a frame's header, and the payload of those kinds that
//! tap reads. Out: their parts, or the error that a peer would answer them with.
#![forbid(unsafe_code)]

/// Bytes of a frame's header (§4.1).
pub const HEAD: usize = 9;
/// Largest payload before any settings (§6.5.2).
pub const DEFAULT_MAX: u32 = 1 << 14;
/// Largest payload that settings can allow.
pub const LARGEST: u32 = (1 << 24) - 1;

/// Kinds (§6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// What is wrong with a frame, as the error code that names it (§7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// PROTOCOL_ERROR.
    Protocol = 1,
    /// FRAME_SIZE_ERROR.
    FrameSize = 6,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub length: u32,
    /// Kind.
    pub kind: u8,
    flags: u8,
    /// Stream; 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// Any nine bytes are a header.
    pub const fn parse(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, s, t, u, v] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The reserved bit is ignored (§4.1).
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
        }
    }

    /// Bytes on the wire.
    pub const fn wire(&self) -> u64 {
        HEAD as u64 + self.length as u64
    }

    /// Whether this is the last frame of its stream's direction.
    pub const fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// Whether this is the last frame of its header block.
    pub const fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// Whether settings are acknowledged.
    pub const fn acknowledges(&self) -> bool {
        self.kind == SETTINGS && self.flags & ACK != 0
    }

    /// Whether the payload begins with the length of a padding.
    pub const fn padded(&self) -> bool {
        matches!(self.kind, DATA | HEADERS | PUSH_PROMISE) && self.flags & PADDED != 0
    }

    /// Whether the payload is read as a whole; others are skipped, or counted (DATA).
    pub const fn is_read(&self) -> bool {
        matches!(
            self.kind,
            HEADERS | PUSH_PROMISE | CONTINUATION | SETTINGS | RST_STREAM | WINDOW_UPDATE
        )
    }

    /// Whether a fault of this frame ends the stream at most, not the connection (§6.3, §6.9).
    pub const fn is_minor(&self) -> bool {
        matches!(self.kind, PRIORITY | WINDOW_UPDATE) && self.stream != 0
    }

    /// Checks what the header tells by itself; `max` is what the receiver takes
    /// (SETTINGS_MAX_FRAME_SIZE).
    pub const fn check(&self, max: u32) -> Result<(), Fault> {
        if self.length > max {
            return Err(Fault::FrameSize);
        }
        let on_stream = self.stream != 0;
        let (stream_fits, length_fits) = match self.kind {
            DATA => (on_stream, true),
            HEADERS | PUSH_PROMISE | CONTINUATION => (on_stream, true),
            PRIORITY => (on_stream, self.length == 5),
            RST_STREAM => (on_stream, self.length == 4),
            SETTINGS if self.flags & ACK != 0 => (!on_stream, self.length == 0),
            SETTINGS => (!on_stream, self.length.is_multiple_of(6)),
            PING => (!on_stream, self.length == 8),
            GOAWAY => (!on_stream, self.length >= 8),
            WINDOW_UPDATE => (true, self.length == 4),
            // Of an extension (§5.5).
            _ => (true, true),
        };
        if !stream_fits {
            return Err(Fault::Protocol);
        }
        if !length_fits || (self.padded() && self.length == 0) {
            return Err(Fault::FrameSize);
        }
        Ok(())
    }

    /// Whether these nine bytes are likely a frame's header and not any bytes: more is asked than
    /// of a frame where one is due.
    fn is_plausible(bytes: [u8; HEAD], max: u32) -> bool {
        let head = Self::parse(bytes);
        let flags = match head.kind {
            DATA => END_STREAM | PADDED,
            HEADERS => END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY,
            PUSH_PROMISE => END_HEADERS | PADDED,
            CONTINUATION => END_HEADERS,
            SETTINGS | PING => ACK,
            PRIORITY | RST_STREAM | GOAWAY | WINDOW_UPDATE => 0,
            _ => return false,
        };
        head.flags & !flags == 0 && bytes[5] & 0x80 == 0 && head.check(max).is_ok()
    }
}

/// Whether `bytes` are the beginning of a chain of frames, as far as they go: where a frame ends
/// within them, another begins. `None` where there is no whole header.
pub fn begins_frames(bytes: &[u8], max: u32) -> Option<bool> {
    // Four in a row are no accident.
    const CHAIN: usize = 4;
    let mut rest = bytes;
    for nth in 0..CHAIN {
        let Some((bytes, payload)) = rest.split_first_chunk::<HEAD>() else {
            return if nth == 0 { None } else { Some(true) };
        };
        let head = Head::parse(*bytes);
        // A block that goes on is of no use without its beginning.
        if !Head::is_plausible(*bytes, max) || (nth == 0 && head.kind == CONTINUATION) {
            return Some(false);
        }
        match payload.get(head.length as usize..) {
            Some(after) => rest = after,
            None => break,
        }
    }
    Some(true)
}

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Of HEADERS, PUSH_PROMISE or CONTINUATION: a part of a header block.
    Fragment(&'a [u8]),
    /// Settings, for [`settings`].
    Settings(&'a [u8]),
    /// The stream's error code.
    Reset(u32),
    /// Nothing that tap needs.
    Other,
}

/// Reads the payload of a frame whose header was checked.
pub fn read<'a>(head: &Head, payload: &'a [u8]) -> Result<Payload<'a>, Fault> {
    match head.kind {
        HEADERS | PUSH_PROMISE => {
            let mut rest = payload;
            let mut padding = 0;
            if head.padded() {
                let (first, after) = rest.split_first().ok_or(Fault::FrameSize)?;
                padding = usize::from(*first);
                rest = after;
            }
            if head.kind == HEADERS && head.flags & WITH_PRIORITY != 0 {
                rest = rest.get(5..).ok_or(Fault::FrameSize)?;
            }
            if head.kind == PUSH_PROMISE {
                let (promised, after) = rest.split_first_chunk().ok_or(Fault::FrameSize)?;
                let promised = u32::from_be_bytes(*promised) & 0x7fff_ffff;
                // A server's streams have even numbers (§5.1.1).
                if promised == 0 || promised % 2 != 0 {
                    return Err(Fault::Protocol);
                }
                rest = after;
            }
            let len = rest.len().checked_sub(padding).ok_or(Fault::Protocol)?;
            Ok(Payload::Fragment(rest.get(..len).unwrap_or_default()))
        }
        CONTINUATION => Ok(Payload::Fragment(payload)),
        SETTINGS => Ok(Payload::Settings(payload)),
        RST_STREAM => {
            let code = payload.first_chunk().ok_or(Fault::FrameSize)?;
            Ok(Payload::Reset(u32::from_be_bytes(*code)))
        }
        WINDOW_UPDATE => {
            let increment = payload.first_chunk().ok_or(Fault::FrameSize)?;
            match u32::from_be_bytes(*increment) & 0x7fff_ffff {
                0 => Err(Fault::Protocol),
                _ => Ok(Payload::Other),
            }
        }
        _ => Ok(Payload::Other),
    }
}

/// Bytes of padding of a padded DATA frame, whose payload's first byte is `first`.
pub fn data_padding(head: &Head, first: u8) -> Result<u32, Fault> {
    let padding = u32::from(first);
    if padding < head.length { Ok(padding) } else { Err(Fault::Protocol) }
}

/// The settings that matter to who reads the other direction (§6.5.2): of each its last value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// SETTINGS_HEADER_TABLE_SIZE.
    pub header_table_size: Option<u32>,
    /// SETTINGS_MAX_FRAME_SIZE.
    pub max_frame_size: Option<u32>,
}

/// Reads a SETTINGS frame's payload.
pub fn settings(payload: &[u8]) -> Settings {
    let mut settings = Settings::default();
    for &[a, b, c, d, e, f] in payload.as_chunks::<6>().0 {
        let value = u32::from_be_bytes([c, d, e, f]);
        match u16::from_be_bytes([a, b]) {
            1 => settings.header_table_size = Some(value),
            5 => settings.max_frame_size = Some(value.clamp(DEFAULT_MAX, LARGEST)),
            _ => {}
        }
    }
    settings
}
