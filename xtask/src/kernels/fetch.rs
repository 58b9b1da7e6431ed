//! A kernel out of Debian: the newest image of a series, fetched with package lists of our own (the
//! machine's are left alone), taken apart once and kept under `target/kernels`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::guests::Guest;
use super::{image, modules};
use crate::command;
use crate::report::step;
use crate::workspace::Workspace;

/// A kernel that can be booted.
pub struct Kernel {
    /// The folder of all that belongs to it.
    pub folder: PathBuf,
    /// `uname -r`.
    pub version: String,
}

impl Kernel {
    /// The uncompressed kernel: QEMU starts it directly (PVH), without the slow decompression.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// Its modules, uncompressed, named in the order in which they load.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }
}

/// The kernel of a guest, from the cache or from Debian.
pub fn kernel(workspace: &Workspace, guest: &Guest) -> Result<Kernel> {
    let folder = workspace.kernels().join(guest.series);
    let stamp = folder.join("version");
    if let Ok(version) = fs::read_to_string(&stamp) {
        return Ok(Kernel { folder, version });
    }
    let part = folder.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let unpacked = unpack(workspace, guest, &part)?;
    let version = version(&unpacked)?;
    image::extract(
        &unpacked.join("boot").join(format!("vmlinuz-{version}")),
        &part.join("vmlinux"),
    )?;
    modules::collect(&unpacked, &version, guest.modules, &part.join("modules"))?;
    fs::remove_dir_all(&unpacked)?;
    // Last, so that an interrupted run starts over.
    fs::write(part.join("version"), &version)?;
    fs::rename(&part, &folder)?;
    Ok(Kernel { folder, version })
}

fn unpack(workspace: &Workspace, guest: &Guest, part: &Path) -> Result<PathBuf> {
    let apt = Apt::new(workspace, guest.suite)?;
    let image = apt.newest(guest.package)?;
    step(format_args!("kernels: fetching {image} for {}", guest.series));
    command::captured(
        apt.command("apt-get").args(["-q", "download", &image]).current_dir(part),
        std::time::Duration::from_secs(600),
    )
    .and_then(|run| {
        ensure!(run.status.success(), "{}", command::tail(&run.errors, 5));
        Ok(())
    })
    .with_context(|| format!("cannot download {image}: is the Debian mirror reachable?"))?;
    let package = fs::read_dir(part)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    let unpacked = part.join("unpacked");
    command::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
    fs::remove_file(package)?;
    Ok(unpacked)
}

fn version(unpacked: &Path) -> Result<String> {
    let modules = unpacked.join("lib/modules");
    let mut entries = fs::read_dir(&modules)
        .with_context(|| format!("no modules in the package: {}", modules.display()))?;
    let entry = entries.next().context("the package's lib/modules is empty")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// apt with a source list, package lists and a cache of its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(workspace: &Workspace, suite: &str) -> Result<Self> {
        let folder = workspace.kernels().join("apt").join(suite);
        for needed in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(needed))?;
        }
        let list = folder.join("sources.list");
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let mirror = mirror();
        fs::write(&list, format!("deb [signed-by={keys}] {mirror} {suite} main\n"))?;
        let shown = folder.display();
        let options = [
            format!("Dir::Etc::sourcelist={}", list.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={shown}/lists"),
            format!("Dir::Cache={shown}/cache"),
            // A suite that gets no more updates is as good for this.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let apt = Self { options: options.into() };
        command::output(apt.command("apt-get").args(["-q", "update"]))
            .with_context(|| format!("cannot read the package list of {suite} at {mirror}"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_remove("LD_LIBRARY_PATH");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// What a metapackage stands for.
    fn newest(&self, package: &str) -> Result<String> {
        let text = command::output(self.command("apt-cache").args(["depends", package]))?;
        image_name(&text).with_context(|| format!("{package} depends on no image:\n{text}"))
    }
}

fn image_name(depends: &str) -> Option<String> {
    let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

/// The machine's own mirror of the security archive, which has old and new kernels alike.
fn mirror() -> String {
    let format = "$(LABEL) $(REPO_URI)";
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let text = command::output(&mut targets).unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("Debian-Security "));
    own.unwrap_or("http://deb.debian.org/debian-security/").to_owned()
}

#[cfg(test)]
mod tests {
    use super::image_name;

    #[test]
    fn the_image_behind_a_metapackage() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(image_name(text).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(image_name("linux-image-amd64\n"), None);
    }
}
