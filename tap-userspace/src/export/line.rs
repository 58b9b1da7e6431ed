//! A connection as one line of JSON: a flat object whose keys are the span's attributes.

use std::io::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};

use crate::{
    connection::{life::Life, model::Connection, transaction::Transaction},
    policy::data,
    protocol::trace_context::TraceContext,
    telemetry::{
        attributes::{self, Sink},
        child, life as of_life,
        limits::Limits,
        log,
        semconv::Key,
        span,
    },
};

/// Appends the connection's line.
pub fn line(connection: &Connection, limits: &Limits, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut object = Object { out, limits, left: u32::MAX, dropped: 0, first: true };
    object.member("name", |out| quote(span::NAME, out));
    object.member("start", |out| time(connection.start_ns, out));
    object.member("end", |out| time(connection.end_ns, out));
    object.member("trace_id", |out| hex(&connection.identity.trace_id, out));
    object.member("span_id", |out| hex(&connection.identity.span_id, out));
    object.left = limits.attributes;
    attributes::of_span(connection, &mut object);
    object.dropped_count();
    object.member("events", |out| events(connection, limits, out));
    if connection.dropped_events > 0 {
        object
            .member("dropped_events_count", |out| digits(connection.dropped_events.into(), 1, out));
    }
    out.extend_from_slice(b"}\n");
}

/// Appends the line of an exchange's span.
pub fn child(transaction: &Transaction, terms: &log::Terms, out: &mut Vec<u8>) {
    out.push(b'{');
    let limits = &terms.limits;
    let mut object = Object { out, limits, left: u32::MAX, dropped: 0, first: true };
    let identity = &transaction.about.identity;
    object.member("scope", |out| quote(log::SCOPES[log::scope(transaction)], out));
    object.member("name", |out| quote(&child::name(transaction, terms), out));
    object.member("kind", |out| quote(child::kind(transaction), out));
    object.member("start", |out| time(transaction.exchange.began_ns, out));
    object.member("end", |out| time(transaction.exchange.ended_ns, out));
    object.member("trace_id", |out| hex(&identity.trace_id, out));
    object.member("span_id", |out| hex(&child::span_id(transaction), out));
    object.member("parent_span_id", |out| hex(&identity.span_id, out));
    object.left = limits.attributes;
    child::of_span(transaction, terms, &mut object);
    object.dropped_count();
    if let Some(caller) = child::caller(transaction) {
        object.member("links", |out| link(&caller, limits, out));
    }
    out.extend_from_slice(b"}\n");
}

fn link(caller: &TraceContext<'_>, limits: &Limits, out: &mut Vec<u8>) {
    out.extend_from_slice(b"[{");
    let mut object = Object { out, limits, left: u32::MAX, dropped: 0, first: true };
    object.member("trace_id", |out| hex(&caller.trace_id, out));
    object.member("span_id", |out| hex(&caller.span_id, out));
    if let Some(state) = &caller.state {
        object.member("trace_state", |out| quote(state, out));
    }
    out.extend_from_slice(b"}]");
}

/// Appends an exchange's line.
pub fn transaction(transaction: &Transaction, terms: &log::Terms, out: &mut Vec<u8>) {
    out.push(b'{');
    let limits = &terms.limits;
    let mut object = Object { out, limits, left: u32::MAX, dropped: 0, first: true };
    object.member("scope", |out| quote(log::SCOPES[log::scope(transaction)], out));
    object.member("time", |out| time(transaction.exchange.ended_ns, out));
    object.member("trace_id", |out| hex(&transaction.about.identity.trace_id, out));
    object.member("span_id", |out| hex(&transaction.about.identity.span_id, out));
    object.member("body", |out| quote(limits.cut(&log::line(transaction, terms)), out));
    object.left = limits.attributes;
    log::of_record(transaction, terms, &mut object);
    object.dropped_count();
    out.extend_from_slice(b"}\n");
}

/// Appends the line of a connection's log record.
pub fn life(life: &Life, terms: &log::Terms, out: &mut Vec<u8>) {
    out.push(b'{');
    let limits = &terms.limits;
    let mut object = Object { out, limits, left: u32::MAX, dropped: 0, first: true };
    object.member("scope", |out| quote(span::SCOPE, out));
    object.member("time", |out| time(life.at_ns, out));
    object.member("trace_id", |out| hex(&life.identity.trace_id, out));
    object.member("span_id", |out| hex(&life.identity.span_id, out));
    object.member("body", |out| quote(limits.cut(&of_life::line(life)), out));
    object.left = limits.attributes;
    of_life::of_record(life, &mut object);
    object.dropped_count();
    out.extend_from_slice(b"}\n");
}

