//! The switch to TLS inside another protocol. In: both directions from their begin. Out:
//! [`Next::Tls`] at the place where the upgrade is agreed; no exchanges.
//!
//! Only what is said before the upgrade is read, and of that only its head: a connection that does
//! not upgrade within [`LOOK_MAX`] bytes is not waited for.
#![forbid(unsafe_code)]

use super::exchange::{Exchange, Next, Outcome, Parser, Piece, Side};

/// Bytes of both directions that may come before the upgrade. Greetings, capabilities and a few
/// commands are below 4 KiB; a mail server's banner is the longest.
const LOOK_MAX: u64 = 16 << 10;
/// Bytes of a line, element or message that are kept; the rest of it does not matter.
const HEAD_MAX: usize = 256;

/// A protocol that may turn to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Upgrade {
    /// STARTTLS, answered by 220 (RFC 3207).
    Smtp,
    /// STARTTLS, answered by a tagged OK (RFC 9051 §6.2.1).
    Imap,
    /// STLS, answered by +OK (RFC 2595 §4).
    Pop3,
    /// AUTH TLS, answered by 234 (RFC 4217 §4).
    Ftp,
    /// `<starttls/>`, answered by `<proceed/>` (RFC 6120 §5.4).
    Xmpp,
    /// SSLRequest, answered by `S` (PostgreSQL, "Message Flow", §"SSL Session Encryption").
    PostgreSql,
    /// SSLRequest, the short form of HandshakeResponse41 with CLIENT_SSL, which is not answered.
    MySql,
    /// The StartTLS extended operation (RFC 4511 §4.14).
    Ldap,
}

/// Waits for the upgrade to TLS on one connection.
#[derive(Debug)]
pub struct StartTls {
    upgrade: Upgrade,
    /// The begin of what each direction is saying.
    units: [Unit; 2],
    /// The client asked, and has no answer yet.
    asked: bool,
    /// The tag of an IMAP client's STARTTLS.
    tag: Vec<u8>,
    looked: u64,
}

/// A line, element or message that is not whole yet.
#[derive(Debug, Default)]
struct Unit {
    /// Its head, at most [`HEAD_MAX`] bytes.
    head: Vec<u8>,
    /// Bytes of it that were seen.
    len: usize,
}

/// What a unit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The client wants TLS.
    Asks,
    /// TLS begins behind it.
    Agreed,
    /// It stays as it is, and the client may ask again.
    Refused,
    /// There will be no TLS; what follows is another protocol's.
    Plain,
    Lost,
}

impl StartTls {
    /// Waits for the upgrade of this protocol.
    pub const fn new(upgrade: Upgrade) -> Self {
        Self {
            upgrade,
            units: [Unit { head: Vec::new(), len: 0 }, Unit { head: Vec::new(), len: 0 }],
            asked: false,
            tag: Vec::new(),
            looked: 0,
        }
    }

    fn take_bytes(&mut self, side: Side, mut bytes: &[u8]) -> Outcome {
        self.looked = self.looked.saturating_add(bytes.len() as u64);
        while !bytes.is_empty() {
            let unit = &mut self.units[side as usize];
            let (taken, whole) = unit.put(self.upgrade, side, bytes);
            bytes = &bytes[taken..];
            if !whole {
                continue;
            }
            let step = self.step(side);
            let unit = &mut self.units[side as usize];
            unit.head.clear();
            unit.len = 0;
            match step {
                Step::Nothing => {}
                Step::Asks => self.asked = true,
                Step::Refused => self.asked = false,
                Step::Agreed => return Outcome::Switch { to: Next::Tls, rest: bytes.len() },
                Step::Plain => return Outcome::Switch { to: Next::Detect, rest: bytes.len() },
                Step::Lost => return Outcome::Lost,
            }
        }
        if self.looked > LOOK_MAX { Outcome::Lost } else { Outcome::Continue }
    }

