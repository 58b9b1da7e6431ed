//! A statement of SQL → its operation, the first table it names, and its text without values. One
//! pass over at most [`READ_MAX`] bytes by a lexer; the grammar is only guessed at by keywords.
#![forbid(unsafe_code)]

mod lexer;
#[cfg(test)]
mod tests;

use lexer::{Lexer, Token};

/// Bytes of a statement that are looked at: enough to find the table behind a long list of columns
/// and a leading comment, little enough to hold for each statement under way.
pub const READ_MAX: usize = 4096;
/// Most bytes of a sanitised text.
pub const TEXT_MAX: usize = 2048;
/// Most bytes of a table's name: four quoted names of 63 bytes (PostgreSQL's NAMEDATALEN).
pub const NAME_MAX: usize = 256;

/// What differs between the systems' lexical rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `"name"`, `$1`, `$tag$…$tag$`, nested comments, `E'…'`.
    Postgres,
    /// `` `name` ``, `"string"`, `# comment`, `/*! code */`, `?`.
    Mysql,
}

/// How a text is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Whose rules.
    pub dialect: Dialect,
    /// Whether `\` escapes in a plain `'…'`: by default in MySQL, not in PostgreSQL.
    pub backslash: bool,
    /// Whether the text is wanted.
    pub text: bool,
}

/// What a text of one or more statements says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// `db.operation.name`: the first keyword in upper case (the verb behind a `WITH`); of several
    /// statements `BATCH SELECT`, or `BATCH` where they differ. Empty where there is no keyword.
    pub operation: String,
    /// `db.collection.name`: the first table that is named; of `USE` the database.
    pub target: Option<String>,
    /// `db.query.text`, if wanted.
    pub text: Option<String>,
    /// Statements in the text.
    pub count: u32,
}

impl Statement {
    /// Most of [`Statement::memory`].
    pub const MEMORY_MAX: usize = 2 * (VERB_MAX + "BATCH ".len()) + NAME_MAX + TEXT_MAX;

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        let heap = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        self.operation.capacity() + heap(&self.target) + heap(&self.text)
    }
}

/// Reads the first [`READ_MAX`] bytes of `sql`; `cut` says that there were more before it came here.
pub fn read(sql: &[u8], cut: bool, how: Reading) -> Statement {
    let (sql, cut) = match sql.get(..READ_MAX) {
        Some(begin) => (begin, cut || sql.len() > READ_MAX),
        None => (sql, cut),
    };
    let mut lexer = Lexer::new(sql, how.dialect, how.backslash);
    let mut finder = Finder::default();
    let mut text = how.text.then(|| Text::new(sql.len()));
    while let Some((token, spaced)) = lexer.next() {
        finder.see(token);
        if let Some(text) = &mut text {
            text.add(token, spaced);
        }
    }
    // A name at the end of what is there may go on behind the cut.
    let open = cut && sql.last().is_some_and(|last| !last.is_ascii_whitespace());
    finder.statement(open, text.map(Text::finish))
}

/// For the fuzzer: any text in either dialect.
#[doc(hidden)]
pub fn fuzz_sql(bytes: &[u8]) {
    for (dialect, backslash) in [(Dialect::Postgres, false), (Dialect::Mysql, true)] {
        let statement = read(bytes, false, Reading { dialect, backslash, text: true });
        assert!(statement.text.as_ref().is_some_and(|text| text.len() <= TEXT_MAX));
        assert!(statement.target.as_ref().is_none_or(|target| target.len() <= NAME_MAX));
        assert!(statement.operation.len() <= VERB_MAX + "BATCH ".len());
        assert!(statement.memory() <= Statement::MEMORY_MAX);
    }
}

// === The operation and its table ===

/// The longest keyword that begins a statement is far shorter.
const VERB_MAX: usize = 24;

#[derive(Debug, Default)]
struct Finder {
    /// The first statement's verb.
    verb: String,
    count: u32,
    /// A later statement has another verb.
    mixed: bool,
    /// The verb of the statement under way is known.
    begun: bool,
    /// The statement under way began with `WITH`: its verb is yet to come.
    common: bool,
    current: Verb,
    depth: u32,
    /// At which depths a SELECT or DELETE waits for its FROM.
    selects: u64,
    /// The last word was `DISTINCT`: `IS DISTINCT FROM` names no table.
    distinct: bool,
    /// The rest is the body of a routine, whose semicolons end no statement of ours.
    body: bool,
    name: Name,
    target: Option<String>,
}

