//! One stream: a request and its response. In: header lists, payload lengths, ends. Out: the
//! exchange.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::protocol::{
    content::Content,
    exchange::{Exchange, Headers, Http, Message, Side, Trouble, without_userinfo},
};

/// Most bytes kept of a pseudo-header's value; a longer one is cut. Servers take 8 KiB at most by
/// their defaults.
const PSEUDO_MAX: usize = 8 << 10;
/// What a stream costs besides its text: itself, its [`Http`], and their places in map and heap.
const OVERHEAD: usize = size_of::<Stream>() + size_of::<Http>() + 64;

/// A header list (RFC 9113 §8.1): pseudo-headers apart from the others.
#[derive(Debug, Default)]
pub struct List {
    method: Option<String>,
    scheme: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    fields: Headers,
}

impl List {
    /// Whether it has no pseudo-header, as trailers.
    pub const fn is_trailers(&self) -> bool {
        self.method.is_none() && self.path.is_none() && self.authority.is_none()
    }

    /// Takes in a field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        let pseudo = match name {
            [b':', pseudo @ ..] => pseudo,
            _ => return self.fields.push(name, value),
        };
        let kept = match pseudo {
            b"method" => &mut self.method,
            b"scheme" => &mut self.scheme,
            b"authority" => &mut self.authority,
            b"path" => &mut self.path,
            b"status" => {
                let status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.status = self.status.or(status.filter(|status| (100..1000).contains(status)));
                return;
            }
            // `:protocol` of an extended CONNECT (RFC 8441) tells what the stream is about.
            _ => return self.fields.push(name, value),
        };
        // One of each is allowed; to keep the first bounds the work on many.
        if kept.is_none() {
            *kept = Some(text(value));
        }
    }
}

fn text(value: &[u8]) -> String {
    let value = value.get(..PSEUDO_MAX).unwrap_or(value);
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(value).into_owned(),
    }
}

/// How much of a header list came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// All of it.
    Whole,
    /// Fields are unknown: bytes were missing, now or before.
    Partial,
    /// Its syntax is broken.
    Broken,
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    began_ns: u64,
    last_ns: u64,
    bytes: [u64; 2],
    http: Box<Http>,
    /// By [`Side`]: END_STREAM was seen.
    ended: [bool; 2],
    /// The head of the final response was seen, whatever of it could be read.
    responded: bool,
    gap: bool,
    /// Bytes it was last counted with.
    memory: usize,
}

impl Stream {
    /// A stream that this request opens.
    pub fn request(id: u32, began_ns: u64, list: List, quality: Quality) -> Self {
        let authority =
            list.authority.or_else(|| list.fields.get("host").map(|host| text(host.as_bytes())));
        // A method must be there (RFC 9113 §8.3.1).
        let broken = quality == Quality::Broken
            || (quality == Quality::Whole && list.method.as_ref().is_none_or(String::is_empty));
        let http = Http {
            version: "2",
            stream: id,
            method: list.method.unwrap_or_default(),
            scheme: list.scheme,
            authority: authority.map(|it| match without_userinfo(&it) {
                plain if plain.len() < it.len() => plain.to_owned(),
                _ => it,
            }),
            target: list.path.unwrap_or_default(),
            request: list.fields,
            error: broken.then_some(Trouble::Malformed),
            ..Http::default()
        };
        Self::new(began_ns, Box::new(http), quality == Quality::Partial)
    }

    /// Stream 1 after an upgrade from HTTP/1.1 (RFC 7540 §3.2): the request is over.
    pub fn upgraded(request: Exchange) -> Option<Self> {
        let Message::Http(mut http) = request.message else { return None };
        http.version = "2";
        http.stream = 1;
        // The 101 is not the answer.
        http.status = None;
        http.response = Headers::default();
        http.error = None;
        let mut stream = Self::new(request.began_ns, http, request.gap);
        stream.last_ns = request.ended_ns.max(request.began_ns);
        stream.bytes = request.bytes;
        stream.ended[Side::Client as usize] = true;
        Some(stream)
    }

    fn new(began_ns: u64, http: Box<Http>, gap: bool) -> Self {
        Self {
            began_ns,
            last_ns: began_ns,
            bytes: [0; 2],
            http,
            ended: [false; 2],
            responded: false,
            gap,
            memory: 0,
        }
    }

