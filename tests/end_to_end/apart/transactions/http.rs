//! HTTP of real clients and servers.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::Result;
use tests::{
    programs::{
        apache::Apache,
        command,
        nginx::Nginx,
        output,
        scripts::{PythonFiles, node_http},
        tshark::Tshark,
    },
    record::{Record, http, http_anonymous, http_bodies, http_body, http_sizes},
    scene::{Order, Scene, Turns},
    stage::apart,
};

use super::{Request, curl, fill, words};

/// Requests that any file server answers: of each kind of response one, with and without a body.
const FILES: [Request<'_>; 9] = [
    ("small?a=1&b=%20", &[]),
    ("large", &[]),
    ("large", &["--head"]),
    ("none", &[]),
    ("large", &["--range", "100-299"]),
    ("small", &["--header", "If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT"]),
    ("folder", &[]),
    ("empty", &[]),
    ("small", &["--http1.0"]),
];

/// Three requests in one segment, and their answers.
fn pipelined(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(
        b"GET /small?n=1 HTTP/1.1\r\nHost: a\r\n\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n\
          GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )?;
    Ok(stream.read_to_end(&mut Vec::new()).map(drop)?)
}

/// Several requests at once on one HTTP/2 connection.
fn nghttp(to: SocketAddr, arguments: &[&str], paths: &[&str]) -> Result<()> {
    let mut nghttp = command("nghttp", "nghttp2-client")?;
    nghttp.args(["--null-out", "--timeout=20"]).args(arguments);
    output(nghttp.args(paths.iter().map(|path| format!("http://{to}/{path}")))).map(drop)
}

#[test]
fn http1_is_what_nginx_logged() {
    apart(|| {
        let nginx = Nginx::start()?;
        fill(&nginx.root())?;
        let (to, port) = (nginx.http, nginx.http.port());
        let refused = "x".repeat(40_000);
        let scene = Scene::start(&[port])?;
        curl(to, &FILES)?;
        curl(to, &[("small", &["--data", &refused]), ("small", &[])])?;
        pipelined(to)?;
        let logged = nginx.told(to, FILES.len() + 5)?;
        let evidence = scene.finish(&[(port, logged.len())])?;
        // nginx logs what it refuses before it has read the body.
        let sizes: Vec<_> = logged.iter().filter(|it| !it.contains(" POST ")).cloned().collect();
        evidence.assert_agrees("nginx", port, answered_whole, Order::Connection, &sizes);
        let logged: Vec<_> = logged.iter().map(|line| words(line, 5)).collect();
        evidence.assert_agrees("nginx", port, http_body, Order::Connection, &logged);
        let tshark = Tshark { file: &evidence.capture, port };
        evidence.assert_agrees("tshark", port, http, Order::Connection, &tshark.http1()?);
        evidence.assert_replayed("egress", Turns::Each, &[])
    });
}

#[test]
fn the_server_s_side_of_a_capture_is_what_the_server_s_side_told() {
    apart(|| {
        let nginx = Nginx::start()?;
        fill(&nginx.root())?;
        let port = nginx.http.port();
        let scene = Scene::start(&[port])?;
        let from: &[&str] = &["--interface", "127.0.0.2"];
        curl(nginx.http, &[("small", from), ("large", from), ("none", from)])?;
        let evidence = scene.finish(&[(port, 3)])?;
        evidence.assert_replayed("ingress", Turns::Each, &["--local", "127.0.0.1/32"])
    });
}

#[test]
fn http2_is_what_nginx_logged() {
    apart(|| {
        let nginx = Nginx::start()?;
        fill(&nginx.root())?;
        let (to, port) = (nginx.h2c, nginx.h2c.port());
        let body = nginx.root().join("body");
        // Short enough to be whole before it is refused.
        fs::write(&body, "x".repeat(1000))?;
        let scene = Scene::start(&[port])?;
        // This curl makes a connection for each with cleartext HTTP/2.
        let over = |more: &[&'static str]| [&["--http2-prior-knowledge"], more].concat();
        let requests = FILES.map(|(path, more)| (path, over(more)));
        for (path, more) in &requests[..8] {
            curl(to, &[(path, more)])?;
        }
        nghttp(to, &[], &["small?a=1", "large", "none", "small", "empty", "large?second"])?;
        nghttp(to, &["--padding=8", "--continuation"], &["small", "large"])?;
        nghttp(to, &["--data", &body.display().to_string()], &["none?post"])?;
        let logged = nginx.told(to, 17)?;
        // nginx counts frames in its own way.
        let logged: Vec<_> = logged.iter().map(|line| words(line, 5)).collect();
        let evidence = scene.finish(&[(port, logged.len())])?;
        evidence.assert_agrees("nginx", port, http_body, Order::Any, &logged);
        let tshark = Tshark { file: &evidence.capture, port };
        evidence.assert_agrees("tshark", port, http, Order::Any, &tshark.http2()?);
        evidence.assert_replayed("egress", Turns::Sent, &[])
    });
}

/// [`http_sizes`] of all but POST.
fn answered_whole(record: &Record) -> Option<String> {
    (record.str("http.request.method") != "POST").then(|| http_sizes(record))?
}

#[test]
fn apache_logged_the_same_over_http1_and_http2() {
    apart(|| {
        let apache = Apache::start()?;
        fill(&apache.root())?;
        let body = apache.root().join("body");
        fs::write(&body, "x".repeat(100_000))?;
        let upload = format!("@{}", body.display());
        let scene = Scene::start(&[apache.http.port(), apache.h2c.port()])?;
        curl(apache.http, &FILES)?;
        let post = ["--data-binary", &upload, "--header", "Expect: 100-continue"];
        curl(apache.http, &[("small", &post), ("small", &["--request", "PROPFIND"])])?;
        pipelined(apache.http)?;
        // By upgrade from HTTP/1.1, and with prior knowledge.
        curl(apache.h2c, &[("small", &["--http2"])])?;
        nghttp(apache.h2c, &["--upgrade"], &["small?a=1", "empty", "none"])?;
        nghttp(apache.h2c, &[], &["small", "large", "none", "empty"])?;
        let short = apache.root().join("short");
        fs::write(&short, "x".repeat(1000))?;
        nghttp(apache.h2c, &["--data", &short.display().to_string()], &["small?post"])?;
        let http1 = apache.logged(apache.http, FILES.len() + 5)?;
        let http2 = apache.logged(apache.h2c, 11)?;
        // Two requests are upgraded, which it logs besides their answers.
        let http2: Vec<_> = http2.into_iter().filter(|it| !it.contains(" 101 ")).collect();
        let ports = [apache.http.port(), apache.h2c.port()];
        let evidence = scene.finish(&[(ports[0], http1.len()), (ports[1], http2.len())])?;
        evidence.assert_agrees("apache", ports[0], http_body, Order::Connection, &http1);
        evidence.assert_agrees("apache", ports[1], http_body, Order::Any, &http2);
        let tshark = Tshark { file: &evidence.capture, port: ports[0] };
        evidence.assert_agrees("tshark", ports[0], http, Order::Connection, &tshark.http1()?);
        evidence.assert_replayed("egress", Turns::Sent, &[])
    });
}

#[test]
fn python_and_node_logged_the_same() {
    apart(|| {
        let root = tempfile::tempdir()?;
        fill(root.path())?;
        let python = PythonFiles::start(root.path())?;
        let node = node_http()?;
        let scene = Scene::start(&[python.port(), node.port])?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        curl(local(python.port()), &FILES)?;
        let data = "x".repeat(100_000);
        let chunked: &[&str] = &["--data", "some words", "--header", "Transfer-Encoding: chunked"];
        let expect: &[&str] = &["--data", "waits", "--header", "Expect: 100-continue"];
        curl(
            local(node.port),
            &[
                ("bytes/5?token-free=1", &[]),
                ("bytes/100000", &["--data", &data]),
                ("bytes/100000", &["--head"]),
                ("chunks/12345", &[]),
                ("chunks/1", chunked),
                ("bytes/7", expect),
                ("events", &[]),
                ("status/204", &[]),
                ("status/304", &[]),
                ("status/500", &["--request", "PATCH"]),
                ("chunks/0", &["--request", "DELETE"]),
                ("chunks/3000", &["--http1.0"]),
            ],
        )?;
        let files = python.logged(FILES.len())?;
        let logged = node.logged(12)?;
        let evidence = scene.finish(&[(python.port(), files.len()), (node.port, logged.len())])?;
        evidence.assert_agrees("python", python.port(), http_anonymous, Order::Time, &files);
        evidence.assert_agrees("node", node.port, http_bodies, Order::Connection, &logged);
        for port in [python.port(), node.port] {
            let tshark = Tshark { file: &evidence.capture, port };
            evidence.assert_agrees("tshark", port, http, Order::Connection, &tshark.http1()?);
        }
        evidence.assert_replayed("egress", Turns::Each, &[])
    });
}

#[test]
fn a_body_in_chunks_that_is_not_captured_whole_is_marked() {
    apart(|| {
        let node = node_http()?;
        let scene = Scene::start(&[node.port])?;
        let to = SocketAddr::from(([127, 0, 0, 1], node.port));
        curl(to, &[("chunks/123456", &[]), ("status/404", &[])])?;
        let logged = node.logged(2)?;
        let evidence = scene.finish(&[(node.port, 2)])?;
        let first = logged.iter().map(|line| words(line, 4)).collect::<Vec<_>>();
        evidence.assert_agrees("node", node.port, http, Order::Connection, &first);
        // How long the first body was is not known; that of the second is.
        evidence.assert_agrees("node", node.port, http_bodies, Order::Connection, &logged[1..]);
        for record in evidence.live.iter().filter(|it| it.str("url.path") == "/chunks/123456") {
            assert!(record.is_marked("gap"), "{record:?}");
            assert!(record.number("http.response.size") > Some(123_456), "{record:?}");
        }
        Ok(())
    });
}
