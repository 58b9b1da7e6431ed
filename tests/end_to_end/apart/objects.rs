//! HTTP transactions as objects in stores: in an S3 server that is somebody else's, and in a folder.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    programs::{
        command,
        moto::{self, Moto},
        nginx::Nginx,
        output,
        scripts::{Server, echo_server, refusing_server},
    },
    receiver::{Protocol, Receiver},
    record::Record,
    scene::logging,
    span::Span,
    stage::apart,
    tap::{Launch, Tap, free_port},
    wait::{PATIENCE, until_true},
};

/// A daemon that stores what `capture` says. What the test asks it is no traffic.
pub(super) fn capturing(store: &str, capture: &str) -> Launch {
    let config = format!("http_capture:\n  store: {store}\n{capture}");
    logging(Launch::new()).config(&config).admin_on_unix()
}

pub(super) const SOON: &str =
    "  retry_on_failure: { initial_interval: 100ms, max_interval: 300ms }\n";

pub(super) fn curl(port: u16, path: &str, more: &[&str]) -> Result<()> {
    let mut curl = command("curl", "curl")?;
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]);
    curl.args(["--output", "/dev/null"]).args(more).arg(format!("http://127.0.0.1:{port}{path}"));
    output(&mut curl).map(drop)
}

pub(super) fn items(tap: &Tap, term: &str, exporter: &str) -> u64 {
    let labels = ["signal=\"objects\"", &format!("exporter=\"{exporter}\"")];
    tap.metrics().map_or(0, |it| it.count(&format!("tap_items_{term}_total"), &labels))
}

/// Records of both ends of the exchanges with `port`, once there are `count` of each.
pub(super) fn records(tap: &Tap, port: u16, count: usize) -> Result<Vec<Record>> {
    let of = |direction| {
        let all = Record::all(&tap.output().all());
        all.into_iter().filter(move |it| it.is_of(direction, port)).collect::<Vec<_>>()
    };
    until_true("the records", PATIENCE, || {
        of("egress").len() >= count && of("ingress").len() >= count
    })?;
    Ok([of("egress"), of("ingress")].concat())
}

/// The member `name` of a record's `event`.
pub(super) fn event<'a>(record: &'a Record, name: &str) -> &'a str {
    record.get("event").and_then(|event| event[name].as_str()).unwrap_or_default()
}

/// SHA-256 in hex, by coreutils.
fn sha256(bytes: &[u8]) -> Result<String> {
    let mut sum =
        command("sha256sum", "coreutils")?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    sum.stdin.take().context("no standard input")?.write_all(bytes)?;
    let said = String::from_utf8(sum.wait_with_output()?.stdout)?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

/// The bytes of a body as the object has it.
fn body(object: &Value, of: &str) -> Result<Vec<u8>> {
    let body = &object[of]["body"];
    let data = body["data"].as_str().context("no data")?;
    match body["encoding"].as_str() {
        Some("utf-8") => Ok(data.as_bytes().to_vec()),
        Some("base64") => {
            let mut base64 = command("base64", "coreutils")?
                .arg("--decode")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            base64.stdin.take().context("no standard input")?.write_all(data.as_bytes())?;
            Ok(base64.wait_with_output()?.stdout)
        }
        other => anyhow::bail!("encoding {other:?}"),
    }
}

/// What the server logged: method, path, what it read and wrote.
fn logged(server: &Server, count: usize) -> Result<Vec<[String; 4]>> {
    let lines = server.logged(count)?;
    let words = |line: &String| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        words.try_into().map_err(|_| anyhow::anyhow!("{line}"))
    };
    lines.iter().map(words).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if digits.is_empty() { "-".into() } else { digits }
}

