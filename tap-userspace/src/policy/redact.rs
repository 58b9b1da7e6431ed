//! Takes secrets out of HTTP material before it is exported. Comes in: header fields, request
//! targets, URLs and queries. Goes out: the same, borrowed where nothing had to be taken out.
//!
//! Where a reader could understand a text in two ways, the one that hides more is taken: names are
//! compared without case, `-`, `_`, blanks and control characters, percent-encoding is taken off
//! as deep as it goes, and `;`, `?`, `#` and `/` begin a key as `&` does, so that a URL inside a
//! value is looked through too. What stands in a JSON text inside a value is not understood.
#![forbid(unsafe_code)]

pub mod body;

use std::{borrow::Cow, ops::Range};

use hashbrown::HashSet;

/// In place of a header field's value.
const FIELD: &str = "[REDACTED]";
/// In place of a part of a URL, as the semantic conventions have it (`url.query`, `url.full`).
const PART: &str = "REDACTED";

/// Header fields that carry credentials.
const HEADERS: &[&str] = &[
    "authorization",
    "cookie",
    "set-cookie",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "apikey",
    "authentication-info",
    "cf-access-jwt-assertion",
    "cf-access-token",
    "cookie2",
    "dpop",
    "private-token",
    "proxy-authentication-info",
    // The Kubernetes API takes bearer tokens as a WebSocket subprotocol.
    "sec-websocket-protocol",
    "set-cookie2",
    "x-access-token",
    "x-amz-security-token",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-access-token",
    "x-goog-api-key",
    "x-session-token",
    "x-vault-token",
    "x-xsrf-token",
];

/// Header fields that are, or hold, a URL.
const URL_HEADERS: &[&str] = &[
    ":path",
    "content-location",
    "link",
    "location",
    "referer",
    "refresh",
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Query keys whose values are secrets: those of the semantic conventions for `url.query`
/// (`AWSAccessKeyId`, `Signature`, `sig`, `X-Goog-Signature`), of OAuth, of the clouds' signed
/// URLs, and what else is in use. In the form that [`normal`] gives them.
const KEYS: &[&str] = &[
    "accesskey",
    "accesstoken",
    "accountkey",
    "apikey",
    "apitoken",
    "appsecret",
    "assertion",
    "auth",
    "authenticitytoken",
    "authorization",
    "authtoken",
    "awsaccesskeyid",
    "bearer",
    "bearertoken",
    "clientassertion",
    "clientsecret",
    "code",
    "codeverifier",
    "credential",
    "credentials",
    "csrftoken",
    "googleaccessid",
    "hmac",
    "idtoken",
    "jsessionid",
    "jwt",
    "key",
    "oauthsignature",
    "oauthtoken",
    "oauthverifier",
    "otp",
    "pass",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "phpsessid",
    "privatekey",
    "privatetoken",
    "pwd",
    "refreshtoken",
    "samlresponse",
    "secret",
    "secretkey",
    "sessid",
    "session",
    "sessionid",
    "sessiontoken",
    "sharedaccesskey",
    "sid",
    "sig",
    "signature",
    "subscriptionkey",
    "ticket",
    "token",
    "xamzcredential",
    "xamzsecuritytoken",
    "xamzsignature",
    "xapikey",
    "xgoogcredential",
    "xgoogsignature",
    "xsrftoken",
];

/// Bytes of a key that count; a longer one that is configured is known by these.
const KEY_MAX: usize = 64;

/// Query keys whose values are taken out.
type Keys = HashSet<Vec<u8>>;

/// What is taken out. The default is on, with the names above.
#[derive(Clone, Debug)]
pub struct Redaction {
    on: bool,
    /// In lower case.
    headers: Vec<String>,
    /// As [`normal`] gives them.
    keys: Keys,
}

impl Default for Redaction {
    fn default() -> Self {
        Self {
            on: true,
            headers: HEADERS.iter().map(|&name| name.to_owned()).collect(),
            keys: KEYS.iter().map(|key| key.as_bytes().to_vec()).collect(),
        }
    }
}

impl Redaction {
    /// Nothing is taken out.
    pub fn off() -> Self {
        Self { on: false, headers: Vec::new(), keys: Keys::default() }
    }

    /// With further header fields, beside the default ones.
    #[must_use]
    pub fn with_headers(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.headers.extend(names.into_iter().map(|name| name.as_ref().trim().to_lowercase()));
        self
    }

    /// With further query keys, beside the default ones.
    #[must_use]
    pub fn with_keys(mut self, keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for key in keys {
            let key = key.as_ref().bytes().filter_map(normal).take(KEY_MAX).collect::<Vec<_>>();
            if !key.is_empty() {
                self.keys.insert(key);
            }
        }
        self
    }

    /// A header field's value: `[REDACTED]` for a name that is listed, redacted as a URL where the
    /// field is one.
    pub fn header<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if !self.on {
            Cow::Borrowed(value)
        } else if self.headers.iter().any(|listed| listed.eq_ignore_ascii_case(name)) {
            Cow::Borrowed(FIELD)
        } else if URL_HEADERS.iter().any(|listed| listed.eq_ignore_ascii_case(name)) {
            self.url(value)
        } else {
            Cow::Borrowed(value)
        }
    }

    /// A query without its `?`: the values of listed keys become `REDACTED`, all else is kept byte
    /// for byte.
    pub fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        if self.on { Scan::new(query).run(&self.keys, true) } else { Cow::Borrowed(query) }
    }

    /// A request target of any form (RFC 9112, section 3.2).
    pub fn target<'a>(&self, target: &'a str) -> Cow<'a, str> {
        self.url(target)
    }

    /// A URL or a reference to one: its userinfo, parameters in its path (`;jsessionid=`), its
    /// query, and a fragment, which after an OAuth redirect holds tokens.
    pub fn url<'a>(&self, url: &'a str) -> Cow<'a, str> {
        if !self.on {
            return Cow::Borrowed(url);
        }
        let mut scan = Scan::new(url);
        if url.starts_with("//") {
            scan.at = 2;
        }
        if scan.at == 2 || !url.starts_with('/') {
            scan.userinfo(1, false);
        }
        scan.run(&self.keys, false)
    }
}

