//! Offloads of an interface, by `SIOCETHTOOL` (what `ethtool -K` does).

use std::{io, os::fd::AsRawFd};

use anyhow::{Context, Result, ensure};

use crate::sys;

/// `struct ethtool_value` (include/uapi/linux/ethtool.h).
#[repr(C)]
struct Setting {
    command: u32,
    data: u32,
}

/// The commands, in the order in which they must be given: without checksums there is neither
/// scatter-gather nor segmentation.
const OFF: [(&str, u32); 5] = [
    ("tso", 0x1f),         // ETHTOOL_STSO
    ("gso", 0x24),         // ETHTOOL_SGSO
    ("gro", 0x2c),         // ETHTOOL_SGRO
    ("tx-checksum", 0x17), // ETHTOOL_STXCSUM
    ("sg", 0x19),          // ETHTOOL_SSG
];

/// Turns them off for `interface` of the calling thread's namespace.
pub fn disable(interface: &str) -> Result<()> {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    for (name, command) in OFF {
        let mut setting = Setting { command, data: 0 };
        // SAFETY: all-zero bytes are a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        ensure!(interface.len() < request.ifr_name.len(), "{interface} is too long a name");
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut setting).cast();
        // SAFETY: the request points to a live `ethtool_value`, as these commands want.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result < 0 {
            let error = io::Error::last_os_error();
            return Err(error).with_context(|| format!("turning {name} of {interface} off"));
        }
    }
    Ok(())
}
