//! What a protocol's parser is fed, and what it tells: exchanges, each a request with its response.
//!
//! A parser sees both directions of one connection as pieces, each direction in its own order. It
//! keeps what it needs of them within a bound of its own, and never panics, whatever comes.
#![forbid(unsafe_code)]

use std::{fmt, sync::Arc};

use super::content::Content;

/// The end of a connection that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that opened it, or that speaks the client's part of the protocol.
    Client = 0,
    /// The other.
    Server = 1,
}

/// The next piece of one direction's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes as they crossed the wire; any number of them, cut anywhere.
    Bytes(&'a [u8]),
    /// So many bytes crossed that nobody kept: lost, beyond the capture size, or before tap came.
    Missing(u64),
    /// The direction is over (FIN, or the connection's end).
    End,
}

/// Where a parser stands after a piece.
#[derive(Debug)]
pub enum Outcome {
    /// It goes on.
    Continue,
    /// Another protocol is spoken from here on; the last `rest` bytes of the piece are its first.
    Switch {
        /// Which.
        to: Next,
        /// Bytes of the piece that were not consumed.
        rest: usize,
    },
    /// This is not, or no longer, the protocol, and there is no hope of finding it again.
    Lost,
}

/// What follows a protocol on the same connection.
#[derive(Debug)]
pub enum Next {
    /// Anything: a tunnel. Detection begins anew.
    Detect,
    /// TLS, after a STARTTLS of the protocol before.
    Tls,
    /// WebSocket frames, after HTTP/1's 101 or HTTP/2's extended CONNECT.
    WebSocket,
    /// HTTP/2 in clear text after an upgrade; the request that asked for it is stream 1.
    Http2(Box<Exchange>),
}

/// The parser of one protocol on one connection.
pub trait Parser: fmt::Debug + Send {
    /// Takes in the next piece that `side` said. `at_ns` is the kernel's time of its last byte.
    /// Exchanges that are complete are added to `out`.
    fn take(
        &mut self,
        side: Side,
        piece: Piece<'_>,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Outcome;

    /// The connection is over: tells what is still unanswered.
    fn finish(&mut self, at_ns: u64, out: &mut Vec<Exchange>);

    /// Heap bytes held at the moment, for the connection's bound.
    fn memory(&self) -> usize;

    /// Requests, since this was asked last, that there was no room to keep until their response:
    /// they were told without it, or not at all.
    fn crowded_out(&mut self) -> u64 {
        0
    }
}

/// A request and its response, or as much of them as there was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the request's first byte went, kernel time.
    pub began_ns: u64,
    /// When the response's last byte went; the last byte seen, where there was no end.
    pub ended_ns: u64,
    /// Bytes of request and response on the wire, heads and framing included.
    pub bytes: [u64; 2],
    /// What was said.
    pub message: Message,
    /// Bytes were missing inside, so that something above may be missing too.
    pub gap: bool,
}

impl Exchange {
    /// Header fields that there was no room for.
    pub fn fields_dropped(&self) -> u64 {
        let Message::Http(http) = &self.message else { return 0 };
        let all = [&http.request, &http.response, &http.trailers];
        all.map(|fields| u64::from(fields.dropped())).iter().sum()
    }

    /// Nobody looks any more: what its end would have told is unknown, and nobody's fault.
    pub fn leave_open(&mut self) {
        let trouble = match &mut self.message {
            Message::Http(http) => &mut http.error,
            Message::Query(query) => &mut query.trouble,
            Message::WebSocket(_) => return,
        };
        if matches!(trouble, None | Some(Trouble::NoResponse | Trouble::Truncated)) {
            *trouble = Some(Trouble::Open);
        }
    }

    /// Whether it was under way when nobody looked any more.
    pub fn is_open(&self) -> bool {
        match &self.message {
            Message::Http(http) => http.error == Some(Trouble::Open),
            Message::Query(query) => query.trouble == Some(Trouble::Open),
            Message::WebSocket(_) => false,
        }
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        match &self.message {
            Message::Http(http) => {
                size_of::<Http>()
                    + http.method.capacity()
                    + of(&http.scheme)
                    + of(&http.authority)
                    + http.target.capacity()
                    + http.request.memory()
                    + http.response.memory()
                    + http.trailers.memory()
                    + http.content_memory()
            }
            Message::WebSocket(_) => 0,
            Message::Query(query) => {
                size_of::<Query>()
                    + query.operation.capacity()
                    + of(&query.target)
                    + of(&query.namespace)
                    + of(&query.text)
                    + of(&query.error)
            }
        }
    }
}

/// What an exchange was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An HTTP transaction of whatever version.
    Http(Box<Http>),
    /// A WebSocket session from its upgrade to its end.
    WebSocket(WebSocket),
    /// A database's or broker's operation.
    Query(Box<Query>),
}

/// An HTTP transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    /// HTTP/2 stream; 0 in HTTP/1.
    pub stream: u32,
    /// The method as sent.
    pub method: String,
    /// `http` or `https`, where the request says so (absolute form, `:scheme`).
    pub scheme: Option<String>,
    /// Host and port as the request names them: `Host`, `:authority`, absolute or authority form.
    pub authority: Option<String>,
    /// Path and query as sent (origin form of it).
    pub target: String,
    /// Fields of the request's head.
    pub request: Headers,
    /// Status of the final response; none if it never came.
    pub status: Option<u16>,
    /// Fields of the response's head.
    pub response: Headers,
    /// Trailer fields of the response (gRPC's status).
    pub trailers: Headers,
    /// Payload bytes of request and response (after chunking and framing is taken off).
    pub body: [u64; 2],
    /// The first of them, where they are kept. Shared once it is told.
    pub content: Option<Arc<Content>>,
    /// Why the transaction is not whole, if it is not.
    pub error: Option<Trouble>,
}

