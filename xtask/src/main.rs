//! Set-up, builds, tests and measurements of tap: `cargo xtask <command>`.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod check;
mod command;
mod ebpf;
mod kernels;
mod setup;

/// Everything that is done with the sources of tap.
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing to build tap (as root or through sudo); does nothing twice.
    Setup {
        /// Also what the tests use: servers, clients, tools.
        #[arg(long)]
        tests: bool,
    },
    /// Build the kernel programs only; prints where they are.
    Ebpf,
    /// Set up and build: leaves target/release/tap.
    Build,
    /// Set up, build and trace this host (as root or through sudo); arguments go to `tap run`.
    Run {
        /// Arguments of `tap run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, build and run every test: unit, replay, end to end on this kernel.
    Test {
        /// Arguments of `cargo test`, as a filter.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// What CI runs: format, lints of both sides of the kernel line, licences, README, tests.
    Check,
    /// Boot stock kernels in QEMU and let tap trace in each.
    Kernels(kernels::Arguments),
    /// Measure what tap costs, in interleaved pairs with and without it.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Setup { tests } => setup::setup(tests),
        Command::Ebpf => {
            setup::setup(false)?;
            println!("{}", ebpf::build()?.display());
            Ok(())
        }
        Command::Build => build::build().map(|tap| println!("built {}", tap.display())),
        Command::Run { arguments } => build::run(&arguments),
        Command::Test { arguments } => build::test(&arguments),
        Command::Check => check::check(),
        Command::Kernels(arguments) => kernels::kernels(&arguments),
        Command::Bench { what } => bench::bench(&what),
    }
}
