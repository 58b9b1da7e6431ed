//! Installs what is missing, says what and why, and does nothing twice.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, command, find, root, run, run_quietly, target};

/// The linker of BPF objects; its LLVM must not be older than the compiler's.
const LINKER: &str = "0.13.0";

/// Rust and LLVM for BPF, a matched pair of Debian's security suite.
const TOOLCHAIN: [(&str, &str); 6] = [
    ("rustc-web", "compiler for the kernel programs"),
    ("cargo-web", "its cargo"),
    ("rust-web-src", "core, built for BPF"),
    ("llvm-22-dev", "LLVM for the BPF linker"),
    ("libzstd-dev", "library that LLVM links"),
    ("zlib1g-dev", "library that LLVM links"),
];

/// A C compiler and linker, for crates that build C.
const BUILD: [(&str, &str); 1] = [("build-essential", "linker and C compiler")];

/// The folder for tools that are built, not installed.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// Sets up what a build needs, and with `tests` what the tests use.
pub fn setup(tests: bool) -> Result<()> {
    let began = Instant::now();
    if find("rustc").is_none() {
        bail!("no rustc on the search path: install rustup's stable toolchain (https://rustup.rs)");
    }
    let mut wanted: Vec<(String, String)> = TOOLCHAIN
        .iter()
        .chain(&BUILD)
        .map(|(name, why)| ((*name).to_owned(), (*why).to_owned()))
        .collect();
    if tests {
        wanted.extend(test_packages()?);
    }
    install(&wanted)?;
    linker()?;
    if began.elapsed() > Duration::from_secs(1) {
        say(&format!("set-up done in {:.0?}", began.elapsed()));
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("xtask: {what}");
}

/// The packages of tests/packages.txt: a name and, behind `#`, the reason.
fn test_packages() -> Result<Vec<(String, String)>> {
    let path = root().join("tests/packages.txt");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, why) = line.split_once('#').unwrap_or((line, "for the tests"));
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), why.trim().to_owned()))
        })
        .collect())
}

/// Installs the Debian packages that are missing.
pub fn install(wanted: &[(String, String)]) -> Result<()> {
    let missing: Vec<_> = wanted.iter().filter(|(name, _)| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        let names: Vec<_> = missing.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            "this set-up knows Debian 12 and its kin only (no apt-get here): install what stands \
             for these packages yourself: {}",
            names.join(" ")
        );
    }
    for (name, why) in &missing {
        say(&format!("installing {name}: {why}"));
    }
    let mut update = as_root("apt-get")?;
    update.args(["update", "-qq"]);
    if let Err(error) = run_quietly(&mut update, "refresh the package lists") {
        say(&format!("{error:#}"));
        say("going on with the package lists that are there");
    }
    let mut install = as_root("apt-get")?;
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"])
        .args(missing.iter().map(|(name, _)| name.as_str()));
    run_quietly(&mut install, "install packages (is the package mirror reachable?)").map(drop)
}

fn installed(package: &str) -> bool {
    let mut query = command("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", package]);
    run_quietly(&mut query, "ask for a package").is_ok_and(|status| status == "installed")
}

/// Builds the BPF linker into the target folder, once.
fn linker() -> Result<()> {
    let binary = tools().join("bin/bpf-linker");
    let version = |binary: &Path| run_quietly(command(binary).arg("--version"), "ask bpf-linker");
    if version(&binary).is_ok_and(|version| version.contains(LINKER)) {
        return Ok(());
    }
    say(&format!("building bpf-linker {LINKER}: it links the kernel programs (about a minute)"));
    let llvm = "/usr/lib/llvm-22";
    let path = std::env::var("PATH").unwrap_or_default();
    let mut cargo = command("cargo");
    cargo
        // Another LLVM's llvm-config on the search path would win.
        .env("PATH", format!("{llvm}/bin:{path}"))
        .env("LLVM_PREFIX", llvm)
        .env("LLVM_SYS_221_PREFIX", llvm)
        .env("CARGO_TARGET_DIR", tools().join("build"))
        .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--quiet", "--force"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(tools());
    run(&mut cargo, "build bpf-linker")?;
    drop(fs::remove_dir_all(tools().join("build")));
    Ok(())
}

/// Installs a cargo tool into the target folder, once.
pub fn tool(name: &str, version: &str, why: &str) -> Result<PathBuf> {
    let binary = tools().join("bin").join(name);
    let has = run_quietly(command(&binary).arg("--version"), "ask a tool");
    if has.is_ok_and(|has| has.contains(version)) {
        return Ok(binary);
    }
    say(&format!("building {name} {version}: {why} (some minutes)"));
    let mut cargo = command("cargo");
    cargo
        .env("CARGO_TARGET_DIR", tools().join("build"))
        .args(["install", name, "--version", version, "--locked", "--quiet", "--force", "--root"])
        .arg(tools());
    run(&mut cargo, &format!("build {name}"))?;
    drop(fs::remove_dir_all(tools().join("build")));
    Ok(binary)
}
