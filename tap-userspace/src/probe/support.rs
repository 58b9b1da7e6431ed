//! Whether this host can run tap: capabilities, BTF, cgroup v2.

use std::fs;

/// A capability that tap needs, with what for.
const NEEDED: [(u32, &str, &str); 3] = [
    (39, "CAP_BPF", "to load programs and maps"),
    (38, "CAP_PERFMON", "to load tracing programs"),
    (NET_ADMIN, "CAP_NET_ADMIN", "to attach to the root cgroup"),
];

const NET_ADMIN: u32 = 12;

/// Stands in for CAP_BPF and CAP_PERFMON.
const SYS_ADMIN: u32 = 21;

/// Capabilities of this process that are missing, with what they are for.
pub fn missing_capabilities() -> Vec<(&'static str, &'static str)> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing_of(effective(&status).unwrap_or(0))
}

fn missing_of(effective: u64) -> Vec<(&'static str, &'static str)> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    NEEDED
        .into_iter()
        .filter(|(bit, _, _)| !(has(*bit) || *bit != NET_ADMIN && has(SYS_ADMIN)))
        .map(|(_, name, purpose)| (name, purpose))
        .collect()
}

/// `CapEff` of a `/proc/<pid>/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The kernel's release (`uname -r`).
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(effective("Name:\tx\nCapEff:\t00000000a80425fb\n"), Some(0xa804_25fb));
        assert_eq!(effective("no such line"), None);
        assert_eq!(missing_of(u64::MAX), []);
        let names = |bits| missing_of(bits).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(0), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(names(1 << 21), ["CAP_NET_ADMIN"]);
        assert_eq!(names(1 << 39 | 1 << 12), ["CAP_PERFMON"]);
    }
}
