//! W3C `tracestate`, of which OpenTelemetry's own member (`ot`) is read and written: its threshold
//! (`th`) and randomness (`rv`). Comes in: the text; goes out: the same with that member changed, first,
//! as its maker has changed it last (<https://www.w3.org/TR/trace-context/#tracestate-header>).
#![forbid(unsafe_code)]

use super::{Malformed, Randomness, Threshold};

/// Longest text that is read.
const LONGEST: usize = 1024;
/// Members, the empty ones too, are fewer than this.
const MEMBERS: usize = 32;
/// Longest value of a member.
const LONGEST_VALUE: usize = 256;
/// Longest key, and its parts where it has a tenant.
const LONGEST_KEY: usize = 256;
const LONGEST_TENANT: usize = 241;
const LONGEST_SYSTEM: usize = 14;

/// A text that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceState<'a> {
    /// `rv`, as it is written.
    randomness: Option<(std::borrow::Cow<'a, str>, Randomness)>,
    /// `th`, as it is written.
    threshold: Option<(std::borrow::Cow<'a, str>, Threshold)>,
    /// What else is in `ot`.
    more: Vec<(&'a str, &'a str)>,
    /// The other members.
    others: Vec<(&'a str, &'a str)>,
}

impl<'a> TraceState<'a> {
    /// Reads a text: what could be read of it, and what was wrong first.
    pub fn read(text: &'a str) -> (Self, Result<(), Malformed>) {
        let mut state = Self::default();
        if text.len() > LONGEST {
            return (state, Err(Malformed::Size));
        }
        if !members(text).all(is_member) {
            return (state, Err(Malformed::Syntax));
        }
        let mut found = Ok(());
        for (index, member) in split(text, ',').enumerate() {
            if index + 1 >= MEMBERS {
                return (state, Err(Malformed::Size));
            }
            let Some((key, value)) = member.trim_matches([' ', '\t']).split_once('=') else {
                continue;
            };
            let long = match key.split_once('@') {
                Some((tenant, system)) => {
                    tenant.len() > LONGEST_TENANT || system.len() > LONGEST_SYSTEM
                }
                None => false,
            };
            let read = match key {
                _ if long || key.len() > LONGEST_KEY => Err(Malformed::Size),
                "ot" => state.read_own(value),
                _ => {
                    state.others.push((key, value));
                    Ok(())
                }
            };
            found = found.and(read);
        }
        (state, found)
    }

    /// Reads the value of `ot`.
    fn read_own(&mut self, text: &'a str) -> Result<(), Malformed> {
        // The last one counts where there are several.
        (self.randomness, self.threshold, self.more) = Default::default();
        if text.len() > LONGEST_VALUE {
            return Err(Malformed::Size);
        }
        if text.is_empty() || !text.split(';').all(is_own) {
            return Err(Malformed::Syntax);
        }
        let mut found = Ok(());
        for (key, value) in text.split(';').filter_map(|field| field.split_once(':')) {
            let read = match key {
                "rv" => {
                    let read = Randomness::read(value);
                    self.randomness = read.ok().map(|it| (value.into(), it));
                    read.map(drop)
                }
                "th" => {
                    let read = Threshold::read(value).map_err(|error| match value {
                        "" => Malformed::Syntax,
                        _ => error,
                    });
                    self.threshold = read.ok().map(|it| (value.into(), it));
                    read.map(drop)
                }
                _ => {
                    self.more.push((key, value));
                    Ok(())
                }
            };
            found = found.and(read);
        }
        found
    }

    /// `rv`.
    pub fn randomness(&self) -> Option<Randomness> {
        self.randomness.as_ref().map(|(_, randomness)| *randomness)
    }

    /// `th`.
    pub fn threshold(&self) -> Option<Threshold> {
        self.threshold.as_ref().map(|(_, threshold)| *threshold)
    }

    /// Says the randomness.
    pub fn set_randomness(&mut self, randomness: Randomness) {
        self.randomness = Some((randomness.text().into(), randomness));
    }

    /// Takes `th` out.
    pub fn clear_threshold(&mut self) {
        self.threshold = None;
    }

    /// Says the threshold, unless a higher one is there: what was left out before stays so.
    pub fn raise_threshold(&mut self, to: Threshold) {
        if self.threshold().is_none_or(|is| is <= to) {
            self.threshold = (to != Threshold::NEVER).then(|| (to.text().into(), to));
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        let own = [
            ("rv", self.randomness.as_ref().map(|(text, _)| &**text)),
            ("th", self.threshold.as_ref().map(|(text, _)| &**text)),
        ];
        let own = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let own: Vec<String> = own
            .chain(self.more.iter().copied())
            .map(|(key, value)| format!("{key}:{value}"))
            .collect();
        let own = (!own.is_empty()).then(|| format!("ot={}", own.join(";")));
        let others = self.others.iter().map(|(key, value)| format!("{key}={value}"));
        own.into_iter().chain(others).collect::<Vec<_>>().join(",")
    }

    /// The value of a member; `None` where the text is none, or has no such member.
    pub fn member<'t>(text: &'t str, key: &str) -> Option<&'t str> {
        let found: Vec<(&str, &str)> =
            members(text).filter_map(|member| member.split_once('=')).collect();
        if text.len() > LONGEST * 32 || found.len() > MEMBERS || !members(text).all(is_member) {
            return None;
        }
        let twice = |(at, (key, _)): (usize, &(&str, &str))| {
            found[..at].iter().any(|(before, _)| before == key)
        };
        if found.iter().enumerate().any(twice) {
            return None;
        }
        found.into_iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }
}

/// The parts of a text; a last one that is empty is none.
fn split(text: &str, by: char) -> impl Iterator<Item = &str> {
    text.split_terminator(by)
}

/// Members that are not empty, without the white space around them.
fn members(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|it| !it.is_empty())
}

/// `key=value`.
fn is_member(member: &str) -> bool {
    member.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value))
}

fn is_key(key: &str) -> bool {
    let all = |text: &str, first: fn(&u8) -> bool| {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|byte| first(&byte))
            && bytes.all(|byte| is_small(&byte) || b"_-*/".contains(&byte))
    };
    match key.split_once('@') {
        Some((tenant, system)) => all(tenant, is_small) && all(system, u8::is_ascii_lowercase),
        None => all(key, u8::is_ascii_lowercase),
    }
}

const fn is_small(byte: &u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_value(value: &str) -> bool {
    let sound = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    !value.is_empty()
        && value.len() <= LONGEST_VALUE
        && !value.ends_with(' ')
        && value.bytes().all(sound)
}

/// `key:value` of the member `ot`.
fn is_own(field: &str) -> bool {
    let Some((key, value)) = field.split_once(':') else { return false };
    let mut letters = key.bytes();
    letters.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && letters.all(|byte| is_small(&byte))
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
