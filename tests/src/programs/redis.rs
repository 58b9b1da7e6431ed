//! Redis, with what it says itself of the commands it ran: `MONITOR` and its statistics, which are
//! asked for on a unix socket, so that no connection of the traffic is theirs.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{command, home, output, with_input};
use crate::{
    process::Process,
    tap::free_port,
    wait::{self, PATIENCE},
};

/// A running redis-server.
#[derive(Debug)]
pub struct Redis {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    monitor: Process,
    _server: Process,
    home: TempDir,
}

impl Redis {
    /// Starts it and its monitor.
    pub fn start() -> Result<Self> {
        let home = home("redis")?;
        let port = free_port()?;
        let mut server = command("redis-server", "redis-server")?;
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        server.arg("--dir").arg(home.path()).arg("--unixsocket").arg(home.path().join("socket"));
        let server = Process::start(server)?;
        server.stdout.wait_for("Redis to be up", PATIENCE, |line| {
            line.contains("ready to accept connections at").then_some(())
        })?;
        let mut monitor = command("redis-cli", "redis-tools")?;
        monitor.arg("-s").arg(home.path().join("socket")).arg("MONITOR").stdin(Stdio::null());
        let monitor = Process::start(monitor)?;
        let up = |line: &str| (line == "OK").then_some(());
        monitor.stdout.wait_for("MONITOR", PATIENCE, up)?;
        Ok(Self { port, monitor, _server: server, home })
    }

    /// A program of Redis that talks to it over TCP.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut client = command(program, "redis-tools")?;
        client.args(["-p", &self.port.to_string()]);
        Ok(client)
    }

    /// Runs `commands`, one a line, on one connection.
    pub fn run(&self, commands: &str) -> Result<()> {
        with_input(&mut self.client("redis-cli")?, commands).map(drop)
    }

    /// `port COMMAND` as the monitor printed it, once there are so many: what comes over TCP, runs
    /// and is not administration.
    pub fn monitored(&self, count: usize) -> Result<Vec<String>> {
        wait::until("MONITOR", PATIENCE, || {
            let lines = self.monitor.stdout.all();
            let shown: Vec<_> = lines.iter().filter_map(|line| monitored(line)).collect();
            (shown.len() >= count).then_some(shown)
        })
        .with_context(|| self.monitor.stdout.text())
    }

    /// Section `name` of INFO: the first number of each line (`calls`, `count`) and how often it
    /// failed or was refused, by name without the section's prefix.
    pub fn statistics(&self, name: &str) -> Result<BTreeMap<String, (u64, u64)>> {
        let mut client = command("redis-cli", "redis-tools")?;
        client.arg("-s").arg(self.home.path().join("socket")).args(["INFO", name]);
        let text = output(&mut client)?;
        Ok(text.lines().filter_map(statistic).collect())
    }
}

/// `1700000000.123456 [0 127.0.0.1:40000] "SET" "k" "v"`
fn monitored(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" [")?;
    let (from, rest) = rest.split_once("] \"")?;
    let port = from.split_once("127.0.0.1:")?.1;
    let (command, _) = rest.split_once('"')?;
    Some(format!("{port} {}", command.to_ascii_uppercase()))
}

/// `cmdstat_config|get:calls=2,usec=9,…,rejected_calls=0,failed_calls=0`
fn statistic(line: &str) -> Option<(String, (u64, u64))> {
    let (name, values) = line.split_once('_')?.1.split_once(':')?;
    let number = |key: &str| {
        let value = values.split(',').find_map(|it| it.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|it| it.trim().parse::<u64>().ok())
    };
    let count = number("calls").or_else(|| number("count"))?;
    let refused = number("rejected_calls").unwrap_or(0);
    let failed = number("failed_calls").unwrap_or(0);
    let name = name.replace('|', " ").to_ascii_uppercase();
    Some((name, (count + refused, failed + refused)))
}
