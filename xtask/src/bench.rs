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
    /// What idle connections cost the daemon in memory.
    Idle {
        /// How many loopback pairs, two sockets each.
        #[arg(long, default_value_t = 50_000)]
        pairs: u32,
    },
    /// What a span costs on its way out, against the Rust SDK's own processor and exporter.
    Export {
        /// How many pairs.
        #[arg(long, default_value_t = 5)]
        pairs: u32,
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
    let mut bench = Command::new(cargo());
    bench.args(["run", "--release", "--locked", "--quiet"]).current_dir(&workspace.root);
    let count = match what {
        What::Wire { pairs } => traced(workspace, &mut bench, "wire", *pairs)?,
        What::Idle { pairs } => traced(workspace, &mut bench, "idle", *pairs)?,
        What::Export { pairs } => {
            setup::run(workspace, Scope::Build)?;
            bench.args(["-p", "tap-userspace", "--example", "export", "--"]);
            *pairs
        }
        What::Queue { folder } => return queue(workspace, folder),
    };
    bench.arg(count.to_string());
    command::run(&mut bench).context("the benchmark did not come to its end")
}

/// A benchmark of the traced host: as root, with the daemon just built.
fn traced(workspace: &Workspace, bench: &mut Command, name: &str, count: u32) -> Result<u32> {
    let daemon = daemon::build_for(workspace, Scope::Test)?;
    step(format_args!("bench: {name}, as root and with the daemon just built"));
    bench.args(["-p", "tests", "--bin", "bench", "--", name]).env("TAP_BIN", &daemon);
    if let Some(runner) = privilege::test_runner()? {
        bench.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
        bench.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    }
    Ok(count)
}

fn queue(workspace: &Workspace, folder: &Path) -> Result<()> {
    step(format_args!("bench: queue, on the file system of {}", folder.display()));
    let mut bench = Command::new(cargo());
    bench
        .args(["run", "--release", "--locked", "--quiet", "-p", "tap-userspace"])
        .args(["--example", "queue", "--"])
        .arg(folder)
        .current_dir(&workspace.root);
    command::run(&mut bench).context("the benchmark did not come to its end")
}
