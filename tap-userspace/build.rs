//! Puts the kernel object where the daemon embeds it: the one that `cargo xtask ebpf` built, or an
//! empty stub, so that `cargo check`, clippy and rust-analyzer need no BPF toolchain.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=TAP_EBPF_OBJECT");
    println!("cargo:rerun-if-changed=build.rs");
    let to = PathBuf::from(env::var("OUT_DIR")?).join("tap.bpf.o");
    let Ok(object) = env::var("TAP_EBPF_OBJECT") else {
        fs::write(to, [])?;
        return Ok(());
    };
    println!("cargo:rerun-if-changed={object}");
    fs::copy(&object, to).map_err(|error| format!("kernel object {object}: {error}"))?;
    Ok(())
}
