//! What the process may still do once it runs. Comes in: whatever it was started with. Goes out:
//! only what tracing goes on to need, in every thread that is started afterwards.

use std::io;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use super::sys;

/// What is kept, where the process has it:
/// - `CAP_BPF`, `CAP_PERFMON`: verdicts, and snapshots of the kernel's socket storage;
/// - `CAP_SYS_PTRACE`, `CAP_DAC_READ_SEARCH`: `/proc/<pid>/exe` and `fd` of other users' processes;
/// - `CAP_SYS_ADMIN`: stands in for the first two on old kernels, and sockets of other network
///   namespaces are listed from within them (setns(2)).
const KEPT: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_ADMIN,
];

/// Why the process still has what it does not need.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// capabilities(7).
    #[error("capabilities cannot be dropped: {0}")]
    Capabilities(#[from] CapsError),
    /// prctl(2).
    #[error("PR_SET_NO_NEW_PRIVS: {0}")]
    NoNewPrivileges(#[from] io::Error),
}

/// Drops every capability but [`KEPT`] from all sets of the calling thread, and the way to get any
/// back by executing a file. Capabilities are a thread's own: threads that run already keep theirs.
pub fn drop_unneeded() -> Result<(), Error> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::runtime::thread_all_supported() {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Inheritable)?; // and with it the ambient set
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept = permitted.intersection(&kept).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    sys::no_new_privileges()?;
    Ok(())
}
