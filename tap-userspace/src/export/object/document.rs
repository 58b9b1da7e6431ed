//! [`Transaction`] → the JSON object that is stored. Owns its shape: `metadata`, `request`,
//! `response`, and when and how long. Secrets are taken out here, before anything is encoded; what
//! does not fit is cut, and marked.
//!
//! Bodies are texts where they are UTF-8 and are not compressed, else base64; `body` says which, how
//! many bytes crossed, how many of them are here, and whether something is missing.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    config::http_capture::Level,
    connection::transaction::Transaction,
    policy::redact::Redaction,
    protocol::exchange::{Headers, Http, Message, Side, Trouble},
    telemetry::log,
};

/// Most bytes of any text besides header fields and bodies.
const TEXT_MAX: usize = 2 << 10;
/// What the marks around bodies and header fields take.
const MARKS: usize = 1 << 10;

/// How objects are made.
#[derive(Debug)]
pub struct Maker {
    /// What is taken out.
    pub redaction: Redaction,
    /// Most bytes of an object: 64 KiB or more, so that all but header fields and bodies always
    /// fit.
    pub max_bytes: usize,
}

impl Maker {
    /// The object of an HTTP transaction; nothing of any other exchange.
    pub fn make(&self, transaction: &Transaction, level: Level) -> Option<Vec<u8>> {
        let Message::Http(http) = &transaction.exchange.message else { return None };
        let mut object = self.summary(transaction, http);
        let mut room = Room(self.max_bytes.saturating_sub(length(&object) + MARKS));
        if level >= Level::Headers {
            let sets = [
                ("request", "headers", &http.request),
                ("response", "headers", &http.response),
                ("response", "trailers", &http.trailers),
            ];
            for (of, name, headers) in sets {
                if name == "trailers" && headers.is_empty() {
                    continue;
                }
                let (fields, cut) = self.headers(headers, &mut room);
                object[of][name] = fields;
                if cut {
                    object[of][format!("{name}_truncated")] = true.into();
                }
            }
        }
        if level >= Level::Full {
            let [request, response] =
                [Side::Client, Side::Server].map(|side| self.body(transaction, http, side));
            // Either may have half, and what the other leaves.
            let half = room.0 / 2;
            let of_response =
                room.0 - request.cost().min(half.max(room.0.saturating_sub(response.cost())));
            let of_request = room.0.saturating_sub(response.cost().min(of_response));
            object["request"]["body"] = request.value(of_request);
            object["response"]["body"] = response.value(of_response);
        }
        let bytes = object.to_string().into_bytes();
        debug_assert!(bytes.len() <= self.max_bytes, "{} bytes", bytes.len());
        Some(bytes)
    }