/// One walk over a text.
struct Scan<'a> {
    text: &'a str,
    /// The text so far with what is taken out, up to `copied`.
    out: String,
    copied: usize,
    at: usize,
}

impl<'a> Scan<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, out: String::new(), copied: 0, at: 0 }
    }

    /// Takes out the values of `keys` and the userinfo of URLs. `query`: the text begins in one.
    fn run(mut self, keys: &Keys, mut query: bool) -> Cow<'a, str> {
        let bytes = self.text.as_bytes();
        // Without one of these there is neither a value nor a userinfo, however deep.
        if self.copied == 0 && memchr::memchr3(b'=', b'@', b'%', bytes).is_none() {
            return Cow::Borrowed(self.text);
        }
        // Where the key at hand begins, up to its `=`.
        let mut key = Some(self.at);
        // Slashes after a `:`.
        let mut slashes = None;
        while let Some((character, width)) = character(bytes, self.at) {
            let begin = self.at;
            self.at += width;
            slashes = match (character, slashes) {
                (b':', _) => Some(0),
                (b'/', Some(n)) => Some(n + 1),
                _ => None,
            };
            match character {
                b'&' | b';' | b'?' | b'#' | b'/' => {
                    key = Some(self.at);
                    query |= width == 1 && matches!(character, b'?' | b'#');
                    if slashes >= Some(2u32) && self.userinfo(width, query) {
                        key = None;
                    }
                }
                b'=' => {
                    let listed = |begin| lists(keys, bytes.get(begin..self.at - width));
                    if key.take().is_some_and(listed) {
                        let ends: &[u8] = if query { b"&" } else { b"/?#" };
                        let rest = bytes.get(self.at..).unwrap_or_default();
                        let len = rest.iter().position(|byte| ends.contains(byte));
                        let end = self.at + len.unwrap_or(rest.len());
                        if end > self.at {
                            self.take_out(self.at..end);
                        }
                        self.at = end;
                    }
                }
                _ => {}
            }
            debug_assert!(self.at > begin);
        }
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.out.push_str(self.text.get(self.copied..).unwrap_or_default());
        Cow::Owned(self.out)
    }

    /// Takes out the userinfo of an authority that begins here, if it has one, and goes behind it.
    /// `slash` is how many bytes the slash before it took: one that is encoded deeper belongs to
    /// the userinfo. (Looking ahead is linear, as only the three least depths are told apart, and
    /// of each the next slash ends it.)
    fn userinfo(&mut self, slash: usize, query: bool) -> bool {
        const DEEP: usize = 5;
        let bytes = self.text.as_bytes();
        let (begin, mut at) = (self.at, self.at);
        let (mut colon, mut sign) = (None, None);
        while let Some((character, width)) = character(bytes, at) {
            match character {
                b'/' | b'?' | b'#' if width.min(DEEP) <= slash.min(DEEP) => break,
                b'&' if query && width == 1 => break,
                b':' if colon.is_none() => colon = Some(at..at + width),
                b'@' => sign = Some(at),
                _ => {}
            }
            at += width;
        }
        let Some(sign) = sign.filter(|&sign| sign > begin) else { return false };
        match colon.filter(|colon| colon.end <= sign) {
            Some(colon) => {
                self.take_out(begin..colon.start);
                self.take_out(colon.end..sign);
            }
            None => self.take_out(begin..sign),
        }
        self.at = sign;
        true
    }

    /// Writes `REDACTED` for a part behind all others. Parts begin and end at ASCII characters.
    fn take_out(&mut self, part: Range<usize>) {
        self.out.push_str(self.text.get(self.copied..part.start).unwrap_or_default());
        self.out.push_str(PART);
        self.copied = part.end;
    }
}

