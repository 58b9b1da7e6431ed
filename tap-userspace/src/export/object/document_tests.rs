use std::{net::IpAddr, sync::Arc};

use super::*;
use crate::{
    connection::{
        identity::Xid,
        model::{Identity, Role},
        transaction::About,
    },
    enrich::process::Process,
    protocol::{
        content::{Collect, Content as Kept},
        exchange::Exchange,
    },
};

const MAX: usize = 64 << 10;

fn maker() -> Maker {
    Maker { redaction: Redaction::default(), max_bytes: MAX }
}

/// A transaction with these fields and bodies.
fn transaction(fields: [&[(&str, &str)]; 2], bodies: [&[u8]; 2], target: &str) -> Transaction {
    let mut http = Http {
        version: "1.1",
        method: "POST".into(),
        authority: Some("api.example.com".into()),
        target: target.into(),
        status: Some(201),
        ..Http::default()
    };
    let mut content = Kept::new(Arc::new(Collect::new(1 << 20, 1 << 30)));
    for (index, side) in [Side::Client, Side::Server].into_iter().enumerate() {
        let of = if index == 0 { &mut http.request } else { &mut http.response };
        fields[index].iter().for_each(|(name, value)| of.push(name.as_bytes(), value.as_bytes()));
        content.append(side, 0, bodies[index], usize::MAX);
        http.body[index] = bodies[index].len() as u64;
    }
    http.content = Some(Arc::new(content));
    let [local, peer] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
    let about = About {
        id: Xid([7; 12]),
        identity: Identity { trace_id: [1; 16], span_id: [2; 8], peer_span_id: None },
        role: Role::Client,
        local: (local, 40_000),
        peer: (peer, 80),
        process: Some(Arc::new(Process {
            pid: 7,
            executable: "/usr/bin/curl".into(),
            ..Process::default()
        })),
    };
    let exchange = Exchange {
        began_ns: 1_709_251_199_123_456_789,
        ended_ns: 1_709_251_199_125_456_789,
        bytes: [300, 400],
        message: Message::Http(Box::new(http)),
        gap: false,
    };
    Transaction { about: Arc::new(about), number: 4, exchange, object: None }
}

fn made(transaction: &Transaction, level: Level) -> Value {
    let bytes = maker().make(transaction, level).unwrap();
    assert!(bytes.len() <= MAX, "{} bytes", bytes.len());
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn each_level_holds_what_it_says() {
    let fields: [&[(&str, &str)]; 2] = [
        &[
            ("Content-Type", "application/json"),
            ("Authorization", "Bearer t"),
            ("Accept", "a"),
            ("accept", "b"),
        ],
        &[("Set-Cookie", "s=1"), ("Location", "/x?token=t&a=1")],
    ];
    let bodies: [&[u8]; 2] = [b"{\"user\":\"u\",\"password\":\"p\"}", b"caf\xc3\xa9"];
    let transaction = transaction(fields, bodies, "/login?token=secret&n=1");
    let summary = made(&transaction, Level::Summary);
    assert_eq!(summary["request"]["path"], "/login");
    assert_eq!(summary["request"]["query"], "token=REDACTED&n=1");
    assert_eq!(summary["request"]["url"], "http://api.example.com/login?token=REDACTED&n=1");
    assert_eq!(summary["response"], json!({ "status": 201 }));
    assert_eq!((&summary["duration_ms"], &summary["direction"]), (&json!(2.0), &json!("egress")));
    assert_eq!(summary["transaction_time"], "2024-02-29T23:59:59.123456Z");
    let metadata = &summary["metadata"];
    assert_eq!(
        (&metadata["process_exe"], &metadata["bytes_sent"]),
        (&json!("/usr/bin/curl"), &json!(300))
    );
    assert_eq!(
        metadata["request_id"],
        format!("{}-4", metadata["connection_id"].as_str().unwrap())
    );
    let headers = made(&transaction, Level::Headers);
    let wanted = json!({
        "content-type": ["application/json"], "authorization": ["[REDACTED]"], "accept": ["a", "b"],
    });
    assert_eq!(headers["request"]["headers"], wanted);
    let wanted = json!({ "set-cookie": ["[REDACTED]"], "location": ["/x?token=REDACTED&a=1"] });
    assert_eq!(headers["response"]["headers"], wanted);
    assert_eq!(headers["request"].get("body"), None);
    let full = made(&transaction, Level::Full);
    let wanted = json!({
        "data": "{\"user\":\"u\",\"password\":\"[REDACTED]\"}", "encoding": "utf-8",
        "size": 27, "captured": 27, "truncated": false,
    });
    assert_eq!(full["request"]["body"], wanted);
    assert_eq!(full["response"]["body"]["data"], "café");
    for object in [summary, headers, full] {
        let text = object.to_string();
        assert!(!text.contains("secret") && !text.contains("Bearer"), "{text}");
    }
}

#[test]
fn bodies_are_text_or_base64() {
    let gzip: &[(&str, &str)] = &[("Content-Encoding", "gzip")];
    let form: &[(&str, &str)] = &[("Content-Type", "application/x-www-form-urlencoded")];
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8], &'a str, &'a str);
    let cases: [Case<'_>; 6] = [
        (&[], b"", "", "utf-8"),
        (&[], b"text \x00\"\n", "text \0\"\n", "utf-8"),
        (&[], b"\xff\xfe", "//4=", "base64"),
        // Compressed is never a text, even where it could be one.
        (gzip, b"abc", "YWJj", "base64"),
        (form, b"a=1&password=x", "a=1&password=REDACTED", "utf-8"),
        // A character that was cut off.
        (&[], b"ab\xc3", "ab", "utf-8"),
    ];
    for (fields, body, data, encoding) in cases {
        let object = made(&transaction([fields, &[]], [body, b""], "/"), Level::Full);
        let told = &object["request"]["body"];
        assert_eq!((&told["data"], &told["encoding"]), (&json!(data), &json!(encoding)), "{told}");
        assert_eq!((&told["size"], &told["truncated"]), (&json!(body.len()), &json!(false)));
    }
    let object = made(&transaction([gzip, &[]], [b"abc", b""], "/"), Level::Full);
    assert_eq!(object["request"]["body"]["content_encoding"], "gzip");
}

