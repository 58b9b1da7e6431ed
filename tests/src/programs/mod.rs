//! Real programs: found, started, and asked for what they know of their own traffic. One that is
//! not there fails the test with the package to install.

pub mod apache;
pub mod curl;
pub mod gcs;
pub mod haproxy;
pub mod kafka;
pub mod mariadb;
pub mod moto;
pub mod nginx;
pub mod otlp;
pub mod pki;
pub mod postgres;
pub mod redis;
pub mod scripts;
pub mod tcpdump;
pub mod tls;
pub mod tshark;

use std::{
    env, fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    sys,
    wait::{self, PATIENCE},
};

/// `nobody` of Debian, who runs servers that refuse root.
const NOBODY: u32 = 65534;

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

/// Runs a command to its end, however it ends, with `input` on its standard input.
fn with_input(command: &mut Command, input: &str) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A program that reads nothing may be gone already.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    child.wait_with_output().with_context(|| format!("{command:?}"))
}

/// A temporary folder of a server, which every user may look into.
fn home(server: &str) -> Result<TempDir> {
    let home = tempfile::Builder::new().prefix(&format!("tap-{server}-")).tempdir()?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    Ok(home)
}

/// The same of a server that runs by [`as_nobody`].
fn home_of_nobody(server: &str) -> Result<TempDir> {
    let home = home(server)?;
    chown(home.path(), Some(NOBODY), Some(NOBODY))?;
    Ok(home)
}

/// A command that runs as `nobody`, and ends with the test process too.
fn as_nobody(program: &Path) -> Result<Command> {
    let mut setpriv = command("setpriv", "util-linux")?;
    setpriv.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string()]);
    setpriv.args(["--clear-groups", "--pdeathsig", "KILL", "--"]).arg(program);
    Ok(setpriv)
}

/// The lines of a log file, once there are so many.
fn lines_of(log: &Path, count: usize) -> Result<Vec<String>> {
    wait::until(&format!("{count} lines in {}", log.display()), PATIENCE, || {
        let text = fs::read_to_string(log).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
    .with_context(|| fs::read_to_string(log).unwrap_or_default())
}

/// The word that a statement begins with, in capitals.
fn statement_word(statement: &str) -> String {
    let end = |it: char| !it.is_ascii_alphanumeric() && it != '_';
    statement.trim_start().split(end).next().unwrap_or_default().to_ascii_uppercase()
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
