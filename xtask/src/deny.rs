//! `cargo deny`: licences, bans and sources of every dependency. The advisories need a database
//! from the network and are looked at only where it can be had (`deny.toml`).

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::report::step;
use crate::workspace::{Workspace, cargo};

const VERSION: &str = "0.20.2";

/// Checks the dependencies against `deny.toml`.
pub fn check(workspace: &Workspace) -> Result<()> {
    install(workspace)?;
    step("check: cargo deny: licences, bans, sources");
    let mut deny = Command::new(workspace.tool("cargo-deny"));
    deny.args(["--workspace", "--all-features", "--locked", "check", "--hide-inclusion-graph"])
        .args(["licenses", "bans", "sources"])
        .current_dir(&workspace.root)
        .env("CARGO", cargo());
    command::run(&mut deny).context("the dependencies break a rule of deny.toml")
}

/// Builds it into the target directory, once. Unoptimised: it runs for a second and takes a third
/// of the time to build.
fn install(workspace: &Workspace) -> Result<()> {
    let tool = workspace.tool("cargo-deny");
    let version = command::output(Command::new(&tool).arg("--version")).unwrap_or_default();
    if version.split_whitespace().nth(1) == Some(VERSION) {
        return Ok(());
    }
    step(format_args!("check: building cargo-deny {VERSION} (two minutes, once)"));
    let build = workspace.tools().join("build");
    let mut install = Command::new(cargo());
    install
        .args(["install", "cargo-deny", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--root"])
        .arg(workspace.tools())
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    command::run(&mut install).context("cargo-deny was not built: is crates.io reachable?")?;
    std::fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}
