//! gRPC over HTTP/2. In: an HTTP exchange. Out: the call, where it is one, as the protocol's
//! description has it (`doc/PROTOCOL-HTTP2.md` of grpc/grpc).
#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::protocol::exchange::{Headers, Http};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grpc<'a> {
    /// `package.Service`.
    pub service: &'a str,
    /// The method's name.
    pub method: &'a str,
    /// `grpc-status`; none where the call did not come so far.
    pub status: Option<u32>,
    /// `grpc-message`, decoded.
    pub message: Option<Cow<'a, str>>,
}

/// The call that `http` is: its content type is `application/grpc`, with whatever follows.
pub fn grpc(http: &Http) -> Option<Grpc<'_>> {
    if !speaks(&http.request) && !speaks(&http.response) {
        return None;
    }
    let path = http.target.strip_prefix('/').unwrap_or(&http.target);
    // A service's name may hold slashes, a method's may not.
    let (service, method) = path.rsplit_once('/').unwrap_or(("", path));
    // Where the response is trailers only, they are its head.
    let said = |name| http.trailers.get(name).or_else(|| http.response.get(name));
    Some(Grpc {
        service,
        method,
        status: said("grpc-status").and_then(|status| status.parse().ok()),
        message: said("grpc-message").map(decode),
    })
}

fn speaks(headers: &Headers) -> bool {
    let rest = headers.get("content-type").and_then(|kind| {
        let (head, rest) = kind.split_at_checked("application/grpc".len())?;
        head.eq_ignore_ascii_case("application/grpc").then_some(rest)
    });
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';', '-', ' ']))
}

/// The names of the status codes, by number (`doc/statuscodes.md` of grpc/grpc).
const STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The status of a method that the server does not have.
pub const UNIMPLEMENTED: u32 = 12;

/// The name of a status code that is known.
pub fn known_status(status: u32) -> Option<&'static str> {
    STATUS_NAMES.get(usize::try_from(status).ok()?).copied()
}

/// A status code's name, as the conventions have it; the number of one that is not known.
pub fn status_name(status: u32) -> Cow<'static, str> {
    known_status(status).map_or_else(|| Cow::Owned(status.to_string()), Cow::Borrowed)
}

/// Whether the conventions call the status an error of a server: `UNKNOWN`, `DEADLINE_EXCEEDED`,
/// `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`.
pub const fn is_server_error(status: u32) -> bool {
    matches!(status, 2 | 4 | UNIMPLEMENTED | 13 | 14 | 15)
}

/// Percent-encoding; what is none stays as it is.
fn decode(message: &str) -> Cow<'_, str> {
    if !message.contains('%') {
        return Cow::Borrowed(message);
    }
    let mut bytes = Vec::with_capacity(message.len());
    let mut rest = message.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, hex(0), hex(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    #[test]
    fn the_content_type_tells_grpc() {
        let cases = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/GRPC; charset=x", true),
            ("application/grpc-web+proto", true),
            ("application/grpcish", false),
            ("application/json", false),
            ("application/gr\u{20ac}\u{20ac}", false),
            ("", false),
        ];
        for (kind, want) in cases {
            let fields = headers(&[("content-type", kind)]);
            let request = Http { request: fields.clone(), ..Http::default() };
            let response = Http { response: fields, ..Http::default() };
            assert_eq!(grpc(&request).is_some(), want, "{kind}");
            assert_eq!(grpc(&response).is_some(), want, "{kind}");
        }
    }

    #[test]
    fn service_and_method_are_the_path() {
        let cases = [
            ("/a.b.Service/Method", ("a.b.Service", "Method")),
            ("/x/a.Service/Method", ("x/a.Service", "Method")),
            ("/Method", ("", "Method")),
            ("a/b", ("a", "b")),
            ("", ("", "")),
        ];
        for (path, want) in cases {
            let http = Http {
                target: path.to_owned(),
                request: headers(&[("content-type", "application/grpc")]),
                ..Http::default()
            };
            let call = grpc(&http).unwrap();
            assert_eq!((call.service, call.method), want, "{path}");
            assert_eq!((call.status, call.message), (None, None));
        }
    }

    #[test]
    fn status_and_message_come_from_trailers_or_from_a_response_of_trailers_only() {
        let cases = [
            ("0", "", Some(0), ""),
            ("5", "not%20found: caf%C3%A9", Some(5), "not found: caf\u{e9}"),
            ("16", "100%", Some(16), "100%"),
            ("x", "%zz%4", None, "%zz%4"),
            ("4294967296", "%ff", None, "\u{fffd}"),
        ];
        for (status, message, want, text) in cases {
            let kind = ("content-type", "application/grpc");
            let end = [kind, ("grpc-status", status), ("grpc-message", message)];
            let trailers = Http {
                request: headers(&[kind]),
                response: headers(&[kind]),
                trailers: headers(&end),
                ..Http::default()
            };
            let only = Http { response: headers(&end), ..Http::default() };
            for http in [trailers, only] {
                let call = grpc(&http).unwrap();
                assert_eq!((call.status, call.message.as_deref()), (want, Some(text)), "{message}");
            }
        }
    }
}
