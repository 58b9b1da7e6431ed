//! `cargo xtask fuzz`: every reader of raw input against mutations of real bytes. What is fed and
//! how stands in `tap-userspace/examples/fuzz.rs`.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::report::step;
use crate::workspace::{Workspace, cargo};

/// Feeds each target for `seconds`.
pub fn run(workspace: &Workspace, seconds: u32) -> Result<()> {
    step(format_args!("fuzz: {seconds} s for each reader; nothing needs root"));
    let mut fuzz = Command::new(cargo());
    fuzz.args(["run", "--release", "--locked", "--quiet", "-p", "tap-userspace"])
        .args(["--example", "fuzz", "--", &seconds.to_string()])
        // Overflows must show.
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_TARGET_DIR", workspace.target.join("fuzz-build"))
        .current_dir(&workspace.root);
    command::run(&mut fuzz).context("some reader did not survive its input")
}
