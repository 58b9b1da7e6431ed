//! The eBPF toolchain: which ones could build the kernel side, tried in turn until one does.
//!
//! First what is there already (the active toolchain, nightly, Debian's pair), then what can be
//! added (rustup's `rust-src`, Debian's pair). A candidate is proved by building the object; the
//! one that did is recorded and is the only one tried the next time.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::packages::{DEBIAN_CLIPPY, DEBIAN_RUST};
use super::{Toolchain, apt, linker, record, toolchain};
use crate::command;
use crate::ebpf::{self, Proof};
use crate::report::{detail, step};
use crate::workspace::Workspace;

/// A component is some megabytes; beyond this there is no network worth the name.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(120);

type Attempt = (&'static str, fn() -> Result<Toolchain>);

const ATTEMPTS: &[Attempt] = &[
    ("the active toolchain with rust-src", active),
    ("rustup's nightly with rust-src", nightly),
    ("Debian's rustc-web with rust-web-src", debian),
    ("the active toolchain, adding rust-src to it", active_with_source),
    ("Debian's rustc-web, installing it", debian_installed),
];

/// A toolchain that has just built the kernel object.
pub fn ensure(workspace: &Workspace) -> Result<Toolchain> {
    if let Some(toolchain) = record::read(workspace) {
        step(format_args!("setup: eBPF toolchain: {} ({})", toolchain.name, toolchain.version));
        ebpf::build(workspace, &toolchain)?;
        return Ok(toolchain);
    }
    step(
        "setup: looking for a toolchain that builds for eBPF (rustc, the source of core, bpf-linker)",
    );
    let mut refusals = Vec::new();
    for (name, attempt) in ATTEMPTS {
        match attempt().and_then(|toolchain| prove(workspace, toolchain)) {
            Ok(Proof::Works(toolchain)) => {
                step(format_args!("setup: eBPF toolchain: {name} ({})", toolchain.version));
                record::write(workspace, &toolchain)?;
                return Ok(toolchain);
            }
            Ok(Proof::BadSource(errors)) => {
                bail!("tap-ebpf does not compile ({name} works):\n{errors}");
            }
            Err(error) => {
                detail(format_args!("not {name}: {error:#}"));
                refusals.push(format!("  {name}: {error:#}"));
            }
        }
    }
    bail!(
        "no toolchain here builds the kernel programs. What was tried:\n{}\nOne of these helps: \
         `rustup component add rust-src` and LLVM 22's development files, or a Debian 12 with its \
         security suite reachable, as root",
        refusals.join("\n")
    )
}

fn prove(workspace: &Workspace, toolchain: Toolchain) -> Result<Proof> {
    let mut refused = None;
    for linker in linker::present(workspace) {
        match ebpf::prove(workspace, Toolchain { linker, ..toolchain.clone() }) {
            Ok(proof) => return Ok(proof),
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        detail(format_args!("the bpf-linker that is there does not do: {error:#}"));
    }
    let linker = linker::install(workspace, &toolchain)?;
    ebpf::prove(workspace, Toolchain { linker, ..toolchain })
}

fn active() -> Result<Toolchain> {
    with_source(toolchain::active()?)
}

fn nightly() -> Result<Toolchain> {
    with_source(toolchain::nightly()?)
}

fn debian() -> Result<Toolchain> {
    with_source(toolchain::debian()?)
}

fn with_source(toolchain: Toolchain) -> Result<Toolchain> {
    ensure!(toolchain.has_source(), "{} has no rust-src", toolchain.version);
    Ok(toolchain)
}

fn active_with_source() -> Result<Toolchain> {
    add_component("rust-src", "`core` is built from source for eBPF")?;
    active()
}

fn debian_installed() -> Result<Toolchain> {
    apt::ensure(DEBIAN_RUST)?;
    debian()
}

fn add_component(name: &str, why: &str) -> Result<()> {
    ensure!(command::find("rustup").is_some(), "there is no rustup to add {name} with");
    step(format_args!("setup: rustup component add {name}: {why}"));
    let mut command = Command::new("rustup");
    command.args(["component", "add", name]).env("RUSTUP_MAX_RETRIES", "1");
    let run = command::captured(&mut command, DOWNLOAD_LIMIT)
        .context("rustup could not fetch it: is static.rust-lang.org reachable?")?;
    ensure!(run.status.success(), "rustup could not add it: {}", command::tail(&run.errors, 3));
    Ok(())
}

/// Gets the clippy that goes with a toolchain.
pub fn ensure_clippy(toolchain: &Toolchain) -> Result<()> {
    if toolchain.has_clippy() {
        return Ok(());
    }
    if toolchain.is_debian() {
        apt::ensure(DEBIAN_CLIPPY)?;
    } else {
        add_component("clippy", "lints are part of the checks")?;
    }
    ensure!(toolchain.has_clippy(), "{} still has no clippy", toolchain.name);
    Ok(())
}
