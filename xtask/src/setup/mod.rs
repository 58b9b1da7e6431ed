//! `cargo xtask setup`: from a fresh machine to one that can build, run and test tap.
//!
//! Idempotent and in a fixed order; each step says what it does and why, and a step that cannot go
//! on says what is missing and what to do. Comes in: how much is wanted. Goes out: the toolchain
//! that has just proved itself by building the kernel object.

mod apt;
mod candidates;
mod linker;
mod machine;
mod packages;
mod python;
mod record;
mod toolchain;

use anyhow::Result;

use crate::report::step;
use crate::workspace::Workspace;

pub use packages::Scope;
pub use toolchain::Toolchain;

/// Sets up what `scope` needs and builds the kernel object with it.
pub fn run(workspace: &Workspace, scope: Scope) -> Result<Toolchain> {
    step(format_args!("setup: {}", machine::describe()));
    apt::ensure(&packages::needed(workspace, scope)?)?;
    if scope == Scope::Test {
        python::ensure(workspace)?;
    }
    step(
        "setup: nothing to mount: the kernel programs are attached by links and raw tracepoints, \
         which need neither tracefs nor bpffs",
    );
    candidates::ensure(workspace)
}

/// Only the packages of a scope.
pub fn packages(workspace: &Workspace, scope: Scope) -> Result<()> {
    apt::ensure(&packages::needed(workspace, scope)?)
}

/// A toolchain's clippy, installed where that is possible.
pub fn clippy(toolchain: &Toolchain) -> Result<()> {
    candidates::ensure_clippy(toolchain)
}
