//! Memcached: the text protocol's commands, and the binary protocol's header (memcached's
//! `doc/protocol.txt` and its wiki, "BinaryProtocolRevamped").
//!
//! Storage commands with their numbers and binary requests with a key are nobody else's. The others
//! wait for the answer.
#![forbid(unsafe_code)]

use super::{Certainty, Protocol, Rule, Said, fields::*};

pub(super) const RULE: Rule = Rule { first: &[b'a'..=b'v', REQUEST..=RESPONSE], look, confirm };

const REQUEST: u8 = 0x80;
const RESPONSE: u8 = 0x81;
const KEY_MAX: usize = 250;
const CLIENT: Said = Said::client(Protocol::Memcached, None);

/// What follows a command's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arguments {
    /// Key, flags, time, size and for `cas` one number more.
    Storage,
    /// A key, and whatever.
    Key,
    /// A time and a key, and whatever.
    TimeKey,
    /// Nothing, or whatever.
    Any,
}

/// What a command is called, what follows, and what its answer begins with.
struct Command(&'static str, Arguments, &'static [&'static str]);

const META: &[&str] = &["HD", "EN", "VA", "NF", "NS", "EX", "ME"];

/// Only lower case counts.
const COMMANDS: [Command; 25] = [
    Command("set", Arguments::Storage, &[]),
    Command("add", Arguments::Storage, &[]),
    Command("replace", Arguments::Storage, &[]),
    Command("append", Arguments::Storage, &[]),
    Command("prepend", Arguments::Storage, &[]),
    Command("cas", Arguments::Storage, &[]),
    Command("get", Arguments::Key, &["VALUE", "END"]),
    Command("gets", Arguments::Key, &["VALUE", "END"]),
    Command("gat", Arguments::TimeKey, &["VALUE", "END"]),
    Command("gats", Arguments::TimeKey, &["VALUE", "END"]),
    Command("delete", Arguments::Key, &["DELETED", "NOT_FOUND"]),
    Command("incr", Arguments::Key, &["NOT_FOUND", ""]),
    Command("decr", Arguments::Key, &["NOT_FOUND", ""]),
    Command("touch", Arguments::Key, &["TOUCHED", "NOT_FOUND"]),
    Command("mg", Arguments::Key, META),
    Command("ms", Arguments::Key, META),
    Command("md", Arguments::Key, META),
    Command("ma", Arguments::Key, META),
    Command("me", Arguments::Key, META),
    Command("mn", Arguments::Any, &["MN"]),
    Command("version", Arguments::Any, &["VERSION"]),
    Command("stats", Arguments::Any, &["STAT", "END"]),
    Command("flush_all", Arguments::Any, &["OK"]),
    Command("verbosity", Arguments::Any, &["OK"]),
    Command("cache_memlimit", Arguments::Any, &["OK"]),
];

fn look(head: &[u8]) -> Step<Said> {
    match head.first() {
        Some(&(REQUEST | RESPONSE)) => binary(head),
        _ => text(head).map(|(said, _)| said),
    }
}

// === Text ===

fn text(head: &[u8]) -> Step<(Said, &'static Command)> {
    let mut fields = Fields(head);
    let command = command(&mut fields)?;
    match command.1 {
        Arguments::Storage => {
            storage(&mut fields, command.0 == "cas")?;
            return Ok((CLIENT, command));
        }
        Arguments::Key => key(&mut fields)?,
        Arguments::TimeKey => {
            number(&mut fields)?;
            key(&mut fields)?;
        }
        Arguments::Any => {}
    }
    // The rest may be long: it is for the answer to tell.
    fields.byte(|byte| matches!(byte, b' ' | b'\r' | b'\n'))?;
    Ok((CLIENT.perhaps(), command))
}

fn command(fields: &mut Fields<'_>) -> Step<&'static Command> {
    let (word, whole) = fields.next_word();
    if !whole {
        let begun = COMMANDS.iter().any(|it| it.0.as_bytes().starts_with(word));
        return Err(if begun { Stop::More } else { Stop::No });
    }
    let command = COMMANDS.iter().find(|it| it.0.as_bytes() == word).ok_or(Stop::No)?;
    if command.1 != Arguments::Any && !fields.0.starts_with(b" ") {
        return Err(Stop::No);
    }
    Ok(command)
}

fn key(fields: &mut Fields<'_>) -> Step<()> {
    fields.literal(b" ")?;
    let there = fields.0.iter().take_while(|byte| **byte > b' ' && **byte != 0x7f).count();
    if there > KEY_MAX || (there == 0 && !fields.0.is_empty()) {
        return Err(Stop::No);
    }
    let more = there == fields.0.len();
    fields.take(there)?;
    if more { Err(Stop::More) } else { Ok(()) }
}

fn number(fields: &mut Fields<'_>) -> Step<()> {
    fields.literal(b" ")?;
    if fields.0.starts_with(b"-") {
        fields.take(1)?;
    }
    fields.decimal(0..=u64::MAX).map(|_| ())
}

/// ` key flags time size [unique] [noreply]` and the line's end.
fn storage(fields: &mut Fields<'_>, unique: bool) -> Step<()> {
    key(fields)?;
    for _ in 0..if unique { 4 } else { 3 } {
        number(fields)?;
    }
    fields.one_of(&[b"\r\n", b"\n", b" noreply\r\n", b" noreply\n"]).map(|_| ())
}

fn confirm(head: &[u8], other: &[u8]) -> Step<Certainty> {
    if head.first() == Some(&REQUEST) {
        return confirm_binary(head, other);
    }
    let (_, command) = text(head)?;
    let mut answer = Fields(other);
    if answer.byte(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())?.is_ascii_digit() {
        // The new value, if the command gives one.
        let counts = command.2.contains(&"");
        Fields(other).all(1, |_| counts)?;
        let mut answer = Fields(other);
        answer.decimal(0..=u64::MAX)?;
        answer.line_end()?;
        return Ok(Certainty::Sure);
    }
    let mut answer = Fields(other);
    let mut words = [""; 9];
    let known = command.2.iter().chain(&["SERVER_ERROR", "CLIENT_ERROR"]);
    for (place, word) in words.iter_mut().zip(known) {
        *place = word;
    }
    answer.word(&words)?;
    answer.line()?;
    // Beanstalkd's jobs have numbers, and the same answers.
    let number = head.strip_prefix(b"delete ").and_then(|key| key.first());
    Ok(if number.is_some_and(u8::is_ascii_digit) { Certainty::Perhaps } else { Certainty::Sure })
}

// === Binary ===

/// `item_size_max` can be raised to this.
const BODY_MAX: u32 = 1 << 30;

/// What a request has in it, by opcode: bytes of extras, whether a key, whether a value.
const fn shape(operation: u8) -> Option<(u8, bool, bool)> {
    Some(match operation {
        // Get; touch, and get and touch.
        0x00 | 0x09 | 0x0c | 0x0d => (0, true, false),
        0x1c..=0x1e | 0x23 | 0x24 => (4, true, false),
        // Set, add, replace; append, prepend.
        0x01..=0x03 | 0x11..=0x13 => (8, true, true),
        0x0e | 0x0f | 0x19 | 0x1a => (0, true, true),
        // Delete; increment and decrement.
        0x04 | 0x14 => (0, true, false),
        0x05 | 0x06 | 0x15 | 0x16 => (20, true, false),
        // Stat of a group; Couchbase's hello; SASL.
        0x10 => (0, true, false),
        0x1f | 0x21 | 0x22 => (0, true, true),
        _ => return None,
    })
}

/// Those that are a magic byte, a number and zeros: stat, version, noop, SASL's list.
const BARE: [u8; 4] = [0x10, 0x0b, 0x0a, 0x20];

fn binary(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    if fields.byte(|_| true)? == RESPONSE {
        return response(&mut fields);
    }
    let operation = fields.byte(|it| shape(it).is_some() || BARE.contains(&it))?;
    let bare = BARE.contains(&operation);
    let (extras, _, value) = shape(operation).unwrap_or_default();
    let key_max = if shape(operation).is_some() { KEY_MAX as u32 } else { 0 };
    let key = fields.be(2, u32::from(!bare)..=key_max)?;
    fields.literal(&[extras, 0])?;
    // The virtual bucket; Couchbase has 1024.
    fields.be(2, 0..=1023)?;
    let least = key + u32::from(extras);
    fields.be(4, least..=if value { BODY_MAX } else { least })?;
    Ok(if key == 0 { CLIENT.perhaps() } else { CLIENT })
}

/// A value that was found, or an error with its text.
fn response(fields: &mut Fields<'_>) -> Step<Said> {
    let operation = fields.byte(|it| shape(it).is_some())?;
    let found = matches!(operation, 0x00 | 0x09 | 0x0c | 0x0d | 0x1d | 0x1e | 0x23 | 0x24);
    let key = fields.be(2, 0..=if found { KEY_MAX as u32 } else { 0 })?;
    if fields.byte(|extras| extras == 4 && found || extras == 0 && key == 0)? == 4 {
        fields.literal(&[0, 0, 0])?;
        fields.be(4, 4 + key..=BODY_MAX)?;
        // The client's number, the item's version and its flags.
        fields.take(16)?;
    } else {
        fields.literal(&[0, 0])?;
        fields.byte(|status| matches!(status, 1..=8 | 0x20 | 0x21 | 0x81..=0x86))?;
        let text = fields.be(4, 4..=64)?;
        fields.take(12)?;
        fields.all(text as usize, |byte| matches!(byte, b' '..=b'~'))?;
    }
    Ok(Said::server(Protocol::Memcached, None))
}

/// The answer to one of [`BARE`].
fn confirm_binary(head: &[u8], other: &[u8]) -> Step<Certainty> {
    let mut fields = Fields(other);
    fields.literal(&[RESPONSE])?;
    fields.byte(|operation| head.get(1) == Some(&operation))?;
    fields.be(2, 0..=KEY_MAX as u32)?;
    fields.literal(&[0, 0])?;
    Ok(Certainty::Sure)
}
