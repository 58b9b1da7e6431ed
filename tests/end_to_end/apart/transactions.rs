//! Log records of exchanges: against what the servers logged themselves, against `tshark`'s reading
//! of the same packets, and against a replay of those packets.

mod calls;
mod databases;
mod http;
mod proxy;

use std::{fs, net::SocketAddr};

use anyhow::{Context, Result};
use tests::{
    programs::{command, nginx::Nginx, output},
    record::{Record, http_sizes},
    scene::{Order, Scene, logging},
    stage::apart,
    tap::Launch,
    wait::PATIENCE,
};

/// A request: path, and further arguments of curl.
type Request<'a> = (&'a str, &'a [&'a str]);

/// Makes requests to `to` by one curl, one after the other.
fn curl(to: SocketAddr, requests: &[Request<'_>]) -> Result<()> {
    let mut curl = command("curl", "curl")?;
    for (number, (path, more)) in requests.iter().enumerate() {
        curl.args((number > 0).then_some("--next"));
        curl.args(["--silent", "--noproxy", "*", "--max-time", "20", "--output", "/dev/null"]);
        curl.args(*more).arg(format!("http://{to}/{path}"));
    }
    output(&mut curl).map(drop)
}

/// Fills a folder that a server serves.
fn fill(root: &std::path::Path) -> Result<()> {
    fs::write(root.join("small"), "hello")?;
    fs::write(root.join("empty"), "")?;
    fs::write(root.join("large"), vec![b'n'; 300_000])?;
    Ok(fs::create_dir(root.join("folder"))?)
}

/// The first words of a line.
fn words(line: &str, count: usize) -> String {
    line.split(' ').take(count).collect::<Vec<_>>().join(" ")
}

#[test]
fn secrets_do_not_leave() {
    apart(|| {
        let nginx = Nginx::start()?;
        fill(&nginx.root())?;
        let tap = logging(Launch::new()).start()?;
        let mut curl = command("curl", "curl")?;
        curl.args(["--silent", "--noproxy", "*", "--output", "/dev/null"]);
        curl.args(["--header", "Authorization: Bearer hidden-one", "--cookie", "s=hidden-two"]);
        curl.arg(format!("http://{}/small?token=hidden-three&x=1", nginx.http));
        output(&mut curl)?;
        let seen = tap.output().wait_for("a record", PATIENCE, |line| {
            let record: serde_json::Value = serde_json::from_str(line).ok()?;
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
fn a_capture_that_is_cut_off_tells_what_is_whole() {
    apart(|| {
        let nginx = Nginx::start()?;
        fill(&nginx.root())?;
        let port = nginx.http.port();
        let scene = Scene::start(&[port])?;
        curl(nginx.http, &[("small", &[]), ("large", &[])])?;
        let logged = nginx.told(nginx.http, 2)?;
        let evidence = scene.finish(&[(port, 2)])?;
        evidence.assert_agrees("nginx", port, http_sizes, Order::Time, &logged);
        let whole = fs::read(&evidence.capture)?;
        fs::write(&evidence.capture, &whole[..whole.len() - 10])?;
        let path = evidence.capture.to_str().context("a path in UTF-8")?;
        let ended = logging(Launch::of(&["replay", path])).run()?;
        assert_eq!(ended.code(), 2, "{}", ended.log());
        assert!(ended.log().contains("packet "), "{}", ended.log());
        let told: Vec<_> = Record::all(&ended.stdout).iter().filter_map(http_sizes).collect();
        assert_eq!(told, logged);
        Ok(())
    });
}