#[test]
fn s3_holds_what_was_said() {
    apart(|| {
        let (moto, server) = (Moto::start()?, echo_server()?);
        let tap = capturing(&moto.store(), "  level: full\n").start()?;
        let requests: [(&str, &[&str]); 7] = [
            ("/plain", &["--header", "Authorization: Bearer hidden", "--cookie", "c=hidden"]),
            ("/echo?token=hidden&x=1", &["--json", r#"{"a": [1, 2], "note": "hello"}"#]),
            ("/echo", &["--data", "a=1&b=two"]),
            (
                "/echo",
                &["--data-binary", "\u{fc}ml\u{e4}ut\n", "--header", "Content-Type: text/plain"],
            ),
            ("/chunked", &[]),
            ("/gzip", &[]),
            ("/binary", &[]),
        ];
        for (path, more) in requests {
            curl(server.port, path, more)?;
        }
        let logged = logged(&server, requests.len())?;
        let records = records(&tap, server.port, requests.len())?;
        // Before the test itself talks with the server. tap's own uploads were seen at the server's
        // end, and became no objects, or it would never end.
        let accounting = tap.stop()?.check()?;
        let book = &accounting.items["objects/s3"];
        let stored = moto.keys()?.len() as u64;
        ensure!(book["exported"] == stored && stored == book["produced"], "{book:?}, {stored}");
        ensure!(stored == 2 * logged.len() as u64, "{stored} objects");
        for direction in ["egress", "ingress"] {
            let of: Vec<_> = records.iter().filter(|it| it.is_of(direction, server.port)).collect();
            ensure!(of.len() == logged.len(), "{} records", of.len());
            for (record, [method, path, read, written]) in of.into_iter().zip(&logged) {
                let url = event(record, "url");
                let key = url.strip_prefix("s3://captures/").with_context(|| url.to_owned())?;
                let bytes = moto.object(key).with_context(|| key.to_owned())?;
                assert_eq!(sha256(&bytes)?, event(record, "digest"));
                let object: Value = serde_json::from_slice(&bytes)?;
                assert_eq!(object["request"]["method"], *method);
                assert_eq!(path.split('?').next(), object["request"]["path"].as_str());
                assert_eq!(object["response"]["status"], 200);
                assert_eq!(object["direction"], direction);
                assert_eq!(object["metadata"]["connection_id"], record.str("connection.id"));
                assert_eq!(hex(&body(&object, "request")?), *read, "{object}");
                assert_eq!(hex(&body(&object, "response")?), *written, "{object}");
                for of in ["request", "response"] {
                    assert_eq!(object[of]["body"]["truncated"], false, "{object}");
                }
                let text = String::from_utf8(bytes)?;
                assert!(!text.contains("hidden"), "{text}");
            }
        }
        let cookies = |record: &&Record| record.str("url.path") == "/plain";
        let plain = records.iter().find(cookies).context("no record of /plain")?;
        let key = event(plain, "url").strip_prefix("s3://captures/").context("no URL")?;
        let object: Value = serde_json::from_slice(&moto.object(key)?)?;
        assert_eq!(
            object["response"]["headers"]["set-cookie"],
            serde_json::json!(["[REDACTED]", "[REDACTED]"])
        );
        Ok(())
    });
}

#[test]
fn secrets_of_bodies_stay_and_a_body_that_was_not_captured_whole_is_marked() {
    apart(|| {
        let (moto, server) = (Moto::start()?, echo_server()?);
        let tap = capturing(&moto.store(), "  level: full\n").start()?;
        let large = "x".repeat(200_000);
        let home = tempfile::tempdir()?;
        let file = home.path().join("large");
        fs::write(&file, &large)?;
        let upload = format!("@{}", file.display());
        curl(
            server.port,
            "/echo",
            &["--json", r#"{"user":"u","password":"hidden","deep":[{"api_key":"hidden"}]}"#],
        )?;
        curl(server.port, "/echo", &["--data", "user=u&password=hidden"])?;
        curl(server.port, "/echo", &["--data-binary", &upload])?;
        let records = records(&tap, server.port, 3)?;
        tap.stop()?.check()?;
        for (index, record) in records.iter().enumerate() {
            let key = event(record, "url").strip_prefix("s3://captures/").context("no URL")?;
            let bytes = moto.object(key)?;
            let object: Value = serde_json::from_slice(&bytes)?;
            let text = String::from_utf8(bytes)?;
            assert!(!text.contains("hidden"), "{text}");
            match index % 3 {
                0 => assert_eq!(
                    object["request"]["body"]["data"],
                    r#"{"user":"u","password":"[REDACTED]","deep":[{"api_key":"[REDACTED]"}]}"#
                ),
                1 => assert_eq!(object["response"]["body"]["data"], "user=u&password=REDACTED"),
                _ => {
                    let body = &object["request"]["body"];
                    assert_eq!(
                        (&body["size"], &body["truncated"]),
                        (&200_000.into(), &true.into())
                    );
                    let data = body["data"].as_str().unwrap_or_default();
                    assert_eq!(body["captured"], data.len());
                    assert!(large.starts_with(data) && data.len() > 10_000, "{} bytes", data.len());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn rules_say_how_much_of_which() {
    apart(|| {
        let (moto, nginx) = (Moto::start()?, Nginx::start()?);
        fs::write(nginx.root().join("small"), "hello")?;
        let rules = "  rules:\n    - { condition: 'direction == \"ingress\"', level: none }\n    \
                     - { condition: 'request.headers[\"x-level\"] == \"full\"', level: full }\n    \
                     - { condition: 'response.status >= 400', level: headers }\n  \
                     level: summary\n  key: 'c/{host}/{status}-{digest}.json'\n  \
                     url: 'https://console.example/{bucket}/{key}'\n";
        let tap = capturing(&moto.store(), rules).start()?;
        let mut urls = Vec::new();
        for port in [nginx.http.port(), nginx.h2c.port()] {
            let h2 = port == nginx.h2c.port();
            let over: &[&str] = if h2 { &["--http2-prior-knowledge"] } else { &[] };
            curl(port, "/small", over)?;
            curl(port, "/none", over)?;
            curl(port, "/small", &[over, &["--header", "X-Level: full"]].concat())?;
            let told = records(&tap, port, 3)?;
            let told: Vec<_> = told.iter().map(|it| event(it, "url").to_owned()).collect();
            ensure!(told[3..].iter().all(String::is_empty), "{told:?}");
            urls.extend_from_slice(&told[..3]);
        }
        // Where the header was not there, the condition failed.
        let failed = tap.metrics()?.count("tap_capture_conditions_failed_total", &[]);
        ensure!(failed == 4, "{failed} conditions failed");
        tap.stop()?.check()?;
        let wanted = [("200", false, None), ("404", true, None), ("200", true, Some("hello"))];
        for (url, (status, headers, body)) in urls.iter().zip(wanted.into_iter().cycle()) {
            let key = url.strip_prefix("https://console.example/captures/").context("no URL")?;
            let begin = format!("c/127.0.0.1/{status}-");
            ensure!(key.starts_with(&begin), "{key}");
            let object: Value = serde_json::from_slice(&moto.object(key)?)?;
            assert_eq!(object["request"].get("headers").is_some(), headers, "{object}");
            assert_eq!(object["response"]["body"]["data"].as_str(), body, "{object}");
        }
        Ok(())
    });
}

#[test]
fn a_store_that_is_away_then_busy_then_there_loses_nothing() {
    apart(|| {
        let (port, server) = (free_port()?, echo_server()?);
        let more = format!("  level: headers\n{SOON}");
        let tap = capturing(&moto::store(port), &more).start()?;
        for _ in 0..20 {
            curl(server.port, "/plain", &[])?;
        }
        let records = records(&tap, server.port, 20)?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(items(&tap, "exported", "s3") == 0, "nobody is there to take them");
        let busy = refusing_server(port, 503)?;
        busy.logged(15)?;
        drop(busy);
        let moto = Moto::start_at(port, false)?;
        until_true("all objects", PATIENCE, || items(&tap, "exported", "s3") == 40)?;
        let book = tap.stop()?.check()?.items["objects/s3"].clone();
        ensure!((book["produced"], book["exported"], book["rejected"]) == (40, 40, 0), "{book:?}");
        let keys = moto.keys()?;
        for record in &records {
            let key = event(record, "url").strip_prefix("s3://captures/").context("no URL")?;
            ensure!(keys.iter().any(|it| it == key), "{key} is missing");
        }
        Ok(())
    });
}

#[test]
fn what_a_store_refuses_is_rejected_and_not_tried_again() {
    apart(|| {
        let server = echo_server()?;
        let refuses = |store: String, why: &str| -> Result<()> {
            let tap = capturing(&store, &format!("  level: headers\n{SOON}")).start()?;
            for _ in 0..5 {
                curl(server.port, "/plain", &[])?;
            }
            records(&tap, server.port, 5)?;
            until_true("all to be refused", PATIENCE, || items(&tap, "rejected", "s3") == 10)?;
            let ended = tap.stop()?;
            let book = ended.check()?.items["objects/s3"].clone();
            ensure!((book["produced"], book["rejected"]) == (10, 10), "{book:?}");
            ensure!(ended.log().contains("The store refuses objects."), "{}", ended.log());
            ensure!(ended.log().contains(why), "{why}: {}", ended.log());
            Ok(())
        };
        let closed = Moto::start_at(free_port()?, true)?;
        refuses(closed.store(), "InvalidAccessKeyId")?;
        let moto = Moto::start()?;
        refuses(moto.store().replace("captures", "elsewhere"), "NoSuchBucket")?;
        ensure!(moto.keys()?.is_empty());
        let full = refusing_server(free_port()?, 403)?;
        refuses(moto::store(full.port), "403")?;
        // Each was asked for once.
        let asked = full.logged(10)?.len();
        ensure!(asked == 10, "{asked} requests");
        Ok(())
    });
}

#[test]
fn what_cannot_be_stored_before_the_end_is_dropped() {
    apart(|| {
        let (port, server) = (free_port()?, echo_server()?);
        let tap = capturing(&moto::store(port), "  level: summary\n").start()?;
        curl(server.port, "/plain", &[])?;
        records(&tap, server.port, 1)?;
        let book = &tap.stop()?.check()?.items["objects/s3"];
        let terms = ["produced", "exported", "dropped"].map(|term| book[term]);
        ensure!(terms == [2, 0, 2], "{book:?}");
        Ok(())
    });
}

fn files(of: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(of) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A small disk that goes with the test.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let options = format!("size={size},mode=700");
        output(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tap-test"])
                .arg(home.path()),
        )?;
        Ok(Self(home))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn a_folder_holds_objects_until_its_disk_is_full() {
    apart(|| {
        let (server, disk) = (echo_server()?, Disk::new("256k")?);
        let folder = disk.0.path().join("objects");
        let store = format!("{{ type: local, path: {} }}", folder.display());
        let tap = capturing(&store, "  level: full\n").start()?;
        let large = "y".repeat(12_000);
        curl(server.port, "/echo", &["--data", &large])?;
        for record in records(&tap, server.port, 1)? {
            let url = event(&record, "url").to_owned();
            let path = PathBuf::from(url.strip_prefix("file://").context("no URL")?);
            ensure!(path.starts_with(&folder), "{url}");
            until_true("the file", PATIENCE, || path.exists())?;
            assert_eq!(sha256(&fs::read(&path)?)?, event(&record, "digest"));
        }
        for _ in 0..20 {
            curl(server.port, "/echo", &["--data", &large])?;
        }
        records(&tap, server.port, 21)?;
        until_true("all to be told", PATIENCE, || {
            items(&tap, "exported", "local") + items(&tap, "rejected", "local") == 42
        })?;
        let book = tap.stop()?.check()?.items["objects/local"].clone();
        ensure!(book["rejected"] > 0, "{book:?}");
        // Each of them is whole: nothing was left half written under an object's name.
        let mut whole = 0;
        for path in files(&folder) {
            whole += u64::from(serde_json::from_slice::<Value>(&fs::read(&path)?).is_ok());
        }
        ensure!(whole == book["exported"], "{whole} whole, {book:?}");
        Ok(())
    });
}

#[test]
fn check_tries_the_store() {
    apart(|| {
        let moto = Moto::start()?;
        let config = |store: &str| format!("http_capture: {{ store: {store}, level: full }}\n");
        let ended = Launch::of(&["check"]).config(&config(&moto.store())).run()?;
        let text = ended.stdout.join("\n");
        ensure!(text.contains("takes objects"), "{text}");
        ensure!(moto.keys()?.is_empty(), "it left something");
        for (store, wanted) in [
            (moto.store().replace("captures", "elsewhere"), "NoSuchBucket"),
            (moto::store(free_port()?), "is not reachable"),
        ] {
            let ended = Launch::of(&["check"]).config(&config(&store)).run()?;
            let text = ended.stdout.join("\n");
            let line = text.lines().find(|line| line.contains("object store")).unwrap_or_default();
            ensure!(line.starts_with("FAIL") && line.contains(wanted), "{text}");
            ensure!(ended.code() == 1 && !text.contains("hidden"), "{text}");
        }
        Ok(())
    });
}

#[test]
fn a_store_with_tls_is_believed_by_its_certificate() {
    apart(|| {
        let (moto, server) = (Moto::start_tls()?, echo_server()?);
        let certificate = moto.certificate().context("no certificate")?;
        let certificate = certificate.to_str().context("a path in UTF-8")?;
        let capture = "  level: summary\n";
        let strange = capturing(&moto.store(), capture).start()?;
        curl(server.port, "/plain", &[])?;
        records(&strange, server.port, 1)?;
        let log = strange.log().wait_for("a complaint", PATIENCE, |line| {
            line.contains("Objects cannot be stored.").then(|| line.to_owned())
        })?;
        ensure!(log.contains("certificate"), "{log}");
        strange.stop()?.check()?;
        ensure!(moto.keys()?.is_empty());
        let tap = capturing(&moto.store(), capture).env("SSL_CERT_FILE", certificate).start()?;
        curl(server.port, "/plain", &[])?;
        records(&tap, server.port, 1)?;
        until_true("the objects", PATIENCE, || items(&tap, "exported", "s3") == 2)?;
        tap.stop()?.check()?;
        ensure!(moto.keys()?.len() == 2);
        Ok(())
    });
}

#[test]
fn each_upload_is_a_span_of_its_own() {
    apart(|| {
        let (home, server, receiver) = (tempfile::tempdir()?, echo_server()?, Receiver::start()?);
        let store = format!("{{ type: local, path: {} }}", home.path().display());
        let tap =
            capturing(&store, "  level: headers\n").exporting(&receiver, Protocol::Grpc).start()?;
        (0..3).try_for_each(|_| curl(server.port, "/", &[]))?;
        let uploads = || -> Vec<_> {
            let of_objects = |it: &Arc<Span>| it.str("tap.eventstore.signal") == "objects";
            receiver.writes().into_iter().filter(of_objects).collect()
        };
        until_true("both ends of each to be stored and told", PATIENCE, || uploads().len() >= 6)?;
        for upload in uploads() {
            for (key, value) in [
                ("tap.eventstore.backend", "local"),
                ("tap.eventstore.protocol", "local"),
                ("tap.eventstore.result", "ok"),
            ] {
                assert_eq!(upload.str(key), value, "{upload:#?}");
            }
            assert_eq!(upload.int("tap.eventstore.batch.items"), 1);
            assert!(upload.int("tap.eventstore.batch.bytes") > 0);
        }
        let accounting = tap.stop()?.check()?;
        assert_eq!(accounting.items["objects/local"]["exported"], uploads().len() as u64);
        Ok(())
    });
}

#[test]
fn objects_on_disk_survive_kill_9_and_an_orderly_end() {
    apart(|| {
        let (port, server, home) = (free_port()?, echo_server()?, tempfile::tempdir()?);
        let folder = home.path().display();
        let capture = format!("  level: headers\n{SOON}  sending_queue: {{ storage: {folder} }}\n");
        let stored = |tap: &Tap| {
            let labels = ["signal=\"objects\"", "exporter=\"s3\""];
            tap.metrics().map_or(0, |it| it.count("tap_queue_items", &labels))
        };
        let mut told = Vec::new();
        let mut ask = |tap: &Tap, count: usize| -> Result<()> {
            (0..count).try_for_each(|_| curl(server.port, "/plain", &[]))?;
            told.extend(records(tap, server.port, count)?);
            Ok(())
        };
        let tap = capturing(&moto::store(port), &capture).start()?;
        ask(&tap, 10)?;
        // One of each uploader's is under way, and is on the disk all the same.
        until_true("objects on the disk", PATIENCE, || stored(&tap) == 20)?;
        tap.kill()?;
        let tap = capturing(&moto::store(port), &capture).start()?;
        ensure!(items(&tap, "recovered", "s3") == 20, "not all is recovered");
        ask(&tap, 2)?;
        until_true("more of them on the disk", PATIENCE, || stored(&tap) == 24)?;
        let book = tap.stop()?.check()?.items["objects/s3"].clone();
        ensure!((book["queued"], book["dropped"]) == (24, 0), "{book:?}");
        let moto = Moto::start_at(port, false)?;
        let tap = capturing(&moto::store(port), &capture).start()?;
        until_true("all objects", PATIENCE, || items(&tap, "exported", "s3") >= 24)?;
        let book = tap.stop()?.check()?.items["objects/s3"].clone();
        ensure!((book["recovered"], book["rejected"], book["queued"]) == (24, 0, 0), "{book:?}");
        for record in &told {
            let key = event(record, "url").strip_prefix("s3://captures/").context("no URL")?;
            assert_eq!(sha256(&moto.object(key)?)?, event(record, "digest"));
        }
        Ok(())
    });
}

#[test]
fn objects_that_the_disk_refuses_are_stored_when_it_takes_them_again() {
    apart(|| {
        let (port, server, disk) = (free_port()?, echo_server()?, Disk::new("128k")?);
        let folder = disk.0.path().join("queue");
        let capture = format!(
            "  level: headers\n{SOON}  sending_queue: {{ storage: {} }}\n",
            folder.display()
        );
        let waiting = |tap: &Tap, name: &str| {
            let labels = ["signal=\"objects\"", "exporter=\"s3\""];
            tap.metrics().map_or(0, |it| it.count(name, &labels))
        };
        let tap = capturing(&moto::store(port), &capture).start()?;
        let filler = disk.0.path().join("filler");
        // As much as there is room for.
        drop(fs::write(&filler, vec![0; 1 << 20]));
        (0..3).try_for_each(|_| curl(server.port, "/plain", &[]))?;
        let told = records(&tap, server.port, 3)?;
        until_true("the disk to refuse them", PATIENCE, || {
            waiting(&tap, "tap_queue_disk_errors_total") > 0
        })?;
        ensure!(items(&tap, "dropped", "s3") == 0, "they are kept in memory");
        fs::remove_file(&filler)?;
        until_true("all to be on the disk", PATIENCE, || waiting(&tap, "tap_queue_items") == 6)?;
        tap.kill()?;
        let moto = Moto::start_at(port, false)?;
        let tap = capturing(&moto::store(port), &capture).start()?;
        until_true("all objects", PATIENCE, || items(&tap, "exported", "s3") == 6)?;
        let book = tap.stop()?.check()?.items["objects/s3"].clone();
        ensure!((book["recovered"], book["dropped"]) == (6, 0), "{book:?}");
        for record in &told {
            let key = event(record, "url").strip_prefix("s3://captures/").context("no URL")?;
            assert_eq!(sha256(&moto.object(key)?)?, event(record, "digest"));
        }
        Ok(())
    });
}
