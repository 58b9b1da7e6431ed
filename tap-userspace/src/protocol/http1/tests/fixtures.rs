//! Conformance data, and bytes that real programs sent.

use serde_json::Value;

use super::{
    Event::{C, EndC, EndS, S},
    feed, http, told,
};
use crate::protocol::exchange::{Exchange, Trouble};

fn lines(name: &str) -> Vec<Value> {
    let path = format!("{}/../tests/fixtures/http1/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("a fixture");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// Judges each head behind a good exchange, so that the parser is in step.
#[test]
fn heads_of_httparse() {
    const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    let cases = lines("httparse.jsonl");
    assert_eq!(cases.len(), 37);
    for case in cases {
        let id = &case["id"];
        let head = bytes_of_hex(case["raw_hex"].as_str().expect("hex"));
        let request = case["type"] == "request";
        let (out, next) = if request {
            told(&[C(GET), S(OK), C(&head), EndC, EndS])
        } else {
            told(&[C(GET), S(OK), C(GET), S(&head), EndS])
        };
        let [_, exchange] = &out[..] else { panic!("{id}: {out:?}") };
        let http = http(exchange);
        let wanted = match case["verdict"].as_str() {
            Some("complete") if request => Some(Trouble::NoResponse),
            Some("complete") => None,
            Some("incomplete") => Some(Trouble::Truncated),
            Some("reject") => Some(Trouble::Malformed),
            other => panic!("{id}: {other:?}"),
        };
        assert_eq!(http.error, wanted, "{id}");
        if let Some(length) = case["head_len"].as_u64() {
            assert_eq!(exchange.bytes[usize::from(!request)], length, "{id}");
        }
        let expect = &case["expect"];
        if expect.is_null() {
            continue;
        }
        if request {
            assert_eq!(http.method, expect["method"], "{id}");
            assert_eq!(http.target, expect["path"], "{id}");
            let minor = expect["version"].as_u64().expect("a version");
            assert_eq!(http.version, format!("1.{minor}"), "{id}");
        } else {
            assert_eq!(http.status.map(u64::from), expect["code"].as_u64(), "{id}");
            assert_eq!(next.is_some(), http.status == Some(101), "{id}");
        }
        let fields = if request { &http.request } else { &http.response };
        if let Some(wanted) = expect["headers"].as_array() {
            // The data has values as Latin-1, tap as UTF-8.
            let wanted: Vec<_> = wanted
                .iter()
                .map(|field| {
                    let value = field[1].as_str().expect("a value");
                    let value: Vec<u8> = value.chars().map(|c| c as u8).collect();
                    let name = field[0].as_str().expect("a name").to_ascii_lowercase();
                    (name, String::from_utf8_lossy(&value).into_owned())
                })
                .collect();
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(fields, wanted, "{id}");
        } else if expect["n_headers"] == 0 {
            assert!(fields.is_empty(), "{id}");
        }
    }
}

#[test]
fn chunked_bodies_of_picohttpparser() {
    let cases = lines("picohttpparser_chunked.jsonl");
    assert_eq!(cases.len(), 13);
    for case in cases {
        let id = &case["id"];
        let raw = case["raw"].as_str().expect("bytes");
        let ret = case["ret"].as_i64().expect("a verdict");
        let through_trailers = case["consume_trailer"] == true;
        const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        // Where the case ends behind the last chunk, the trailer section is still to come.
        let ends_early = ret == 0 && !through_trailers;
        let response = format!("{HEAD}{raw}{}", if ends_early { "\r\n" } else { "" });
        let (out, _) = told(&[C(b"GET / HTTP/1.1\r\n\r\n"), S(response.as_bytes()), EndS]);
        let [exchange] = &out[..] else { panic!("{id}: {out:?}") };
        let http = http(exchange);
        let wanted = match ret {
            -1 => Some(Trouble::Malformed),
            -2 => Some(Trouble::Truncated),
            _ => None,
        };
        assert_eq!(http.error, wanted, "{id}");
        if let Some(decoded) = case["decoded"].as_str() {
            assert_eq!(http.body[1], decoded.len() as u64, "{id}");
        }
        if ret >= 0 {
            assert_eq!(exchange.bytes[1], response.len() as u64, "{id}");
            let trailers: String =
                http.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            if ret > 0 {
                assert_eq!(trailers.len() as i64 + 2, ret, "{id}: the trailer section is left");
            }
            assert!(response.ends_with(&format!("{trailers}\r\n")) || id == "pico/chunked/11");
        }
    }
}

/// One connection between real programs; how it was made is in the file's first line.
struct Recorded {
    name: String,
    events: Vec<(bool, Vec<u8>)>,
    wanted: Vec<String>,
}

fn recorded() -> Vec<Recorded> {
    lines("recorded.jsonl")
        .iter()
        .filter(|line| line["name"].is_string())
        .map(|line| Recorded {
            name: line["name"].to_string(),
            events: line["pieces"]
                .as_array()
                .expect("pieces")
                .iter()
                .map(|piece| (piece[0] == "C", bytes_of_hex(piece[1].as_str().expect("hex"))))
                .collect(),
            wanted: line["wanted"]
                .as_array()
                .expect("what is wanted")
                .iter()
                .map(|wanted| wanted.as_str().expect("text").to_owned())
                .collect(),
        })
        .collect()
}

#[test]
fn what_real_programs_say() {
    let recorded = recorded();
    assert!(recorded.len() >= 10, "{}", recorded.len());
    for Recorded { name, events, wanted } in recorded {
        let mut pieces: Vec<_> = events
            .iter()
            .map(|(client, bytes)| if *client { C(bytes) } else { S(bytes) })
            .collect();
        pieces.extend([EndC, EndS]);
        let shown = |out: Vec<Exchange>| -> Vec<String> {
            let line = |exchange: &Exchange| {
                let http = http(exchange);
                let error = http.error.map_or(String::new(), |error| format!(" {error:?}"));
                let (status, body) = (http.status.unwrap_or(0), http.body);
                let (method, target) = (&http.method, &http.target);
                format!("{method} {target} {status} {}/{}{error}", body[0], body[1])
            };
            out.iter().map(line).collect()
        };
        for cut in [usize::MAX, 1, 2, 7] {
            assert_eq!(shown(feed(&pieces, super::Cut::Every(cut))), wanted, "{name} by {cut}");
        }
    }
}
