//! Puts the kernel object into `OUT_DIR/tap.bpf.o`, from where the daemon embeds it.
//!
//! The object is what `TAP_EBPF_OBJECT` names, else what `cargo xtask ebpf` left in the target
//! directory. With neither an empty stub stands in and `cfg(tap_stub)` is set, so that `cargo
//! check`, clippy and rust-analyzer need no eBPF toolchain.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(tap_stub)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TAP_EBPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let embedded = out.join("tap.bpf.o");
    match object(&out) {
        Some(object) => {
            let bytes = fs::read(&object).unwrap_or_else(|error| {
                panic!("the kernel object {} cannot be read: {error}", object.display())
            });
            fs::write(&embedded, bytes).expect("OUT_DIR can be written to");
        }
        None => {
            println!("cargo::rustc-cfg=tap_stub");
            fs::write(&embedded, []).expect("OUT_DIR can be written to");
        }
    }
}

fn object(out: &Path) -> Option<PathBuf> {
    if let Some(named) = env::var_os("TAP_EBPF_OBJECT").filter(|name| !name.is_empty()) {
        let named = PathBuf::from(named);
        println!("cargo::rerun-if-changed={}", named.display());
        return Some(named);
    }
    let folder = target_directory(out)?.join("ebpf/object");
    // Cargo reruns this script at every build while a watched path does not exist, so the folder
    // is made and watched, not the file.
    if fs::create_dir_all(&folder).is_ok() {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    Some(folder.join("tap.bpf.o")).filter(|object| object.exists())
}

/// The root of the target directory: cargo marks it with a CACHEDIR.TAG when it makes it; one that
/// was there before is four folders up (`<target>/release/build/<package>/out`).
fn target_directory(out: &Path) -> Option<&Path> {
    out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).or(out.ancestors().nth(4))
}
