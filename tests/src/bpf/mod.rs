//! Raw `bpf(2)`: what the tests need to be another BPF user on the host, and to see whether
//! tap's programs are gone. Nothing here goes through the daemon's BPF library.

pub mod census;
pub mod empty;
pub mod neighbour;

use std::{
    fs::{self, File},
    io,
    mem::size_of,
    os::fd::{FromRawFd, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context, Result};

/// Commands of `bpf(2)` (include/uapi/linux/bpf.h).
pub(crate) mod command {
    pub const MAP_CREATE: i32 = 0;
    pub const MAP_LOOKUP: i32 = 1;
    pub const PROG_LOAD: i32 = 5;
    pub const PROG_GET_FD_BY_ID: i32 = 13;
    pub const PROG_QUERY: i32 = 16;
    pub const LINK_CREATE: i32 = 28;
    pub const LINK_GET_FD_BY_ID: i32 = 30;
}

/// The part of `union bpf_attr` that a command uses: the kernel takes the rest as zero. It must
/// not end in padding, which the kernel would read.
#[repr(C, align(8))]
pub(crate) struct Attr<T> {
    pub fields: T,
}

/// One call; what it means if it succeeds depends on the command.
pub(crate) fn call<T>(command: i32, attr: &mut Attr<T>) -> io::Result<i32> {
    // SAFETY: pointer and size describe `attr`; the kernel takes absent fields as zero and writes
    // within the size only. Pointers inside were made by the caller from live buffers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<Attr<T>>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

/// A call that gives a descriptor.
pub(crate) fn call_for_fd<T>(command: i32, fields: T) -> io::Result<OwnedFd> {
    let fd = call(command, &mut Attr { fields })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The directory of the cgroup v2 root.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?;
            system.starts_with("cgroup2 ").then(|| PathBuf::from(point))
        })
        .context("no cgroup v2 is mounted")
}

/// The cgroup v2 root, open.
pub(crate) fn open_cgroup_root() -> Result<File> {
    Ok(File::open(cgroup_root()?)?)
}

/// Why this process cannot use BPF, if it cannot.
pub fn unusable() -> Option<String> {
    neighbour::Neighbour::load_idle().err().map(|error| format!("{error:#}"))
}
