//! OTLP/gRPC by hand: one unary call is an HTTP/2 request with five bytes before its message and a
//! status in the trailers (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
//! Response in, [`Outcome`] out.

use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use prost::Message as _;

use super::{
    http::{HEADERS, SIZE},
    transport::{LONGEST_RESPONSE, Outcome, Status},
};
use crate::{config::environment::percent_decode, protocol::http2::grpc::status_name};

/// Bytes before a message: compressed or not, length.
pub const PREFIX: usize = 5;

/// Writes the prefix of the message `body[PREFIX..]`.
pub fn prefix(body: &mut [u8], compressed: bool) {
    let len = (body.len() - PREFIX) as u32;
    body[0] = compressed.into();
    body[1..PREFIX].copy_from_slice(&len.to_be_bytes());
}

/// The headers of every call.
pub fn headers(headers: &mut HeaderMap, timeout: Option<Duration>, coding: Option<&'static str>) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(coding) = coding {
        headers.insert("grpc-encoding", HeaderValue::from_static(coding));
    }
    // At most eight digits.
    let timeout = timeout.map(|timeout| timeout.as_millis().min(99_999_999));
    if let Some(value) = timeout.and_then(|timeout| format!("{timeout}m").parse().ok()) {
        headers.insert("grpc-timeout", value);
    }
}

/// What a response says.
pub async fn outcome(response: Response<Incoming>) -> Outcome {
    let (parts, body) = response.into_parts();
    // A call that failed at once has its trailers in the headers.
    if parts.headers.contains_key("grpc-status") {
        return judge(&parts.headers, &[]);
    }
    if !parts.status.is_success() {
        // Not from a gRPC server, but from what stands before it.
        let cause = format!("HTTP status {}", parts.status);
        let error = parts.status.as_str().to_owned();
        return match parts.status.as_u16() {
            429 | 502 | 503 | 504 => Outcome::again(cause, error),
            _ => Outcome::Refused { cause, remedy: REMEDY, error: error.into() },
        };
    }
    match Limited::new(body, LONGEST_RESPONSE).collect().await {
        Ok(body) => {
            let trailers = body.trailers().cloned().unwrap_or_default();
            judge(&trailers, &body.to_bytes())
        }
        Err(error) => Outcome::again(format!("the answer broke off: {error}"), "broken"),
    }
}

const REMEDY: &str = "check the endpoint and the protocol (OTEL_EXPORTER_OTLP_ENDPOINT, …_PROTOCOL, \
                      or the exporter's own)";

fn judge(trailers: &HeaderMap, body: &[u8]) -> Outcome {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u8>().ok()) else {
        let cause = "an answer without gRPC status".into();
        return Outcome::Refused { cause, remedy: REMEDY, error: "no_status".into() };
    };
    if code == 0 {
        return Outcome::from_response(body.get(PREFIX..).unwrap_or_default());
    }
    let message = text("grpc-message").map(|text| percent_decode(text).unwrap_or(text.to_owned()));
    let message = message.unwrap_or_default();
    let error = status_name(code.into());
    let cause = format!("gRPC status {error} ({message})");
    let after = text("grpc-status-details-bin").and_then(retry_info);
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        1 | 4 | 10 | 11 | 14 | 15 => Outcome::Again { cause, after, error },
        // RESOURCE_EXHAUSTED: only where the server says that it will recover.
        8 if after.is_some() => Outcome::Again { cause, after, error },
        8 => Outcome::Refused { cause, remedy: SIZE, error },
        7 | 16 => Outcome::Refused { cause, remedy: HEADERS, error },
        12 => Outcome::Refused { cause, remedy: REMEDY, error },
        _ => Outcome::Refused { cause, remedy: "look into the collector's log", error },
    }
}

/// `google.rpc.RetryInfo` among a status's details: `retry_delay` is field 1, a
/// `google.protobuf.Duration`.
fn retry_info(details: &str) -> Option<Duration> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        delay: Option<Delay>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let status = engine.decode(details.trim_end_matches('=')).ok()?;
    let status = Status::decode(status.as_slice()).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.delay.unwrap_or_default();
    let seconds = Duration::from_secs(delay.seconds.try_into().ok()?);
    Some(seconds + Duration::from_nanos(delay.nanos.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status 8 with a RetryInfo of 1.5 s.
    const RETRY_INFO: &[u8] = b"\x08\x08\x1a\x33\x0a\x28type.googleapis.com/google.rpc.RetryInfo\
                                \x12\x07\x0a\x05\x08\x01\x10\x80\x65";

    fn of(trailers: &[(&'static str, &str)]) -> Outcome {
        let trailers = trailers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        judge(&trailers.collect(), &[])
    }

    #[test]
    fn codes_are_final_or_not() {
        for code in 0..=20u8 {
            let outcome = of(&[("grpc-status", &code.to_string())]);
            match code {
                0 => assert!(matches!(outcome, Outcome::Taken { rejected: 0, .. })),
                1 | 4 | 10 | 11 | 14 | 15 => assert!(matches!(outcome, Outcome::Again { .. })),
                _ => assert!(matches!(outcome, Outcome::Refused { .. }), "{code}"),
            }
        }
        assert!(matches!(of(&[]), Outcome::Refused { .. }));
        assert!(matches!(of(&[("grpc-status", "x")]), Outcome::Refused { .. }));
    }

    #[test]
    fn an_exhausted_server_may_say_when_it_recovers() {
        let details = base64::engine::general_purpose::STANDARD.encode(RETRY_INFO);
        let outcome = of(&[
            ("grpc-status", "8"),
            ("grpc-message", "too%20much"),
            ("grpc-status-details-bin", &details),
        ]);
        let after = Some(Duration::from_secs(1) + Duration::from_nanos(12_928));
        let cause = "gRPC status RESOURCE_EXHAUSTED (too much)".to_owned();
        let error = "RESOURCE_EXHAUSTED".into();
        assert_eq!(outcome, Outcome::Again { cause, after, error });
        for bad in ["", "*", "AAAA", &details[..20]] {
            assert_eq!(retry_info(bad), None, "{bad}");
        }
    }
}
