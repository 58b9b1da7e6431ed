//! `cargo xtask bench`: builds the daemon and the benchmark, and runs it as root. What is measured
//! and how stands in `tests/bench`.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::command;
use crate::daemon;
use crate::privilege;
use crate::report::step;
use crate::setup::Scope;
use crate::workspace::{Workspace, cargo};

/// A benchmark.
#[derive(Subcommand)]
pub enum What {
    /// What tap costs nginx, in interleaved pairs; and ns per run of each kernel program.
    Wire {
        /// How many pairs.
        #[arg(long, default_value_t = 7)]
        pairs: u32,
    },
    /// What idle connections cost the daemon in memory.
    Idle {
        /// How many loopback pairs, two sockets each.
        #[arg(long, default_value_t = 50_000)]
        pairs: u32,
    },
    /// What a transaction costs the daemon, from recordings of real programs; one thread.
    Protocol {
        /// How often each recording is replayed.
        #[arg(long, default_value_t = 15)]
        runs: u32,
        /// Measure with the recordings of the last time.
        #[arg(long)]
        again: bool,
    },
}

/// Sets up, builds, measures.
pub fn run(workspace: &Workspace, what: &What) -> Result<()> {
    match what {
        What::Wire { pairs } => live(workspace, &["wire", &pairs.to_string()]),
        What::Idle { pairs } => live(workspace, &["idle", &pairs.to_string()]),
        What::Protocol { runs, again } => {
            if !again {
                live(workspace, &["recordings"])?;
            }
            replayed(workspace, *runs)
        }
    }
}

/// Runs `tests/bench` with the daemon just built.
fn live(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let daemon = daemon::build_for(workspace, Scope::Test)?;
    step(format_args!("bench: {}, as root and with the daemon just built", arguments[0]));
    let mut bench = Command::new(cargo());
    bench
        .args(["run", "--release", "--locked", "--quiet", "-p", "tests", "--bin", "bench", "--"])
        .args(arguments)
        .current_dir(&workspace.root)
        .env("TAP_BIN", &daemon);
    if let Some(runner) = privilege::test_runner()? {
        bench.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
        bench.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    }
    command::run(&mut bench).context("the benchmark did not come to its end")
}

/// Measures the daemon's stages with the recordings.
fn replayed(workspace: &Workspace, runs: u32) -> Result<()> {
    step(format_args!("bench: protocol, {runs} runs over each recording; nothing needs root"));
    let folder = workspace.target.join("bench");
    let mut bench = Command::new(cargo());
    bench
        .args(["run", "--release", "--locked", "--quiet", "-p", "tap-userspace"])
        .args(["--example", "protocol", "--", &runs.to_string()])
        .arg(folder.join("recordings"))
        .arg(folder.join("protocol.json"))
        .current_dir(&workspace.root);
    command::run(&mut bench).context("the benchmark did not come to its end")
}
