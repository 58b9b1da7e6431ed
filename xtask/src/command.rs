//! Running other programs: one way to say which command failed, and a time limit for those that
//! may wait for a network that is not there.

use std::env;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The command as one would type it, without its environment.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.is_empty() || word.contains(char::is_whitespace) {
        format!("'{word}'")
    } else {
        word.into_owned()
    }
}

/// Runs with the terminal passed on; anything but success is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    success(status, command)
}

/// The standard output of a command that succeeds.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(command), output.status, tail(&errors, 12));
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed no UTF-8", shown(command)))
}

/// What a captured run left: whether it succeeded and all that it said on stderr.
pub struct Captured {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard error.
    pub errors: String,
}

/// Runs quietly, at most for `limit`; beyond that it is ended and counts as failed.
pub fn captured(command: &mut Command, limit: Duration) -> Result<Captured> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    let mut pipe = child.stderr.take().context("the child has no stderr")?;
    let reader = thread::spawn(move || {
        let mut errors = Vec::new();
        pipe.read_to_end(&mut errors).map(|_| errors)
    });
    let status = wait(&mut child, limit)
        .with_context(|| format!("`{}` was given {} s", shown(command), limit.as_secs()))?;
    let errors = match reader.join() {
        Ok(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    };
    Ok(Captured { status, errors })
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("it did not end in time");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn success(status: ExitStatus, command: &Command) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", shown(command))
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Looks a program up, on PATH and in the system folders that a user's PATH may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["install", "a b", ""]);
        assert_eq!(shown(&command), "cargo install 'a b' ''");
    }

    #[test]
    fn a_failed_command_says_which_and_why() {
        let error = output(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("exit status: 3") && text.contains("no"), "{text}");
    }

    #[test]
    fn a_hanging_command_is_ended() {
        let limit = Duration::from_millis(100);
        let error = captured(Command::new("sleep").arg("60"), limit).err().unwrap();
        assert!(format!("{error:#}").contains("did not end in time"));
    }

    #[test]
    fn the_tail_of_a_text() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}
