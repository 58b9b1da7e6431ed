//! Connections of real programs, and what those programs said of them (`# said:` lines); and the
//! public frames of http2jp.

use super::super::frame::Head;
use super::*;

pub(in super::super) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

pub(super) struct Capture {
    pub said: Vec<String>,
    pub events: Vec<Event>,
}

pub(super) fn capture(name: &str) -> Capture {
    let path = format!("{}/../tests/fixtures/h2/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut capture = Capture { said: vec![], events: vec![] };
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("C", "")) => capture.events.push(Ends(C)),
            Some(("S", "")) => capture.events.push(Ends(S)),
            Some(("C", bytes)) => capture.events.push(Says(C, unhex(bytes))),
            Some(("S", bytes)) => capture.events.push(Says(S, unhex(bytes))),
            _ => capture.said.extend(line.strip_prefix("# said: ").map(str::to_owned)),
        }
    }
    capture
}

pub(super) const PRIOR: [&str; 6] =
    ["curl-prior", "grpc", "h2load", "nghttp-padded", "nghttp-post", "nghttp-push"];

fn https(name: &str) -> (Vec<Exchange>, Vec<String>) {
    let Capture { said, events } = capture(name);
    let (out, lost) = run_cut(Http2::new, &events);
    assert!(!lost, "{name}");
    assert!(!out.is_empty() && out.iter().all(|exchange| !exchange.gap), "{name}");
    (out, said)
}

fn http(exchange: &Exchange) -> &super::super::super::exchange::Http {
    match &exchange.message {
        Message::Http(http) => http,
        other => panic!("no HTTP: {other:?}"),
    }
}

/// `GET 200 15`, as curl's `-w` has it.
fn curl_line(exchange: &Exchange) -> String {
    let http = http(exchange);
    assert_eq!(http.error, None);
    format!("{} {} {}", http.method, http.status.unwrap(), http.body[1])
}

#[test]
fn curl_saw_the_same_responses() {
    let (out, said) = https("curl-prior");
    assert_eq!(out.iter().map(curl_line).collect::<Vec<_>>(), said);
    assert_eq!(said, ["GET 200 15"]);
    for exchange in &out {
        assert!(http(exchange).request.get("user-agent").unwrap().starts_with("curl/"));
        assert!(http(exchange).request.iter().any(|field| field.0 == "cookie"));
    }
}

#[test]
fn h2load_counted_the_same() {
    let (out, said) = https("h2load");
    assert_eq!(out.len(), 30);
    assert!(said[0].starts_with("status codes: 30 2xx"), "{said:?}");
    assert!(out.iter().all(|exchange| http(exchange).status == Some(200)));
    let body: u64 = out.iter().map(|exchange| http(exchange).body[1]).sum();
    assert!(said[1].ends_with(&format!("({body}) data")), "{said:?}");
}

/// What nghttp told of the streams that it opened, as lists of fields, and of the payload's bytes
/// with padding.
#[test]
fn nghttp_saw_the_same_streams() {
    for (name, padding) in [("nghttp-push", 0), ("nghttp-post", 0), ("nghttp-padded", 20)] {
        let (out, said) = https(name);
        let heads = |stream: u32| {
            let end = format!("stream_id={stream}>");
            said.iter().filter(move |line| line.ends_with(&end))
        };
        for exchange in &out {
            let http = http(exchange);
            assert_eq!(http.error, None);
            let prefix = format!("recv (stream_id={}) ", http.stream);
            let mut want: Vec<String> = said
                .iter()
                .filter_map(|line| line.strip_prefix(&prefix))
                .map(str::to_owned)
                .collect();
            // A push's request is told under the stream that promised it.
            want.retain(|line| {
                ![":method", ":path", ":scheme", ":authority"]
                    .iter()
                    .any(|name| line.starts_with(name))
            });
            let mut got = vec![format!(":status: {}", http.status.unwrap())];
            let fields = http.response.iter().chain(http.trailers.iter());
            got.extend(fields.map(|(name, value)| format!("{name}: {value}")));
            assert_eq!(got, want, "{name}");

            let length = |line: &String| -> u64 {
                line.split(['=', ',']).nth(1).and_then(|length| length.parse().ok()).unwrap()
            };
            let sum = |what: &str| -> (u64, u64) {
                let lines: Vec<_> =
                    heads(http.stream).filter(|line| line.starts_with(what)).collect();
                (lines.len() as u64, lines.into_iter().map(length).sum())
            };
            let ((frames, data), (blocks, block)) = (sum("recv DATA"), sum("recv HEADERS"));
            assert_eq!(exchange.bytes[1], data + block + 9 * (frames + blocks), "{name}");
            assert_eq!(http.body[1], data - padding * frames, "{name}");
            let (frames, data) = sum("send ");
            assert_eq!(exchange.bytes[0], data + 9 * frames, "{name}");
        }
        let opened = said.iter().filter(|line| line.starts_with("send HEADERS frame")).count();
        let opened = opened - usize::from(name == "nghttp-post");
        assert_eq!(out.len(), opened, "{name}");
    }
    let (out, _) = https("nghttp-post");
    assert_eq!((http(&out[0]).method.as_str(), http(&out[0]).body), ("POST", [300, 300]));
    assert_eq!(http(&out[0]).trailers.get("x-sum"), Some("42"));
}