    /// A header list of the server: informational, the response's head, or trailers.
    pub fn response(&mut self, list: List, quality: Quality) {
        let http = &mut *self.http;
        match quality {
            Quality::Whole => {}
            Quality::Partial => self.gap = true,
            Quality::Broken => http.error = Some(Trouble::Malformed),
        }
        if list.status.is_some_and(|status| status < 200) && http.status.is_none() {
            return;
        }
        // A status tells the head also where a list before it, an informational one perhaps, could
        // not be read.
        if !self.responded || (list.status.is_some() && http.status.is_none()) {
            self.responded = true;
            http.status = list.status;
            http.response = list.fields;
            if list.status.is_none() && quality == Quality::Whole {
                http.error = Some(Trouble::Malformed);
            }
        } else {
            http.trailers = list.fields;
        }
    }

    /// Bytes of this stream's frames went by.
    pub const fn wire(&mut self, side: Side, bytes: u64, at_ns: u64) {
        let sum = &mut self.bytes[side as usize];
        *sum = sum.saturating_add(bytes);
        self.seen(side, at_ns);
    }

    /// A place for what is kept of contents.
    pub fn set_content(&mut self, content: Arc<Content>) {
        self.http.content.get_or_insert(content);
    }

    /// Keeps payload that is not counted yet; tells by how much what is held has grown.
    pub fn keep(&mut self, side: Side, bytes: &[u8], room: usize) -> usize {
        self.http.keep(side, bytes, room)
    }

    /// Heap bytes of contents.
    pub fn content_memory(&self) -> usize {
        self.http.content_memory()
    }

    /// So many of them were payload.
    pub const fn body(&mut self, side: Side, bytes: u64) {
        let sum = &mut self.http.body[side as usize];
        *sum = sum.saturating_add(bytes);
    }

    const fn seen(&mut self, side: Side, at_ns: u64) {
        // What the client sends after the response is over does not make it longer.
        if matches!(side, Side::Server) || !self.ended[Side::Server as usize] {
            self.last_ns = at_ns;
        }
    }

    /// Bytes were lost that may have been of this stream.
    pub const fn gap(&mut self) {
        self.gap = true;
    }

    /// A direction is over; true where both are.
    pub const fn end(&mut self, side: Side, at_ns: u64) -> bool {
        self.seen(side, at_ns);
        self.ended[side as usize] = true;
        self.ended[0] && self.ended[1]
    }

    /// Whether a direction is over.
    pub const fn is_ended(&self, side: Side) -> bool {
        self.ended[side as usize]
    }

    /// What is wrong with it if nothing more comes.
    pub const fn cut(&self) -> Trouble {
        if self.responded { Trouble::Truncated } else { Trouble::NoResponse }
    }

    /// The same, where bytes may have been lost that told more: then nothing is known to be wrong.
    pub fn left(&self) -> Option<Trouble> {
        (!self.gap).then(|| self.cut())
    }

    /// What a reset makes of it: nothing, where a server that has answered only asks for no more of
    /// the request (RFC 9113 §8.1).
    pub const fn reset(&mut self, side: Side, code: u32, at_ns: u64) -> Option<Trouble> {
        let answered = self.ended[Side::Server as usize];
        if !answered {
            self.last_ns = at_ns;
        }
        if answered && code == 0 { None } else { Some(Trouble::Reset(side, code)) }
    }

    /// The exchange.
    pub fn exchange(mut self, trouble: Option<Trouble>) -> Exchange {
        self.http.error = self.http.error.or(trouble);
        Exchange {
            began_ns: self.began_ns,
            ended_ns: self.last_ns,
            bytes: self.bytes,
            message: Message::Http(self.http),
            gap: self.gap,
        }
    }

    /// Bytes it was last counted with.
    pub const fn memory(&self) -> usize {
        self.memory
    }

    /// Counts its bytes anew.
    pub fn count(&mut self) -> usize {
        let http = &*self.http;
        let option = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        self.memory = OVERHEAD
            + http.method.capacity()
            + http.target.capacity()
            + option(&http.scheme)
            + option(&http.authority)
            + http.request.memory()
            + http.response.memory()
            + http.trailers.memory();
        self.memory
    }
}
