//! Text → words, quoted names, values, parameters and single marks. Comments and white space are
//! passed over.
#![forbid(unsafe_code)]

use super::Dialect;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword or a plain name.
    Word(&'a [u8]),
    /// A quoted name with its quotes.
    Quoted(&'a [u8]),
    /// A literal.
    Value,
    /// `$1`, `?`: not a value.
    Parameter(&'a [u8]),
    /// Any other byte.
    Mark(u8),
}

#[derive(Debug)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    dialect: Dialect,
    backslash: bool,
    /// Inside `/*! … */`, whose content is code.
    code: bool,
}

impl<'a> Lexer<'a> {
    pub const fn new(sql: &'a [u8], dialect: Dialect, backslash: bool) -> Self {
        Self { sql, at: 0, dialect, backslash, code: false }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.at + ahead).copied()
    }

    /// The next token, and whether space or a comment stood before it.
    pub fn next(&mut self) -> Option<(Token<'a>, bool)> {
        let before = self.at;
        self.space();
        let spaced = self.at > before;
        let first = self.peek(0)?;
        let begin = self.at;
        let mysql = self.dialect == Dialect::Mysql;
        let token = match first {
            b'\'' => self.string(first, self.backslash),
            b'"' if mysql => self.string(first, self.backslash),
            b'"' => self.quoted(first),
            b'`' if mysql => self.quoted(first),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) && !self.dotted() => {
                self.number()
            }
            b'$' if !mysql => self.dollar(),
            b'?' => {
                self.at += 1;
                Token::Parameter(&self.sql[begin..self.at])
            }
            _ if is_word(first) || (mysql && matches!(first, b'@' | b'$')) => {
                self.at += self.sql[begin..]
                    .iter()
                    .take_while(|byte| {
                        is_word(**byte)
                            || byte.is_ascii_digit()
                            || **byte == b'$'
                            || (mysql && **byte == b'@')
                    })
                    .count();
                let word = &self.sql[begin..self.at];
                match (word, self.peek(0)) {
                    // E'…' has escapes; B'…', X'…' and N'…' are values as a whole.
                    ([b'e' | b'E'], Some(b'\'')) if !mysql => self.string(b'\'', true),
                    ([b'b' | b'B' | b'x' | b'X' | b'n' | b'N'], Some(b'\'')) => {
                        self.string(b'\'', self.backslash)
                    }
                    _ => Token::Word(word),
                }
            }
            _ => {
                self.at += 1;
                Token::Mark(first)
            }
        };
        Some((token, spaced))
    }

    /// A name stands right before: `t.1` is no number in MySQL.
    fn dotted(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.sql.get(at));
        before.is_some_and(|byte| is_word(*byte) || matches!(byte, b'`' | b'"'))
    }

    /// White space and comments.
    fn space(&mut self) {
        let mysql = self.dialect == Dialect::Mysql;
        while let Some(first) = self.peek(0) {
            match (first, self.peek(1)) {
                // A string from a C program may bring its zero along.
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0, _) => self.at += 1,
                (b'-', Some(b'-')) if !mysql || self.peek(2).is_none_or(|next| next <= b' ') => {
                    self.line();
                }
                (b'#', _) if mysql => self.line(),
                (b'/', Some(b'*')) => {
                    if mysql
                        && (self.peek(2) == Some(b'!') || self.sql[self.at..].starts_with(b"/*M!"))
                    {
                        self.code = true;
                        self.at += 3;
                        self.at += self.sql[self.at..]
                            .iter()
                            .take_while(|byte| byte.is_ascii_digit() || **byte == b'!')
                            .count();
                    } else {
                        self.comment(!mysql);
                    }
                }
                (b'*', Some(b'/')) if self.code => {
                    self.code = false;
                    self.at += 2;
                }
                _ => return,
            }
        }
    }

    fn line(&mut self) {
        let rest = &self.sql[self.at..];
        self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }

    fn comment(&mut self, nested: bool) {
        let mut depth = 0u32;
        while let Some(first) = self.peek(0) {
            match (first, self.peek(1)) {
                (b'/', Some(b'*')) if nested || depth == 0 => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth = depth.saturating_sub(1);
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// `'…'`; a doubled quote is part of it. One that does not end goes to the end.
    fn string(&mut self, quote: u8, backslash: bool) -> Token<'a> {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' && backslash {
                self.at += 1;
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    return Token::Value;
                }
                self.at += 1;
            }
        }
        self.at = self.sql.len();
        Token::Value
    }

    fn quoted(&mut self, quote: u8) -> Token<'a> {
        let begin = self.at;
        self.string(quote, false);
        Token::Quoted(&self.sql[begin..self.at])
    }

    /// `1`, `1.5e-3`, `0xff`.
    fn number(&mut self) -> Token<'a> {
        let hex = self.peek(0) == Some(b'0') && matches!(self.peek(1), Some(b'x' | b'X'));
        while let Some(byte) = self.peek(0) {
            let exponent = matches!(byte, b'e' | b'E')
                && !hex
                && matches!(self.peek(1), Some(b'+' | b'-'))
                && self.peek(2).is_some_and(|next| next.is_ascii_digit());
            if exponent {
                self.at += 2;
            } else if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') {
                self.at += 1;
            } else {
                break;
            }
        }
        Token::Value
    }

    /// `$1`, or a string in `$tag$`.
    fn dollar(&mut self) -> Token<'a> {
        let begin = self.at;
        let rest = &self.sql[begin..];
        let tag = 1 + rest[1..]
            .iter()
            .take_while(|byte| is_word(**byte) || byte.is_ascii_digit())
            .count();
        let named = rest.get(1).is_some_and(u8::is_ascii_digit);
        if named {
            self.at += tag;
            return Token::Parameter(&self.sql[begin..self.at]);
        }
        if rest.get(tag) != Some(&b'$') {
            self.at += 1;
            return Token::Mark(b'$');
        }
        let tag = &rest[..=tag];
        self.at += tag.len();
        // A tag holds no other `$`, so that no byte is compared more than twice.
        while let Some(next) = self.sql[self.at..].iter().position(|byte| *byte == b'$') {
            self.at += next;
            if self.sql[self.at..].starts_with(tag) {
                self.at += tag.len();
                return Token::Value;
            }
            self.at += 1;
        }
        self.at = self.sql.len();
        Token::Value
    }
}

/// Bytes of a plain name, save digits.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