    fn summary(&self, transaction: &Transaction, http: &Http) -> Value {
        let (about, exchange) = (&transaction.about, &transaction.exchange);
        let id = about.id.encode();
        let target = self.redaction.target(&http.target);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let authority = http.authority.as_deref();
        let url = format!("{}://{}{target}", log::scheme(http), authority.unwrap_or_default());
        let field = |headers: &Headers, name: &str| {
            headers.get(name).map(|value| self.redaction.header(name, value).into_owned())
        };
        let mut metadata = Map::new();
        let mut request = Map::new();
        let mut response = Map::new();
        let put = |map: &mut Map<String, Value>, name: &str, value: Option<&str>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), cut(value).into());
            }
        };
        put(&mut metadata, "connection_id", Some(log::id(&id)));
        put(&mut metadata, "endpoint_id", http.host());
        put(&mut metadata, "request_id", Some(&log::request_id(transaction)));
        put(&mut metadata, "trace_id", Some(&hex(&about.identity.trace_id)));
        put(&mut metadata, "span_id", Some(&hex(&about.identity.span_id)));
        if let Some(process) = &about.process {
            metadata.insert("process_id".to_owned(), process.pid.into());
            put(&mut metadata, "process_exe", Some(&process.executable));
        }
        metadata.insert("bytes_sent".to_owned(), log::ours(transaction, 0).into());
        metadata.insert("bytes_received".to_owned(), log::ours(transaction, 1).into());
        put(&mut request, "method", Some(&http.method));
        put(&mut request, "url", Some(&self.redaction.url(&url)));
        put(&mut request, "scheme", Some(log::scheme(http)));
        put(&mut request, "authority", authority);
        put(&mut request, "path", Some(path));
        put(&mut request, "query", (!query.is_empty()).then_some(query));
        put(&mut request, "protocol", Some(&log::protocol(exchange)));
        put(&mut request, "user_agent", field(&http.request, "user-agent").as_deref());
        put(&mut request, "content_type", field(&http.request, "content-type").as_deref());
        put(&mut response, "content_type", field(&http.response, "content-type").as_deref());
        if let Some(status) = http.status {
            response.insert("status".to_owned(), status.into());
        }
        let quality = [("gap", exchange.gap), ("open", http.error == Some(Trouble::Open))];
        let quality = quality.iter().filter(|(_, is)| *is).map(|(mark, _)| *mark);
        let mut object = json!({
            "metadata": metadata,
            "request": request,
            "response": response,
            "transaction_time": time(exchange.began_ns),
            "duration_ms": log::milliseconds(exchange),
            "direction": log::direction(about.role),
            "quality": quality.collect::<Vec<_>>(),
        });
        if let Some(error) = log::error_type(transaction) {
            object["error"] = json!(error);
        }
        object
    }

    /// Fields by name, each with all its values; and whether some did not fit.
    fn headers(&self, headers: &Headers, room: &mut Room) -> (Value, bool) {
        let mut fields = Map::new();
        let mut cut = headers.dropped() > 0;
        for (name, value) in headers.iter() {
            let value = self.redaction.header(name, value);
            // Quotes, brackets, a colon and a comma.
            if room.take(escaped(name) + escaped(&value) + 8) {
                let of = fields.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(values) = of {
                    values.push(value.into());
                }
            } else {
                cut = true;
            }
        }
        (Value::Object(fields), cut)
    }

    fn body<'a>(&self, transaction: &Transaction, http: &'a Http, side: Side) -> Body<'a> {
        let kept = http.content.as_ref().map_or(&[][..], |content| content.of(side));
        let size = http.body[side as usize];
        let headers = if side == Side::Client { &http.request } else { &http.response };
        // A request that nobody answered may be whole all the same.
        let broken = http.error.is_some_and(|error| error != Trouble::NoResponse);
        let lost = transaction.exchange.gap || broken;
        let coded = headers.get("content-encoding").is_some_and(|it| it != "identity");
        let text = if coded { None } else { text(kept) };
        let content = match text {
            Some(text) => {
                let kind = headers.get("content-type").unwrap_or_default();
                let form = kind.to_ascii_lowercase().contains("x-www-form-urlencoded");
                Content::Text(self.redaction.body(text, form))
            }
            None => Content::Bytes(kept),
        };
        Body {
            content,
            captured: kept.len() as u64,
            size,
            // Of a message that is whole each byte was counted.
            missing: lost || (kept.len() as u64) < size,
            encoding: headers.get("content-encoding").map(cut),
        }
    }
}

/// Bytes that may still be used.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// What is kept of a body, without secrets.
struct Body<'a> {
    content: Content<'a>,
    /// Bytes of it that were kept, before secrets were taken out.
    captured: u64,
    /// Bytes that crossed.
    size: u64,
    missing: bool,
    /// `Content-Encoding`.
    encoding: Option<&'a str>,
}

enum Content<'a> {
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
}

impl Body<'_> {
    /// Bytes that it takes as JSON.
    fn cost(&self) -> usize {
        match &self.content {
            Content::Text(text) => escaped(text),
            Content::Bytes(bytes) => bytes.len().div_ceil(3) * 4,
        }
    }

    /// With at most `room` bytes of data.
    fn value(&self, room: usize) -> Value {
        let (data, encoding, whole) = match &self.content {
            Content::Text(text) => {
                let fits = fitting(text, room);
                (text[..fits].to_owned(), "utf-8", fits == text.len())
            }
            Content::Bytes(bytes) => {
                let fits = bytes.len().min(room / 4 * 3);
                (BASE64_STANDARD.encode(&bytes[..fits]), "base64", fits == bytes.len())
            }
        };
        let mut value = json!({
            "data": data,
            "encoding": encoding,
            "size": self.size,
            "captured": self.captured,
            "truncated": self.missing || !whole,
        });
        if let Some(encoding) = self.encoding {
            value["content_encoding"] = json!(encoding);
        }
        value
    }
}

/// Bytes as text, if they are; a character that was cut off at the end is left out.
fn text(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

/// A text's first [`TEXT_MAX`] bytes.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

/// Bytes that a character takes in a JSON text, as `serde_json` writes it.
const fn cost(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

fn escaped(text: &str) -> usize {
    text.chars().map(cost).sum()
}

/// How many bytes of a text fit into `room` bytes of JSON.
fn fitting(text: &str, room: usize) -> usize {
    let mut left = room;
    for (at, character) in text.char_indices() {
        match left.checked_sub(cost(character)) {
            Some(less) => left = less,
            None => return at,
        }
    }
    text.len()
}

fn length(value: &Value) -> usize {
    value.to_string().len()
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A time as RFC 3339 has it, in microseconds.
fn time(ns: u64) -> String {
    let date = super::template::Date::of(ns);
    let seconds = ns / 1_000_000_000 % 60;
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{seconds:02}.{:06}Z",
        date.year,
        date.month,
        date.day,
        date.hour,
        date.minute,
        ns / 1000 % 1_000_000
    )
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
