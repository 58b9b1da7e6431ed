//! Servers written in Python and JavaScript, run by the real interpreters. Each takes a port of
//! its own and prints `port N`; those that log print `log`, the client's port and more words.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use super::{command, find, resolved, tls::certificate};
use crate::{
    process::Process,
    wait::{self, PATIENCE},
};

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

    /// What it logged, once it has so many lines.
    pub fn logged(&self, count: usize) -> Result<Vec<String>> {
        wait::until("the server to log", PATIENCE, || {
            let lines = self.process.stdout.all();
            let logged =
                lines.iter().filter_map(|line| Some(line.strip_prefix("log ")?.to_owned()));
            let logged: Vec<_> = logged.collect();
            (logged.len() >= count).then_some(logged)
        })
        .with_context(|| format!("{}{}", self.process.stdout.text(), self.process.stderr.text()))
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

/// An HTTP server in JavaScript that answers what the path asks for, and logs in the words of
/// [`crate::record::http_bodies`].
pub fn node_http() -> Result<Server> {
    Server::start(node(include_str!("http_log.js"))?)
}

/// A server in Python that sends back what it is sent, and in other forms what the path asks for;
/// it logs what it read and wrote.
pub fn echo_server() -> Result<Server> {
    Server::start(python(include_str!("http_echo.py"))?)
}

/// A server on `port` that answers everything with `status`, and logs each request's method.
pub fn refusing_server(port: u16, status: u16) -> Result<Server> {
    let mut python = python(include_str!("http_refuse.py"))?;
    python.arg(port.to_string()).arg(status.to_string());
    Server::start(python)
}

/// Python's own file server (`python3 -m http.server`) of the folder `root`.
#[derive(Debug)]
pub struct PythonFiles(Server);

impl PythonFiles {
    /// Starts it.
    pub fn start(root: &Path) -> Result<Self> {
        let mut python = command("python3", "python3")?;
        python.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        python.arg(root).arg("0");
        let process = Process::start(python)?;
        let port = process.stdout.wait_for("Python's port", PATIENCE, |line| {
            line.split_once(" port ")?.1.split(' ').next()?.parse().ok()
        })?;
        Ok(Self(Server { process, port }))
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.0.port
    }

    /// Its log in the words of [`crate::record::http_anonymous`], once it has so many lines.
    pub fn logged(&self, count: usize) -> Result<Vec<String>> {
        wait::until("Python to log", PATIENCE, || {
            let lines = self.0.process.stderr.all();
            let logged: Vec<_> = lines.iter().filter_map(|line| python_logged(line)).collect();
            (logged.len() >= count).then_some(logged)
        })
        .with_context(|| self.0.process.stderr.text())
    }
}

/// `127.0.0.1 - - [21/Nov/2026 17:46:50] "GET /small HTTP/1.1" 200 -`
fn python_logged(line: &str) -> Option<String> {
    let (request, rest) = line.split_once("] \"")?.1.split_once("\" ")?;
    let (request, _version) = request.rsplit_once(' ')?;
    Some(format!("- {request} {}", rest.split(' ').next()?))
}

/// A gRPC server in Python, which logs in the words of [`crate::record::grpc`].
pub fn grpc_server() -> Result<Server> {
    Server::start(python(include_str!("grpc_server.py"))?)
}

/// A gRPC client that makes one call of each kind and prints how each ended.
pub fn grpc_client(port: u16) -> Result<Command> {
    let mut python = python(include_str!("grpc_client.py"))?;
    python.arg(port.to_string());
    Ok(python)
}

/// A WebSocket server in Python, which logs in the words of [`crate::record::websocket`].
pub fn websocket_server() -> Result<Server> {
    Server::start(python(include_str!("websocket_server.py"))?)
}

/// A WebSocket client that makes some sessions.
pub fn websocket_client(port: u16) -> Result<Command> {
    let mut python = python(include_str!("websocket_client.py"))?;
    python.arg(port.to_string());
    Ok(python)
}

/// A client in JavaScript that gets `url` once.
pub fn node_client(url: &str) -> Result<Command> {
    let mut node = node(include_str!("http_client.js"))?;
    node.arg(url);
    Ok(node)
}

pub(super) fn python(script: &str) -> Result<Command> {
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
