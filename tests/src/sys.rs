//! The few system calls that neither `std` nor `socket2` has, each behind a safe function.

use std::{
    ffi::CString,
    fs::File,
    io,
    mem::size_of,
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
    ptr,
};

use socket2::SockAddr;

/// `IPPROTO_MPTCP` (include/uapi/linux/in.h).
pub const IPPROTO_MPTCP: i32 = 262;

/// Turns -1 into the error that `errno` has.
pub fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn checked_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Sets an integer option of a socket.
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length describe `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32)
    };
    checked(result).map(drop)
}

/// Sets an integer option of TCP.
pub fn set_tcp(socket: impl AsFd, name: i32, value: i32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, name, value)
}

/// Makes `close` send an RST: `SO_LINGER` with time 0.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
}

/// Undoes the connect of a socket: `connect` to `AF_UNSPEC`.
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr`.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `address`.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const address, length) };
    checked(result).map(drop)
}

/// Connects and sends `data` in the SYN (TCP Fast Open); how many bytes the kernel took.
pub fn send_fast_open(socket: impl AsFd, data: &[u8], peer: SocketAddr) -> io::Result<usize> {
    let address = SockAddr::from(peer);
    // SAFETY: both pointers are valid for the lengths given.
    let sent = unsafe {
        libc::sendto(
            socket.as_fd().as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_FASTOPEN,
            address.as_ptr().cast(),
            address.len(),
        )
    };
    checked_len(sent)
}

/// `sendfile` of the whole of `file`.
pub fn send_file(socket: impl AsFd, file: &File, len: usize) -> io::Result<()> {
    let mut left = len;
    while left > 0 {
        // SAFETY: both descriptors are open; a null offset means the file's own position.
        let sent = unsafe {
            libc::sendfile(socket.as_fd().as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), left)
        };
        match checked_len(sent)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => left -= sent,
        }
    }
    Ok(())
}

/// `splice` of at most `len` bytes; 0 at the end of the stream.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both descriptors are open; null offsets are what pipes and sockets want.
    let moved = unsafe {
        libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, libc::SPLICE_F_MOVE)
    };
    checked_len(moved)
}

/// Sends `signal` to the process `pid`.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::kill(pid.cast_signed(), signal) }).map(drop)
}

/// Kills the process group that `leader` leads, if anybody is left in it.
pub fn kill_group(leader: u32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::killpg(leader.cast_signed(), libc::SIGKILL) }).map(drop)
}

/// Moves the calling thread into the network namespace `namespace`.
pub fn enter_network(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into a new network namespace.
pub fn new_network() -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Takes an exclusive lock on `file`, waiting for it.
pub fn lock_file(file: &File) -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }).map(drop)
}

/// The effective user id.
pub fn euid() -> u32 {
    // SAFETY: it cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}

/// Has `signal` sent to the calling process when the thread that started it ends.
pub fn die_with_parent(signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) }).map(drop)
}

/// A socket from `socket(2)`.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = checked(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the file at `path` may be executed.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What `fork` gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// This is the child.
    Child,
    /// This is the parent; the child's process id.
    Parent(u32),
}

/// `fork`, for programs with one thread.
///
/// # Safety
/// With more threads the child may only do what is safe in a signal handler.
pub unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: the caller's promise.
    match checked(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid.cast_unsigned())),
    }
}

/// Room for one descriptor in a control message: `CMSG_SPACE(4)`, 24 bytes, aligned.
type Control = [u64; 3];

/// Sends `descriptor` through a Unix socket (`SCM_RIGHTS`).
pub fn send_descriptor(through: impl AsFd, descriptor: impl AsFd) -> io::Result<()> {
    with_message(|message| {
        // SAFETY: the control buffer is aligned and has room for one header and one descriptor.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
            let fd = descriptor.as_fd().as_raw_fd();
            libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
            checked_len(libc::sendmsg(through.as_fd().as_raw_fd(), message, 0)).map(drop)
        }
    })
}

/// Receives what [`send_descriptor`] sent.
pub fn receive_descriptor(through: impl AsFd) -> io::Result<OwnedFd> {
    with_message(|message| {
        // SAFETY: the message's buffers are live; the descriptor is read only where there is one,
        // and it is new and nobody else's.
        unsafe {
            checked_len(libc::recvmsg(through.as_fd().as_raw_fd(), message, 0))?;
            let header = libc::CMSG_FIRSTHDR(message);
            if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let fd = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
            Ok(OwnedFd::from_raw_fd(fd))
        }
    })
}

/// A message of one byte with room for one descriptor.
fn with_message<T>(body: impl FnOnce(&mut libc::msghdr) -> io::Result<T>) -> io::Result<T> {
    let mut byte = [0_u8];
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control: Control = [0; 3];
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    body(&mut message)
}

/// Whether data that went with the SYN was acknowledged by the peer's SYN-ACK (`TCP_INFO`).
pub fn syn_data_was_taken(socket: impl AsFd) -> io::Result<bool> {
    /// `TCPI_OPT_SYN_DATA` (include/uapi/linux/tcp.h).
    const SYN_DATA: u8 = 32;
    // SAFETY: all-zero bytes are a valid `tcp_info`.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointers and the length describe `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    checked(result)?;
    Ok(info.tcpi_options & SYN_DATA != 0)
}

/// A file in memory of so many bytes, which can be sealed.
pub fn memory_file(name: &str, len: u64) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: the name is a C string, and the descriptor is nobody else's.
    let file = unsafe {
        let fd = checked(libc::memfd_create(
            name.as_ptr(),
            libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING,
        ))?;
        File::from_raw_fd(fd)
    };
    file.set_len(len)?;
    Ok(file)
}

/// Whatever writes to the file from now on fails with EPERM.
pub fn seal(file: &File) -> io::Result<()> {
    // SAFETY: the call takes a descriptor and a number.
    let done =
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_FUTURE_WRITE) };
    checked(done).map(drop)
}

/// A name of an open file, for other programs while this one runs.
pub fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}