/// Appends the line of a span that processors have had.
pub fn made(span: &data::Span, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut object = Object { out, limits: &UNLIMITED, left: u32::MAX, dropped: 0, first: true };
    object.member("scope", |out| quote(&span.source.scope.name, out));
    object.member("name", |out| quote(&span.name, out));
    object.member("start", |out| time(span.start_ns, out));
    object.member("end", |out| time(span.end_ns, out));
    object.member("trace_id", |out| hex(&span.trace_id, out));
    object.member("span_id", |out| hex(&span.span_id, out));
    if span.parent_span_id != [0; 8] {
        object.member("parent_span_id", |out| hex(&span.parent_span_id, out));
    }
    if !span.trace_state.is_empty() {
        object.member("trace_state", |out| quote(&span.trace_state, out));
    }
    object.values(&span.attributes);
    if !span.events.is_empty() {
        object.member("events", |out| {
            list(&span.events, out, |event, out| {
                out.push(b'{');
                let mut object =
                    Object { out, limits: &UNLIMITED, left: u32::MAX, dropped: 0, first: true };
                object.member("name", |out| quote(&event.name, out));
                object.member("time", |out| time(event.time_ns, out));
                object.values(&event.attributes);
                out.push(b'}');
            });
        });
    }
    out.extend_from_slice(b"}\n");
}

/// Appends the line of a log record that processors have had.
pub fn record(record: &data::LogRecord, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut object = Object { out, limits: &UNLIMITED, left: u32::MAX, dropped: 0, first: true };
    object.member("scope", |out| quote(&record.source.scope.name, out));
    object.member("time", |out| time(record.time_ns, out));
    object.member("trace_id", |out| hex(&record.trace_id, out));
    object.member("span_id", |out| hex(&record.span_id, out));
    object.member("body", |out| value(&record.body, out));
    object.values(&record.attributes);
    out.extend_from_slice(b"}\n");
}

/// Appends a list.
fn list<T>(items: &[T], out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

/// Appends an attribute's value; bytes in base64, as OTLP's JSON has them.
fn value(of: &data::Value, out: &mut Vec<u8>) {
    match of {
        data::Value::Empty => out.extend_from_slice(b"null"),
        data::Value::Text(text) => quote(text, out),
        data::Value::Bool(value) => append(out, format_args!("{value}")),
        data::Value::Int(value) => append(out, format_args!("{value}")),
        data::Value::Double(value) if value.is_finite() => append(out, format_args!("{value}")),
        data::Value::Double(value) => quote(&value.to_string(), out),
        data::Value::Bytes(bytes) => quote(&STANDARD.encode(bytes), out),
        data::Value::Array(values) => list(values, out, value),
        data::Value::Map(map) => {
            out.push(b'{');
            for (index, (key, of)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                quote(key, out);
                out.push(b':');
                value(of, out);
            }
            out.push(b'}');
        }
    }
}

fn events(connection: &Connection, limits: &Limits, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, event) in connection.events.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"{" } else { b",{" });
        let mut object = Object { out, limits, left: u32::MAX, dropped: 0, first: true };
        object.member("name", |out| quote(attributes::event_name(event), out));
        object.member("time", |out| time(event.time_ns, out));
        object.left = limits.event_attributes;
        attributes::of_event(connection, event, &mut object);
        object.dropped_count();
        out.push(b'}');
    }
    out.push(b']');
}

/// What processors have had was limited before.
const UNLIMITED: Limits = Limits {
    attributes: u32::MAX,
    value_length: None,
    events: u32::MAX,
    links: u32::MAX,
    event_attributes: u32::MAX,
    link_attributes: u32::MAX,
};

/// The inside of a JSON object.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    limits: &'a Limits,
    left: u32,
    dropped: u32,
    first: bool,
}

impl Object<'_> {
    fn member(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if self.left == 0 {
            self.dropped += 1;
            return;
        }
        self.left -= 1;
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        // Keys are tap's own, and plain.
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        write(self.out);
    }

    /// Attributes that processors have had.
    fn values(&mut self, attributes: &data::Attributes) {
        for (key, of) in attributes.iter() {
            if !std::mem::take(&mut self.first) {
                self.out.push(b',');
            }
            quote(key, self.out);
            self.out.push(b':');
            value(of, self.out);
        }
    }

    /// Ends the attributes.
    fn dropped_count(&mut self) {
        self.left = u32::MAX;
        let dropped = self.dropped;
        if dropped > 0 {
            self.member("dropped_attributes_count", |out| digits(dropped.into(), 1, out));
        }
    }
}

