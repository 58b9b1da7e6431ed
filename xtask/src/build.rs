//! Build, run, test.

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    command::{as_root, command, run as run_command, target},
    ebpf, setup,
};

/// Sets up and builds the daemon in release; says where it is.
pub fn build() -> Result<PathBuf> {
    setup::setup(false)?;
    let mut cargo = cargo_with_object()?;
    cargo.args(["build", "--release", "--locked", "-p", "tap-userspace"]);
    run_command(&mut cargo, "build tap")?;
    Ok(target().join("release/tap"))
}

/// A cargo command that embeds the kernel object.
fn cargo_with_object() -> Result<Command> {
    let object = ebpf::build()?;
    let mut cargo = command("cargo");
    cargo.env("TAP_EBPF_OBJECT", object);
    Ok(cargo)
}

/// Builds and traces. The daemon takes this process's place, so signals reach it.
pub fn run(arguments: &[String]) -> Result<()> {
    let tap = build()?;
    let mut tap = as_root(&tap.display().to_string())?;
    tap.arg("run").args(arguments);
    Err(tap.exec()).context("cannot start tap")
}

/// Builds and runs every test. Tests and daemon are built in one profile, so that dependencies
/// are compiled once.
pub fn test(arguments: &[String]) -> Result<()> {
    setup::setup(true)?;
    let tap = build()?;
    let mut cargo = cargo_with_object()?;
    cargo
        .env("TAP_BIN", tap)
        .args(["test", "--release", "--locked", "--workspace", "--exclude", "tap-ebpf"])
        .args(arguments);
    run_command(&mut cargo, "pass the tests")
}