#[test]
fn what_does_not_fit_is_cut_and_marked() {
    // Each costs six bytes where it stands in a text.
    let control = "\u{1}".repeat(40_000);
    let (small, big) = (vec![b'a'; 100], vec![b'b'; 200_000]);
    let binary = vec![0xff; 200_000];
    let rows: [([&[u8]; 2], [bool; 2]); 7] = [
        ([&small, &small], [false, false]),
        ([&big, &small], [true, false]),
        ([&small, &big], [false, true]),
        ([&big, &big], [true, true]),
        ([&binary, &big], [true, true]),
        ([control.as_bytes(), &binary], [true, true]),
        ([b"", &binary], [false, true]),
    ];
    let value = "v\u{2}".repeat(700);
    let fields: Vec<_> = (0..20).map(|_| ("x", value.as_str())).collect();
    for (bodies, cut) in rows {
        for fields in [&[][..], &fields] {
            for target in ["/", &control] {
                let object = made(&transaction([fields, fields], bodies, target), Level::Full);
                for (of, (body, cut)) in
                    ["request", "response"].into_iter().zip(bodies.into_iter().zip(cut))
                {
                    let told = &object[of]["body"];
                    assert_eq!(told["size"], body.len());
                    if fields.is_empty() {
                        assert_eq!(told["truncated"], cut, "{of} of {} bytes", body.len());
                    }
                }
            }
        }
    }
    // With nothing else in the way the object is full to within its marks.
    let maker = maker();
    let full = maker.make(&transaction([&[], &[]], [&big, b""], "/"), Level::Full).unwrap();
    assert!(full.len() > MAX - 2 * MARKS, "{}", full.len());
}

#[test]
fn what_was_not_seen_is_marked() {
    let mut cut = transaction([&[], &[]], [b"abc", b"def"], "/");
    if let Message::Http(http) = &mut cut.exchange.message {
        http.body = [1000, 3];
    }
    let object = made(&cut, Level::Full);
    let wanted = json!({
        "data": "abc", "encoding": "utf-8", "size": 1000, "captured": 3, "truncated": true,
    });
    assert_eq!(object["request"]["body"], wanted);
    assert_eq!(object["response"]["body"]["truncated"], false);
    cut.exchange.gap = true;
    let object = made(&cut, Level::Full);
    assert_eq!(
        (&object["response"]["body"]["truncated"], &object["quality"]),
        (&json!(true), &json!(["gap"]))
    );
}