    fn step(&mut self, side: Side) -> Step {
        let head = &self.units[side as usize].head[..];
        match (self.upgrade, side) {
            (Upgrade::PostgreSql, Side::Client) => postgresql_asks(head),
            (Upgrade::PostgreSql, Side::Server) => match head {
                b"S" if self.asked => Step::Agreed,
                b"N" if self.asked => Step::Plain,
                // The answer to a GSSENCRequest before it.
                b"N" => Step::Nothing,
                _ => Step::Lost,
            },
            (Upgrade::MySql, Side::Client) => mysql_asks(head),
            (Upgrade::MySql, Side::Server) => Step::Nothing,
            (Upgrade::Ldap, _) if !matches!(ber(head), Ok(Some((SEQUENCE, ..)))) => Step::Lost,
            (Upgrade::Ldap, Side::Client) => ldap_asks(head),
            (Upgrade::Ldap, Side::Server) if self.asked => ldap_answers(head),
            (Upgrade::Imap, Side::Client) => match imap_asks(head) {
                Some(tag) => {
                    self.tag = tag.to_vec();
                    Step::Asks
                }
                None => Step::Nothing,
            },
            (upgrade, Side::Client) => {
                let asks = match upgrade {
                    Upgrade::Smtp => is_command(head, b"STARTTLS"),
                    Upgrade::Pop3 => is_command(head, b"STLS"),
                    Upgrade::Ftp => ftp_asks(head),
                    _ => is_element(head, b"<starttls"),
                };
                if asks { Step::Asks } else { Step::Nothing }
            }
            (upgrade, Side::Server) if self.asked => match upgrade {
                Upgrade::Smtp => reply(head, b"220"),
                Upgrade::Ftp => reply(head, b"234"),
                Upgrade::Pop3 => choose(is_word(head, b"+OK"), is_word(head, b"-ERR")),
                Upgrade::Imap => imap_answers(head, &self.tag),
                _ => choose(
                    is_element(head, b"<proceed") && head.ends_with(b"/>")
                        || is_element(head, b"</proceed"),
                    is_element(head, b"<failure"),
                ),
            },
            (_, Side::Server) => Step::Nothing,
        }
    }
}

impl Parser for StartTls {
    fn take(&mut self, side: Side, piece: Piece<'_>, _: u64, _: &mut Vec<Exchange>) -> Outcome {
        match piece {
            Piece::Bytes(bytes) => self.take_bytes(side, bytes),
            // What is missing may be the upgrade.
            Piece::Missing(0) | Piece::End => Outcome::Continue,
            Piece::Missing(_) => Outcome::Lost,
        }
    }

    fn finish(&mut self, _: u64, _: &mut Vec<Exchange>) {}

    fn memory(&self) -> usize {
        self.tag.capacity() + self.units.iter().map(|unit| unit.head.capacity()).sum::<usize>()
    }
}

/// For the fuzzer: any bytes; the first says of which protocol, and before each piece one byte
/// says whose it is, its length and whether it is missing.
#[doc(hidden)]
pub fn fuzz_starttls(bytes: &[u8]) {
    const ALL: [Upgrade; 8] = [
        Upgrade::Smtp,
        Upgrade::Imap,
        Upgrade::Pop3,
        Upgrade::Ftp,
        Upgrade::Xmpp,
        Upgrade::PostgreSql,
        Upgrade::MySql,
        Upgrade::Ldap,
    ];
    let Some((which, mut bytes)) = bytes.split_first() else { return };
    let mut parser = StartTls::new(ALL[usize::from(*which) % ALL.len()]);
    let mut out = Vec::new();
    while let [how, rest @ ..] = bytes {
        let side = if how & 1 == 0 { Side::Client } else { Side::Server };
        let (part, rest) = rest.split_at(usize::from(how >> 2).min(rest.len()));
        bytes = rest;
        let piece = match how {
            0xfe | 0xff => Piece::Missing(part.len() as u64),
            0x02 | 0x03 => Piece::End,
            _ => Piece::Bytes(part),
        };
        let outcome = parser.take(side, piece, 0, &mut out);
        // A vector may hold twice what was put into it.
        assert!(parser.memory() <= 5 * HEAD_MAX && out.is_empty());
        match outcome {
            Outcome::Continue => {}
            Outcome::Switch { rest, .. } => {
                assert!(rest <= part.len());
                break;
            }
            Outcome::Lost => break,
        }
    }
    parser.finish(0, &mut out);
    assert!(out.is_empty());
}

