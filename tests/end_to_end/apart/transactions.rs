//! Log records of exchanges against what the servers logged themselves.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{
    process::Process,
    programs::{
        command,
        nginx::{Nginx, Request},
        output,
    },
    stage::apart,
    tap::{Launch, Tap, free_port},
    wait::{self, PATIENCE},
};

/// A daemon that prints log records.
fn start() -> Result<Tap> {
    logging(Launch::new()).start()
}

fn logging(launch: Launch) -> Launch {
    launch
        .env("OTEL_LOGS_EXPORTER", "console")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "100")
}

/// The records among lines of output.
fn records(lines: &[String]) -> Vec<Value> {
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|record| record.get("event.type").is_some()).collect()
}

/// A record of HTTP in the words of nginx's log.
fn told(record: &Value) -> Option<Request> {
    let path = record["url.path"].as_str()?.to_owned();
    let target = match record["url.query"].as_str() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    Some(Request {
        method: record["http.request.method"].as_str()?.into(),
        target,
        status: record["http.response.status_code"].as_u64()? as u16,
        body: record["http.response.body.size"].as_u64()?,
    })
}

/// Records of this direction between `client` and the port of `server`.
fn of(records: &[Value], direction: &str, client: u16, server: SocketAddr) -> Vec<Request> {
    let between = |record: &&Value| {
        record["connection.direction"] == direction
            && record["client.port"] == client
            && record["server.port"] == server.port()
    };
    records.iter().filter(between).filter_map(told).collect()
}

/// What is asked of nginx: path and further arguments of curl. A body that nginx refuses is asked
/// over HTTP/1.1 only: over HTTP/2 this curl calls the refusal an error.
fn kinds(http2: bool) -> Vec<(&'static str, Vec<String>)> {
    let mut kinds = vec![
        ("small?a=1", vec![]),
        ("large", vec![]),
        ("large", vec!["--head".into()]),
        ("none", vec![]),
        ("small", vec![]),
    ];
    if !http2 {
        kinds.insert(4, ("small", vec!["--data".into(), "x".repeat(40_000)]));
    }
    kinds
}

/// Runs curl: the local ports of its connections, one a request.
fn ports_of(mut curl: Command) -> Result<Vec<u16>> {
    let text = output(&mut curl)?;
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// One of the requests as arguments.
fn request(base: &str, path: &str, more: &[String], http2: bool) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", "%{local_port}\n"]
            .map(Into::into)
            .into();
    arguments.extend(http2.then(|| "--http2-prior-knowledge".into()));
    arguments.extend_from_slice(more);
    arguments.push(format!("{base}/{path}"));
    arguments
}

/// Asks nginx for everything, over HTTP/1.1 on one connection, over HTTP/2 on one each (this
/// curl's own way with cleartext HTTP/2). The ports, in order and each once.
fn ask(to: SocketAddr, http2: bool) -> Result<Vec<u16>> {
    let base = format!("http://{to}");
    let mut ports = Vec::new();
    let mut all = command("curl", "curl")?;
    for (number, (path, more)) in kinds(http2).iter().enumerate() {
        let arguments = request(&base, path, more, http2);
        if http2 {
            let mut curl = command("curl", "curl")?;
            curl.args(arguments);
            ports.extend(ports_of(curl)?);
        } else {
            all.args((number > 0).then_some("--next")).args(arguments);
        }
    }
    if !http2 {
        ports.extend(ports_of(all)?);
    }
    ports.dedup();
    anyhow::ensure!(ports.len() == if http2 { kinds(true).len() } else { 1 }, "{ports:?}");
    Ok(ports)
}

/// What nginx logged of these connections.
fn logged(nginx: &Nginx, ports: &[u16]) -> Result<Vec<Request>> {
    let each = if ports.len() == 1 { kinds(false).len() } else { 1 };
    let parts = ports.iter().map(|port| nginx.requests(*port, each));
    Ok(parts.collect::<Result<Vec<_>>>()?.concat())
}

/// What the records tell of them.
fn seen(records: &[Value], direction: &str, ports: &[u16], to: SocketAddr) -> Vec<Request> {
    ports.iter().flat_map(|port| of(records, direction, *port, to)).collect()
}

fn serve() -> Result<Nginx> {
    let nginx = Nginx::start()?;
    fs::write(nginx.root().join("small"), "hello")?;
    fs::write(nginx.root().join("large"), vec![b'n'; 300_000])?;
    Ok(nginx)
}

/// Both ends tell what nginx logged, line by line.
fn agree(nginx: &Nginx, to: SocketAddr, http2: bool) -> Result<()> {
    let tap = start()?;
    let ports = ask(to, http2)?;
    let logged = logged(nginx, &ports)?;
    let records = wait::until("the records", PATIENCE, || {
        let records = records(&tap.output().all());
        let whole = |direction| seen(&records, direction, &ports, to).len() >= logged.len();
        (whole("egress") && whole("ingress")).then_some(records)
    })
    .with_context(|| tap.output().text())?;
    for direction in ["egress", "ingress"] {
        assert_eq!(seen(&records, direction, &ports, to), logged, "{direction}");
    }
    let ended = tap.stop()?;
    ended.check().map(drop)
}

#[test]
fn http1_is_what_nginx_logged() {
    apart(|| {
        let nginx = serve()?;
        agree(&nginx, nginx.http, false)
    });
}

