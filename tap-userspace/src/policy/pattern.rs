//! Regular expressions of the configuration, in the syntax of Go's `regexp` (RE2), which the Collector has. Comes
//! in: a source, once; goes out: matches. They are run by the `regex` crate in linear time, whatever the
//! pattern; its source and what it is compiled to are bounded, so that none is large either.
#![forbid(unsafe_code)]

use std::{fmt, sync::Arc};

use regex::{Captures, Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::schema;

/// Longest source, in bytes.
const SOURCE_MAX: usize = 4096;
/// Memory of a compiled pattern, in bytes.
const COMPILED_MAX: usize = 1 << 20;
/// Longest text that replacing may make, in bytes.
pub const TEXT_MAX: usize = 1 << 20;

/// A pattern. Two of one source are equal.
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    regex: Regex,
}

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is too long.
    #[error("a pattern has at most {SOURCE_MAX} bytes")]
    Long,
    /// It would take too much memory.
    #[error("the pattern `{0}` is too large: repeat less in it")]
    Large(String),
    /// It is no pattern.
    #[error("`{0}` is no regular expression: {1}")]
    Syntax(String, String),
}

/// A replacement would be longer than [`TEXT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what replaces it would have more than {TEXT_MAX} bytes")]
pub struct TooLong;

impl Pattern {
    /// Reads a pattern.
    pub fn new(source: &str) -> Result<Self, Error> {
        if source.len() > SOURCE_MAX {
            return Err(Error::Long);
        }
        let regex = RegexBuilder::new(&translated(source)).size_limit(COMPILED_MAX).build();
        match regex {
            Ok(regex) => Ok(Self { source: source.into(), regex }),
            Err(regex::Error::CompiledTooBig(_)) => Err(Error::Large(source.to_owned())),
            Err(error) => {
                // The last line says what, those before show where.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                let last = last.trim_start_matches("error: ").to_owned();
                Err(Error::Syntax(source.to_owned(), last))
            }
        }
    }

    /// A glob, of which `*` also stands for `/` as in OTTL; it is to match all of a text.
    pub fn glob(glob: &str) -> Result<Self, Error> {
        Self::new(&of_glob(glob))
    }

    /// Its source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The compiled pattern.
    pub const fn regex(&self) -> &Regex {
        &self.regex
    }

    /// Whether it matches somewhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// `text` with each match replaced by what `with` appends; `None` where there is none.
    pub fn replace(
        &self,
        text: &str,
        mut with: impl FnMut(&Captures<'_>, &mut String),
    ) -> Result<Option<String>, TooLong> {
        let (mut out, mut copied, mut any) = (String::new(), 0, false);
        for captures in self.regex.captures_iter(text) {
            let Some(all) = captures.get(0) else { continue };
            any = true;
            out.push_str(text.get(copied..all.start()).unwrap_or_default());
            with(&captures, &mut out);
            copied = all.end();
            if out.len() > TEXT_MAX {
                return Err(TooLong);
            }
        }
        if !any {
            return Ok(None);
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        if out.len() > TEXT_MAX { Err(TooLong) } else { Ok(Some(out)) }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.source)
    }
}

schema::by_hand!(Pattern, { "type": "string" });

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// A pattern of Go's as the `regex` crate has it: `\d`, `\s`, `\w` and `\b` are ASCII's, `\Q…\E` quotes,
/// a `{` that repeats nothing and a `[`, `&` or `~` in a class stand for themselves, and `\<` is `<`.
fn translated(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 16);
    let mut rest = source;
    // In a class: whether nothing stands in it yet, and whether a `-` was the last.
    let mut class: Option<(bool, bool)> = None;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        let mut took = character.len_utf8();
        let mut dash = false;
        match (character, class) {
            ('\\', _) => {
                let Some(next) = after.chars().next() else {
                    out.push('\\');
                    break;
                };
                took += next.len_utf8();
                match (next, class.is_some()) {
                    ('Q', false) => {
                        let quoted = &after[1..];
                        let end = quoted.find("\\E").unwrap_or(quoted.len());
                        out.push_str(&regex::escape(&quoted[..end]));
                        took += (end + 2).min(quoted.len());
                    }
                    ('d', false) => out.push_str("[0-9]"),
                    ('d', true) => out.push_str("0-9"),
                    ('D', _) => out.push_str("[^0-9]"),
                    ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
                    ('s', true) => out.push_str("\\t\\n\\f\\r "),
                    ('S', _) => out.push_str("[^\\t\\n\\f\\r ]"),
                    ('w', false) => out.push_str("[0-9A-Za-z_]"),
                    ('w', true) => out.push_str("0-9A-Za-z_"),
                    ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                    ('b', false) => out.push_str("(?-u:\\b)"),
                    ('<' | '>', _) => out.push(next),
                    _ => out.extend(['\\', next]),
                }
            }
            ('[', None) => {
                out.push('[');
                class = Some((true, false));
                if after.starts_with('^') {
                    out.push('^');
                    took += 1;
                }
                rest = &rest[took..];
                continue;
            }
            ('{', None) if !repeats(after) => out.push_str("\\{"),
            (_, None) => out.push(character),
            (']', Some((false, _))) => {
                out.push(']');
                class = None;
            }
            ('[', Some(_)) => match after.strip_prefix(':').and_then(|name| name.find(":]")) {
                Some(end) => {
                    took = 1 + 1 + end + 2;
                    out.push_str(&rest[..took]);
                }
                None => out.push_str("\\["),
            },
            (']' | '&' | '~', Some(_)) => out.extend(['\\', character]),
            ('-', Some((_, was))) => {
                if was {
                    out.push('\\');
                }
                out.push('-');
                dash = !was;
            }
            (_, Some(_)) => out.push(character),
        }
        if class.is_some() {
            class = Some((false, dash));
        }
        rest = &rest[took..];
    }
    out
}

