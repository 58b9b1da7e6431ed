//! haproxy in front of an HTTP server, and its log of both legs.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{command, home};
use crate::{
    process::Process,
    tap::free_port,
    wait::{self, PATIENCE},
};

/// A running haproxy.
#[derive(Debug)]
pub struct Haproxy {
    /// The client's leg over HTTP/1.1.
    pub http: SocketAddr,
    /// The client's leg over HTTP/2.
    pub h2c: SocketAddr,
    process: Process,
    _home: TempDir,
}

/// What haproxy logged of a request, each in the words of [`crate::record::http`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The port it came to.
    pub to: u16,
    /// Between client and haproxy.
    pub front: String,
    /// Between haproxy and server.
    pub back: String,
}

impl Haproxy {
    /// Passes requests on to `server`, over HTTP/1.1.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let home = home("haproxy")?;
        let [http, h2c] = [free_port()?, free_port()?].map(|it| ([127, 0, 0, 1], it).into());
        let config = home.path().join("haproxy.cfg");
        fs::write(&config, configuration(http, h2c, server))?;
        let mut haproxy = command("haproxy", "haproxy")?;
        haproxy.arg("-db").arg("-f").arg(&config);
        let process = Process::start(haproxy)?;
        // It says nothing once it is up. A connection without a request is not in its log.
        wait::until_true("haproxy to be up", PATIENCE, || TcpStream::connect(h2c).is_ok())
            .with_context(|| process.stderr.text())?;
        Ok(Self { http, h2c, process, _home: home })
    }

    /// Its log, once it has so many lines.
    pub fn logged(&self, count: usize) -> Result<Vec<Logged>> {
        wait::until("haproxy to log", PATIENCE, || {
            let logged: Vec<_> =
                self.process.stdout.all().iter().filter_map(|line| logged(line)).collect();
            (logged.len() >= count).then_some(logged)
        })
        .with_context(|| self.process.stdout.text())
    }
}

fn logged(line: &str) -> Option<Logged> {
    let fields: Vec<_> = line.strip_prefix("told ")?.split(' ').collect();
    let [to, client, own, method, target, status] = fields[..] else { return None };
    let words = format!("{method} {target} {status}");
    Some(Logged {
        to: to.parse().ok()?,
        front: format!("{client} {words}"),
        back: format!("{own} {words}"),
    })
}

fn configuration(http: SocketAddr, h2c: SocketAddr, server: SocketAddr) -> String {
    format!(
        "global\n log stdout format raw local0\n maxconn 100\n nbthread 1\n\
         defaults\n mode http\n log global\n timeout client 10s\n timeout server 10s\n\
         \x20timeout connect 10s\n option dontlognull\n log-format \"told %fp %cp %bp %HM %HPO%HQ %ST\"\n\
         frontend front\n bind {http}\n bind {h2c} proto h2\n default_backend back\n\
         backend back\n server only {server}\n"
    )
}
