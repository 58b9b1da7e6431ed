//! OTLP/HTTP's answers: response in, [`Outcome`] out. Which status may be tried again, and when:
//! <https://opentelemetry.io/docs/specs/otlp/#failures-1>.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use prost::Message as _;
use serde_json::Value;
use tokio::time::Instant;

use super::transport::{LONGEST_RESPONSE, Outcome, Status};

/// What a response says, whose end is waited for `until` then. Its status is the answer: where what follows
/// breaks off or does not come, a success is one still, as in the Collector (its pull request 15389),
/// since to send it again would double what the server said it has. Only "if the server disconnects
/// without returning a response" does OTLP ask for another attempt.
pub async fn outcome(response: Response<Incoming>, until: Option<Instant>) -> Outcome {
    let (parts, body) = response.into_parts();
    let json = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let body = Limited::new(body, LONGEST_RESPONSE).collect();
    let body = match until {
        Some(until) => tokio::time::timeout_at(until, body).await.ok(),
        None => Some(body.await),
    };
    match body {
        Some(Ok(body)) => judge(parts.status, &parts.headers, &body.to_bytes(), json),
        None | Some(Err(_)) => match judge(parts.status, &parts.headers, &[], json) {
            Outcome::Taken { .. } => Outcome::Taken {
                rejected: 0,
                message: format!(
                    "the answer broke off after its status ({}), which might have told of items \
                     that it refuses",
                    parts.status
                ),
            },
            outcome => outcome,
        },
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], json: bool) -> Outcome {
    if status.is_success() {
        return if json { taken_json(body) } else { Outcome::from_response(body) };
    }
    let message = message(body, json);
    let cause = if message.is_empty() {
        format!("HTTP status {status}")
    } else {
        format!("HTTP status {status}: {message}")
    };
    let error = Cow::Owned(status.as_str().to_owned());
    match status.as_u16() {
        429 | 502 | 503 | 504 => Outcome::Again { cause, after: retry_after(headers), error },
        401 | 403 => Outcome::Refused { cause, remedy: HEADERS, error },
        300..=399 | 404 | 405 => Outcome::Refused {
            cause,
            remedy: "check the path of the endpoint, and the protocol (OTEL_EXPORTER_OTLP_ENDPOINT, \
                     …_PROTOCOL, or the exporter's own)",
            error,
        },
        413 => Outcome::Refused { cause, remedy: SIZE, error },
        415 => Outcome::Refused {
            cause,
            remedy: "change the protocol (OTEL_EXPORTER_OTLP_PROTOCOL, or the exporter's own)",
            error,
        },
        _ => Outcome::Refused { cause, remedy: "look into the collector's log", error },
    }
}

/// What to do where credentials are missing or wrong.
pub const HEADERS: &str = "check OTEL_EXPORTER_OTLP_HEADERS, or the exporter's `headers`";

/// What to do where requests are too large.
pub const SIZE: &str =
    "lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE, or the exporter's `sending_queue.batch.min_size`";

fn taken_json(body: &[u8]) -> Outcome {
    let response: Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &response["partialSuccess"];
    let rejected = ["rejectedSpans", "rejectedDataPoints"].iter().find_map(|name| {
        let count = &partial[*name];
        // 64-bit integers are strings in protobuf's JSON, but numbers are to be understood too.
        count.as_u64().or_else(|| count.as_str()?.parse().ok())
    });
    let message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
    Outcome::Taken { rejected: rejected.unwrap_or(0), message }
}

/// The text of an error's `google.rpc.Status`, or what begins the body.
fn message(body: &[u8], json: bool) -> String {
    if json {
        let status: Value = serde_json::from_slice(body).unwrap_or_default();
        return status["message"].as_str().unwrap_or_default().to_owned();
    }
    if let Ok(status) = Status::decode(body) {
        return status.message;
    }
    let begin = &body[..body.len().min(200)];
    String::from_utf8_lossy(begin).chars().filter(|c| !c.is_control()).collect()
}

/// `Retry-After`: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &[u8], json: bool) -> Outcome {
        judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body, json)
    }

    #[test]
    fn statuses_are_final_or_not() {
        for status in 100..600 {
            let outcome = of(status, b"", false);
            match status {
                200..300 => assert!(matches!(outcome, Outcome::Taken { rejected: 0, .. })),
                429 | 502 | 503 | 504 => assert!(matches!(outcome, Outcome::Again { .. })),
                _ => assert!(matches!(outcome, Outcome::Refused { .. }), "{status}"),
            }
        }
    }

    #[test]
    fn bodies_are_read_and_bad_ones_do_no_harm() {
        let status = Status { code: 3, message: "no".into(), details: vec![] }.encode_to_vec();
        for (status, body, json, expected) in [
            (
                200,
                &b"{\"partialSuccess\":{\"rejectedSpans\":\"2\",\"errorMessage\":\"x\"}}"[..],
                true,
                "2 x",
            ),
            (200, b"{\"partialSuccess\":{\"rejectedSpans\":2}}", true, "2 "),
            (200, b"{}", true, "0 "),
            (200, b"nonsense", true, "0 "),
            (200, b"\x0a\x05\x08\x02\x12\x01x", false, "2 x"),
            (200, b"\xff\xff", false, "0 "),
            (400, &status, false, "HTTP status 400 Bad Request: no"),
            (400, b"{\"message\":\"no\"}", true, "HTTP status 400 Bad Request: no"),
            (400, b"<html>\x1b[2J", false, "HTTP status 400 Bad Request: <html>[2J"),
            (500, b"", false, "HTTP status 500 Internal Server Error"),
        ] {
            let text = match of(status, body, json) {
                Outcome::Taken { rejected, message } => format!("{rejected} {message}"),
                Outcome::Again { cause, .. } | Outcome::Refused { cause, .. } => cause,
            };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let past = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH);
        for (value, expected) in [
            ("3", Some(3)),
            (" 0 ", Some(0)),
            (past.as_str(), Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{value}");
        }
    }
}
