//! The kernel object: built by cargo for `bpfel-unknown-none`, then put where
//! `tap-userspace/build.rs` looks for it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::report::step;
use crate::setup::Toolchain;
use crate::workspace::Workspace;

const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// What a first build with a toolchain showed.
pub enum Proof {
    /// It builds the object.
    Works(Toolchain),
    /// It works, but what it was given does not compile: no other toolchain will help.
    BadSource(String),
}

/// Builds with a toolchain that is known to work; cargo does nothing when nothing changed.
pub fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    step("ebpf: building the kernel programs");
    command::run(&mut toolchain.cargo(workspace, "build")?)?;
    place(workspace)
}

/// Builds with a toolchain that may not work; an error says why it does not.
pub fn prove(workspace: &Workspace, toolchain: Toolchain) -> Result<Proof> {
    step(format_args!("ebpf: building the kernel programs to prove {}", toolchain.name));
    let run = command::captured(&mut toolchain.cargo(workspace, "build")?, BUILD_LIMIT)?;
    if run.status.success() {
        place(workspace)?;
        return Ok(Proof::Works(toolchain));
    }
    if is_source_error(&run.errors) {
        return Ok(Proof::BadSource(run.errors));
    }
    bail!("the build failed: {}", command::tail(&run.errors, 15))
}

/// The compiler got as far as our own crates and did not stop at the linker.
fn is_source_error(errors: &str) -> bool {
    let ours = ["`tap-ebpf`", "`tap-common`"];
    ours.iter().any(|name| errors.contains(&format!("could not compile {name}")))
        && !errors.contains("linking with")
        && !errors.contains("could not exec the linker")
}

/// Replaces the object only when it changed: its time is what makes cargo rebuild the daemon.
fn place(workspace: &Workspace) -> Result<()> {
    let (from, to) = (workspace.linked_object(), workspace.object());
    let built = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(&to).is_ok_and(|there| there == built) {
        return Ok(());
    }
    let folder = to.parent().context("the object has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Renamed into place, so that a cargo that runs beside never reads half of it.
    let part = folder.with_extension("part");
    fs::write(&part, &built).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, &to).with_context(|| format!("cannot write {}", to.display()))?;
    step(format_args!("ebpf: {} ({} bytes)", workspace.shown(&to), built.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_source_error;

    #[test]
    fn a_source_error_is_told_from_a_bad_toolchain() {
        assert!(is_source_error("error[E0425]: x\nerror: could not compile `tap-ebpf` (bin)"));
        assert!(!is_source_error(
            "error: linking with `bpf-linker` failed\nerror: could not compile `tap-ebpf`"
        ));
        assert!(!is_source_error("error: could not compile `core`"));
        assert!(!is_source_error("error: failed to select a version"));
    }
}
