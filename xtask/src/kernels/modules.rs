//! Kernel modules for a guest: those named and what they depend on, uncompressed (busybox cannot
//! read `.xz`) and numbered in the order in which they load.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;

/// Collects `names` out of an unpacked package into `to`.
pub fn collect(unpacked: &Path, version: &str, names: &[&str], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    if names.is_empty() {
        return Ok(());
    }
    let depmod = command::find("depmod").context("there is no depmod: install kmod")?;
    command::run(Command::new(depmod).arg("-b").arg(unpacked).arg(version))?;
    let mut order: Vec<PathBuf> = Vec::new();
    for name in names {
        for file in with_dependencies(unpacked, version, name)? {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    for (i, file) in order.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.split(".ko").next().unwrap_or_default();
        uncompress(file, &to.join(format!("{i:02}-{stem}.ko")))?;
    }
    Ok(())
}

fn with_dependencies(unpacked: &Path, version: &str, name: &str) -> Result<Vec<PathBuf>> {
    let modprobe = command::find("modprobe").context("there is no modprobe: install kmod")?;
    let mut command = Command::new(modprobe);
    command.arg("-d").arg(unpacked).args(["-S", version, "--show-depends", name]);
    let text = command::output(&mut command)?;
    // `insmod PATH`, or `builtin NAME` for what needs no loading.
    let files = text.lines().filter_map(|line| line.trim().strip_prefix("insmod "));
    Ok(files.map(|path| PathBuf::from(path.trim())).collect())
}

fn uncompress(from: &Path, to: &Path) -> Result<()> {
    let program = match from.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::copy(from, to).map(drop).context("cannot copy a module"),
    };
    let output = File::create(to)?;
    let status = Command::new(program).args(["-dcq"]).arg(from).stdout(output).status();
    ensure!(
        status.with_context(|| format!("cannot start {program}"))?.success(),
        "{program} cannot unpack {}",
        from.display()
    );
    Ok(())
}
