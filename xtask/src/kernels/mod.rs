//! `cargo xtask kernels`: the release daemon, with its one kernel object, on stock kernels.
//!
//! Comes in: a list of kernel series. Each is fetched from Debian once, boots under QEMU with an
//! initramfs that holds the daemon, makes connections of known sizes and lets the daemon trace
//! them. Goes out: a table, `target/kernels/report.json`, and a failure if anything differs.

mod boot;
mod fetch;
mod guests;
mod image;
mod initramfs;
mod judge;
mod modules;
mod report;
pub mod traffic;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::daemon;
use crate::report::step;
use crate::setup::Scope;
use crate::workspace::Workspace;
use guests::{GUESTS, Guest};
use judge::Verdict;

/// What to boot.
#[derive(clap::Args)]
pub struct Arguments {
    /// Kernel series, separated by commas; all without it.
    #[arg(long, value_delimiter = ',')]
    kernel: Vec<String>,
    /// A daemon that is built already, instead of building it.
    #[arg(long)]
    tap: Option<PathBuf>,
}

/// Boots every guest that was asked for and judges what its daemon saw.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let guests = chosen(&arguments.kernel)?;
    let daemon = match &arguments.tap {
        Some(built) => {
            crate::setup::packages(workspace, Scope::Kernels)?;
            built.clone()
        }
        None => daemon::build_for(workspace, Scope::Kernels)?,
    };
    let mut verdicts = Vec::new();
    for guest in guests {
        let judged = one(workspace, guest, &daemon)
            .with_context(|| format!("the guest with kernel {}", guest.series))?;
        verdicts.extend(judged);
    }
    println!("{}", report::table(&verdicts));
    report::write(workspace, &verdicts)?;
    let failed = verdicts.iter().filter(|verdict| !verdict.is_good()).count();
    if failed > 0 {
        bail!("{failed} of {} runs failed: see the table and target/kernels", verdicts.len());
    }
    Ok(())
}

fn one(workspace: &Workspace, guest: &Guest, daemon: &std::path::Path) -> Result<Vec<Verdict>> {
    let kernel = fetch::kernel(workspace, guest)?;
    let began = Instant::now();
    let initramfs = initramfs::build(&kernel, guest, daemon)?;
    step(format_args!("kernels: booting {} ({})", kernel.version, guest.phases_list()));
    let output = boot::boot(&kernel, guest, &initramfs)?;
    let seconds = began.elapsed().as_secs_f64();
    let verdicts = judge::judge(&kernel.version, guest, &output, seconds);
    let bad = verdicts.iter().filter(|verdict| !verdict.is_good()).count();
    step(format_args!(
        "kernels: {} took {seconds:.1} s; {}",
        kernel.version,
        if bad == 0 { "all as it should be".to_owned() } else { format!("{bad} runs FAILED") }
    ));
    Ok(verdicts)
}

fn chosen(series: &[String]) -> Result<Vec<&'static Guest>> {
    if series.is_empty() {
        return Ok(GUESTS.iter().collect());
    }
    let find = |name: &String| {
        GUESTS.iter().find(|guest| guest.series == name).with_context(|| {
            let known: Vec<_> = GUESTS.iter().map(|guest| guest.series).collect();
            format!("no kernel {name} in the matrix; there are {}", known.join(", "))
        })
    };
    series.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_chosen_by_series() {
        assert_eq!(chosen(&[]).unwrap().len(), GUESTS.len());
        assert_eq!(chosen(&["6.1".into()]).unwrap()[0].series, "6.1");
        assert!(chosen(&["4.4".into()]).is_err());
    }
}
