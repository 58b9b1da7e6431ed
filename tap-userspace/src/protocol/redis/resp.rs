//! RESP's lines, and the client's direction: commands with their first words. Arguments are passed
//! over.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>
#![forbid(unsafe_code)]

/// Bytes of a line that are kept: any length or count, an error's first word, an inline command's
/// words.
const LINE_KEEP: usize = 128;
/// Redis closes a connection whose inline command is longer (`PROTO_INLINE_MAX_SIZE`); a line of a
/// reply is no longer in practice.
const LINE_MAX: u64 = 64 << 10;
/// Longest word that is kept of a command: no command's name is longer.
pub const WORD_MAX: usize = 32;
/// Most arguments of a command: Redis takes no more (`INT_MAX`).
const ARGUMENTS_MAX: i64 = i32::MAX as i64;

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The piece is used up.
    More,
    /// A command, or a reply's value, is complete.
    Done,
    /// This is no RESP.
    Bad,
}

/// A line cut anywhere.
#[derive(Debug)]
pub struct Line {
    held: [u8; LINE_KEEP],
    len: usize,
    total: u64,
}

impl Line {
    pub const fn new() -> Self {
        Self { held: [0; LINE_KEEP], len: 0, total: 0 }
    }

    /// The begin of the next line that ends within `bytes`, without its end. `Err`: it is too long.
    pub fn take<'f, 'b: 'f>(&'f mut self, bytes: &mut &'b [u8]) -> Result<Option<&'f [u8]>, ()> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        *bytes = rest;
        if end.is_some() && self.total == 0 {
            return if part.len() as u64 > LINE_MAX { Err(()) } else { Ok(Some(trim(part))) };
        }
        let room = (LINE_KEEP - self.len).min(part.len());
        self.held[self.len..self.len + room].copy_from_slice(&part[..room]);
        self.len += room;
        self.total += part.len() as u64;
        if self.total > LINE_MAX {
            return Err(());
        }
        if end.is_none() {
            return Ok(None);
        }
        let len = std::mem::take(&mut self.len);
        self.total = 0;
        Ok(Some(trim(&self.held[..len])))
    }

    pub const fn reset(&mut self) {
        (self.len, self.total) = (0, 0);
    }
}

/// The kept begin of a line, its end taken off where it is in it.
fn trim(line: &[u8]) -> &[u8] {
    let line = line.get(..LINE_KEEP).unwrap_or(line);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A decimal number.
pub fn number(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0i64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    Some(if negative { -number } else { number })
}

/// A few bytes, bounded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Word {
    bytes: [u8; WORD_MAX],
    len: usize,
    /// There was more of it.
    pub cut: bool,
}

impl Word {
    pub fn new(bytes: &[u8]) -> Self {
        let mut word = Self::default();
        word.append(bytes);
        word
    }

