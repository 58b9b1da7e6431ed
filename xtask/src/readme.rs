//! The README's commands are checked, so that it cannot drift from what there is: each command of
//! a block fenced as ```` ```sh check ```` must be one that xtask accepts or the daemon knows.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::Cli;
use crate::command;
use crate::report::step;
use crate::workspace::Workspace;

const FENCE: &str = "```sh check";
const DAEMON: &str = "target/release/tap";

/// The commands that xtask itself answers for; they are parsed, not run: the most important one is
/// this very check.
pub fn check(workspace: &Workspace) -> Result<()> {
    let commands = commands(workspace)?;
    step(format_args!("check: {} commands of the README", commands.len()));
    for line in &commands {
        check_line(line).with_context(|| format!("README.md, `{line}`"))?;
    }
    for wanted in ["cargo xtask run", "cargo xtask test"] {
        ensure!(
            commands.iter().any(|line| line == wanted),
            "README.md has no checked block with `{wanted}`"
        );
    }
    Ok(())
}

/// The commands of the daemon, once it is built: each must know its own `--help`.
pub fn check_daemon(workspace: &Workspace) -> Result<()> {
    let commands = commands(workspace)?;
    let daemon: Vec<_> = commands.iter().filter_map(|line| daemon_arguments(line)).collect();
    step(format_args!("check: {} commands of the README that start the daemon", daemon.len()));
    for arguments in daemon {
        ask_for_help(&workspace.daemon(), &arguments)?;
    }
    Ok(())
}

fn commands(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.root.join("README.md");
    let text = fs::read_to_string(&path).context("README.md cannot be read")?;
    let commands = blocks(&text);
    ensure!(!commands.is_empty(), "README.md has no block that starts with {FENCE}");
    Ok(commands)
}

fn blocks(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("```") {
            inside = line == FENCE;
        } else if inside {
            let command = line.split(" #").next().unwrap_or_default().trim();
            if !command.is_empty() && !command.starts_with('#') {
                commands.push(command.to_owned());
            }
        }
    }
    commands
}

fn check_line(line: &str) -> Result<()> {
    if daemon_arguments(line).is_some() {
        return Ok(());
    }
    let words: Vec<&str> = without_assignments(line).collect();
    match words.as_slice() {
        ["cargo", "xtask", arguments @ ..] => {
            let words = ["cargo xtask"].iter().chain(arguments);
            Cli::try_parse_from(words).map(drop).context("xtask does not accept it")
        }
        _ => bail!("only `cargo xtask …` and `{DAEMON} …` can be checked: use a plain fence"),
    }
}

fn without_assignments(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split_whitespace().skip_while(|word| *word == "sudo");
    words.skip_while(|word| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
    })
}

/// The subcommand words that follow the daemon's name, up to the first flag.
fn daemon_arguments(line: &str) -> Option<Vec<String>> {
    let mut words = without_assignments(line);
    let program = words.next()?;
    (program.trim_start_matches("./") == DAEMON)
        .then(|| words.take_while(|word| word.starts_with(char::is_lowercase)).take(1))
        .map(|words| words.map(str::to_owned).collect())
}

fn ask_for_help(daemon: &Path, arguments: &[String]) -> Result<()> {
    command::output(Command::new(daemon).args(arguments).arg("--help"))
        .map(drop)
        .context("README.md names a command that the daemon does not know")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# tap\n```sh\nrm -rf /\n```\n```sh check\n# comment\ncargo xtask run  # go\n\
        A_B=1 cargo xtask test\n```\n    ```text\n```\n";

    #[test]
    fn only_marked_blocks_count() {
        assert_eq!(blocks(TEXT), ["cargo xtask run", "A_B=1 cargo xtask test"]);
    }

    #[test]
    fn commands_are_accepted_or_refused() {
        for good in [
            "cargo xtask run",
            "OTEL_X=http://a:1 cargo xtask run -- --log-level debug",
            "sudo target/release/tap check",
            "target/release/tap",
        ] {
            assert!(check_line(good).is_ok(), "{good}");
        }
        for bad in ["cargo xtask fly", "cargo build", "", "target/debug/tap"] {
            assert!(check_line(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_daemons_subcommand_is_found() {
        let words = daemon_arguments("sudo X=1 ./target/release/tap replay file --speed 1");
        assert_eq!(words, Some(vec!["replay".to_owned()]));
        assert_eq!(daemon_arguments("target/release/tap --help"), Some(vec![]));
        assert_eq!(daemon_arguments("tap run"), None);
    }
}
