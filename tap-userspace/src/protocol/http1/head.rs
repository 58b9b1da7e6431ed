//! What the head of a message says (RFC 9112 §2 to §6). In: the bytes of a whole head, its empty
//! line included. Out: the fields, and how the body behind it is delimited.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;

use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};

use crate::protocol::exchange::{Headers, Http, Side, Trouble, without_userinfo};

/// Fields that are read without an allocation; servers commonly refuse more than 100.
const FIELDS: usize = 128;
/// Fields that are read at all; above it the head counts as malformed. Node allows 2,000.
const FIELDS_MANY: usize = 2048;

/// How a body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    Close,
    /// The head contradicts itself: nobody can tell where the message ends.
    Unknown,
}

/// A request's head.
#[derive(Debug)]
pub struct Request {
    /// The request's half of the transaction.
    pub http: Box<Http>,
    /// Its body.
    pub framing: Framing,
    /// It waits for `100 (Continue)` before it sends the body.
    pub expects: bool,
    /// It asks for another protocol.
    pub upgrades: bool,
}

/// A response's head.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: Headers,
    /// What the fields say of the framing; [`Response::framing`] is the judgement.
    facts: Facts,
}

/// Reads a request's head.
pub fn request(head: &[u8]) -> Option<Request> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    if let Ok(Status::Complete(_)) = parsed.parse_with_uninit_headers(head, &mut fields) {
        return build_request(&parsed);
    }
    let head = mend(head);
    let mut fields = room_for_fields(&head);
    let mut parsed = httparse::Request::new(&mut fields);
    match lenient().parse_request(&mut parsed, head.as_bytes()) {
        Ok(Status::Complete(_)) => build_request(&parsed),
        _ => None,
    }
}

/// Reads a response's head.
pub fn response(head: &[u8]) -> Option<Response> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let strict = ParserConfig::default();
    let done = strict.parse_response_with_uninit_headers(&mut parsed, head, &mut fields);
    if let Ok(Status::Complete(_)) = done {
        return build_response(&parsed);
    }
    let head = mend(head);
    let mut fields = room_for_fields(&head);
    let mut parsed = httparse::Response::new(&mut fields);
    match lenient().parse_response(&mut parsed, head.as_bytes()) {
        Ok(Status::Complete(_)) => build_response(&parsed),
        _ => None,
    }
}

/// Reads a trailer section with its empty line; `None` where it is none.
pub fn trailers(section: &[u8]) -> Option<Headers> {
    let mut fields = Headers::default();
    let mut read = [EMPTY_HEADER; FIELDS];
    match httparse::parse_headers(section, &mut read) {
        Ok(Status::Complete((_, read))) => {
            read.iter().for_each(|field| fields.push_named(field.name, field.value));
            Some(fields)
        }
        _ => None,
    }
}

/// What can be told of a request whose head was cut short or has broken fields: its whole lines, or
/// else its first one.
pub fn part_of_request(head: &[u8]) -> Option<Box<Http>> {
    let read = |lines: &[u8]| request(&[lines, b"\r\n"].concat()).map(|request| request.http);
    read(whole_lines(head)?).or_else(|| read(line(head)?))
}

/// As [`part_of_request`], of a response.
pub fn part_of_response(head: &[u8]) -> Option<Response> {
    let read = |lines: &[u8]| response(&[lines, b"\r\n"].concat());
    read(whole_lines(head)?).or_else(|| read(line(head)?))
}

fn whole_lines(cut: &[u8]) -> Option<&[u8]> {
    cut.get(..=memchr::memrchr(b'\n', cut)?)
}

fn line(cut: &[u8]) -> Option<&[u8]> {
    cut.get(..=memchr::memchr(b'\n', cut)?)
}

/// What is wrong with a head that ended early: only that, if it could still become one.
pub fn cut_short(side: Side, cut: &[u8]) -> Trouble {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let strict = ParserConfig::default();
    let verdict = match side {
        Side::Client => {
            let mut parsed = httparse::Request::new(&mut []);
            strict.parse_request_with_uninit_headers(&mut parsed, cut, &mut fields)
        }
        Side::Server => {
            let mut parsed = httparse::Response::new(&mut []);
            strict.parse_response_with_uninit_headers(&mut parsed, cut, &mut fields)
        }
    };
    use httparse::Error::{HeaderName, HeaderValue, TooManyHeaders};
    // Whole heads with such fields are read leniently, so cut ones are.
    match verdict {
        Ok(_) | Err(HeaderName | HeaderValue | TooManyHeaders) => Trouble::Truncated,
        Err(_) => Trouble::Malformed,
    }
}

