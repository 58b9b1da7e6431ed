//! The daemon as a test sees it: a process with an environment, an admin port and an exit.

mod accounting;
mod admin;
mod launch;

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

pub use self::{
    accounting::{Accounting, Book},
    admin::{Address, Answer, Metrics},
    launch::{Launch, binary, free_port},
};
use crate::process::{Lines, Process};

/// Time that the daemon has to leave in (SPEC §2), and as much again for a machine that is shared.
const LEAVE: Duration = Duration::from_secs(10);

/// A running daemon.
#[derive(Debug)]
pub struct Tap {
    process: Process,
    admin: Address,
    /// Its configuration file and its socket, if it has one.
    _home: tempfile::TempDir,
}

impl Tap {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log.
    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    /// What it prints.
    pub fn output(&self) -> &Lines {
        &self.process.stdout
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.process.signal(signal)
    }

    /// Asks its admin server.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.admin.get(path).with_context(|| format!("asking tap for {path}"))
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        let answer = self.get("/metrics")?;
        ensure!(answer.status == 200, "/metrics answered {}", answer.status);
        Ok(Metrics::parse(&answer.body))
    }

    /// SIGTERM, and what it leaves behind.
    pub fn stop(self) -> Result<Ended> {
        self.stop_by(libc::SIGTERM)
    }

    /// Ends it by `signal`.
    pub fn stop_by(mut self, signal: i32) -> Result<Ended> {
        let asked = Instant::now();
        self.signal(signal)?;
        let status = self.process.wait(LEAVE).with_context(|| self.log().text())?;
        Ok(Ended::of(&self.process, status, asked.elapsed()))
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.process.wait(LEAVE).map(drop)
    }
}

/// What a daemon that ended has left.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// How long it took after it was asked to.
    pub took: Duration,
    /// Its log.
    pub stderr: Vec<String>,
    /// What it printed.
    pub stdout: Vec<String>,
}

impl Ended {
    fn of(process: &Process, status: ExitStatus, took: Duration) -> Self {
        Self { status, took, stderr: process.stderr.all(), stdout: process.stdout.all() }
    }

    /// Its exit code; -1 after a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Its log as one text.
    pub fn log(&self) -> String {
        self.stderr.join("\n")
    }

    /// The accounting line.
    pub fn accounting(&self) -> Result<Accounting> {
        Accounting::find(&self.stderr).with_context(|| self.log())
    }

    /// Whether it left as it should: exit 0, and both identities of SPEC §7 hold to the unit, with
    /// nothing left in a ring or a queue.
    pub fn check(&self) -> Result<Accounting> {
        ensure!(self.status.success(), "tap left with {}:\n{}", self.status, self.log());
        let accounting = self.accounting()?;
        accounting.check().with_context(|| self.log())?;
        Ok(accounting)
    }
}
