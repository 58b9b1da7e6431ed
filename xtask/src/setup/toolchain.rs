//! One toolchain that could build the kernel side: a `bin` folder with cargo and rustc, and the
//! source of `core` in its sysroot.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::command;
use crate::workspace::{BPF_TARGET, Workspace};

/// The oldest compiler that the workspace accepts (`rust-version`).
const OLDEST: (u32, u32) = (1, 95);

/// A toolchain and the linker to use with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// What to call it.
    pub name: String,
    /// The folder of its cargo, rustc and, maybe, clippy-driver.
    pub bin: PathBuf,
    /// The folder that holds `lib/rustlib`.
    pub sysroot: PathBuf,
    /// `rustc --version`.
    pub version: String,
    /// The major version of its LLVM; bpf-linker's must be as new.
    pub llvm: u32,
    /// Where bpf-linker is, once that is known.
    pub linker: PathBuf,
}

impl Toolchain {
    /// Asks a rustc what it is.
    pub fn of(name: &str, mut rustc: Command) -> Result<Self> {
        let sysroot = PathBuf::from(
            command::output(rustc.args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH"))?
                .trim(),
        );
        let bin = sysroot.join("bin");
        let verbose = command::output(Command::new(bin.join("rustc")).arg("-vV"))?;
        let version = verbose.lines().next().unwrap_or_default().to_owned();
        let llvm = llvm_major(&verbose)
            .with_context(|| format!("{} names no LLVM version", bin.join("rustc").display()))?;
        let toolchain =
            Self { name: name.into(), bin, sysroot, version, llvm, linker: PathBuf::new() };
        toolchain.check_age()?;
        Ok(toolchain)
    }

    fn check_age(&self) -> Result<()> {
        let (major, minor) = OLDEST;
        let found = release(&self.version);
        ensure!(
            found.is_some_and(|found| found >= OLDEST),
            "{} is older than {major}.{minor}",
            self.version
        );
        Ok(())
    }

    /// Whether the source of `core` is in the sysroot.
    pub fn has_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    }

    /// Whether it can lint.
    pub fn has_clippy(&self) -> bool {
        self.bin.join("clippy-driver").exists() && self.bin.join("cargo-clippy").exists()
    }

    /// Whether it is Debian's own and not rustup's.
    pub fn is_debian(&self) -> bool {
        self.sysroot == Path::new("/usr")
    }

    /// Whether what was recorded is still what is there.
    pub fn is_still_there(&self) -> bool {
        let version = command::output(Command::new(self.bin.join("rustc")).arg("--version"));
        self.linker.exists()
            && self.has_source()
            && version.is_ok_and(|version| version.trim() == self.version)
    }

    /// `cargo <verb>` for the kernel side: this toolchain's programs, `core` from source, and
    /// nothing of the flags that the caller's environment holds for the host side.
    pub fn cargo(&self, workspace: &Workspace, verb: &str) -> Result<Command> {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([self.bin.clone()].into_iter().chain(env::split_paths(&path)))
            .context("PATH holds a folder with a colon in its name")?;
        let mut command = Command::new(self.bin.join("cargo"));
        for name in ["LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN", "CARGO", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        for name in ["CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTDOC"] {
            command.env_remove(name);
        }
        command
            .env("PATH", path)
            .env("RUSTC", self.bin.join("rustc"))
            // `-Z build-std` is what a stable compiler needs this for; no other unstable feature
            // is used outside tap-ebpf and aya-ebpf.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .current_dir(&workspace.root)
            .args([verb, "--release", "--locked", "--package", "tap-ebpf", "-Z", "build-std=core"])
            .args(["--target", BPF_TARGET, "--target-dir"])
            .arg(workspace.ebpf_target());
        Ok(command)
    }
}

/// The active toolchain, rustup's or not.
pub fn active() -> Result<Toolchain> {
    Toolchain::of("the active toolchain", Command::new("rustc"))
}

/// rustup's nightly.
pub fn nightly() -> Result<Toolchain> {
    if command::find("rustup").is_none() {
        bail!("there is no rustup");
    }
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc"]);
    Toolchain::of("rustup's nightly", rustc)
}

/// Debian's pair of packages.
pub fn debian() -> Result<Toolchain> {
    Toolchain::of("Debian's rustc-web", Command::new("/usr/bin/rustc"))
}

fn llvm_major(verbose: &str) -> Option<u32> {
    let version = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("rustc ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let verbose = "rustc 1.96.0 (x)\nhost: x86_64\nLLVM version: 22.1.2\n";
        assert_eq!(llvm_major(verbose), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0"), None);
        assert_eq!(release("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)"), Some((1, 97)));
        assert_eq!(release("gcc 12"), None);
    }
}
