//! The project's own tool: what a newcomer, a developer and the CI type.
//!
//! Owns the order of things (set up, build the kernel object, build the daemon, test, check); what
//! comes in is a subcommand, what goes out is an exit code and a word on each step (on stderr).

mod bench;
mod check;
mod collector;
mod command;
mod daemon;
mod deny;
mod ebpf;
mod fuzz;
mod kernels;
mod privilege;
mod readme;
mod report;
mod setup;
mod summary;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Scope;
use crate::workspace::Workspace;

/// Set-up, builds, tests and checks of tap.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set up what is missing on this machine to build and run tap (idempotent).
    Setup {
        /// Also what the tests need.
        #[arg(long)]
        tests: bool,
    },
    /// Build the kernel object and print its path (always optimised: the verifier refuses less).
    Ebpf,
    /// Set up, then build the daemon in release, with the kernel object in it.
    Build,
    /// Build, then trace the whole host as root; the arguments go to `tap run`.
    Run {
        /// Arguments of `tap run`, after `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up, build and run every test: unit, replay and end to end on the live kernel.
    Test {
        /// Run only the tests whose name contains this.
        filter: Option<String>,
    },
    /// Measure what tap costs (a report, not a test).
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Feed every reader of raw input with mutations of real bytes.
    Fuzz {
        /// Seconds for each.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// Build the OpenTelemetry Collector that one test exports to (needs Go; minutes).
    Collector,
    /// Everything that CI runs: format, lints on both sides, dependencies, README, tests.
    Check {
        /// Only these.
        steps: Vec<check::Step>,
    },
    /// Boot stock kernels under QEMU and let the daemon trace in each.
    Kernels(kernels::Arguments),
    /// The traffic of such a guest; runs inside it.
    #[command(hide = true)]
    Traffic {
        #[command(subcommand)]
        what: kernels::traffic::Traffic,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    if let Task::Traffic { what } = &task {
        // There is no workspace in the guest.
        return kernels::traffic::run(what);
    }
    let workspace = Workspace::find()?;
    match task {
        Task::Setup { tests } => {
            setup::run(&workspace, if tests { Scope::Test } else { Scope::Build }).map(drop)
        }
        Task::Ebpf => {
            setup::run(&workspace, Scope::Build)?;
            println!("{}", workspace.object().display());
            Ok(())
        }
        Task::Build => daemon::build(&workspace).map(drop),
        Task::Run { args } => daemon::run(&workspace, &args),
        Task::Test { filter } => test::run(&workspace, filter.as_deref()),
        Task::Bench { what } => bench::run(&workspace, &what),
        Task::Fuzz { seconds } => fuzz::run(&workspace, seconds),
        Task::Collector => collector::run(&workspace),
        Task::Check { steps } => check::run(&workspace, &steps),
        Task::Kernels(arguments) => kernels::run(&workspace, &arguments),
        Task::Traffic { what } => kernels::traffic::run(&what),
    }
}
