//! The true cgroup root. In a container with a private cgroup namespace the mounted cgroup2 is the
//! container's own: attaching there succeeds and sees only tap.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::sys;

/// The root of the host's cgroup v2 hierarchy, open.
#[derive(Debug)]
pub struct Root {
    /// Its directory.
    pub directory: File,
    /// How it was reached, for `tap check` and the log.
    pub found: String,
}

/// Why there is no root to attach to.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reach the root of the host's cgroup v2 hierarchy ({0}): run tap in the host's pid \
     namespace (docker --pid=host, hostPID: true) and as root, or mount the host's \
     /sys/fs/cgroup into the container"
)]
pub struct NoRoot(String);

/// Finds the root: an own mount that is the root, one of pid 1's, or a mount of our own, made in
/// pid 1's cgroup namespace and visible nowhere.
pub fn root() -> Result<Root, NoRoot> {
    let mut tried = Vec::new();
    for (mountinfo, prefix) in [("/proc/self/mountinfo", ""), ("/proc/1/mountinfo", "/proc/1/root")]
    {
        match fs::read_to_string(mountinfo) {
            Ok(text) => {
                for mount in cgroup2_mounts(&text) {
                    let path = PathBuf::from(format!("{prefix}{}", mount.display()));
                    match open_root(&path) {
                        Ok(directory) => {
                            return Ok(Root { directory, found: path.display().to_string() });
                        }
                        Err(why) => tried.push(format!("{}: {why}", path.display())),
                    }
                }
            }
            Err(why) => tried.push(format!("{mountinfo}: {why}")),
        }
    }
    match own_mount() {
        Ok(directory) => {
            Ok(Root { directory, found: "a private mount in pid 1's cgroup namespace".into() })
        }
        Err(why) => {
            tried.push(format!("own mount: {why}"));
            Err(NoRoot(tried.join("; ")))
        }
    }
}

/// Opens `path` if it is the root of its hierarchy: there, and nowhere else, the directory's inode
/// is 1 (kernfs numbers its root so, fs/kernfs/dir.c `kernfs_create_root`).
fn open_root(path: &Path) -> io::Result<File> {
    let directory = File::open(path)?;
    check_root(&directory)?;
    Ok(directory)
}

fn check_root(directory: &File) -> io::Result<()> {
    match directory.metadata()?.ino() {
        1 => Ok(()),
        _ => Err(io::Error::other("not the root, but the cgroup of a namespace")),
    }
}

fn own_mount() -> io::Result<File> {
    std::thread::spawn(|| {
        // The thread ends here, and its namespace with it.
        sys::enter_namespace(&File::open("/proc/1/ns/cgroup")?, libc::CLONE_NEWCGROUP)?;
        let directory = sys::detached_cgroup2()?;
        check_root(&directory)?;
        Ok(directory)
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
}

/// Mount points of type cgroup2 in a `mountinfo` (proc_pid_mountinfo(5)).
fn cgroup2_mounts(mountinfo: &str) -> impl Iterator<Item = PathBuf> + '_ {
    mountinfo.lines().filter_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        if fs.split(' ').next()? != "cgroup2" {
            return None;
        }
        Some(PathBuf::from(unescape(mount.split(' ').nth(4)?)))
    })
}

/// Octal escapes of a mount point (`\040` for a space).
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

/// Reads any bytes as a `mountinfo`.
#[doc(hidden)]
pub fn fuzz_mounts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(cgroup2_mounts(&text).count() <= text.lines().count());
    assert!(unescape(&text).len() <= text.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cgroup2_among_mounts() {
        let text = "22 1 0:20 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n\
                    31 1 0:27 / /sys/fs/cgroup/uni\\040fied rw,nosuid - cgroup2 cgroup2 rw\n\
                    bad line\n";
        let found: Vec<_> = cgroup2_mounts(text).collect();
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/uni fied")]);
    }

    #[test]
    fn a_child_cgroup_is_not_the_root() {
        let Ok(root) = root() else {
            eprintln!("skipped: no cgroup v2 root can be reached here (not root?)");
            return;
        };
        assert_eq!(root.directory.metadata().unwrap().ino(), 1);
        let child = Path::new(&root.found).join(format!("tap-test-{}", std::process::id()));
        if let Err(why) = fs::create_dir(&child) {
            eprintln!("skipped: no child cgroup can be made here: {why}");
            return;
        }
        let opened = open_root(&child);
        fs::remove_dir(&child).unwrap();
        assert!(opened.is_err());
    }
}
