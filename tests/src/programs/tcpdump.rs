//! `tcpdump` on the loopback.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::command;
use crate::{process::Process, wait::PATIENCE};

/// A capture under way.
#[derive(Debug)]
pub struct Tcpdump {
    process: Process,
    file: PathBuf,
}

impl Tcpdump {
    /// Captures whole packets from and to TCP ports into `file`.
    pub fn start(file: &Path, ports: &[u16]) -> Result<Self> {
        let mut tcpdump = command("tcpdump", "tcpdump")?;
        tcpdump.args(["-i", "lo", "-s", "0", "-B", "16384", "-U", "--immediate-mode", "-w"]);
        let filter: Vec<_> = ports.iter().map(|port| format!("tcp port {port}")).collect();
        let process = {
            tcpdump.arg(file).arg(filter.join(" or "));
            Process::start(tcpdump)?
        };
        process.stderr.wait_for("tcpdump to listen", PATIENCE, |line| {
            line.contains("listening").then_some(())
        })?;
        Ok(Self { process, file: file.to_owned() })
    }

    /// Ends it; it missed nothing.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.process.signal(libc::SIGTERM)?;
        self.process.wait(PATIENCE)?;
        let said = self.process.stderr.text();
        let lost = said.lines().find(|line| line.contains("dropped by kernel"));
        let lost = lost.with_context(|| format!("tcpdump gave no count of losses: {said}"))?;
        ensure!(lost.starts_with("0 "), "tcpdump: {lost}");
        Ok(self.file)
    }
}