impl Sink for Object<'_> {
    fn text(&mut self, key: &Key, value: &str) {
        let value = self.limits.cut(value);
        self.member(key.name, |out| quote(value, out));
    }

    fn int(&mut self, key: &Key, value: i64) {
        self.member(key.name, |out| {
            if value < 0 {
                out.push(b'-');
            }
            digits(value.unsigned_abs(), 1, out);
        });
    }

    fn flag(&mut self, key: &Key, value: bool) {
        self.member(key.name, |out| out.extend_from_slice(if value { b"true" } else { b"false" }));
    }

    fn texts<'a>(&mut self, key: &Key, values: impl Iterator<Item = &'a str> + Clone) {
        let limits = self.limits;
        self.member(key.name, |out| {
            out.push(b'[');
            for (i, value) in values.enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                quote(limits.cut(value), out);
            }
            out.push(b']');
        });
    }

    fn double(&mut self, key: &Key, value: f64) {
        self.member(key.name, |out| append(out, format_args!("{value:.3}")));
    }

    fn map(&mut self, key: &Key, fill: impl FnOnce(&mut Self)) {
        if self.left == 0 {
            self.dropped += 1;
            return;
        }
        self.member(key.name, |out| out.push(b'{'));
        let (left, dropped) = (self.left, self.dropped);
        (self.left, self.first) = (u32::MAX, true);
        fill(self);
        (self.left, self.dropped, self.first) = (left, dropped, false);
        self.out.push(b'}');
    }

    fn named_text(&mut self, prefix: &'static str, name: &str, value: &str) {
        if self.left == 0 {
            self.dropped += 1;
            return;
        }
        self.left -= 1;
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        let mut key = String::with_capacity(prefix.len() + name.len());
        key.push_str(prefix);
        key.push_str(name);
        quote(&key, self.out);
        self.out.extend_from_slice(b":[");
        quote(self.limits.cut(value), self.out);
        self.out.push(b']');
    }
}

/// Whether a character may be shown: it moves no cursor and turns no text around.
pub fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends a JSON string. What a terminal would obey is escaped, beyond what JSON asks for.
fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for character in text.chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                plain if is_plain(plain) => {
                    out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
                }
                // All of these are in the basic plane.
                other => append(out, format_args!("\\u{:04x}", u32::from(other))),
            }
        }
    }
    out.push(b'"');
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.push(b'"');
}

/// A number with at least `width` digits; the formatting machinery takes several times as long.
fn digits(mut value: u64, width: usize, out: &mut Vec<u8>) {
    // As many as the largest has.
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while value > 0 {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text[at.min(text.len() - width)..]);
}

/// Appends a time as quoted RFC 3339 with nanoseconds, UTC.
pub fn time(unix_ns: u64, out: &mut Vec<u8>) {
    let (seconds, nanos) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = clock(seconds);
    out.push(b'"');
    for (value, width, end) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (hour, 2, b':'),
        (minute, 2, b':'),
        (second, 2, b'.'),
        (nanos, 9, b'Z'),
    ] {
        digits(value, width, out);
        out.push(end);
    }
    out.push(b'"');
}

/// Writing to a vector cannot fail.
pub(super) fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).unwrap_or_default();
}

/// Hour, minute and second of the day.
pub(super) const fn clock(unix_seconds: u64) -> (u64, u64, u64) {
    let second = unix_seconds % 86_400;
    (second / 3_600, second / 60 % 60, second % 60)
}

/// Year, month and day, by days since 1970 (Howard Hinnant, `civil_from_days`).
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + (month <= 2) as u64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_rfc_3339() {
        for (unix_ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399_000_000_001, "2000-02-28T23:59:59.000000001Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (1_735_689_599_999_999_999, "2024-12-31T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(of(|out| time(unix_ns, out)), format!("\"{text}\""));
        }
    }

    #[test]
    fn strings_hold_nothing_that_a_terminal_obeys() {
        for (text, quoted) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\x1b[2J\n\r\t\0\x7f", r#""\u001b[2J\u000a\u000d\u0009\u0000\u007f""#),
            ("\u{9b}31m", r#""\u009b31m""#),
            ("\u{202e}gpj", r#""\u202egpj""#),
            ("größe 😀", "\"größe 😀\""),
        ] {
            let ours = of(|out| quote(text, out));
            assert_eq!(ours, quoted);
            assert_eq!(serde_json::from_str::<String>(&ours).unwrap(), text);
        }
    }
}
