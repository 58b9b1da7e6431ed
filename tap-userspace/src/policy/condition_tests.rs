use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::{
    connection::{identity::Xid, model::Identity, transaction::About},
    enrich::process::Process,
    protocol::exchange::{Exchange, Http},
};

fn transaction() -> Transaction {
    let mut http = Http {
        version: "1.1",
        method: "POST".into(),
        authority: Some("api.example.com:8080".into()),
        target: "/v1/items?limit=5".into(),
        status: Some(503),
        ..Http::default()
    };
    http.request.push(b"Accept", b"text/html");
    http.request.push(b"accept", b"*/*");
    http.response.push(b"Content-Type", b"application/json");
    let local = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000);
    let about = About {
        id: Xid([7; 12]),
        identity: Identity { trace_id: [1; 16], span_id: [2; 8], peer_span_id: None },
        role: Role::Client,
        local,
        peer: (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 8080),
        process: Some(Arc::new(Process {
            pid: 7,
            executable: "/usr/bin/curl".into(),
            name: "curl".into(),
            ..Process::default()
        })),
    };
    let exchange = Exchange {
        began_ns: 1_000_000_000,
        ended_ns: 1_250_500_000,
        bytes: [100, 2_000],
        message: Message::Http(Box::new(http)),
        gap: false,
    };
    Transaction { about: Arc::new(about), number: 0, exchange, object: None }
}

#[test]
fn conditions_hold_of_what_the_exchange_says() {
    let rows = [
        ("true", true),
        ("request.method == 'POST'", true),
        ("request.method == 'GET' || response.status >= 500", true),
        ("request.host.endsWith('.example.com') && request.path.startsWith('/v1/')", true),
        ("request.query == 'limit=5' && request.scheme == 'http'", true),
        ("request.protocol == 'HTTP/1.1'", true),
        ("request.path.matches('^/v[0-9]+/items$')", true),
        ("request.headers['accept'] == 'text/html, */*'", true),
        ("'content-type' in response.headers && !('etag' in response.headers)", true),
        ("request.headers.exists(name, name == 'accept')", true),
        ("duration_ms > 250 && duration_ms < 250.6", true),
        ("direction == 'egress' && error == '503'", true),
        ("connection.client.address == '10.0.0.1' && connection.server.port == 8080", true),
        ("size(connection.id) == 20", true),
        ("process.exe == '/usr/bin/curl' && process.pid == 7 && process.owner == ''", true),
        ("request.bytes + response.bytes == 2100", true),
        ("response.status in [200, 204]", false),
        ("process.name == 'nginx'", false),
    ];
    let transaction = transaction();
    for (source, holds) in rows {
        let condition = Condition::compile(source).unwrap_or_else(|error| panic!("{error}"));
        let variables = Variables::of(&transaction, [&condition]);
        assert_eq!(
            condition.holds(&variables).unwrap_or_else(|it| panic!("{it}")),
            holds,
            "{source}"
        );
    }
}

#[test]
fn what_is_neither_true_nor_false_fails() {
    let transaction = transaction();
    for (source, wanted) in [
        ("request.headers['x'] == 'y'", "No such key"),
        ("request.nothing == 1", "No such key"),
        ("request.method", "a string, not true or false"),
        ("request.method > 3", "request.method > 3"),
        ("1 / (response.status - 503) == 1", "ivision"),
    ] {
        let condition = Condition::compile(source).unwrap_or_else(|error| panic!("{error}"));
        let variables = Variables::of(&transaction, [&condition]);
        let failed = condition.holds(&variables).unwrap_err().to_string();
        assert!(failed.contains(wanted), "{source}: {failed}");
    }
}

#[test]
fn wrong_and_costly_expressions_are_refused_when_they_are_read() {
    let deep = format!("{}true{}", "!(".repeat(49), ")".repeat(49));
    let long = format!("request.path == '{}'", "x".repeat(1024));
    for (source, wanted) in [
        ("", "no CEL expression"),
        ("request.method ==", "no CEL expression"),
        ("request.method = 'GET'", "no CEL expression"),
        ("reqest.method == 'GET'", "`reqest` is no variable"),
        ("http.method == 'GET'", "there are request, response"),
        ("contain(request.path, 'x')", "`contain` is no function"),
        ("[1].exists(a, [1].exists(b, a == b))", "within another"),
        (deep.as_str(), "within one another"),
        (long.as_str(), "at most 1024 bytes"),
    ] {
        let error = Condition::compile(source).unwrap_err().to_string();
        assert!(error.contains(wanted), "{source}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

/// Whatever an expression of the allowed size is, a thread's ordinary stack is enough for it.
#[test]
fn no_expression_that_fits_overflows_the_stack() {
    let repeat = |unit: &str| unit.repeat(1024 / unit.len());
    for source in [
        repeat("!"),
        repeat("-"),
        format!("{}true", repeat("!").get(..1000).unwrap_or_default()),
        format!("1{}", repeat("+1").get(..1000).unwrap_or_default()),
        format!("true{}", repeat("||true").get(..996).unwrap_or_default()),
        format!("request{}", ".a".repeat(500)),
        format!("{}true", "true?true:".repeat(100)),
        format!("{}true{}", "true?".repeat(100), ":true".repeat(100)),
        format!("{}1{}", "(".repeat(511), ")".repeat(511)),
        format!("{}1{}", "[".repeat(511), "]".repeat(511)),
        format!("{}1{}", "[".repeat(47), "]".repeat(47)),
        format!("{}1{}", "size([".repeat(23), "])".repeat(23)),
        format!("1{}", "+1".repeat(46)),
        format!("{}1", "{1:".repeat(300)),
        format!("request{}", "[0]".repeat(300)),
        format!("1{}", "<1".repeat(500)),
        repeat("a in "),
    ] {
        if let Ok(condition) = Condition::compile(&source) {
            drop(condition.holds(&Variables::of(&transaction(), [&condition])));
        }
    }
}
