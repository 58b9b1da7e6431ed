//! `cargo xtask build` and `cargo xtask run`: the daemon, in release, with the kernel object in it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::privilege;
use crate::report::step;
use crate::setup::{self, Scope};
use crate::workspace::{Workspace, cargo};

/// Sets up and builds; returns the path of the daemon.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    build_for(workspace, Scope::Build)
}

/// The same with more set up than a build needs.
pub fn build_for(workspace: &Workspace, scope: Scope) -> Result<PathBuf> {
    setup::run(workspace, scope)?;
    let daemon = workspace.daemon();
    step("build: the daemon, in release, with the kernel object in it");
    let mut command = Command::new(cargo());
    command
        .args(["build", "--release", "--locked", "--package", "tap-userspace"])
        .current_dir(&workspace.root);
    command::run(&mut command)?;
    step(format_args!("build: {} is ready", workspace.shown(&daemon)));
    Ok(daemon)
}

/// Builds, then becomes `tap run`, so that signals and the terminal are its own.
pub fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    let daemon = build(workspace)?;
    step(format_args!("run: {} run, on the whole host; Ctrl-C ends it", privilege::how(&daemon)));
    let mut command = privilege::as_root(&daemon, "tracing")?;
    // Cargo points this at its own folders; it is none of the daemon's business.
    command.env_remove("LD_LIBRARY_PATH").arg("run").args(args);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", daemon.display()))
}