/// Whether what is behind a `{` makes it a repetition: `3}`, `3,}` or `3,5}`.
fn repeats(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// A glob as a pattern: `*`, `?`, `[a-z]`, `[!a-z]`, `{one,other}`, `\` before what stands for itself.
fn of_glob(glob: &str) -> String {
    let mut out = String::from("(?s)^");
    let (mut braces, mut class) = (0u32, false);
    let mut characters = glob.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let quoted = characters.next().unwrap_or('\\');
                out.push_str(&regex::escape(quoted.encode_utf8(&mut [0; 4])));
            }
            ']' if class => {
                class = false;
                out.push(']');
            }
            _ if class => out.push(character),
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => {
                class = true;
                out.push('[');
                if characters.next_if_eq(&'!').is_some() {
                    out.push('^');
                }
            }
            '{' => {
                braces += 1;
                out.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                out.push(')');
            }
            ',' if braces > 0 => out.push('|'),
            _ => out.push_str(&regex::escape(character.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_go() {
        for (pattern, text, matches) in [
            (r"^\/api\/v1\/(?P<id>.*)$", "/api/v1/7", true),
            (r"\d", "٣", false),
            (r"^\w+$", "é", false),
            (r"^\s$", "\u{a0}", false),
            (r"[^\d\s]", "1 ", false),
            (r"^[\w.]+$", "a_1.b", true),
            (r"/user/{userId}", "/user/{userId}", true),
            (r"^a{2}$", "aa", true),
            (r"^a{2,}b{1,2}$", "aaab", true),
            (r"^[[]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]$", "b", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[[:alpha:]_]+$", "a_b", true),
            (r"^\Qa.b*\E$", "a.b*", true),
            (r"^\<a\>$", "<a>", true),
            (r"^[+--]+$", "+,-", true),
            (r"(?i)^password$", "PassWord", true),
            (r"\bx\b", "a x b", true),
        ] {
            let compiled = Pattern::new(pattern).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(compiled.matches(text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn globs_match_whole_texts() {
        for (glob, text, matches) in [
            ("*/*", "http://localhost/health", true),
            ("*/*", "get", false),
            ("/user/*/list/*", "/user/7/list/9", true),
            ("a.c", "abc", false),
            ("a?c", "abc", true),
            ("{get,post}", "post", true),
            ("[!a]x", "bx", true),
        ] {
            assert_eq!(Pattern::glob(glob).unwrap().matches(text), matches, "{glob} {text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (pattern, part) in [
            ("(", "is no regular expression"),
            ("(?P<invalid-name>x)", "is no regular expression"),
            ("(((x{100}){100}){100}){100}", "is too large"),
            (&"x".repeat(5000), "at most 4096 bytes"),
        ] {
            let error = Pattern::new(pattern).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_catastrophic_pattern_and_a_growing_one_are_harmless() {
        let text = format!("{}!", "a".repeat(64 << 10));
        assert!(!Pattern::new("^(a+)+$").unwrap().matches(&text));
        let grows = Pattern::new("").unwrap();
        assert_eq!(grows.replace(&text, |_, out| out.push_str(&text)), Err(TooLong));
    }
}