#[test]
fn http2_is_what_nginx_logged() {
    apart(|| {
        let nginx = serve()?;
        agree(&nginx, nginx.h2c, true)
    });
}

#[test]
fn secrets_do_not_leave() {
    apart(|| {
        let nginx = serve()?;
        let tap = start()?;
        let mut curl = command("curl", "curl")?;
        curl.args(["--silent", "--noproxy", "*", "--output", "/dev/null"]);
        curl.args(["--header", "Authorization: Bearer hidden-one", "--cookie", "s=hidden-two"]);
        curl.arg(format!("http://{}/small?token=hidden-three&x=1", nginx.http));
        output(&mut curl)?;
        let seen = tap.output().wait_for("a record", PATIENCE, |line| {
            let record: Value = serde_json::from_str(line).ok()?;
            (record["connection.direction"] == "ingress").then_some(record)
        })?;
        assert_eq!(seen["url.query"], "token=REDACTED&x=1");
        assert_eq!(seen["http.request.header.authorization"][0], "[REDACTED]");
        // The client's arguments are its own affair: of nginx's side nothing may show.
        assert!(!seen.to_string().contains("hidden"), "{seen}");
        tap.stop()?.check().map(drop)
    });
}

#[test]
fn redis_commands_are_told_with_their_errors() {
    apart(|| {
        let port = free_port()?;
        let home = tempfile::tempdir()?;
        let mut server = command("redis-server", "redis")?;
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        server.arg("--dir").arg(home.path());
        let server = Process::start(server)?;
        server.stdout.wait_for("Redis to be up", PATIENCE, |line| {
            line.contains("Ready to accept").then_some(())
        })?;
        let tap = start()?;
        for arguments in [&["SET", "k", "secret"][..], &["GET", "k"], &["LPUSH", "k", "x"]] {
            let mut client = command("redis-cli", "redis")?;
            client.args(["-p", &port.to_string()]).args(arguments);
            output(&mut client)?;
        }
        let wanted = [("SET", None), ("GET", None), ("LPUSH", Some("WRONGTYPE"))];
        wait::until("the commands at both ends", PATIENCE, || {
            let records = records(&tap.output().all());
            let each = wanted.iter().all(|(operation, error)| {
                ["egress", "ingress"].iter().all(|direction| {
                    records.iter().any(|record| {
                        record["connection.direction"] == *direction
                            && record["db.system.name"] == "redis"
                            && record["db.operation.name"] == *operation
                            && record.get("db.response.status_code").and_then(Value::as_str)
                                == *error
                    })
                })
            });
            each.then_some(())
        })
        .with_context(|| tap.output().text())?;
        // The client's arguments are its own affair.
        for record in records(&tap.output().all()) {
            let server = record["connection.direction"] == "ingress";
            assert!(!server || !record.to_string().contains("secret"), "{record}");
        }
        tap.stop()?.check().map(drop)
    });
}

/// `tcpdump` on the loopback, until it is dropped; the kernel gives it what it has once it is
/// asked to end.
fn capture(to: &Path, port: u16) -> Result<Process> {
    let mut tcpdump = command("tcpdump", "tcpdump")?;
    tcpdump.args(["-i", "lo", "-s", "0", "-U", "--immediate-mode", "-w"]).arg(to);
    tcpdump.args(["tcp", "port", &port.to_string()]);
    let tcpdump = Process::start(tcpdump)?;
    tcpdump
        .stderr
        .wait_for("tcpdump to listen", PATIENCE, |line| line.contains("listening").then_some(()))?;
    Ok(tcpdump)
}

#[test]
fn a_capture_replayed_tells_what_was_told_live() {
    apart(|| {
        let nginx = serve()?;
        let home = tempfile::tempdir()?;
        for (to, http2) in [(nginx.http, false), (nginx.h2c, true)] {
            let file = home.path().join(format!("{}.pcap", to.port()));
            let mut tcpdump = capture(&file, to.port())?;
            let tap = start()?;
            let ports = ask(to, http2)?;
            let logged = logged(&nginx, &ports)?;
            let live = wait::until("the live records", PATIENCE, || {
                let live = seen(&records(&tap.output().all()), "egress", &ports, to);
                (live.len() >= logged.len()).then_some(live)
            })?;
            std::thread::sleep(Duration::from_millis(300));
            tcpdump.signal(libc::SIGTERM)?;
            tcpdump.wait(PATIENCE)?;
            tap.stop()?.check()?;
            let path = file.to_str().context("a path in UTF-8")?;
            let replayed = logging(Launch::of(&["replay", path])).run()?;
            assert_eq!(replayed.code(), 0, "{}", replayed.log());
            let replayed = seen(&records(&replayed.stdout), "egress", &ports, to);
            assert_eq!(live, logged);
            assert_eq!(replayed, live);
        }
        // The same, cut off: what is whole is told, and where it ends.
        let whole = fs::read(home.path().join(format!("{}.pcap", nginx.http.port())))?;
        let cut = home.path().join("cut.pcap");
        fs::write(&cut, &whole[..whole.len() - 10])?;
        let path = cut.to_str().context("a path in UTF-8")?;
        let ended = logging(Launch::of(&["replay", path])).run()?;
        assert_eq!(ended.code(), 2, "{}", ended.log());
        assert!(ended.log().contains("packet "), "{}", ended.log());
        assert!(!records(&ended.stdout).is_empty());
        Ok(())
    });
}
