//! Python programs of the tests that Debian does not have: a virtual environment in the target
//! directory with what `tests/requirements.txt` pins.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::report::step;
use crate::workspace::Workspace;

/// Installs them, unless this very list was installed before.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    let list = workspace.root.join("tests/requirements.txt");
    let wanted =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let home = workspace.target.join("tools/python");
    let mark = home.join("installed.txt");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        step("setup: the tests' Python programs are there");
        return Ok(());
    }
    step(format_args!("setup: installing {} into {}", list.display(), home.display()));
    command::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))
        .context("no virtual environment: apt-get install python3-venv")?;
    let mut pip = Command::new(home.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&list);
    command::run(&mut pip).context("a package index (PyPI) has to be reachable")?;
    fs::write(&mark, wanted).with_context(|| format!("cannot write {}", mark.display()))
}
