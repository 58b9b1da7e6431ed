//! Framing and fields of MySQL's packets.
#![forbid(unsafe_code)]

use super::Phase;
use crate::protocol::frames::Size;
use crate::protocol::sql::{NAME_MAX, READ_MAX, truncate};

/// A packet of this length goes on in the next one.
pub const LONGEST: u32 = 0xff_ffff;
/// Bytes of a packet that are kept: a statement behind its command.
pub const KEEP_MAX: usize = HEADER + 8 + READ_MAX;
const HEADER: usize = 4;
/// The handshake's answer as far as the database's name, behind user (at most 128 bytes) and
/// authentication data (at most 255).
const LOGIN_KEEP: usize = HEADER + 32 + 512 + NAME_MAX;
/// OK with two long counts and the status; ERR's code; the counts of a prepared statement.
const ANSWER_KEEP: usize = HEADER + 32;
/// The greeting's fixed fields, behind the server's version of at most 60 bytes.
const GREETING_KEEP: usize = HEADER + 128;

pub const OK: u8 = 0;
pub const FILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
pub const ERR: u8 = 0xff;
/// Length of an EOF packet.
pub const EOF_LEN: u32 = 5;

pub const COM_QUIT: u8 = 1;
pub const COM_INIT_DB: u8 = 2;
pub const COM_QUERY: u8 = 3;
pub const COM_FIELD_LIST: u8 = 4;
pub const COM_STATISTICS: u8 = 9;
pub const COM_CHANGE_USER: u8 = 17;
pub const COM_BINLOG_DUMP: u8 = 18;
pub const COM_TABLE_DUMP: u8 = 19;
pub const COM_STMT_PREPARE: u8 = 22;
pub const COM_STMT_EXECUTE: u8 = 23;
pub const COM_STMT_SEND_LONG_DATA: u8 = 24;
pub const COM_STMT_CLOSE: u8 = 25;
pub const COM_STMT_FETCH: u8 = 28;
pub const COM_BINLOG_DUMP_GTID: u8 = 30;
/// MariaDB's.
pub const COM_STMT_BULK_EXECUTE: u8 = 0xfa;

/// The operation of a command that has no statement.
pub const fn command_name(command: u8) -> &'static str {
    match command {
        5 => "CREATE_DB",
        6 => "DROP_DB",
        7 => "REFRESH",
        8 => "SHUTDOWN",
        10 => "PROCESS_INFO",
        12 => "PROCESS_KILL",
        13 => "DEBUG",
        14 => "PING",
        21 => "REGISTER_REPLICA",
        26 => "STMT_RESET",
        27 => "SET_OPTION",
        31 => "RESET_CONNECTION",
        _ => "_OTHER",
    }
}

const fn is_command(command: u8) -> bool {
    matches!(command, 1..=10 | 12..=14 | 17..=28 | 30..=32 | COM_STMT_BULK_EXECUTE)
}

/// Capabilities (`CLIENT_…`).
const CONNECT_WITH_DB: u32 = 1 << 3;
pub const COMPRESS: u32 = 1 << 5;
const PROTOCOL_41: u32 = 1 << 9;
pub const SSL: u32 = 1 << 11;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
pub const DEPRECATE_EOF: u32 = 1 << 24;
pub const OPTIONAL_METADATA: u32 = 1 << 25;
pub const ZSTD: u32 = 1 << 26;
pub const QUERY_ATTRIBUTES: u32 = 1 << 27;
/// Status flags (`SERVER_…`).
pub const MORE_RESULTS: u16 = 1 << 3;
pub const CURSOR_EXISTS: u16 = 1 << 6;
pub const NO_BACKSLASH_ESCAPES: u16 = 1 << 9;

/// Size of the client's packet. `tried`: only what surely begins a command is one.
pub fn client_size(phase: Phase, tried: bool, head: &[u8]) -> Size {
    let Some(([a, b, c, number], rest)) = head.split_first_chunk() else { return Size::More };
    let len = u32::from_le_bytes([*a, *b, *c, 0]);
    let whole = u64::from(len) + HEADER as u64;
    if len == 0 {
        let fine = *number > 0 && !tried && phase != Phase::Greeting;
        return if fine { Size::Of { len: whole, keep: HEADER } } else { Size::Bad };
    }
    let Some(command) = rest.first() else { return Size::More };
    let keep = match (phase, number) {
        (Phase::Greeting, 1..=2) => LOGIN_KEEP,
        (Phase::Login, 1..) => HEADER,
        (_, 1..) if tried || phase == Phase::Greeting => return Size::Bad,
        // A file's rows, or the rest of a long command.
        (_, 1..) => HEADER,
        _ if !is_command(*command) => return Size::Bad,
        _ => match *command {
            COM_QUERY | COM_STMT_PREPARE => KEEP_MAX,
            COM_INIT_DB => HEADER + 1 + NAME_MAX,
            COM_CHANGE_USER => LOGIN_KEEP,
            _ => HEADER + 9,
        },
    };
    Size::Of { len: whole, keep }
}

/// Size of the server's packet.
pub fn server_size(head: &[u8]) -> Size {
    let Some(([a, b, c, number], rest)) = head.split_first_chunk() else { return Size::More };
    let len = u32::from_le_bytes([*a, *b, *c, 0]);
    let whole = u64::from(len) + HEADER as u64;
    let keep = match rest.first() {
        None if len > 0 => return Size::More,
        Some(10) if *number == 0 => GREETING_KEEP,
        _ => ANSWER_KEEP,
    };
    Size::Of { len: whole, keep }
}

