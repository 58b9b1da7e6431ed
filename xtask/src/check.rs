//! `cargo xtask check`: exactly what CI runs, in the order in which mistakes are cheapest to find.

use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::command;
use crate::deny;
use crate::readme;
use crate::report::step;
use crate::setup::{self, Scope};
use crate::test;
use crate::workspace::{Workspace, cargo};

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// rustfmt's format.
    Format,
    /// The README's commands.
    Readme,
    /// clippy on everything that runs on the host.
    LintHost,
    /// clippy on the kernel programs.
    LintKernel,
    /// Licences, bans and sources of the dependencies.
    Dependencies,
    /// Every test.
    Tests,
}

/// Runs the named checks, or all; the tests come last, so that the output ends with their sum.
pub fn run(workspace: &Workspace, steps: &[Step]) -> Result<()> {
    for step in Step::value_variants() {
        if !steps.is_empty() && !steps.contains(step) {
            continue;
        }
        match step {
            Step::Format => format(workspace)?,
            Step::Readme => readme::check(workspace)?,
            Step::LintHost => lint_host(workspace)?,
            Step::LintKernel => lint_kernel(workspace)?,
            Step::Dependencies => deny::check(workspace)?,
            Step::Tests => {
                test::run(workspace, None)?;
                readme::check_daemon(workspace)?;
            }
        }
    }
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    step("check: format");
    command::run(host(workspace).args(["fmt", "--all", "--check"]))
        .context("the format is not rustfmt's: run `cargo fmt --all`")
}

/// Lints in the profile of the release build: its macros and build scripts are then there already,
/// or will be.
fn lint_host(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, Scope::Build)?;
    step("check: clippy, host side, warnings denied");
    let mut clippy = host(workspace);
    clippy.args([
        "clippy",
        "--release",
        "--locked",
        "--workspace",
        "--exclude",
        "tap-ebpf",
        "--all-targets",
    ]);
    command::run(clippy.args(["--", "-D", "warnings"]))
}

/// Lints the programs with the toolchain that builds them. That no toolchain here can is said, but
/// does not fail the check: the object itself has been built by then, warnings and all.
fn lint_kernel(workspace: &Workspace) -> Result<()> {
    let toolchain = setup::run(workspace, Scope::Build)?;
    if let Err(error) = setup::clippy(&toolchain) {
        step(format_args!("check: SKIPPED clippy of the kernel side: {error:#}"));
        return Ok(());
    }
    step(format_args!("check: clippy, kernel side, warnings denied ({})", toolchain.version));
    command::run(toolchain.cargo(workspace, "clippy")?.args(["--", "-D", "warnings"]))
}

fn host(workspace: &Workspace) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(&workspace.root);
    command
}
