//! PostgreSQL, with its own log of statements and errors.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{as_nobody, command, home_of_nobody, output, statement_word, with_input};
use crate::{
    process::Process,
    tap::free_port,
    wait::{self, PATIENCE},
};

/// A running server without TLS.
#[derive(Debug)]
pub struct Postgres {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    process: Process,
    _home: TempDir,
}

impl Postgres {
    /// Makes a cluster and serves it.
    pub fn start() -> Result<Self> {
        let home = home_of_nobody("postgres")?;
        let data = home.path().join("data");
        let mut init = as_nobody(&server_program("initdb")?)?;
        init.args(["--username", "tap", "--auth", "trust", "--no-sync", "--locale", "C"]);
        output(init.arg("--pgdata").arg(&data).current_dir(home.path()))?;
        let port = free_port()?;
        let mut server = as_nobody(&server_program("postgres")?)?;
        server.arg("-D").arg(&data).arg("-k").arg(home.path()).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "shared_buffers=4MB",
            "autovacuum=off",
            "log_statement=all",
            "log_line_prefix=told %r %e ",
        ] {
            server.args(["-c", setting]);
        }
        let process = Process::start(server)?;
        process.stderr.wait_for("PostgreSQL to be up", PATIENCE, |line| {
            line.contains("ready to accept connections").then_some(())
        })?;
        Ok(Self { port, process, _home: home })
    }

    /// Runs a client program, `psql` or `pgbench`, to its end.
    pub fn client(&self, program: &str, arguments: &[&str], input: &str) -> Result<()> {
        let mut client = command(program, "postgresql")?;
        client.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "tap"]);
        client.args(arguments).env("PGDATABASE", "postgres").env("PGCONNECT_TIMEOUT", "20");
        let ended = with_input(&mut client, input)?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{program} left with {}: {said}", ended.status);
        Ok(())
    }

    /// What it logged, once there are so many statements.
    pub fn logged(&self, count: usize) -> Result<Vec<String>> {
        wait::until("PostgreSQL to log", PATIENCE, || {
            let logged = statements(&self.process.stderr.all());
            (logged.len() >= count).then_some(logged)
        })
        .with_context(|| self.process.stderr.text())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It gives its shared memory back only where it may say goodbye.
        drop(self.process.signal(libc::SIGQUIT));
        drop(self.process.wait(PATIENCE));
    }
}

/// A program of the newest server that is installed: Debian keeps them out of PATH.
fn server_program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("apt-get install postgresql")?;
    let mut found: Vec<_> = versions
        .flatten()
        .map(|it| it.path().join("bin").join(name))
        .filter(|it| it.exists())
        .collect();
    found.sort();
    found.pop().with_context(|| format!("{name} is missing: apt-get install postgresql"))
}

/// `port SELECT ok` or `port SELECT 42P01` for each statement of the log.
fn statements(log: &[String]) -> Vec<String> {
    let mut told: Vec<(String, String)> = Vec::new();
    for line in log {
        let Some((port, state, rest)) = prefix(line) else { continue };
        if let Some(statement) = ran(rest) {
            told.push((format!("{port} {}", statement_word(statement)), "ok".into()));
        } else if let Some(statement) = rest.strip_prefix("STATEMENT:  ") {
            // It stands behind an error. One that failed before it ran was not logged as running.
            let words = format!("{port} {}", statement_word(statement));
            let last = told.iter_mut().rfind(|(of, _)| of.split(' ').next() == Some(port));
            match last {
                Some((last, outcome)) if *last == words && outcome == "ok" && state != "42601" => {
                    state.clone_into(outcome);
                }
                _ => told.push((words, state.into())),
            }
        }
    }
    told.into_iter().map(|(words, outcome)| format!("{words} {outcome}")).collect()
}

/// `told 127.0.0.1(40000) 42P01 ERROR:  …`: the client's port, the SQLSTATE and what follows.
fn prefix(line: &str) -> Option<(&str, &str, &str)> {
    let (port, rest) = line.strip_prefix("told 127.0.0.1(")?.split_once(") ")?;
    let (state, rest) = rest.split_once(' ')?;
    Some((port, state, rest))
}

/// The statement of a line that says that one begins to run.
fn ran(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("LOG:  ")?;
    rest.strip_prefix("statement: ")
        .or_else(|| Some(rest.strip_prefix("execute ")?.split_once(": ")?.1))
}
