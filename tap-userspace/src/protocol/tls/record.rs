//! One direction of TLS cut into what its records hold (RFC 8446 §5.1, RFC 5246 §6.2.1). In:
//! pieces, cut anywhere. Out: plaintext handshake messages, whole where they are of interest, and
//! the ends of the records that cannot be read.
#![forbid(unsafe_code)]

use super::HelloError;
use crate::protocol::exchange::Piece;

pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const SERVER_HELLO: u8 = 2;
pub(super) const CERTIFICATE: u8 = 11;
pub(super) const SERVER_KEY_EXCHANGE: u8 = 12;
pub(super) const SERVER_HELLO_DONE: u8 = 14;

/// Most bytes of a message, its header included, that are kept. Real hellos are below 4 KiB; with
/// several post-quantum key shares and a large ticket they stay below 16 KiB.
const MESSAGE_MAX: usize = 64 << 10;
/// TLSCiphertext.length (RFC 8446 §5.2; RFC 5246 §6.2.3 allows 2048 bytes of expansion).
const RECORD_MAX: usize = (1 << 14) + 2048;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// RFC 6520; the last of the types in use over TCP.
const HEARTBEAT: u8 = 24;

/// What a direction said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A plaintext handshake message: its type, and its body if it is one of those kept.
    Message(u8, &'a [u8]),
    /// A plaintext alert: level and description.
    Alert(u8, u8),
    ChangeCipherSpec,
    /// A handshake record after ChangeCipherSpec, which is the Finished up to TLS 1.2.
    Finished,
    /// An application data record of this length.
    ApplicationData(usize),
    /// Bytes are missing that would have been of interest: a hello, or where a record begins.
    Gap,
    /// It is no TLS, or none that tap reads.
    Broken(HelloError),
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At or within a record's header.
    #[default]
    Header,
    Fragment,
    /// Nobody knows: the next header has to be found.
    Lost,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Stream {
    place: Place,
    /// A header that is not whole yet; `header_len < 5`.
    header: [u8; 5],
    header_len: u8,
    /// A record was seen.
    begun: bool,
    /// The record's type, length and the rest of it that is to come; `left <= length`.
    kind: u8,
    length: usize,
    left: usize,
    encrypted: bool,
    changed_cipher: bool,
    /// The alert record's first bytes, as far as they were seen.
    alert: [Option<u8>; 2],
    /// A message, with its header, that is not whole yet; at most [`MESSAGE_MAX`] bytes.
    message: Vec<u8>,
    /// `message` was handed out.
    delivered: bool,
    /// What is left of a message that is not kept.
    skip: usize,
    /// It is not known where messages begin.
    torn: bool,
}

impl Stream {
    /// The next item of `piece`, which becomes what is left of it; `None` when it is used up.
    /// `plain`: handshake messages are in plaintext even after ChangeCipherSpec, as they are after
    /// a HelloRetryRequest (RFC 8446 appendix D.4).
    pub(super) fn next<'a, 'b: 'a>(
        &'a mut self,
        piece: &mut Piece<'b>,
        plain: bool,
    ) -> Option<Item<'a>> {
        if self.delivered {
            self.delivered = false;
            self.message.clear();
        }
        loop {
            match *piece {
                Piece::End | Piece::Missing(0) | Piece::Bytes([]) => return None,
                Piece::Bytes(bytes) => match self.place {
                    Place::Header => match self.take_header(bytes, plain) {
                        Ok(taken) => *piece = Piece::Bytes(&bytes[taken..]),
                        Err(error) => {
                            *piece = Piece::End;
                            return Some(Item::Broken(error));
                        }
                    },
                    Place::Fragment if self.is_message() => {
                        let (taken, read) = self.take_message(&bytes[..self.left.min(bytes.len())]);
                        *piece = Piece::Bytes(&bytes[taken..]);
                        self.pass(taken);
                        // The borrow checker wants the kept message to be borrowed last.
                        return Some(match read {
                            Read::More => continue,
                            Read::Item(item) => item,
                            Read::Kept(kind) => Item::Message(kind, self.message.get(4..)?),
                        });
                    }
                    Place::Fragment => {
                        let taken = self.left.min(bytes.len());
                        self.take_alert(&bytes[..taken]);
                        *piece = Piece::Bytes(&bytes[taken..]);
                        if let Some(item) = self.pass(taken) {
                            return Some(item);
                        }
                    }
                    Place::Lost => {
                        let at = find_record(bytes);
                        *piece = Piece::Bytes(&bytes[at.unwrap_or(bytes.len())..]);
                        if at.is_some() {
                            self.place = Place::Header;
                        }
                    }
                },
                Piece::Missing(count) => match self.place {
                    Place::Fragment => {
                        let taken = usize::try_from(count).map_or(self.left, |n| self.left.min(n));
                        *piece = Piece::Missing(count - taken as u64);
                        let gap = self.is_message() && self.miss(taken);
                        let item = self.pass(taken);
                        if gap {
                            // No item ends a record of plaintext messages.
                            return Some(Item::Gap);
                        }
                        if item.is_some() {
                            return item;
                        }
                    }
                    Place::Header => {
                        *piece = Piece::End;
                        self.lose();
                        return Some(Item::Gap);
                    }
                    Place::Lost => *piece = Piece::End,
                },
            }
        }
    }

    /// Heap bytes held.
    pub(super) fn memory(&self) -> usize {
        self.message.capacity()
    }

    const fn is_message(&self) -> bool {
        self.kind == HANDSHAKE && !self.encrypted
    }

    /// Takes in a header, or a part of it; gives how many bytes that were.
    fn take_header(&mut self, bytes: &[u8], plain: bool) -> Result<usize, HelloError> {
        let (header, taken) = match bytes.first_chunk::<5>() {
            Some(header) if self.header_len == 0 => (*header, 5),
            _ => {
                let have = usize::from(self.header_len);
                let taken = bytes.len().min(5 - have);
                self.header[have..have + taken].copy_from_slice(&bytes[..taken]);
                self.header_len += taken as u8;
                if self.header_len < 5 {
                    return Ok(taken);
                }
                self.header_len = 0;
                (self.header, taken)
            }
        };
        let [kind, _, _, high, low] = header;
        if !is_header(header) {
            return Err(match header {
                _ if self.begun => HelloError::Malformed,
                // msg_length with its high bit set, msg_type 1 (RFC 5246 appendix E.2).
                [0x80..=0xff, _, CLIENT_HELLO, ..] => HelloError::Sslv2,
                [CHANGE_CIPHER_SPEC..=HEARTBEAT, 3, 0..=4, ..] => HelloError::Malformed,
                _ => HelloError::NotTls,
            });
        }
        self.begun = true;
        self.kind = kind;
        self.length = usize::from(u16::from_be_bytes([high, low]));
        self.left = self.length;
        self.encrypted = self.changed_cipher && !plain;
        self.alert = [None; 2];
        // An empty record has no bytes that would end it; only application data may be one.
        self.place = if self.left == 0 { Place::Header } else { Place::Fragment };
        Ok(taken)
    }

    /// Goes `taken` bytes on within the record; gives what its end means.
    fn pass(&mut self, taken: usize) -> Option<Item<'static>> {
        self.left -= taken;
        if self.left > 0 {
            return None;
        }
        self.place = Place::Header;
        match self.kind {
            CHANGE_CIPHER_SPEC => {
                self.changed_cipher = true;
                Some(Item::ChangeCipherSpec)
            }
            HANDSHAKE if self.encrypted => Some(Item::Finished),
            APPLICATION_DATA => Some(Item::ApplicationData(self.length)),
            // An encrypted one is longer.
            ALERT if self.length == 2 => match self.alert {
                [Some(level), Some(description)] => Some(Item::Alert(level, description)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Keeps the bytes of a short alert.
    fn take_alert(&mut self, bytes: &[u8]) {
        if self.kind == ALERT && self.length == 2 {
            for (place, byte) in self.alert.iter_mut().skip(2 - self.left).zip(bytes) {
                *place = Some(*byte);
            }
        }
    }

    /// Takes in a part of a plaintext handshake record, at most to the end of one message.
    fn take_message<'b>(&mut self, part: &'b [u8]) -> (usize, Read<'b>) {
        if self.torn {
            return (part.len(), Read::More);
        }
        if self.skip > 0 {
            let taken = self.skip.min(part.len());
            self.skip -= taken;
            return (taken, Read::More);
        }
        // Mostly the whole message is there, and is read where it lies.
        if self.message.is_empty()
            && let Some((kind, body_len)) = message_header(part)
            && is_kept(kind)
            && let Some(body) = part.get(4..4 + body_len)
            && body_len <= MESSAGE_MAX - 4
        {
            return (4 + body_len, Read::Item(Item::Message(kind, body)));
        }
        let have = self.message.len();
        let mut taken = part.len().min(4usize.saturating_sub(have));
        self.message.extend_from_slice(&part[..taken]);
        let Some((kind, body_len)) = message_header(&self.message) else {
            return (taken, Read::More);
        };
        if !is_kept(kind) || body_len > MESSAGE_MAX - 4 {
            self.message.clear();
            self.skip = body_len;
            return match kind {
                CLIENT_HELLO | SERVER_HELLO => {
                    let length = u32::try_from(body_len).unwrap_or(u32::MAX);
                    (taken, Read::Item(Item::Broken(HelloError::TooLong(length))))
                }
                _ => (taken, Read::Item(Item::Message(kind, &[]))),
            };
        }
        let whole = 4 + body_len;
        let more = (part.len() - taken).min(whole - self.message.len());
        self.keep(&part[taken..taken + more], whole);
        taken += more;
        if self.message.len() < whole {
            return (taken, Read::More);
        }
        self.delivered = true;
        (taken, Read::Kept(kind))
    }

    /// Adds to a message that will have `whole` bytes. What is held grows with what came, not with
    /// what a header claims.
    fn keep(&mut self, bytes: &[u8], whole: usize) {
        let (have, need) = (self.message.len(), self.message.len() + bytes.len());
        if need > self.message.capacity() {
            self.message.reserve_exact((2 * need).min(whole) - have);
        }
        self.message.extend_from_slice(bytes);
    }

    /// Bytes within plaintext handshake records are missing; tells if they were of interest.
    fn miss(&mut self, mut count: usize) -> bool {
        if self.torn {
            return false;
        }
        let mut lost = false;
        if let Some((_, body_len)) = message_header(&self.message) {
            // The message is gone, but its end is known.
            self.skip = (4 + body_len).saturating_sub(self.message.len());
            self.message.clear();
            lost = true;
        }
        let skipped = self.skip.min(count);
        self.skip -= skipped;
        count -= skipped;
        if count > 0 {
            self.tear();
            lost = true;
        }
        lost
    }

    fn tear(&mut self) {
        self.torn = true;
        self.skip = 0;
        self.message = Vec::new();
    }

    fn lose(&mut self) {
        self.place = Place::Lost;
        self.header_len = 0;
        // What follows does not count as the begin of the stream.
        self.begun = true;
        self.tear();
    }
}

/// What a part of a message gave.
enum Read<'b> {
    /// Nothing yet.
    More,
    Item(Item<'b>),
    /// A message of this type is whole in [`Stream::message`].
    Kept(u8),
}

const fn is_kept(kind: u8) -> bool {
    matches!(kind, CLIENT_HELLO | SERVER_HELLO | SERVER_KEY_EXCHANGE)
}

/// Type and length of a message's body (RFC 8446 §4).
fn message_header(bytes: &[u8]) -> Option<(u8, usize)> {
    let &[kind, a, b, c] = bytes.first_chunk()?;
    Some((kind, u32::from_be_bytes([0, a, b, c]) as usize))
}

fn is_header([kind, major, minor, high, low]: [u8; 5]) -> bool {
    let length = usize::from(u16::from_be_bytes([high, low]));
    (CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(&kind)
        && major == 3
        && minor <= 4
        && length <= RECORD_MAX
        // Empty fragments are for application data only (RFC 8446 §5.1, RFC 5246 §6.2.1).
        && (length > 0 || kind == APPLICATION_DATA)
}

/// Where a record begins after bytes that are missing. A segment often begins with one; elsewhere
/// chance must not make one, so that it has to be whole and followed by another, or by the end.
fn find_record(bytes: &[u8]) -> Option<usize> {
    let is_record = |at: usize| {
        let header = bytes.get(at..)?.first_chunk::<5>()?;
        let end = at + 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !is_header(*header) || end == at + 5 {
            return None;
        }
        let next = bytes.get(end..);
        let fits = match next {
            None => at == 0,
            Some(next) => next.first_chunk().map_or(next.is_empty(), |next| is_header(*next)),
        };
        fits.then_some(at)
    };
    (0..bytes.len()).find_map(is_record)
}