// === Units ===

/// Length of a PostgreSQL SSLRequest or GSSENCRequest.
const POSTGRESQL_REQUEST: usize = 8;

impl Unit {
    /// Takes in the begin of `bytes`, which is not empty; gives how many, and if it is whole now.
    fn put(&mut self, upgrade: Upgrade, side: Side, bytes: &[u8]) -> (usize, bool) {
        let (taken, whole) = match upgrade {
            Upgrade::PostgreSql | Upgrade::MySql | Upgrade::Ldap => {
                let left = match self.length(upgrade, side) {
                    Length::Whole(length) => length.saturating_sub(self.len).max(1),
                    Length::Unknown | Length::Bad => 1,
                };
                (left.min(bytes.len()), false)
            }
            _ => {
                let end = if upgrade == Upgrade::Xmpp { b'>' } else { b'\n' };
                let at = bytes.iter().position(|byte| *byte == end);
                (at.map_or(bytes.len(), |at| at + 1), at.is_some())
            }
        };
        let room = HEAD_MAX - self.head.len();
        self.head.extend_from_slice(&bytes[..taken.min(room)]);
        self.len = self.len.saturating_add(taken);
        let whole = whole
            || match self.length(upgrade, side) {
                Length::Whole(length) => self.len >= length,
                Length::Unknown => false,
                Length::Bad => true,
            };
        (taken, whole)
    }

    fn length(&self, upgrade: Upgrade, side: Side) -> Length {
        match upgrade {
            Upgrade::PostgreSql if side == Side::Client => Length::Whole(POSTGRESQL_REQUEST),
            Upgrade::PostgreSql => Length::Whole(1),
            // Length of three bytes, then the sequence number.
            Upgrade::MySql => match self.head[..] {
                [a, b, c, _, ..] => Length::Whole(4 + u32::from_le_bytes([a, b, c, 0]) as usize),
                _ => Length::Unknown,
            },
            Upgrade::Ldap => match ber(&self.head) {
                Ok(Some((SEQUENCE, begin, length))) => Length::Whole(begin.saturating_add(length)),
                Ok(None) => Length::Unknown,
                _ => Length::Bad,
            },
            // Those have an end, not a length.
            _ => Length::Unknown,
        }
    }
}

/// Length of a unit that says it itself.
enum Length {
    Unknown,
    Whole(usize),
    Bad,
}

// === Lines and elements ===

fn choose(agreed: bool, refused: bool) -> Step {
    match (agreed, refused) {
        (true, _) => Step::Agreed,
        (_, true) => Step::Refused,
        _ => Step::Nothing,
    }
}

/// Whether the line is this command without argument.
fn is_command(line: &[u8], command: &[u8]) -> bool {
    line.trim_ascii().eq_ignore_ascii_case(command)
}

/// Whether the line's first word is `word`.
fn is_word(line: &[u8], word: &[u8]) -> bool {
    let (first, rest) = line.split_at(word.len().min(line.len()));
    first.eq_ignore_ascii_case(word) && rest.first().is_none_or(u8::is_ascii_whitespace)
}

/// The last line of a reply (RFC 5321 §4.2): `good` agrees, an error refuses; others answer what
/// was asked before.
fn reply(line: &[u8], good: &[u8]) -> Step {
    let code = line.first_chunk::<3>();
    let last = line.get(3).is_none_or(u8::is_ascii_whitespace);
    let refused = code.is_some_and(|code| matches!(code[0], b'4' | b'5'));
    choose(last && code.is_some_and(|code| code == good), last && refused)
}

