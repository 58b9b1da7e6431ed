//! Building and linting the kernel programs.
//!
//! Two toolchains do: rustup's stable with the component `rust-src`, whose standard library source
//! builds with `RUSTC_BOOTSTRAP=1`, or Debian's `rustc-web` with `rust-web-src`. Debian's is
//! matched to the LLVM that bpf-linker is built with, so it comes first.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    command::{command, root, run, run_quietly, target},
    setup::tools,
};

const TRIPLE: &str = "bpfel-unknown-none";

/// A compiler that can build `core` for BPF.
struct Toolchain {
    cargo: PathBuf,
    /// Set where cargo would take another compiler.
    rustc: Option<PathBuf>,
    name: &'static str,
}

fn toolchains() -> Vec<Toolchain> {
    let mut found = Vec::new();
    let debian = Path::new("/usr/bin/rustc");
    if debian.exists() && Path::new("/usr/lib/rustlib/src/rust/library/core").exists() {
        found.push(Toolchain {
            cargo: "/usr/bin/cargo".into(),
            rustc: Some(debian.to_owned()),
            name: "Debian's rustc-web",
        });
    }
    if source_of("rustc").is_some() {
        found.push(Toolchain { cargo: "cargo".into(), rustc: None, name: "rustup with rust-src" });
    }
    found
}

/// The standard library's source beside `rustc`, if it is there.
fn source_of(rustc: &str) -> Option<PathBuf> {
    let sysroot = run_quietly(command(rustc).args(["--print", "sysroot"]), "ask rustc").ok()?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    source.exists().then_some(source)
}

/// Builds the kernel object; the first toolchain that works is taken.
pub fn build() -> Result<PathBuf> {
    let mut failures = Vec::new();
    for toolchain in toolchains() {
        let mut cargo = prepared(&toolchain, "build");
        cargo.args(["--release", "--quiet"]);
        match run(&mut cargo, "build the kernel programs") {
            Ok(()) => return Ok(folder().join(TRIPLE).join("release/tap-ebpf")),
            Err(error) => failures.push(format!("{}: {error:#}", toolchain.name)),
        }
    }
    if failures.is_empty() {
        bail!(
            "no toolchain can build for BPF: install Debian's rustc-web and rust-web-src \
             (`cargo xtask setup` does), or `rustup component add rust-src`"
        );
    }
    bail!("the kernel programs do not build\n{}", failures.join("\n"));
}

/// Lints the kernel side, with warnings denied. Needs a toolchain that has clippy and the source
/// of `core`.
pub fn clippy() -> Result<()> {
    let toolchain = Toolchain { cargo: "cargo".into(), rustc: None, name: "rustup" };
    if source_of("rustc").is_none() {
        let mut add = command("rustup");
        add.args(["component", "add", "rust-src"]);
        run(&mut add, "add rust-src, which clippy needs for the kernel side")?;
    }
    let mut cargo = prepared(&toolchain, "clippy");
    cargo.args(["--release", "--quiet", "--", "-D", "warnings"]);
    run(&mut cargo, "lint the kernel programs")
}

fn folder() -> PathBuf {
    target().join("ebpf")
}

fn prepared(toolchain: &Toolchain, verb: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut cargo = command(&toolchain.cargo);
    if let Some(rustc) = &toolchain.rustc {
        cargo.env("RUSTC", rustc);
    }
    cargo
        .current_dir(root().join("tap-ebpf"))
        .env("PATH", format!("{}:{path}", tools().join("bin").display()))
        // `-Z build-std` on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf")
        .env("CARGO_TARGET_DIR", folder())
        .env_remove("RUSTC_WRAPPER")
        .args([verb, "--target", TRIPLE, "-Z", "build-std=core", "--locked"]);
    cargo
}
