//! Running other programs, and where things are.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The workspace's root.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `program` of the search path, if it is there.
pub fn find(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A command in the workspace's root. Inside `cargo xtask` cargo has set variables about the
/// running toolchain; they must not reach another one.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command
}

/// Runs a command; what it is for stands in the error.
pub fn run(command: &mut Command, purpose: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot {purpose}: {} does not start", name(command)))?;
    if !status.success() {
        bail!("cannot {purpose}: {} failed ({status})", name(command));
    }
    Ok(())
}

/// Runs a command quietly; its output goes into the error.
pub fn run_quietly(command: &mut Command, purpose: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot {purpose}: {} does not start", name(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("cannot {purpose}: {} failed ({})\n{text}{errors}", name(command), output.status);
    }
    Ok(text)
}

fn name(command: &Command) -> String {
    let arguments: Vec<_> = command.get_args().map(|part| part.to_string_lossy()).collect();
    format!("`{} {}`", command.get_program().to_string_lossy(), arguments.join(" "))
}

/// Whether this is root.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A command that runs as root: through sudo where this is not root.
pub fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(command(program));
    }
    if find("sudo").is_none() {
        bail!("{program} needs root: run `cargo xtask` as root, or install sudo");
    }
    let mut sudo = command("sudo");
    sudo.arg("--preserve-env").arg(program);
    Ok(sudo)
}