/// Length, number and the begin of the payload.
pub fn packet(head: &[u8]) -> Option<(u32, u8, &[u8])> {
    let ([a, b, c, number], body) = head.split_first_chunk()?;
    Some((u32::from_le_bytes([*a, *b, *c, 0]), *number, body))
}

/// Takes `count` bytes off the front.
fn skip<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(front)
}

fn u16_of(bytes: &mut &[u8]) -> Option<u16> {
    skip(bytes, 2)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_of(bytes: &mut &[u8]) -> Option<u32> {
    skip(bytes, 4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// A length-encoded integer.
fn lenenc(bytes: &mut &[u8]) -> Option<u64> {
    let width = match skip(bytes, 1)?.first()? {
        small @ ..=0xfa => return Some(u64::from(*small)),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let mut value = [0; 8];
    value.get_mut(..width)?.copy_from_slice(skip(bytes, width)?);
    Some(u64::from_le_bytes(value))
}

fn until_zero<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = skip(bytes, end)?;
    skip(bytes, 1)?;
    Some(text)
}

/// The capabilities that the server offers (protocol 10).
pub fn greeting(body: &[u8]) -> Option<u32> {
    let mut rest = body.strip_prefix(&[10])?;
    until_zero(&mut rest)?;
    // Thread, the first part of the challenge, and a zero.
    skip(&mut rest, 13)?;
    let low = u16_of(&mut rest)?;
    // Character set and status.
    let high = skip(&mut rest, 3).and_then(|_| u16_of(&mut rest)).unwrap_or(0);
    Some(u32::from(low) | u32::from(high) << 16)
}

/// What follows from the client's answer to the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Plain,
    Tls,
    /// Or no handshake at all.
    Compressed,
}

#[derive(Debug)]
pub struct HandshakeAnswer {
    pub capabilities: u32,
    /// It ends before the user's name: TLS comes first.
    pub short: bool,
    pub database: Option<String>,
}

pub fn handshake(body: &[u8]) -> Option<HandshakeAnswer> {
    let mut rest = body;
    let capabilities = u32_of(&mut rest)?;
    if capabilities & PROTOCOL_41 == 0 {
        return None;
    }
    // Longest packet, character set, filler.
    skip(&mut rest, 28)?;
    let short = rest.is_empty();
    let database = (|| {
        until_zero(&mut rest)?;
        if capabilities & PLUGIN_AUTH_LENENC != 0 {
            let len = lenenc(&mut rest)?;
            skip(&mut rest, usize::try_from(len).ok()?)?;
        } else if capabilities & SECURE_CONNECTION != 0 {
            let len = skip(&mut rest, 1)?.first()?;
            skip(&mut rest, usize::from(*len))?;
        } else {
            until_zero(&mut rest)?;
        }
        let wanted = capabilities & CONNECT_WITH_DB != 0;
        let name = wanted.then(|| until_zero(&mut rest).map(name))??;
        (!name.is_empty()).then_some(name)
    })();
    Some(HandshakeAnswer { capabilities, short, database })
}

/// The database in COM_CHANGE_USER.
pub fn changed_database(body: &[u8]) -> Option<String> {
    let mut rest = body;
    until_zero(&mut rest)?;
    let len = skip(&mut rest, 1)?.first()?;
    skip(&mut rest, usize::from(*len))?;
    let name = name(until_zero(&mut rest)?);
    (!name.is_empty()).then_some(name)
}

/// A database's name.
pub fn name(bytes: &[u8]) -> String {
    let mut name = String::from_utf8_lossy(bytes).into_owned();
    truncate(&mut name, NAME_MAX);
    name.shrink_to_fit();
    name
}

/// The statement of a COM_QUERY; none where query attributes with values stand before it.
pub fn query_text(body: &[u8], attributes: bool) -> Option<&[u8]> {
    let mut rest = body;
    if attributes {
        let count = lenenc(&mut rest)?;
        lenenc(&mut rest)?;
        if count > 0 {
            return None;
        }
    }
    Some(rest)
}

/// The status of an OK packet.
pub fn ok_status(body: &[u8]) -> Option<u16> {
    let mut rest = body.get(1..)?;
    lenenc(&mut rest)?;
    lenenc(&mut rest)?;
    u16_of(&mut rest)
}

/// The status, if the packet ends a result set: EOF, or in the newer form an OK that begins like
/// one. A row that begins so is longer than a packet can be.
pub fn result_end(body: &[u8], len: u32) -> Option<u16> {
    if body.first() != Some(&EOF) || len == LONGEST {
        return None;
    }
    if len == EOF_LEN {
        let mut rest = body.get(3..)?;
        return u16_of(&mut rest);
    }
    ok_status(body).or(Some(0))
}

/// A result set's columns, and whether their definitions follow.
pub fn columns(body: &[u8], len: u32, optional: bool) -> Option<(u64, bool)> {
    let mut rest = body;
    let mut follow = true;
    if optional {
        follow = skip(&mut rest, 1)?.first() != Some(&0);
    }
    let columns = lenenc(&mut rest)?;
    // MariaDB says behind the count whether they follow, if it may leave them out.
    let whole = usize::try_from(len).ok()? <= body.len();
    if whole && rest.first() == Some(&0) {
        follow = false;
    }
    Some((columns, follow && columns > 0))
}

#[derive(Debug)]
pub struct Prepared {
    pub id: u32,
    pub columns: u16,
    pub parameters: u16,
}

/// The OK packet of COM_STMT_PREPARE.
pub fn prepared(body: &[u8]) -> Option<Prepared> {
    let mut rest = body.get(1..)?;
    let id = u32_of(&mut rest)?;
    Some(Prepared { id, columns: u16_of(&mut rest)?, parameters: u16_of(&mut rest)? })
}
