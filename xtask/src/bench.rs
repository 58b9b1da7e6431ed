//! `cargo xtask bench`: builds the daemon and the benchmark, and runs it as root. What is measured
//! and how stands in `tests/bench`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::command;
use crate::daemon;
use crate::privilege;
use crate::report::step;
use crate::setup::{self, Scope};
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
    /// What a packet costs of a connection that the rules keep out, above an empty program.
    Policy {
        /// How many pairs.
        #[arg(long, default_value_t = 5)]
        pairs: u32,
    },
    /// What idle connections cost the daemon in memory.
    Idle {
        /// How many loopback pairs, two sockets each.
        #[arg(long, default_value_t = 50_000)]
        pairs: u32,
    },
    /// Whether each HTTP transaction is told or accounted for at full rate, by nginx's own count.
    Transactions {
        /// How long.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// What a span costs on its way out, against the Rust SDK's own processor and exporter.
    Export {
        /// How many pairs.
        #[arg(long, default_value_t = 5)]
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
    /// What the sending queue on disk costs for each batch; needs neither root nor a daemon.
    Queue {
        /// A folder of the file system in question.
        #[arg(default_value = "target")]
        folder: PathBuf,
    },
}

/// Sets up, builds, measures.
pub fn run(workspace: &Workspace, what: &What) -> Result<()> {
    match what {
        What::Wire { pairs } => live(workspace, &["wire", &pairs.to_string()]),
        What::Policy { pairs } => {
            live(workspace, &["policy", &pairs.to_string()])?;
            example(workspace, &["policy", "config/examples/production-agent.yaml"])
        }
        What::Idle { pairs } => live(workspace, &["idle", &pairs.to_string()]),
        What::Transactions { seconds } => live(workspace, &["transactions", &seconds.to_string()]),
        What::Export { pairs } => {
            setup::run(workspace, Scope::Build)?;
            example(workspace, &["export", &pairs.to_string()])
        }
        What::Protocol { runs, again } => {
            if !again {
                live(workspace, &["recordings"])?;
            }
            let folder = workspace.target.join("bench");
            let (from, to) = (folder.join("recordings"), folder.join("protocol.json"));
            example(workspace, &["protocol", &runs.to_string(), &name(&from), &name(&to)])
        }
        What::Queue { folder } => example(workspace, &["queue", &name(folder)]),
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

/// Runs an example of the daemon's crate; its name comes first.
fn example(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let [name, arguments @ ..] = arguments else { return Ok(()) };
    step(format_args!("bench: {name}; nothing needs root"));
    let mut bench = Command::new(cargo());
    bench
        .args(["run", "--release", "--locked", "--quiet", "-p", "tap-userspace"])
        .args(["--example", name, "--"])
        .args(arguments)
        .current_dir(&workspace.root);
    command::run(&mut bench).context("the benchmark did not come to its end")
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
