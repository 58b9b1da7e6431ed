//! QEMU: one guest from power-on to power-off. Emulated (TCG): stock kernels do not start under the
//! kind of KVM that nested machines have, and emulation needs no privilege.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::fetch::Kernel;
use super::guests::Guest;
use crate::command;

/// A guest takes about ten seconds; a busy machine may need several times that.
const LIMIT: Duration = Duration::from_secs(240);

/// What a guest left.
pub struct Output {
    /// Its console: the kernel's and init's words.
    pub console: String,
    /// What it sent through the second serial port, one tagged line each.
    pub results: String,
}

/// Boots and waits for the end; everything the guest said stays beside the kernel.
pub fn boot(kernel: &Kernel, guest: &Guest, initramfs: &Path) -> Result<Output> {
    let console = kernel.folder.join("console.log");
    let results = kernel.folder.join("results.log");
    File::create(&results)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-M", "pc", "-cpu", "max", "-smp", "2", "-m", "1G"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-serial", &format!("file:{}", console.display())])
        .args(["-serial", &format!("file:{}", results.display())])
        .arg("-kernel")
        .arg(kernel.vmlinux())
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &command_line(guest)]);
    let run = command::captured(&mut qemu, LIMIT);
    let console = read(&console);
    match run {
        Ok(run) if run.status.success() => Ok(Output { console, results: read(&results) }),
        Ok(run) => bail!("QEMU failed ({}): {}", run.status, command::tail(&run.errors, 5)),
        Err(error) => Err(error).with_context(|| {
            format!(
                "the guest did not end; its console's last words:\n{}",
                command::tail(&console, 15)
            )
        }),
    }
}

/// `phases` reaches init as a variable: the kernel passes on what it does not know.
fn command_line(guest: &Guest) -> String {
    let phases = guest.phases_list();
    format!("console=ttyS0 quiet panic=-1 random.trust_cpu=on phases={phases}")
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
