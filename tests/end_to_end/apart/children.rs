//! Spans of exchanges within their connection's, as a receiver decodes them, against what the
//! programs themselves said.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, ensure};
use tests::{
    expect::Both,
    process::Process,
    programs::{command, curl, nginx::Nginx, output},
    receiver::{Protocol, Receiver},
    span::{Span, Status},
    stage::{Session, apart},
    tap::{Launch, free_port},
    wait::PATIENCE,
    workload::Ends,
};

const BOTH: &str = "http: { spans: true }\ndb: { spans: true }\n";

/// `SpanKind` on the wire.
const SERVER: i64 = 2;
const CLIENT: i64 = 3;

/// The spans that stand in `parent`, once there are `count`; each within what any child keeps.
fn children(of: &Receiver, parent: &Span, count: usize) -> Result<Vec<Arc<Span>>> {
    let what = format!("{count} children of {parent:?}");
    let mut all =
        of.wait_for(&what, count, PATIENCE, |span| span.parent_span_id == parent.span_id)?;
    ensure!(all.len() == count, "{what}: {all:#?}");
    all.sort_by_key(|span| span.start_ns);
    let kind = if parent.str("connection.direction") == "egress" { CLIENT } else { SERVER };
    for child in &all {
        ensure!(child.trace_id == parent.trace_id, "{child:#?}");
        ensure!(child.span_id != parent.span_id, "{child:#?}");
        ensure!(child.kind == kind, "{child:#?}");
        ensure!(child.start_ns >= parent.start_ns, "{child:#?} begins before {parent:#?}");
        ensure!(child.end_ns >= child.start_ns, "{child:#?}");
        ensure!(child.end_ns <= parent.end_ns, "{child:#?} ends after {parent:#?}");
        ensure!(child.str("connection.id") == parent.str("connection.id"), "{child:#?}");
        ensure!(child.str("connection.direction") == parent.str("connection.direction"));
        ensure!(child.events.is_empty(), "{child:#?}");
        let failed = child.attributes.value("error.type").is_some();
        ensure!(failed == (child.status == Status::Error), "{child:#?}");
    }
    Ok(all)
}

/// The children of both ends, of which the client's are first.
fn of_both(of: &Receiver, both: &Both, count: usize) -> Result<[Vec<Arc<Span>>; 2]> {
    let children = [children(of, &both.client, count)?, children(of, &both.server, count)?];
    let mut ids: Vec<_> = children.iter().flatten().map(|child| &child.span_id).collect();
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == 2 * count, "ids come twice: {children:#?}");
    Ok(children)
}

fn ends(client: u16, server: SocketAddr) -> Ends {
    Ends { client: ([127, 0, 0, 1], client).into(), server }
}

