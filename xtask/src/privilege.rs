//! Root: who has it, and how a command gets it.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::find;

/// Variables that a program started through sudo shall still see.
const KEPT: &[&str] = &["OTEL_", "TAP_", "RUST_", "GRPC_"];

/// Whether this process is root.
pub fn is_root() -> bool {
    // SAFETY: `geteuid` has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A command that runs as root: as it is, or through sudo. `what` says what it is needed for.
pub fn as_root(program: impl AsRef<OsStr>, what: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find("sudo").is_none() {
        bail!(
            "{what} needs root, this is an ordinary user and there is no sudo: \
             run the same command as root"
        );
    }
    let mut command = Command::new("sudo");
    let kept = kept_variables();
    if !kept.is_empty() {
        command.arg(format!("--preserve-env={}", kept.join(",")));
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// The runner that cargo puts before each test binary, when one is needed.
pub fn test_runner() -> Result<Option<&'static str>> {
    if is_root() {
        return Ok(None);
    }
    if find("sudo").is_none() {
        bail!("the end-to-end tests load kernel programs: run `cargo xtask test` as root");
    }
    Ok(Some("sudo --preserve-env=TAP_BIN,PATH,RUST_BACKTRACE --"))
}

fn kept_variables() -> Vec<String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| KEPT.iter().any(|prefix| name.starts_with(prefix))).collect()
}

/// Whether a file can be run by root through sudo or not; used in messages only.
pub fn how(program: &Path) -> String {
    let sudo = if is_root() { "" } else { "sudo " };
    format!("{sudo}{}", program.display())
}