impl Http {
    /// Keeps payload bytes of `side`, which are not counted in [`Self::body`] yet; nothing where
    /// they are not wanted. Tells by how many bytes what is held has grown.
    pub fn keep(&mut self, side: Side, bytes: &[u8], room: usize) -> usize {
        let content = self.content.as_mut().and_then(Arc::get_mut);
        content.map_or(0, |content| content.append(side, self.body[side as usize], bytes, room))
    }

    /// Heap bytes of what is kept of the contents.
    pub fn content_memory(&self) -> usize {
        self.content.as_ref().map_or(0, |content| content.memory())
    }

    /// The host that the request names, without a port and an IPv6 address's brackets.
    pub fn host(&self) -> Option<&str> {
        let authority = self.authority.as_deref()?;
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then_some(host)
    }
}

/// An authority without the userinfo before it: who asks is nobody's business.
pub fn without_userinfo(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Why an exchange is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The connection ended before the response began.
    NoResponse,
    /// The connection or the direction ended inside a message.
    Truncated,
    /// HTTP/2: the stream was reset by an end; with the error code.
    Reset(Side, u32),
    /// The message's syntax is broken.
    Malformed,
    /// Nobody looked any more before it was over: tap left, or a capture ended.
    Open,
}

impl Trouble {
    /// Whether the ends are at fault, or the network between them.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Open)
    }
}

/// A WebSocket session (RFC 6455).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocket {
    /// Data messages (text and binary) of client and server.
    pub messages: [u64; 2],
    /// Frames of every kind.
    pub frames: [u64; 2],
    /// Payload bytes of data messages.
    pub payload: [u64; 2],
    /// The first close frame's code.
    pub close_code: Option<u16>,
}

/// A database's or message broker's operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// OpenTelemetry's `db.system.name` or `messaging.system`: `redis`, `postgresql`, `mysql`,
    /// `kafka`.
    pub system: &'static str,
    /// `db.operation.name` (`SELECT`, `GET`) or `messaging.operation.name` (`Produce`).
    pub operation: String,
    /// `db.collection.name` or `messaging.destination.name`, where one is named.
    pub target: Option<String>,
    /// `db.namespace`: the database.
    pub namespace: Option<String>,
    /// The statement, literals replaced by `?`, bounded.
    pub text: Option<String>,
    /// Operations in one request (`db.operation.batch.size`, `messaging.batch.message_count`);
    /// 0 or 1 where it is one.
    pub batch: u32,
    /// The response's error: `db.response.status_code` (`42P01`, `1146`, `WRONGTYPE`).
    pub error: Option<String>,
    /// Why it is not whole.
    pub trouble: Option<Trouble>,
}

/// Header fields in the order they came: one block of text, names in lower case, repeated fields
/// kept. What is beyond the bound is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    text: String,
    /// Ends of name and value in `text`.
    ends: Vec<(u32, u32)>,
    dropped: u32,
}

impl Headers {
    /// Most bytes of names and values.
    pub const BYTES_MAX: usize = 16 << 10;
    /// Most fields.
    pub const FIELDS_MAX: usize = 128;

    /// Room for so many fields, of so many bytes in all: one allocation instead of many.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.ends.reserve_exact(fields.min(Self::FIELDS_MAX).saturating_sub(self.ends.len()));
        self.text.reserve_exact(bytes.min(Self::BYTES_MAX).saturating_sub(self.text.len()));
    }

    /// Adds a field. The name is brought to lower case; bytes that are no UTF-8 become U+FFFD.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        match std::str::from_utf8(name) {
            Ok(name) => self.push_named(name, value),
            Err(_) => self.push_named(&String::from_utf8_lossy(name), value),
        }
    }

    /// Adds a field whose name is known to be text.
    pub fn push_named(&mut self, name: &str, value: &[u8]) {
        let room = Self::BYTES_MAX.saturating_sub(self.text.len());
        if name.len() + value.len() > room || self.ends.len() >= Self::FIELDS_MAX {
            self.dropped += 1;
            return;
        }
        let begin = self.text.len();
        self.text.push_str(name);
        self.text[begin..].make_ascii_lowercase();
        let name_end = self.text.len();
        self.append(value);
        self.ends.push((name_end as u32, self.text.len() as u32));
    }

    fn append(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text.push_str(text),
            Err(_) => self.text.push_str(&String::from_utf8_lossy(bytes)),
        }
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut begin = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let field =
                (&self.text[begin..name_end as usize], &self.text[name_end as usize..end as usize]);
            begin = end as usize;
            field
        })
    }

    /// Value of the first field of this name (in lower case).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Fields beyond the bound.
    pub const fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<(u32, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_repeat() {
        let mut headers = Headers::default();
        headers.push(b"Set-Cookie", b"a=1");
        headers.push(b"X", b"\xff");
        headers.push(b"set-cookie", b"b=2");
        let fields: Vec<_> = headers.iter().collect();
        assert_eq!(fields, [("set-cookie", "a=1"), ("x", "\u{fffd}"), ("set-cookie", "b=2")]);
        assert_eq!(headers.get("set-cookie"), Some("a=1"));
    }

    #[test]
    fn fields_are_bounded_and_counted() {
        let mut headers = Headers::default();
        headers.push(b"big", &vec![b'x'; Headers::BYTES_MAX]);
        for _ in 0..Headers::FIELDS_MAX + 5 {
            headers.push(b"n", b"v");
        }
        assert_eq!((headers.iter().count(), headers.dropped()), (Headers::FIELDS_MAX, 6));
    }
}