fn nginx() -> Result<Nginx> {
    let nginx = Nginx::start()?;
    fs::write(nginx.root().join("small"), "hello")?;
    Ok(nginx)
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Requests with and without the caller's context, one that is missed, one that hides a secret,
/// on one connection; over HTTP/2 one connection each.
#[test]
fn exchanges_are_children_at_both_ends_and_link_their_caller() {
    apart(|| {
        for protocol in [Protocol::Grpc, Protocol::HttpJson] {
            let receiver = Receiver::start()?;
            let tap = Launch::new().config(BOTH).exporting(&receiver, protocol).start()?;
            everything(Session { tap, receiver })?;
        }
        Ok(())
    });
}

fn everything(session: Session) -> Result<()> {
    let nginx = nginx()?;
    let valid = format!("traceparent: 00-{TRACE}-{CALLER}-01");
    let broken = format!("traceparent: 00-{TRACE}-{CALLER}");
    let asked: [(&str, &[&str]); 4] = [
        ("small?token=hidden&x=1", &[]),
        ("small", &["--header", &valid, "--header", "tracestate: a=1,b=2"]),
        ("none", &["--header", &broken]),
        ("small", &["--head"]),
    ];
    let checks: [fn(&Span); 4] = [plain, linked, missed, headed];
    // HTTP/1.1, all on one connection.
    let mut curl = command("curl", "curl")?;
    for (number, (path, more)) in asked.iter().enumerate() {
        curl.args((number > 0).then_some("--next"));
        curl.args(["--silent", "--noproxy", "*", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{local_port}\n"]).args(*more);
        curl.arg(format!("http://{}/{path}", nginx.http));
    }
    let said = output(&mut curl)?;
    let port = said.lines().next().context("no port")?.parse()?;
    let both = session.receiver.both(ends(port, nginx.http))?;
    for children in of_both(&session.receiver, &both, asked.len())? {
        for (child, check) in children.iter().zip(checks) {
            assert_eq!(child.str("network.protocol.version"), "1.1");
            check(child);
        }
    }
    for ((path, more), check) in asked.iter().zip(checks) {
        let mut curl = curl::curl(&["--http2-prior-knowledge"])?;
        curl.args(*more).arg(format!("http://{}/{path}", nginx.h2c));
        let port = curl::fetch(curl)?.local_port();
        let both = session.receiver.both(ends(port, nginx.h2c))?;
        for children in of_both(&session.receiver, &both, 1)? {
            assert_eq!(children[0].str("network.protocol.version"), "2");
            check(&children[0]);
        }
    }
    // Every span that the books say was exported has arrived, children included.
    session.finish().map(drop)
}

fn http(span: &Span, name: &str, status: i64) {
    assert_eq!((span.name.as_str(), span.scope.as_str()), (name, "tap.http"), "{span:#?}");
    assert_eq!(span.str("http.request.method"), name);
    assert_eq!(span.int("http.response.status_code"), status, "{span:#?}");
    assert_eq!(span.str("server.address"), "127.0.0.1");
    let client = span.kind == CLIENT;
    assert_eq!(span.attributes.value("url.full").is_some(), client, "{span:#?}");
}

fn plain(span: &Span) {
    http(span, "GET", 200);
    assert_eq!(span.str("url.query"), "token=REDACTED&x=1");
    let full = span.str("url.full");
    assert!(full.is_empty() || full.ends_with("/small?token=REDACTED&x=1"), "{full}");
    assert!(span.links.is_empty() && span.status == Status::Unset, "{span:#?}");
}

fn linked(span: &Span) {
    http(span, "GET", 200);
    let [link] = &span.links[..] else { panic!("{span:#?}") };
    assert_eq!((link.trace_id.as_str(), link.span_id.as_str()), (TRACE, CALLER));
    assert_eq!((link.trace_state.as_str(), link.flags), ("a=1,b=2", 0x301));
}

/// A request that was refused is the client's failure, not the server's.
fn missed(span: &Span) {
    http(span, "GET", 404);
    let error = if span.kind == CLIENT { "404" } else { "" };
    assert_eq!(span.str("error.type"), error, "{span:#?}");
    assert!(span.links.is_empty(), "{span:#?}");
}

fn headed(span: &Span) {
    http(span, "HEAD", 200);
}

/// Answers the one connection that comes with `answer`, once a request's head has come.
fn answering(answer: &'static [u8]) -> Result<(SocketAddr, thread::JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut buffer)?;
            ensure!(count > 0, "no request came");
            head.extend_from_slice(&buffer[..count]);
        }
        Ok(stream.write_all(answer)?)
    });
    Ok((address, server))
}

