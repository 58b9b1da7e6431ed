//! Real programs: found, started, and asked for what they know of their own traffic. One that is
//! not there fails the test with the package to install.

pub mod curl;
pub mod nginx;
pub mod scripts;
pub mod tls;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::sys;

/// The program `name`, which the Debian package `package` has.
pub fn find(name: &str, package: &str) -> Result<PathBuf> {
    // Distribution programs first: in front of them a developer may have wrappers.
    let path = env::var_os("PATH").unwrap_or_default();
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    places
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|place| place.join(name))
        .find(|file| sys::is_executable(file))
        .with_context(|| format!("{name} is missing: apt-get install {package}"))
}

/// A command of the program `name` of `package`.
pub fn command(name: &str, package: &str) -> Result<Command> {
    Ok(Command::new(find(name, package)?))
}

/// Runs a command to its end, which must be a success, and gives its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} left with {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The file that the process `pid` executes, as `process.executable.path` has it.
pub fn executable(pid: u32) -> Result<String> {
    let link = format!("/proc/{pid}/exe");
    let path = std::fs::read_link(&link).with_context(|| link.clone())?;
    Ok(path.display().to_string())
}

/// The file behind `path` when all links are followed.
pub fn resolved(path: &Path) -> Result<String> {
    Ok(path.canonicalize()?.display().to_string())
}
