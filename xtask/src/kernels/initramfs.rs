//! The guest's only file system: busybox, the daemon with its libraries, xtask itself (which makes
//! the traffic), the modules and an init, written as one `newc` archive.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::fetch::Kernel;
use super::guests::{Guest, Phase};
use crate::command;

const INIT: &[u8] = include_bytes!("guest.sh");

const FILE: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Writes the archive of a guest and returns its path.
pub fn build(kernel: &Kernel, guest: &Guest, daemon: &Path) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "run", "tmp", "var", "modules"] {
        archive.folder(Path::new(folder))?;
    }
    archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), b"")?;
    archive.entry("init", FILE, (0, 0), INIT)?;
    archive.busybox()?;
    archive.entry("var/run", LINK, (0, 0), b"/run")?;
    archive.program("/bin/tap", daemon)?;
    archive.program("/bin/xtask", &std::env::current_exe()?)?;
    for name in tools(guest) {
        archive.program(&format!("/tools/{name}"), &program(name)?)?;
    }
    for module in fs::read_dir(kernel.modules())? {
        let module = module?;
        let name = module.file_name().to_string_lossy().into_owned();
        archive.file(&format!("/modules/{name}"), &module.path())?;
    }
    let path = kernel.folder.join("initramfs");
    fs::write(&path, archive.finish()?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Programs that busybox has not, or not well enough.
fn tools(guest: &Guest) -> Vec<&'static str> {
    let mut tools = Vec::new();
    if guest.phases.contains(&Phase::Namespace) {
        tools.push("unshare");
    }
    if guest.phases.contains(&Phase::Netem) {
        tools.extend(["ip", "tc"]);
    }
    tools
}

fn program(name: &str) -> Result<PathBuf> {
    command::find(name).with_context(|| format!("there is no {name} on this machine"))
}

/// The shared libraries of a program, by the paths under which it looks for them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program).env_remove("LD_LIBRARY_PATH");
    let Ok(text) = command::output(&mut ldd) else {
        // A static program: ldd fails.
        return Ok(Vec::new());
    };
    Ok(text.lines().filter_map(library).collect())
}

/// `libc.so.6 => /lib/…/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn library(line: &str) -> Option<PathBuf> {
    let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
    Some(PathBuf::from(path))
}

/// A `newc` archive in the making (`Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: Vec<PathBuf>,
}

impl Archive {
    /// busybox under each of the names that it answers to.
    fn busybox(&mut self) -> Result<()> {
        let busybox = program("busybox")?;
        self.file("/bin/busybox", &busybox)?;
        let names = command::output(Command::new(&busybox).arg("--list"))?;
        for name in names.lines() {
            self.entry(&format!("bin/{name}"), LINK, (0, 0), b"busybox")?;
        }
        Ok(())
    }

    fn program(&mut self, to: &str, from: &Path) -> Result<()> {
        self.file(to, from)?;
        for library in libraries(from)? {
            self.file(&library.to_string_lossy(), &library)?;
        }
        Ok(())
    }

    fn file(&mut self, to: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.entry(to.trim_start_matches('/'), FILE, (0, 0), &bytes)
    }

    fn folder(&mut self, path: &Path) -> Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .filter(|folder| !folder.as_os_str().is_empty())
            .filter(|folder| !self.names.iter().any(|name| name == folder))
            .collect();
        for folder in missing.into_iter().rev() {
            self.names.push(folder.to_owned());
            self.header(&folder.to_string_lossy(), FOLDER, (0, 0), 0)?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> Result<()> {
        let path = Path::new(name);
        if self.names.iter().any(|known| known == path) {
            return Ok(());
        }
        self.folder(path.parent().unwrap_or(Path::new("")))?;
        self.names.push(path.to_owned());
        self.header(name, mode, device, bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        self.pad();
        Ok(())
    }

    fn header(&mut self, name: &str, mode: u32, device: (u32, u32), size: usize) -> Result<()> {
        let size = u32::try_from(size).context("a file of 4 GiB does not fit an initramfs")?;
        let inode = u32::try_from(self.names.len())?;
        let (major, minor) = device;
        let length = u32::try_from(name.len() + 1)?;
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, length, 0];
        self.write_header(&fields, name)?;
        Ok(())
    }

    fn write_header(&mut self, fields: &[u32], name: &str) -> io::Result<()> {
        self.bytes.write_all(b"070701")?;
        for field in fields {
            write!(self.bytes, "{field:08X}")?;
        }
        self.bytes.write_all(name.as_bytes())?;
        self.bytes.push(0);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.header("TRAILER!!!", 0, (0, 0), 0)?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_each_folder_and_file_once() {
        let mut archive = Archive::default();
        for _ in 0..2 {
            archive.entry("a/b/c", FILE, (0, 0), b"12345").unwrap();
        }
        assert_eq!(archive.names, ["a", "a/b", "a/b/c"].map(PathBuf::from));
        let bytes = archive.finish().unwrap();
        assert!(bytes.starts_with(b"070701") && bytes.len() % 4 == 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("12345") && text.contains("TRAILER!!!"));
    }

    #[test]
    fn libraries_are_read_from_ldd() {
        let line = "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fd20d61e000)";
        assert_eq!(library(line), Some("/lib/x86_64-linux-gnu/libc.so.6".into()));
        let line = "\t/lib64/ld-linux-x86-64.so.2 (0x00007fd20df4d000)";
        assert_eq!(library(line), Some("/lib64/ld-linux-x86-64.so.2".into()));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007fd20df4b000)"), None);
    }
}
