//! Servers written in Python and JavaScript, run by the real interpreters. Each takes a port of
//! its own and prints `port N`.

use std::process::Command;

use anyhow::Result;

use super::{command, find, resolved, tls::certificate};
use crate::{process::Process, wait::PATIENCE};

/// A server and its port.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// Starts a program that prints `port N`.
    pub fn start(command: Command) -> Result<Self> {
        let process = Process::start(command)?;
        let port = process.stdout.wait_for("the server's port", PATIENCE, |line| {
            line.strip_prefix("port ")?.parse().ok()
        });
        match port {
            Ok(port) => Ok(Self { process, port }),
            Err(error) => Err(error.context(process.stderr.text())),
        }
    }
}

/// An HTTPS server in Python that thinks for `milliseconds` before it answers.
pub fn slow_https_server(milliseconds: u32) -> Result<Server> {
    let certificate = certificate()?;
    let mut python = python(include_str!("https_server.py"))?;
    python.arg(&certificate.certificate).arg(&certificate.key).arg(milliseconds.to_string());
    Server::start(python)
}

/// An HTTP server in JavaScript that answers any request with 1,000 bytes.
pub fn node_server() -> Result<Server> {
    Server::start(node(include_str!("http_server.js"))?)
}

/// A client in JavaScript that gets `url` once.
pub fn node_client(url: &str) -> Result<Command> {
    let mut node = node(include_str!("http_client.js"))?;
    node.arg(url);
    Ok(node)
}

fn python(script: &str) -> Result<Command> {
    let mut python = command("python3", "python3")?;
    python.args(["-u", "-c", script]);
    Ok(python)
}

fn node(script: &str) -> Result<Command> {
    let mut node = command("node", "nodejs")?;
    node.args(["-e", script, "--"]);
    Ok(node)
}

/// The file of `node`.
pub fn node_executable() -> Result<String> {
    resolved(&find("node", "nodejs")?)
}