#[test]
fn grpc_calls_are_those_that_the_client_made() {
    let (out, said) = https("grpc");
    let lines: Vec<String> = out
        .iter()
        .map(|exchange| {
            let http = http(exchange);
            let call = grpc::grpc(http).unwrap();
            if http.error.is_some() {
                // The client gave up.
                assert_eq!((call.status, http.error), (None, Some(Trouble::Reset(C, 8))));
                return format!("/{}/{} 4 Deadline Exceeded", call.service, call.method);
            }
            let (status, message) = (call.status.unwrap(), call.message.unwrap_or_default());
            format!("/{}/{} {status} {message}", call.service, call.method).trim_end().to_owned()
        })
        .collect();
    assert_eq!(lines, said);
    assert_eq!(http(&out[0]).body, [8, 11]);
    assert_eq!(
        http(&out[4]).trailers.get("x-why").or(http(&out[4]).response.get("x-why")),
        Some("because")
    );
}

/// The request of an upgrade as HTTP/1's parser tells it, and what follows it and the 101.
fn upgraded(name: &str) -> (Exchange, Vec<Event>, Vec<String>) {
    let Capture { said, mut events } = capture(name);
    let mut heads = vec![];
    for side in [C, S] {
        let head = events.iter_mut().find_map(|event| match event {
            Says(of, bytes) if *of == side => Some(bytes),
            _ => None,
        });
        let head = head.unwrap();
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let rest = head.split_off(end);
        heads.push(String::from_utf8(std::mem::replace(head, rest)).unwrap());
    }
    let mut lines = heads[0].lines();
    let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
    let mut http = Box::new(super::super::super::exchange::Http {
        version: "1.1",
        method: words.next().unwrap(),
        target: words.next().unwrap(),
        status: Some(101),
        ..Default::default()
    });
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        http.request.push(name.as_bytes(), value.as_bytes());
    }
    http.authority = http.request.get("host").map(str::to_owned);
    assert!(heads[1].starts_with("HTTP/1.1 101"), "{heads:?}");
    let exchange = Exchange {
        began_ns: 0,
        ended_ns: 0,
        bytes: [heads[0].len() as u64, 0],
        message: Message::Http(http),
        gap: false,
    };
    (exchange, events, said)
}

#[test]
fn an_upgraded_request_is_answered_on_stream_1() {
    let (request, events, said) = upgraded("curl-upgrade");
    let head = request.bytes[0];
    let (out, lost) = run_cut(|| Http2::upgraded(request.clone()), &events);
    assert!(!lost);
    assert_eq!(out.iter().map(curl_line).collect::<Vec<_>>(), said);
    let first = http(&out[0]);
    assert_eq!((first.version, first.stream, first.target.as_str()), ("2", 1, "/up"));
    assert_eq!((first.response.get("x-path"), out[0].bytes[0]), (Some("/up"), head));

    let (request, events, _) = upgraded("nghttp-upgrade");
    let (out, lost) = run_cut(|| Http2::upgraded(request.clone()), &events);
    assert!(!lost);
    let paths: Vec<_> = out.iter().map(|exchange| http(exchange).response.get("x-path")).collect();
    assert_eq!(paths, [Some("/one"), Some("/two")]);
    assert!(out.iter().all(|exchange| http(exchange).status == Some(201)));
}