/// A place for each line of a head that could be a field, as far as they are read.
fn room_for_fields(head: &str) -> Vec<Header<'static>> {
    let lines = memchr::memchr_iter(b'\n', head.as_bytes()).count();
    vec![EMPTY_HEADER; lines.min(FIELDS_MANY)]
}

// Like nginx: a field that is none is left out, the others stand.
fn lenient() -> ParserConfig {
    let mut config = ParserConfig::default();
    config
        .ignore_invalid_headers_in_requests(true)
        .ignore_invalid_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true);
    config
}

/// Folded lines joined (each fold becomes spaces, RFC 9112 §5.2), and UTF-8 where there was
/// something else, which httparse refuses in a target.
fn mend(head: &[u8]) -> String {
    let mut head = head.to_vec();
    let mut before = 0;
    while let Some(at) = head.get(before..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let at = before + at;
        if matches!(head.get(at + 1), Some(b' ' | b'\t')) {
            let begin = if at > 0 && head.get(at - 1) == Some(&b'\r') { at - 1 } else { at };
            head.iter_mut().take(at + 1).skip(begin).for_each(|byte| *byte = b' ');
        }
        before = at + 1;
    }
    String::from_utf8(head)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

// === First lines ===

/// Whether `line` (its LF left out) may begin a message of `side` that follows another one.
pub fn first_line(side: Side, line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match side {
        Side::Client => {
            line.first().is_some_and(|byte| byte.is_ascii_graphic())
                && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"))
        }
        Side::Server => status_line(line),
    }
}

/// Whether `line` (its LF left out) is so much like the first line of a message of `side` that the
/// framing can be taken up from it.
pub fn plausible(side: Side, line: &[u8]) -> bool {
    if !first_line(side, line) {
        return false;
    }
    match side {
        Side::Client => matches!(begin_of_request(line), Some(true)),
        Side::Server => true,
    }
}

/// Whether `begin`, which has no line end yet, may grow to a plausible first line. Only its first
/// bytes are looked at, so that it may be asked again and again.
pub fn maybe_plausible(side: Side, begin: &[u8]) -> bool {
    match side {
        Side::Client => begin_of_request(begin) != Some(false),
        Side::Server => {
            let common = begin.len().min(STATUS.len());
            begin.get(..common) == STATUS.get(..common)
        }
    }
}

const STATUS: &[u8] = b"HTTP/1.";

fn status_line(line: &[u8]) -> bool {
    match line.strip_prefix(STATUS) {
        Some([b'0' | b'1', b' ', hundreds, tens, ones, rest @ ..]) => {
            [hundreds, tens, ones].iter().all(|byte| byte.is_ascii_digit())
                && matches!(rest.first(), None | Some(b' '))
        }
        _ => false,
    }
}

/// A method in capitals, a space, a target's first byte; `None` where it is too short to say.
fn begin_of_request(begin: &[u8]) -> Option<bool> {
    /// `UPDATEREDIRECTREF` and `SSTP_DUPLEX_POST` are the longest in use.
    const METHOD_MAX: usize = 20;
    let capital = |byte: &&u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let method = begin.iter().take(METHOD_MAX + 1).take_while(capital).count();
    match begin.get(method..) {
        _ if method > METHOD_MAX => Some(false),
        Some([]) => None,
        Some([b' ', ..]) if method < 3 => Some(false),
        Some([b' ']) => None,
        Some([b' ', first, ..]) => {
            Some(matches!(first, b'/' | b'*' | b'[') || first.is_ascii_alphanumeric())
        }
        _ => Some(false),
    }
}

// === What a head's fields say ===

/// Fields that bear on the framing.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// `Content-Length`; `Err` where it is no number, or where there are several.
    length: Option<Result<u64, ()>>,
    /// `Transfer-Encoding`; whether the last coding is `chunked`.
    chunked: Option<bool>,
    expects: bool,
    upgrades: bool,
}

