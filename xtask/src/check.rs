//! What CI runs.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    command::{command, root, run},
    ebpf, setup,
};

/// The release of cargo-deny that reads deny.toml.
const DENY: &str = "0.19.0";

/// Format, lints, licences, README, tests; the first failure ends it.
pub fn check() -> Result<()> {
    let steps: [(&str, fn() -> Result<()>); 7] = [
        ("set-up", || setup::setup(true)),
        ("format", format),
        ("README commands", readme),
        ("lints, kernel side", ebpf::clippy),
        ("lints, daemon and tools", clippy),
        ("licences and bans", deny),
        ("tests", || build::test(&[])),
    ];
    for (name, step) in steps {
        let began = Instant::now();
        eprintln!("xtask: {name}");
        step().with_context(|| format!("check: {name}"))?;
        eprintln!("xtask: {name} passed in {:.0?}", began.elapsed());
    }
    Ok(())
}

fn format() -> Result<()> {
    run(command("cargo").args(["fmt", "--all", "--check"]), "find the sources formatted")
}

fn clippy() -> Result<()> {
    let mut cargo = command("cargo");
    cargo.args(["clippy", "--release", "--locked", "--workspace", "--exclude", "tap-ebpf"]);
    cargo.args(["--all-targets", "--quiet", "--", "-D", "warnings"]);
    run(&mut cargo, "find no warnings")
}

fn deny() -> Result<()> {
    let deny = setup::tool("cargo-deny", DENY, "it checks licences and banned crates")?;
    let mut command = command(deny);
    // Advisories need a database that is fetched; they are for a machine with a network.
    command.args(["--offline", "check", "bans", "licenses", "sources"]);
    run(&mut command, "find licences and bans in order")
}

/// The README's commands are those that `cargo xtask` has.
fn readme() -> Result<()> {
    let text = fs::read_to_string(root().join("README.md")).context("cannot read README.md")?;
    let known = ["setup", "ebpf", "build", "run", "test", "check", "kernels", "bench wire"];
    let mut seen = 0;
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix("cargo xtask ") else { continue };
        seen += 1;
        if !known.iter().any(|name| rest == *name || rest.starts_with(&format!("{name} "))) {
            bail!("README.md names `{line}`, which cargo xtask does not have");
        }
    }
    if seen < 2 {
        bail!("README.md does not show `cargo xtask run` and `cargo xtask test`");
    }
    Ok(())
}
