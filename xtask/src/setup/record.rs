//! Which toolchain last built the object: the first to be tried the next time.

use std::fs;

use anyhow::{Context, Result};

use super::Toolchain;
use crate::workspace::Workspace;

/// The recorded toolchain, if it is still what it was. Anything unreadable counts as no record.
pub fn read(workspace: &Workspace) -> Option<Toolchain> {
    let text = fs::read(workspace.toolchain_record()).ok()?;
    let toolchain: Toolchain = serde_json::from_slice(&text).ok()?;
    toolchain.is_still_there().then_some(toolchain)
}

/// Records the one that has proved itself.
pub fn write(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let path = workspace.toolchain_record();
    let text = serde_json::to_vec_pretty(toolchain)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
