//! `cargo xtask check`: exactly what CI runs, in the order in which mistakes are cheapest to find.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::deny;
use crate::readme;
use crate::report::step;
use crate::setup::{self, Scope, Toolchain};
use crate::test;
use crate::workspace::{Workspace, cargo};

/// Runs every check; the tests come last, so that the output ends with their sum.
pub fn run(workspace: &Workspace, tests: bool) -> Result<()> {
    format(workspace)?;
    readme::check(workspace)?;
    let toolchain = setup::run(workspace, Scope::Build)?;
    lint_host(workspace)?;
    lint_kernel(workspace, &toolchain)?;
    deny::check(workspace)?;
    if tests {
        test::run(workspace, None)?;
        readme::check_daemon(workspace)?;
    }
    step("check: all passed");
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    step("check: format");
    command::run(host(workspace).args(["fmt", "--all", "--check"]))
        .context("the format is not rustfmt's: run `cargo fmt --all`")
}

fn lint_host(workspace: &Workspace) -> Result<()> {
    step("check: clippy, host side, warnings denied");
    let mut clippy = host(workspace);
    clippy.args(["clippy", "--locked", "--workspace", "--exclude", "tap-ebpf", "--all-targets"]);
    command::run(clippy.args(["--", "-D", "warnings"]))
}

/// Lints the programs with the toolchain that builds them. That no toolchain here can is said, but
/// does not fail the check: the object itself has been built by then, warnings and all.
fn lint_kernel(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    if let Err(error) = setup::clippy(toolchain) {
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
