//! Where things are: the workspace's root and every path that xtask writes under the target
//! directory, whichever that is (`CARGO_TARGET_DIR`, cargo's configuration, or `target`).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The target the kernel programs are built for.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// The checked-out workspace and its target directory.
pub struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// The target directory.
    pub target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub fn find() -> Result<Self> {
        // Cargo sets the variable at run time: with a target directory that is shared between two
        // checkouts the built-in path may be the other one's.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask's folder has no parent: run `cargo xtask` inside the workspace")?
            .to_owned();
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(&root)
            .output()
            .context("cannot run cargo: is it on PATH?")?;
        ensure!(
            output.status.success(),
            "`cargo metadata` failed in {}: {}",
            root.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("`cargo metadata` is not JSON")?;
        Ok(Self { root, target: metadata.target_directory })
    }

    /// The target directory of the kernel side's own cargo runs.
    pub fn ebpf_target(&self) -> PathBuf {
        self.target.join("ebpf")
    }

    /// What cargo makes of `tap-ebpf`.
    pub fn linked_object(&self) -> PathBuf {
        self.ebpf_target().join(BPF_TARGET).join("release/tap-ebpf")
    }

    /// The kernel object as `tap-userspace/build.rs` finds it: alone in its folder, and replaced
    /// only when its bytes change, so that the daemon is rebuilt only then.
    pub fn object(&self) -> PathBuf {
        self.ebpf_target().join("object/tap.bpf.o")
    }

    /// Which toolchain last built the object.
    pub fn toolchain_record(&self) -> PathBuf {
        self.ebpf_target().join("toolchain.json")
    }

    /// Where the tools that cargo installs go, like a `/usr/local` of the project's own.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A tool installed there.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools().join("bin").join(name)
    }

    /// What `cargo xtask kernels` fetches and leaves.
    pub fn kernels(&self) -> PathBuf {
        self.target.join("kernels")
    }

    /// The daemon.
    pub fn daemon(&self) -> PathBuf {
        self.target.join("release/tap")
    }

    /// The path as a user standing in the workspace would type it.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// The cargo that started xtask.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