/// Verbs that say where the table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verb {
    #[default]
    Other,
    /// CREATE, ALTER, DROP, LOAD, REFRESH: behind TABLE, VIEW, or an index's ON.
    Define,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Name {
    #[default]
    Off,
    /// The next word that is no noise is the name. `from`: a call may stand there instead.
    Wanted { from: bool },
    /// A part of it has been read.
    Part { from: bool },
    /// A dot has been read.
    Dot { from: bool },
}

impl Finder {
    fn see(&mut self, token: Token<'_>) {
        if token == Token::Mark(b';') {
            if !self.body {
                self.name = self.ended_name();
                (self.begun, self.common, self.depth, self.selects) = (false, false, 0, 0);
                self.current = Verb::Other;
            }
            return;
        }
        if !self.begun && !self.common && token != Token::Mark(b'(') {
            self.count = self.count.saturating_add(1);
        }
        if self.name != Name::Off && self.name(token) {
            return;
        }
        match token {
            Token::Mark(b'(') => {
                self.depth = self.depth.saturating_add(1);
                self.selects &= !self.bit();
            }
            Token::Mark(b')') => self.depth = self.depth.saturating_sub(1),
            Token::Word(word) => return self.word(word),
            _ if !self.begun && !self.common => self.verb(b""),
            _ => {}
        }
        self.distinct = false;
    }

    const fn bit(&self) -> u64 {
        if self.depth < 64 { 1 << self.depth } else { 0 }
    }

    fn word(&mut self, word: &[u8]) {
        let mut upper = [0; 16];
        let upper = match upper.get_mut(..word.len()) {
            Some(upper) => {
                upper.copy_from_slice(word);
                upper.make_ascii_uppercase();
                &*upper
            }
            None => &[],
        };
        let distinct = std::mem::replace(&mut self.distinct, upper == b"DISTINCT");
        if !self.begun {
            match upper {
                b"WITH" if !self.common => self.common = true,
                b"SELECT" | b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE" | b"REPLACE"
                | b"VALUES" | b"TABLE"
                    if self.common && self.depth == 0 =>
                {
                    self.verb(word);
                }
                _ if self.common => {}
                _ => self.verb(word),
            }
            if self.begun {
                self.name = match upper {
                    b"INSERT" | b"REPLACE" | b"UPDATE" | b"MERGE" | b"TRUNCATE" | b"COPY"
                    | b"LOCK" | b"DESCRIBE" | b"DESC" | b"TABLE" | b"USE"
                        if self.target.is_none() =>
                    {
                        Name::Wanted { from: false }
                    }
                    _ => Name::Off,
                };
                self.current = match upper {
                    b"CREATE" | b"ALTER" | b"DROP" | b"LOAD" | b"REFRESH" => Verb::Define,
                    _ => Verb::Other,
                };
            }
        }
        match upper {
            b"SELECT" | b"DELETE" => self.selects |= self.bit(),
            b"FROM" if self.selects & self.bit() != 0 && !distinct => {
                self.selects &= !self.bit();
                self.want(true);
            }
            b"TABLE" | b"VIEW" | b"ON" if self.current == Verb::Define => {
                self.current = Verb::Other;
                self.want(false);
            }
            b"PROCEDURE" | b"FUNCTION" | b"TRIGGER" | b"EVENT" if self.current == Verb::Define => {
                self.body = true;
                self.current = Verb::Other;
            }
            b"ATOMIC" => self.body = true,
            _ => {}
        }
    }

    fn want(&mut self, from: bool) {
        if self.target.is_none() && !self.body {
            self.name = Name::Wanted { from };
        }
    }

    /// The verb of the statement under way is `word`.
    fn verb(&mut self, word: &[u8]) {
        self.begun = true;
        let plain = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        let word = if word.len() <= VERB_MAX && word.iter().all(plain) { word } else { b"" };
        if self.count <= 1 {
            self.verb = String::from_utf8_lossy(word).to_ascii_uppercase();
        } else {
            self.mixed |= !self.verb.as_bytes().eq_ignore_ascii_case(word);
        }
    }

    /// Takes a token as part of the name that is under way, if it is.
    fn name(&mut self, token: Token<'_>) -> bool {
        match (self.name, token) {
            (Name::Wanted { .. }, Token::Word(word)) if is_noise(word) => true,
            (Name::Wanted { from } | Name::Dot { from }, Token::Word(name)) => {
                self.append(name, 0);
                self.name = Name::Part { from };
                true
            }
            (Name::Wanted { from } | Name::Dot { from }, Token::Quoted(name)) => {
                let quote = name.first().copied().unwrap_or(0);
                let name = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
                self.append(name, quote);
                self.name = Name::Part { from };
                true
            }
            (Name::Part { from }, Token::Mark(b'.')) => {
                self.append(b".", 0);
                self.name = Name::Dot { from };
                true
            }
            (Name::Part { from: true }, Token::Mark(b'(')) => {
                self.target = None;
                self.name = Name::Off;
                false
            }
            _ => {
                self.name = self.ended_name();
                false
            }
        }
    }