/// `AUTH TLS`, or one of the names it had before (RFC 4217 §4, appendix A).
fn ftp_asks(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut is = |names: &[&[u8]]| {
        words.next().is_some_and(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
    };
    is(&[b"AUTH"]) && is(&[b"TLS", b"TLS-C", b"SSL"])
}

/// The tag of `tag STARTTLS`.
fn imap_asks(line: &[u8]) -> Option<&[u8]> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    let (tag, command) = line.split_at(at);
    (!tag.is_empty() && is_command(command, b"STARTTLS")).then_some(tag)
}

/// `tag OK`, `tag NO` or `tag BAD`.
fn imap_answers(line: &[u8], tag: &[u8]) -> Step {
    match line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(b" ")) {
        Some(rest) => choose(is_word(rest, b"OK"), true),
        None => Step::Nothing,
    }
}

/// Whether what ends with `>` is an element of this name, in whatever namespace it declares.
fn is_element(text: &[u8], name: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let after = text.strip_prefix(name).and_then(|rest| rest.first());
    after.is_some_and(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))
}

// === PostgreSQL ===

fn postgresql_asks(message: &[u8]) -> Step {
    match message {
        // 80877103
        [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f] => Step::Asks,
        // 80877104, GSSENCRequest
        [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30] => Step::Nothing,
        _ => Step::Lost,
    }
}

// === MySQL ===

/// SSLRequest: length 32, sequence 1, capabilities, largest packet, character set, filler. A client
/// without TLS sends its HandshakeResponse, which goes on with the user's name.
fn mysql_asks(packet: &[u8]) -> Step {
    const CLIENT_SSL: u8 = 0x08;
    const CLIENT_PROTOCOL_41: u8 = 0x02;
    match packet {
        [32, 0, 0, 1, _, flags, ..]
            if flags & CLIENT_SSL != 0 && flags & CLIENT_PROTOCOL_41 != 0 =>
        {
            Step::Agreed
        }
        _ => Step::Lost,
    }
}

// === LDAP ===

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
/// [APPLICATION 23] and [APPLICATION 24], constructed.
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
/// [0]
const REQUEST_NAME: u8 = 0x80;
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// The header of a BER element: tag, where its contents begin, and their length. LDAP has no
/// indefinite lengths (RFC 4511 §5.1).
fn ber(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, ()> {
    let [tag, first, rest @ ..] = bytes else { return Ok(None) };
    match first {
        0..=0x7f => Ok(Some((*tag, 2, usize::from(*first)))),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let Some(digits) = rest.get(..count) else { return Ok(None) };
            let length = digits.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
            Ok(Some((*tag, 2 + count, length as usize)))
        }
        _ => Err(()),
    }
}

/// What an LDAPMessage's operation begins with: its tag and the contents, as far as they are kept.
fn ldap_operation(message: &[u8]) -> Option<(u8, &[u8])> {
    let (_, begin, _) = ber(message).ok()??;
    let (INTEGER, id, length) = ber(message.get(begin..)?).ok()?? else { return None };
    let operation = message.get(begin + id..)?.get(length..)?;
    let (tag, begin, _) = ber(operation).ok()??;
    Some((tag, operation.get(begin..)?))
}

fn ldap_asks(message: &[u8]) -> Step {
    let asks = ldap_operation(message).is_some_and(|(tag, contents)| {
        tag == EXTENDED_REQUEST
            && matches!(ber(contents), Ok(Some((REQUEST_NAME, begin, length)))
                if contents.get(begin..).and_then(|name| name.get(..length)) == Some(START_TLS))
    });
    if asks { Step::Asks } else { Step::Nothing }
}

fn ldap_answers(message: &[u8]) -> Step {
    match ldap_operation(message) {
        Some((EXTENDED_RESPONSE, [ENUMERATED, 1, 0, ..])) => Step::Agreed,
        Some((EXTENDED_RESPONSE, _)) => Step::Refused,
        _ => Step::Nothing,
    }
}

#[cfg(test)]
mod tests;
