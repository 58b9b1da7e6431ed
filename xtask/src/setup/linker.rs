//! bpf-linker: rustc's bitcode in, one BPF object with BTF out. Its LLVM must be at least as new
//! as the compiler's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::LLVM;
use super::{Toolchain, apt};
use crate::command;
use crate::report::step;
use crate::workspace::{Workspace, cargo};

const VERSION: &str = "0.13.0";

/// The LLVM that Debian 12 has and the feature of bpf-linker that goes with it.
const DEBIAN_LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// The linkers to try with a toolchain, best first: the project's own, then the user's.
pub fn present(workspace: &Workspace) -> Vec<PathBuf> {
    let own = workspace.tool("bpf-linker");
    let own = Some(own).filter(|path| version(path).as_deref() == Some(VERSION));
    own.into_iter().chain(command::find("bpf-linker")).collect()
}

/// Builds the project's own into the target directory.
pub fn install(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    if toolchain.llvm > DEBIAN_LLVM {
        bail!(
            "its LLVM is {} and bpf-linker can be built here with LLVM {DEBIAN_LLVM} only: install \
             a bpf-linker {VERSION} that was built with LLVM {} and have it on PATH",
            toolchain.llvm,
            toolchain.llvm
        );
    }
    apt::ensure(LLVM)?;
    step(format_args!(
        "setup: building bpf-linker {VERSION} with LLVM {DEBIAN_LLVM} into {} (one minute or two); \
         it links the kernel programs",
        workspace.shown(&workspace.tools())
    ));
    let build = workspace.tools().join("build");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        [Path::new(LLVM_PREFIX).join("bin")].into_iter().chain(std::env::split_paths(&path)),
    )?;
    let mut install = Command::new(cargo());
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(workspace.tools())
        // An llvm-config of another version on PATH would win: name the right one in all the ways
        // that the build scripts of bpf-linker and llvm-sys ask for it.
        .env("PATH", path)
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("LLVM_SYS_221_PREFIX", LLVM_PREFIX)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_TARGET_DIR", &build);
    command::run(&mut install).context(
        "bpf-linker was not built: crates.io must be reachable, and a C++ compiler and LLVM there",
    )?;
    // A few hundred megabytes that nobody needs again.
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    Ok(workspace.tool("bpf-linker"))
}

fn version(linker: &Path) -> Option<String> {
    let text = command::output(Command::new(linker).arg("--version")).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}