    pub fn append(&mut self, bytes: &[u8]) {
        let room = (WORD_MAX - self.len).min(bytes.len());
        self.bytes[self.len..self.len + room].copy_from_slice(&bytes[..room]);
        self.len += room;
        self.cut |= room < bytes.len();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The command under way, or just complete.
#[derive(Debug, Default)]
pub struct Command {
    /// Name, subcommand and its argument. The latter two only of commands for which
    /// [`words`] asks: keys, values and passwords are not kept.
    pub words: [Word; 3],
    /// Arguments, the name included.
    pub arguments: u64,
    /// When its first byte went.
    pub began_ns: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Bytes were missing in one of `words`.
    pub cut: bool,
}

/// How many words of the command with this name are wanted: two of those that have subcommands, and
/// of SELECT its index.
pub fn words(name: &[u8]) -> usize {
    #[rustfmt::skip]
    const TWO: &[&[u8]] = &[
        b"ACL", b"CLUSTER", b"COMMAND", b"CONFIG", b"DEBUG", b"FUNCTION", b"LATENCY", b"MEMORY",
        b"MODULE", b"OBJECT", b"PUBSUB", b"SCRIPT", b"SELECT", b"SENTINEL", b"SLOWLOG", b"XGROUP",
        b"XINFO",
    ];
    if name.eq_ignore_ascii_case(b"CLIENT") {
        3
    } else if TWO.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        2
    } else {
        1
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At a command's first line.
    Start,
    /// At the line of an argument's length.
    Length,
    /// In an argument and its line end: so long, and so much is left.
    Body { len: u64, left: u64 },
}

/// The client's direction.
#[derive(Debug)]
pub struct Commands {
    line: Line,
    at: At,
    index: u64,
    /// So many arguments are kept.
    wanted: u64,
    /// Whether the command under way has a first byte.
    begun: bool,
    pub command: Command,
}

impl Commands {
    pub fn new() -> Self {
        Self {
            line: Line::new(),
            at: At::Start,
            index: 0,
            wanted: 1,
            begun: false,
            command: Command::default(),
        }
    }

    /// Walks to the end of the next command. `inline`: a bare line is one.
    pub fn next(&mut self, bytes: &mut &[u8], at_ns: u64, inline: bool) -> Step {
        loop {
            let before = bytes.len();
            if before == 0 && !matches!(self.at, At::Body { left: 0, .. }) {
                return Step::More;
            }
            if !self.begun {
                self.begun = true;
                self.index = 0;
                self.wanted = 1;
                self.command = Command { began_ns: at_ns, ..Command::default() };
            }
            let step = self.step(bytes, inline);
            self.command.bytes += (before - bytes.len()) as u64;
            match step {
                Some(Step::Done) => {
                    self.begun = false;
                    self.at = At::Start;
                    // An empty command or line has no reply.
                    if self.command.arguments > 0 {
                        return Step::Done;
                    }
                }
                Some(step) => return step,
                None => {}
            }
        }
    }

    fn step(&mut self, bytes: &mut &[u8], inline: bool) -> Option<Step> {
        match self.at {
            At::Start => {
                let line = match self.line.take(bytes) {
                    Ok(Some(line)) => line,
                    Ok(None) => return Some(Step::More),
                    Err(()) => return Some(Step::Bad),
                };
                if let Some(count) = line.strip_prefix(b"*") {
                    match number(count) {
                        Some(count) if count > ARGUMENTS_MAX => Some(Step::Bad),
                        Some(count) if count > 0 => {
                            self.command.arguments = count.unsigned_abs();
                            self.at = At::Length;
                            None
                        }
                        Some(_) => Some(Step::Done),
                        None => Some(Step::Bad),
                    }
                } else if inline || line.is_empty() {
                    Some(self.command.inline(line))
                } else {
                    Some(Step::Bad)
                }
            }
            At::Length => {
                let line = match self.line.take(bytes) {
                    Ok(Some(line)) => line,
                    Ok(None) => return Some(Step::More),
                    Err(()) => return Some(Step::Bad),
                };
                let len = line.strip_prefix(b"$").and_then(number);
                let Some(len) = len.and_then(|len| u64::try_from(len).ok()) else {
                    return Some(Step::Bad);
                };
                self.at = At::Body { len, left: len + 2 };
                None
            }
            At::Body { len, left } => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (part, rest) = bytes.split_at(taken);
                *bytes = rest;
                if self.index < self.wanted {
                    let index = usize::try_from(self.index).unwrap_or(usize::MAX);
                    let text = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX);
                    if let Some(word) = self.command.words.get_mut(index) {
                        word.append(&part[..text.min(part.len())]);
                    }
                }
                let left = left - taken as u64;
                self.at = At::Body { len, left };
                if left > 0 {
                    return Some(Step::More);
                }
                if self.index == 0 {
                    self.wanted = words(self.command.words[0].bytes()) as u64;
                }
                self.index += 1;
                self.at = At::Length;
                (self.index >= self.command.arguments).then_some(Step::Done)
            }
        }
    }

    /// Passes over `missing` bytes inside an argument; says how many lie beyond.
    pub fn miss(&mut self, missing: u64) -> u64 {
        let At::Body { len, left } = self.at else { return missing };
        let taken = missing.min(left);
        self.command.bytes += taken;
        self.command.cut |= taken > 0 && self.index < self.wanted;
        self.at = At::Body { len, left: left - taken };
        missing - taken
    }

    /// Forgets the command under way.
    pub fn reset(&mut self) {
        self.line.reset();
        self.at = At::Start;
        self.begun = false;
    }

    /// Whether a command has begun and not ended.
    pub const fn inside(&self) -> bool {
        self.begun
    }
}

impl Command {
    /// A command as a bare line (`PING\r\n`).
    fn inline(&mut self, line: &[u8]) -> Step {
        let mut rest = line.trim_ascii_start();
        while !rest.is_empty() {
            let end = inline_end(rest);
            let (word, after) = rest.split_at(end);
            match usize::try_from(self.arguments) {
                Ok(0) if !word.iter().all(u8::is_ascii_alphabetic) => return Step::Bad,
                Ok(0) => self.words[0] = Word::new(word),
                Ok(at) if at < words(self.words[0].bytes()) => self.words[at] = Word::new(word),
                _ => {}
            }
            self.arguments += 1;
            rest = after.trim_ascii_start();
        }
        Step::Done
    }
}

/// Where the first argument of a line ends: at white space outside of quotes.
fn inline_end(line: &[u8]) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        match quote {
            _ if escaped => escaped = false,
            Some(_) if *byte == b'\\' => escaped = true,
            Some(open) if *byte == open => quote = None,
            Some(_) => {}
            None if matches!(byte, b'"' | b'\'') => quote = Some(*byte),
            None if byte.is_ascii_whitespace() => return at,
            None => {}
        }
    }
    line.len()
}