#[test]
fn settings_of_an_upgrade_are_base64url() {
    // As curl sends them: 100 streams, a window of 32 MiB, no push.
    assert_eq!(
        base64url("AAMAAABkAAQCAAAAAAIAAAAA"),
        [0, 3, 0, 0, 0, 100, 0, 4, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0]
    );
    assert_eq!(base64url("-_8="), [0xfb, 0xff]);
    assert!(base64url("%%").is_empty());
}

/// Each of the captures joined after its nth piece, and with its nth piece lost, which in the
/// kernel is one call's bytes: nothing of what is told unmarked may be wrong.
#[test]
fn a_capture_with_a_piece_lost_tells_nothing_wrong() {
    let mut told = [0, 0];
    for name in PRIOR {
        let events = capture(name).events;
        let (whole, _) = run(Http2::new(), &events, |_, _| vec![]);
        let whole_of = |stream| whole.iter().find(|other| http(other).stream == stream);
        for nth in 0..events.len() {
            let mut holed = events.clone();
            if let Says(side, bytes) = &events[nth] {
                holed[nth] = Misses(*side, bytes.len() as u64);
            }
            let joined = run(Http2::joined(), &events[nth..], |_, _| vec![]).0;
            let holed = run(Http2::new(), &holed, |_, _| vec![]).0;
            for exchange in joined.iter().chain(&holed) {
                let got = http(exchange);
                let want = http(whole_of(got.stream).expect("a stream that was"));
                if exchange.gap {
                    told[1] += 1;
                    assert!(got.status.is_none() || got.status == want.status, "{name} {nth}");
                } else if got.error.is_none() {
                    told[0] += 1;
                    assert_eq!(got, want, "{name} {nth}");
                }
            }
        }
    }
    assert!(told[0] > 50 && told[1] > 50, "{told:?}");
}

#[test]
fn each_public_frame_is_read_as_it_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/h2frame/frames.jsonl");
    let mut counts = [0, 0];
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = &case["id"];
        let wire = unhex(case["wire"].as_str().unwrap());
        let (head, payload) = wire.split_first_chunk().unwrap();
        let head = Head::parse(*head);
        let result = head.check(super::super::frame::DEFAULT_MAX).and_then(|()| {
            if head.kind == super::super::frame::DATA && head.padded() {
                super::super::frame::data_padding(&head, payload[0])?;
            }
            super::super::frame::read(&head, payload)
        });
        if let Some(errors) = case["error"].as_array() {
            let code = result.expect_err(&id.to_string()) as u64;
            assert!(errors.iter().any(|error| error.as_u64() == Some(code)), "{id}: {code}");
            counts[1] += 1;
            continue;
        }
        let want = &case["frame"];
        assert_eq!(want["length"].as_u64(), Some(u64::from(head.length)), "{id}");
        assert_eq!(want["type"].as_u64(), Some(u64::from(head.kind)), "{id}");
        assert_eq!(want["stream_identifier"].as_u64(), Some(u64::from(head.stream)), "{id}");
        let want = &want["frame_payload"];
        match result.unwrap() {
            Payload::Fragment(block) => {
                assert_eq!(want["header_block_fragment"].as_str().unwrap().as_bytes(), block);
            }
            Payload::Settings(bytes) => {
                assert_eq!(want["settings"][0][1].as_u64(), Some(8192));
                assert_eq!(super::super::frame::settings(bytes).header_table_size, Some(8192));
            }
            Payload::Reset(code) => {
                assert_eq!(want["error_code"].as_u64(), Some(u64::from(code)));
            }
            Payload::Other if head.kind == super::super::frame::DATA => {
                let padding = super::super::frame::data_padding(&head, payload[0]).unwrap();
                assert_eq!(want["padding_length"].as_u64(), Some(u64::from(padding)));
            }
            Payload::Other => {}
        }
        counts[0] += 1;
    }
    assert_eq!(counts, [12, 22]);
}