#[test]
fn failures_of_the_server_are_errors_at_both_ends() {
    apart(|| {
        let session = Session::with(&Launch::new().config(BOTH))?;
        for (answer, error) in [
            (&b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"[..], "500"),
            (b"", "no_response"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", "truncated"),
        ] {
            let (address, server) = answering(answer)?;
            let mut curl = curl::curl(&[])?;
            curl.arg(format!("http://{address}/"));
            // curl itself fails where the answer does.
            let said = String::from_utf8(curl.output()?.stdout)?;
            let said: serde_json::Value = serde_json::from_str(&said)?;
            let port = said["local_port"].as_u64().context("no port")? as u16;
            server.join().expect("the server does not panic")?;
            let both = session.receiver.both(ends(port, address))?;
            for children in of_both(&session.receiver, &both, 1)? {
                let child = &children[0];
                assert_eq!(child.str("error.type"), error, "{child:#?}");
                assert_eq!(child.name, "GET");
            }
        }
        session.finish().map(drop)
    });
}

#[test]
fn no_spans_of_exchanges_without_the_key() {
    apart(|| {
        for config in ["{}\n", "http: { spans: false }\ndb: { spans: true }\n"] {
            let session = Session::with(&Launch::new().config(config))?;
            let nginx = nginx()?;
            let mut curl = curl::curl(&[])?;
            curl.arg(format!("http://{}/small", nginx.http));
            let port = curl::fetch(curl)?.local_port();
            session.receiver.both(ends(port, nginx.http))?;
            let spans = session.finish()?.spans();
            assert!(spans.iter().all(|span| span.name == "Connection"), "{spans:#?}");
        }
        Ok(())
    });
}

/// A sampler that keeps nothing keeps no children; one that keeps some keeps whole traces.
#[test]
fn the_sampler_takes_or_leaves_a_trace_as_a_whole() {
    apart(|| {
        let launch = Launch::new()
            .config(BOTH)
            .env("OTEL_TRACES_SAMPLER", "traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", "0.5");
        let session = Session::with(&launch)?;
        let nginx = nginx()?;
        for _ in 0..24 {
            let mut curl = curl::curl(&[])?;
            curl.arg(format!("http://{}/small", nginx.http));
            curl::fetch(curl)?;
        }
        let mut sampled = 0;
        let receiver = session.finish_with(|books| sampled = books.spans("sampled"))?;
        let spans = receiver.spans();
        let port = i64::from(nginx.http.port());
        let of_exchange =
            |span: &&Arc<Span>| span.scope == "tap.http" && span.int("server.port") == port;
        let children: Vec<_> = spans.iter().filter(of_exchange).collect();
        let of_nginx =
            |span: &&Arc<Span>| span.name == "Connection" && span.has_port(nginx.http.port());
        let parents: Vec<_> = spans.iter().filter(of_nginx).collect();
        assert!(sampled > 0, "{sampled}");
        // 2^-23 that all traces are alike.
        assert!(!parents.is_empty() && parents.len() < 48, "{}", parents.len());
        for parent in &parents {
            let of_parent = |child: &&&Arc<Span>| child.parent_span_id == parent.span_id;
            assert_eq!(children.iter().filter(of_parent).count(), 1, "{parent:#?}");
        }
        assert_eq!(children.len(), parents.len());
        Ok(())
    });
}

#[test]
fn redis_commands_are_children_with_their_statement_where_it_is_wanted() {
    apart(|| {
        let home = tempfile::tempdir()?;
        let port = free_port()?;
        let mut server = command("redis-server", "redis")?;
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        server.arg("--dir").arg(home.path());
        let server = Process::start(server)?;
        server.stdout.wait_for("Redis to be up", PATIENCE, |line| {
            line.contains("Ready to accept").then_some(())
        })?;
        for (payload, text) in
            [("", None), ("capture: { payload: { db: statement } }\n", Some("SET ? ?"))]
        {
            let session = Session::with(&Launch::new().config(&format!("{BOTH}{payload}")))?;
            for arguments in [["SET", "key", "secret"], ["LPUSH", "key", "secret"]] {
                let mut client = command("redis-cli", "redis")?;
                client.args(["-p", &port.to_string()]).args(arguments);
                output(&mut client)?;
            }
            let told = session.receiver.wait_for("the commands", 4, PATIENCE, |span| {
                span.scope == "tap.db" && ["SET", "LPUSH"].contains(&span.str("db.operation.name"))
            })?;
            assert_eq!(told.len(), 4, "{told:#?}");
            for span in &told {
                let operation = span.str("db.operation.name");
                assert_eq!(span.name, format!("{operation} 127.0.0.1:{port}"), "{span:#?}");
                assert_eq!(span.str("db.system.name"), "redis");
                let error = if operation == "SET" { "" } else { "WRONGTYPE" };
                assert_eq!(span.str("error.type"), error, "{span:#?}");
                assert_eq!(span.str("db.response.status_code"), error);
                let want = text.map(|text| text.replace("SET", operation));
                assert_eq!(span.attributes.str("db.query.text"), want.as_deref(), "{span:#?}");
                // The client's arguments are its own affair.
                assert!(
                    span.kind == CLIENT || !format!("{span:?}").contains("secret"),
                    "{span:#?}"
                );
            }
            let kinds: Vec<_> = told.iter().filter(|span| span.kind == SERVER).collect();
            assert_eq!(kinds.len(), 2);
            session.finish()?;
        }
        Ok(())
    });
}
