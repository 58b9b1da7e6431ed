//! The few system calls that no library wraps: a detached cgroup2 mount, entering another
//! namespace, the link of a map iterator, a dump of sockets. Everything `unsafe` of them stays here.

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

/// Moves the calling thread into the namespace `of`, which is of `kind` (`CLONE_NEW…`). Use a
/// thread of its own for it.
pub fn enter_namespace(of: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: a plain system call on a valid descriptor.
    match unsafe { libc::setns(of.as_raw_fd(), kind) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends `request` over a new `NETLINK_SOCK_DIAG` socket of the calling thread's network namespace
/// and hands each datagram of the answer to `each`, until that says that the dump is over.
pub fn sock_diag(request: &[u8], mut each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: plain system calls; the buffer and the request outlive them, lengths are theirs.
    unsafe {
        let socket = owned(libc::c_long::from(libc::socket(
            libc::AF_NETLINK,
            kind,
            libc::NETLINK_SOCK_DIAG,
        )))?;
        let fd = socket.as_raw_fd();
        if libc::send(fd, request.as_ptr().cast(), request.len(), 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut buffer = vec![0u8; 1 << 16];
        loop {
            let len = libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0);
            match usize::try_from(len) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    if each(&buffer[..len]) {
                        return Ok(());
                    }
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
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

/// Waits until every kernel program that runs now has ended: `MEMBARRIER_CMD_GLOBAL` is an RCU grace
/// period (kernel/sched/membarrier.c), and programs run within one. Where the kernel has it not
/// (`nohz_full`), waits for much longer than one takes.
pub fn wait_for_programs() {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: plain numbers.
    if unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The path of the cgroup v2 of number `id`, below `root` (`/` itself for the root): its number is
/// its file handle (`FILEID_KERNFS`, include/linux/exportfs.h; from 5.5). Wants
/// `CAP_DAC_READ_SEARCH`.
pub fn cgroup_path(root: &File, id: u64) -> io::Result<String> {
    #[repr(C)]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        id: u64,
    }
    const KERNFS: libc::c_int = 0xfe;
    let handle = Handle { bytes: 8, kind: KERNFS, id };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: a whole handle that outlives the call.
    let file = unsafe {
        owned(libc::syscall(
            libc::SYS_open_by_handle_at,
            root.as_raw_fd(),
            &raw const handle,
            flags,
        ))?
    };
    let link = |fd: RawFd| std::fs::read_link(format!("/proc/self/fd/{fd}"));
    let (path, root) = (link(file.as_raw_fd())?, link(root.as_raw_fd())?);
    let below = path.strip_prefix(&root).map_err(io::Error::other)?;
    Ok(format!("/{}", below.display()))
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

/// Executing a file gives the calling thread, and those it starts, no more rights from now on.
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// From now on a write beyond `RLIMIT_FSIZE` fails with `EFBIG`, and does not end the process.
pub fn ignore_file_size_signal() {
    // SAFETY: plain numbers; the signal has no handler of anybody's.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Bytes that this process may still write to the file system that `path` is on (`statvfs`).
pub fn free_bytes(path: &std::path::Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a NUL-terminated path, and room for the answer, which is whole where the call says so.
    let found = unsafe {
        if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Gives what the allocator holds and nobody uses back to the kernel.
pub fn give_memory_back() {
    // SAFETY: the allocator's own call; it touches only what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
