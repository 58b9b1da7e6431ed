//! The few system calls that no library wraps: a detached cgroup2 mount, entering another cgroup
//! namespace, and the link of a map iterator. Everything `unsafe` of them stays here.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// `fsopen`, `fsconfig`, `fsmount` of a cgroup2 file system: a directory of the hierarchy as the
/// calling thread's cgroup namespace sees it, mounted nowhere.
pub fn detached_cgroup2() -> io::Result<File> {
    const CREATE: libc::c_uint = 6; // FSCONFIG_CMD_CREATE (include/uapi/linux/mount.h)
    const CLOEXEC: libc::c_uint = 1; // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
    let name: &CStr = c"cgroup2";
    // SAFETY: plain system calls with a NUL-terminated name and checked results.
    unsafe {
        let fs = owned(libc::syscall(libc::SYS_fsopen, name.as_ptr(), CLOEXEC))?;
        let nothing = std::ptr::null::<libc::c_char>();
        let done = libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), CREATE, nothing, nothing, 0);
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let mount = libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), CLOEXEC, 0);
        Ok(File::from(owned(mount)?))
    }
}

/// Moves the calling thread into the cgroup namespace `of`. Use a thread of its own for it.
pub fn enter_cgroup_namespace(of: &File) -> io::Result<()> {
    // SAFETY: a plain system call on a valid descriptor.
    match unsafe { libc::setns(of.as_raw_fd(), libc::CLONE_NEWCGROUP) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `bpf(BPF_LINK_CREATE)` of an iterator over `map`, then `bpf(BPF_ITER_CREATE)`: the file that
/// yields what the program writes (include/uapi/linux/bpf.h). aya makes iterators without a map
/// only.
pub fn map_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<File> {
    const LINK_CREATE: libc::c_int = 28;
    const ITER_CREATE: libc::c_int = 33;
    const TRACE_ITER: u32 = 28;
    /// `union bpf_iter_link_info`, its `map` member.
    #[repr(C)]
    struct Info {
        map: u32,
        pad: [u32; 3],
    }
    /// `union bpf_attr`, its `link_create` member.
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        kind: u32,
        flags: u32,
        info: u64,
        info_len: u32,
        pad: u32,
    }
    /// `union bpf_attr`, its `iter_create` member.
    #[repr(C)]
    struct Iterate {
        link: u32,
        flags: u32,
    }
    let info = Info { map: map.as_raw_fd() as u32, pad: [0; 3] };
    let mut link = Link {
        program: program.as_raw_fd() as u32,
        target: 0,
        kind: TRACE_ITER,
        flags: 0,
        info: (&raw const info) as u64,
        info_len: size_of::<Info>() as u32,
        pad: 0,
    };
    // SAFETY: both attributes are whole, zero-padded and live across the call.
    unsafe {
        let size = size_of::<Link>();
        let link = owned(libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw mut link, size))?;
        let mut iterate = Iterate { link: link.as_raw_fd() as u32, flags: 0 };
        let size = size_of::<Iterate>();
        let file = owned(libc::syscall(libc::SYS_bpf, ITER_CREATE, &raw mut iterate, size))?;
        Ok(File::from(file))
    }
}

/// A descriptor that a system call returned.
///
/// # Safety
/// `result` is what a call returned that gives a new descriptor or a negative number.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: by the caller, the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// Lifts the limit on locked memory, against which maps count before 5.11. Without the right to do
/// so nothing happens: newer kernels do not ask.
pub fn unlimit_locked_memory() {
    let none = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a whole structure that outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) };
}
