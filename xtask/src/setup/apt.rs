//! Installing Debian packages: only the missing ones, with a list that is new enough, as root.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::packages::Package;
use crate::command;
use crate::privilege;
use crate::report::{detail, step};

/// Lists older than this may name versions that the mirror no longer has.
const LISTS_ARE_GOOD_FOR: Duration = Duration::from_secs(24 * 3600);

/// Installs those of `packages` that are missing.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !package.is_present()).collect();
    if missing.is_empty() {
        let names: Vec<_> = packages.iter().map(|package| &*package.name).collect();
        step(format_args!("setup: packages are there: {}", names.join(" ")));
        return Ok(());
    }
    let mut names: Vec<_> = missing.iter().map(|package| &*package.name).collect();
    names.dedup();
    step(format_args!("setup: installing {}", names.join(" ")));
    for package in &missing {
        detail(format_args!("{}: {}", package.name, package.why));
    }
    install(&names)
}

fn install(names: &[&str]) -> Result<()> {
    if command::find("apt-get").is_none() {
        bail!(
            "missing on this machine: {}. It has no apt-get (set up by itself works on Debian and \
             its kin): install their like with your own package manager, then run this again",
            names.join(" ")
        );
    }
    let updated = !lists_are_fresh();
    if updated {
        update()?;
    }
    let Err(error) = apt_get(&[&["install", "-y", "--no-install-recommends"], names].concat())
    else {
        return Ok(());
    };
    if updated {
        return Err(error).with_context(|| cannot_install(names));
    }
    // A list may be out of date even when it is young: the mirror moves on.
    update()?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], names].concat())
        .with_context(|| cannot_install(names))
}

fn cannot_install(names: &[&str]) -> String {
    format!(
        "cannot install {}: is the Debian mirror reachable and has this release the package?",
        names.join(" ")
    )
}

fn update() -> Result<()> {
    step("setup: apt-get update, because the package lists are missing or old");
    apt_get(&["update"]).context("cannot refresh the package lists: is the mirror reachable?")
}

fn apt_get(args: &[&str]) -> Result<()> {
    // `env` carries the variables through sudo. RUNLEVEL=1 keeps the packages' servers (nginx)
    // from being started: invoke-rc.d then sees a system in single-user mode.
    let mut command = privilege::as_root("env", "installing packages")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"]);
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=2"]);
    command::run(command.args(args).env_remove("LD_LIBRARY_PATH"))
}

fn lists_are_fresh() -> bool {
    let Ok(entries) = fs::read_dir(Path::new("/var/lib/apt/lists")) else { return false };
    let newest = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    // The file's time is the mirror's; that of the folder is when it was last asked.
    let asked = fs::metadata("/var/lib/apt/lists/partial").and_then(|meta| meta.modified());
    match (newest, asked) {
        (Some(_), Ok(asked)) => {
            SystemTime::now().duration_since(asked).is_ok_and(|age| age < LISTS_ARE_GOOD_FOR)
        }
        _ => false,
    }
}