/// Whether a key, or a part of it as in `user[password]` and `user.password`, is listed.
fn lists(keys: &Keys, key: Option<&[u8]>) -> bool {
    let key = key.unwrap_or_default();
    let (mut part, mut len, mut at) = ([0; KEY_MAX], 0, 0);
    let listed = |part: &[u8]| keys.contains(part);
    while let Some((character, width)) = character(key, at) {
        at += width;
        if matches!(character, b'[' | b']' | b'.') {
            if listed(part.get(..len).unwrap_or_default()) {
                return true;
            }
            len = 0;
        } else if let Some(byte) = normal(character)
            && let Some(place) = part.get_mut(len)
        {
            *place = byte;
            len += 1;
        }
    }
    listed(part.get(..len).unwrap_or_default())
}

/// A character of a key as it is compared, unless it does not count.
const fn normal(character: u8) -> Option<u8> {
    match character {
        0..=b' ' | b'+' | b'-' | b'_' | 0x7f => None,
        _ => Some(character.to_ascii_lowercase()),
    }
}

/// The character at a place, and how many bytes it takes: `a`, `%61`, `%2561`, `%252561`, ….
fn character(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let digit = |at: usize| bytes.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let escape = |at| Some((digit(at)? << 4 | digit(at + 1)?) as u8);
    let first = *bytes.get(at)?;
    if first != b'%' {
        return Some((first, 1));
    }
    let mut digits = at + 1;
    while escape(digits) == Some(b'%') && escape(digits + 2).is_some() {
        digits += 2;
    }
    Some(escape(digits).map_or((first, 1), |character| (character, digits + 2 - at)))
}

/// Redacts any text in each way, and panics where a rule that holds for every text is broken.
#[doc(hidden)]
pub fn fuzz_redact(bytes: &[u8]) {
    let redaction = Redaction::default();
    let text = String::from_utf8_lossy(bytes);
    for out in [redaction.query(&text), redaction.url(&text), redaction.header("link", &text)] {
        // A part is taken out at most once per character.
        assert!(out.len() <= text.len() * (PART.len() + 1));
    }
    let out = redaction.query(&text);
    assert_eq!(redaction.query(&out), out, "redacted twice");
    // The query in a target is taken out of as one on its own; a fragment before it hides more.
    if let Some((path, query)) = text.split_once('?')
        && !path.contains('#')
    {
        let (path, query) = (redaction.target(path), redaction.query(query));
        assert_eq!(redaction.target(&text), format!("{path}?{query}"));
    }
    let once = |key: &str| -> String {
        let (mut bytes, mut rest) = (Vec::new(), key.as_bytes());
        while let Some((&first, after)) = rest.split_first() {
            let escaped = after.get(..2).and_then(|digits| str::from_utf8(digits).ok());
            let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let (byte, len) = match escaped {
                Some(byte) if first == b'%' => (byte, 3),
                _ => (first, 1),
            };
            bytes.push(byte);
            rest = rest.get(len..).unwrap_or_default();
        }
        String::from_utf8_lossy(&bytes).to_lowercase()
    };
    // As an ordinary server reads it: pairs apart by `&`, the key up to the first `=`.
    assert_eq!(text.split('&').count(), out.split('&').count());
    for (pair, told) in text.split('&').zip(out.split('&')) {
        let Some((key, value)) = pair.split_once('=') else { continue };
        if !value.is_empty() && KEYS.contains(&once(key).as_str()) {
            assert_eq!(told, format!("{key}=REDACTED"), "{pair}");
        }
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
