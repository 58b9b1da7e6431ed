//! `cargo xtask test`: every test of the workspace against the daemon that users get.
//!
//! The daemon that the end-to-end tests start is the release build. The tests themselves are built in the
//! development profile, with debug assertions and checks of overflow: fourteen programs that are each
//! optimised as a whole take ten minutes to link, these take two and a half with all they depend on.

use std::io::{BufReader, stdout};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::daemon;
use crate::privilege;
use crate::report::step;
use crate::setup::Scope;
use crate::workspace::{Workspace, cargo};

/// Sets up, builds, tests; the last line is the sum of all test binaries.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<()> {
    let daemon = daemon::build_for(workspace, Scope::Test)?;
    step("test: cargo test --workspace, as root and with the daemon just built");
    let mut command = Command::new(cargo());
    command
        .args(["test", "--locked", "--workspace", "--no-fail-fast"])
        // Not the examples: they are benchmarks, and linking one takes most of a minute.
        .arg("--tests")
        .current_dir(&workspace.root)
        .env("TAP_BIN", &daemon)
        .stdout(Stdio::piped());
    if std::env::var_os("CI").is_some() {
        // Nothing is built again there, and what that would need is written to the disk.
        command.env("CARGO_INCREMENTAL", "0");
    }
    if let Some(runner) = privilege::test_runner()? {
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    }
    command.args(filter);
    let summary = {
        let mut child = command.spawn().context("cannot start `cargo test`")?;
        let output = child.stdout.take().context("`cargo test` has no output")?;
        let summary = crate::summary::Summary::pass_on(BufReader::new(output), stdout().lock())
            .context("cannot pass on the output of `cargo test`")?;
        (summary, child.wait().context("cannot wait for `cargo test`")?)
    };
    let (summary, status) = summary;
    step(format_args!("test: done; {}", if status.success() { "all passed" } else { "FAILED" }));
    println!("\n{}", summary.line(status.success()));
    if !status.success() {
        bail!("`cargo test` failed ({status}): see the failures above");
    }
    Ok(())
}
