//! A Kafka broker, and clients: librdkafka's mock cluster speaks the whole protocol for real and
//! logs every request with its client's port. A broker with a JVM is not in Debian.

use std::process::Stdio;

use anyhow::{Context, Result};

use super::{command, with_input};
use crate::{
    process::Process,
    wait::{self, PATIENCE},
};

/// A running broker.
#[derive(Debug)]
pub struct Kafka {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    process: Process,
}

impl Kafka {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let mut broker = command("kcat", "kcat")?;
        // A producer whose input never comes, so that the requests are the clients'. Its own
        // connection is there before it is up.
        broker.args(["-P", "-t", "idle", "-b", "replaced", "-X", "test.mock.num.brokers=1"]);
        broker.args(["-X", "debug=mock"]).stdin(Stdio::piped());
        let process = Process::start(broker)?;
        let port = process.stderr.wait_for("the broker's port", PATIENCE, |line| {
            line.split_once("bootstrap.servers=127.0.0.1:")?.1.trim().parse().ok()
        })?;
        let asked = |line: &str| line.contains("Sending MetadataResponse").then_some(());
        process.stderr.wait_for("the broker's own client", PATIENCE, asked)?;
        Ok(Self { port, process })
    }

    /// Runs kcat with `arguments` on `input` to its end, whatever it says of it.
    pub fn client(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut client = command("kcat", "kcat")?;
        client.args(["-b", &format!("127.0.0.1:{}", self.port), "-q"]).args(arguments);
        Ok(String::from_utf8(with_input(&mut client, input)?.stdout)?)
    }

    /// `port Operation` of each request that the broker took, once there are `count` of `last`.
    pub fn logged(&self, last: &str, count: usize) -> Result<Vec<String>> {
        let end = format!(" {last}");
        wait::until("the broker's log", PATIENCE, || {
            let lines = self.process.stderr.all();
            // Its own client was first.
            let all: Vec<_> = lines.iter().filter_map(|line| received(line)).collect();
            let own = all.first()?.split_once(' ')?.0.to_owned();
            let logged: Vec<_> =
                all.into_iter().filter(|it| !it.starts_with(&format!("{own} "))).collect();
            (logged.iter().filter(|it| it.ends_with(&end)).count() >= count).then_some(logged)
        })
        .with_context(|| self.process.stderr.text())
    }
}

/// `… Broker 1: Received FetchRequestV11 from 127.0.0.1:41328`.
fn received(line: &str) -> Option<String> {
    let (request, from) = line.split_once(": Received ")?.1.split_once("Request")?;
    let (_, port) = from.split_once(" from 127.0.0.1:")?;
    // librdkafka's name of it.
    let name = if request == "ApiVersion" { "ApiVersions" } else { request };
    Some(format!("{} {name}", port.trim()))
}