impl Facts {
    /// Takes in a field; told apart by length first, as most are none of these.
    fn note(&mut self, field: &Header<'_>) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            6 if is("expect") => self.expects = field.value.eq_ignore_ascii_case(b"100-continue"),
            7 if is("upgrade") => self.upgrades = !field.value.is_empty(),
            14 if is("content-length") => self.length(field.value),
            17 if is("transfer-encoding") => {
                for coding in list(field.value) {
                    // `identity` of RFC 2616 is no coding.
                    if !coding.eq_ignore_ascii_case(b"identity") {
                        self.chunked = Some(coding.eq_ignore_ascii_case(b"chunked"));
                    }
                }
            }
            _ => {}
        }
    }

    /// A repeated length is fine as long as it is the same (RFC 9112 §6.3, rule 5).
    fn length(&mut self, value: &[u8]) {
        for item in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let digits = !item.is_empty() && item.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(item).ok().filter(|_| digits);
            let length = text.and_then(|text| text.parse().ok()).ok_or(());
            self.length = match self.length {
                Some(before) if before != length => Some(Err(())),
                _ => Some(length),
            };
        }
    }

    /// The framing; `neither` is that of a head that says nothing of it.
    const fn framing(&self, side: Side, neither: Framing) -> Framing {
        match (self.chunked, self.length) {
            // Transfer-Encoding overrides Content-Length (rule 3).
            (Some(true), _) => Framing::Chunked,
            (Some(false), _) if matches!(side, Side::Server) => Framing::Close,
            (Some(false), _) | (None, Some(Err(()))) => Framing::Unknown,
            (None, Some(Ok(length))) => Framing::Length(length),
            (None, None) => neither,
        }
    }
}

/// The elements of a comma-separated list.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

const fn version(minor: Option<u8>) -> &'static str {
    match minor {
        Some(0) => "1.0",
        _ => "1.1",
    }
}

fn build_request(parsed: &httparse::Request<'_, '_>) -> Option<Request> {
    let (method, target) = (parsed.method?, parsed.path?);
    let mut http = Box::new(Http { version: version(parsed.version), ..Http::default() });
    let mut facts = Facts::default();
    let mut host = None;
    reserve(&mut http.request, parsed.headers);
    for field in parsed.headers.iter() {
        facts.note(field);
        if host.is_none() && field.name.eq_ignore_ascii_case("host") {
            host = Some(field.value);
        }
        http.request.push_named(field.name, field.value);
    }
    method.clone_into(&mut http.method);
    address(&mut http, target, host);
    let neither = Framing::Length(0);
    let framing = facts.framing(Side::Client, neither);
    Some(Request { http, framing, expects: facts.expects, upgrades: facts.upgrades })
}

/// Makes room for the fields that were read.
fn reserve(room: &mut Headers, fields: &[Header<'_>]) {
    let bytes = fields.iter().map(|field| field.name.len() + field.value.len()).sum();
    room.reserve(fields.len(), bytes);
}

/// Splits the four forms of a target (RFC 9112 §3.2). Absolute and authority form override `Host`.
fn address(http: &mut Http, target: &str, host: Option<&[u8]>) {
    if http.method == "CONNECT" {
        http.authority = Some(without_userinfo(target).to_owned());
        return;
    }
    let absolute = target.split_once("://").filter(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    let Some((scheme, rest)) = absolute else {
        target.clone_into(&mut http.target);
        http.authority = host
            .filter(|host| !host.is_empty())
            .map(|host| without_userinfo(&String::from_utf8_lossy(host)).to_owned());
        return;
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    http.scheme = Some(scheme.to_ascii_lowercase());
    http.authority = Some(without_userinfo(authority).to_owned());
    http.target = match path {
        "" if http.method == "OPTIONS" => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
}

fn build_response(parsed: &httparse::Response<'_, '_>) -> Option<Response> {
    let status = parsed.code?;
    let mut fields = Headers::default();
    let mut facts = Facts::default();
    reserve(&mut fields, parsed.headers);
    for field in parsed.headers.iter() {
        facts.note(field);
        fields.push_named(field.name, field.value);
    }
    Some(Response { status, fields, facts })
}

impl Response {
    /// How its body is delimited, where it answers `method`.
    pub fn framing(&self, method: &str) -> Framing {
        match self.status {
            100..=199 | 204 | 304 => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            _ => self.facts.framing(Side::Server, Framing::Close),
        }
    }

    /// Whether it names `protocol` as the one that is spoken next.
    pub fn upgrades_to(&self, protocol: &str) -> bool {
        self.fields.get("upgrade").is_some_and(|named| {
            list(named.as_bytes()).any(|item| item.eq_ignore_ascii_case(protocol.as_bytes()))
        })
    }
}