    /// Half a name is none.
    fn ended_name(&mut self) -> Name {
        if matches!(self.name, Name::Dot { .. }) {
            self.target = None;
        }
        Name::Off
    }

    fn append(&mut self, name: &[u8], quote: u8) {
        let target = self.target.get_or_insert_default();
        let mut rest = name.get(..NAME_MAX).unwrap_or(name);
        // A doubled quote stands for one.
        while let Some(at) = rest.iter().position(|byte| *byte == quote && quote != 0) {
            target.push_str(&String::from_utf8_lossy(&rest[..=at]));
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        target.push_str(&String::from_utf8_lossy(rest));
        truncate(target, NAME_MAX);
    }

    fn statement(mut self, open: bool, text: Option<String>) -> Statement {
        let half = matches!(self.name, Name::Dot { .. });
        if half || (open && matches!(self.name, Name::Part { .. })) {
            self.target = None;
        }
        if let Some(target) = &mut self.target {
            target.shrink_to_fit();
        }
        let operation = match (self.count, self.mixed) {
            (0 | 1, _) => self.verb,
            (_, false) if !self.verb.is_empty() => format!("BATCH {}", self.verb),
            _ => "BATCH".to_owned(),
        };
        Statement { operation, target: self.target, text, count: self.count }
    }
}

/// Words between a verb and its table.
fn is_noise(word: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[
        b"INTO",
        b"TABLE",
        b"TABLES",
        b"ONLY",
        b"IF",
        b"NOT",
        b"EXISTS",
        b"IGNORE",
        b"LOW_PRIORITY",
        b"HIGH_PRIORITY",
        b"DELAYED",
        b"CONCURRENTLY",
        b"LATERAL",
    ];
    WORDS.iter().any(|noise| noise.eq_ignore_ascii_case(word))
}

/// Cuts `text` to at most `max` bytes at a character's border.
pub fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

// === The text ===

/// The text without values, as it grows.
#[derive(Debug)]
struct Text {
    out: Vec<u8>,
    list: List,
}

/// Where in `IN (?, ?, …)` the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    No,
    /// Behind `IN`.
    In,
    /// Behind `IN (`.
    Open,
    /// Behind its first value.
    Value,
    /// Behind a comma that follows a value; the comma is not written yet.
    Comma,
}

impl Text {
    fn new(len: usize) -> Self {
        Self { out: Vec::with_capacity(len.min(TEXT_MAX)), list: List::No }
    }

    fn add(&mut self, token: Token<'_>, spaced: bool) {
        let value = matches!(token, Token::Value | Token::Parameter(_));
        self.list = match (self.list, token) {
            (_, Token::Word(word)) if word.eq_ignore_ascii_case(b"IN") => {
                self.comma();
                List::In
            }
            (List::In, Token::Mark(b'(')) => List::Open,
            (List::Open, _) if value => List::Value,
            (List::Value, Token::Mark(b',')) => {
                self.list = List::Comma;
                return;
            }
            (List::Comma, _) if value => {
                self.list = List::Value;
                return;
            }
            // A sign before a value belongs to it.
            (List::Open, Token::Mark(b'-' | b'+')) => List::Open,
            (List::Comma, Token::Mark(b'-' | b'+')) => return,
            (List::Comma, _) => {
                self.comma();
                List::No
            }
            _ => List::No,
        };
        if spaced && !self.out.is_empty() {
            self.push(b" ");
        }
        match token {
            Token::Word(bytes) | Token::Quoted(bytes) | Token::Parameter(bytes) => self.push(bytes),
            Token::Value => self.push(b"?"),
            Token::Mark(byte) => self.push(&[byte]),
        }
    }

    /// Writes the comma that was held back.
    fn comma(&mut self) {
        if self.list == List::Comma {
            self.push(b",");
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = TEXT_MAX.saturating_sub(self.out.len()).min(bytes.len());
        self.out.extend_from_slice(&bytes[..room]);
    }

    fn finish(self) -> String {
        let mut text = match String::from_utf8(self.out) {
            Ok(text) => text,
            // Invalid, or cut inside a character.
            Err(bytes) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
        };
        truncate(&mut text, TEXT_MAX);
        // Replacements are longer than what they replace.
        text.shrink_to(TEXT_MAX);
        text
    }
}
