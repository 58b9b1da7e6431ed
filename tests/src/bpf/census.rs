//! What is loaded and attached: of a process, by its descriptors; of the cgroup root, by asking
//! the kernel; of an id, by trying to open it.

use std::{collections::BTreeSet, fs, io, os::fd::AsRawFd};

use anyhow::{Context, Result};

use super::{Attr, call, call_for_fd, command, open_cgroup_root};

/// BPF objects by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// Those that the process `pid` holds open.
    pub fn of_process(pid: u32) -> Result<Self> {
        let mut objects = Self::default();
        let directory = format!("/proc/{pid}/fdinfo");
        for entry in fs::read_dir(&directory).with_context(|| directory.clone())? {
            // A descriptor may be closed meanwhile.
            let Ok(info) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            // A link's entry has `prog_id` as well.
            objects.programs.extend(field(&info, "prog_id:"));
            objects.links.extend(field(&info, "link_id:"));
        }
        Ok(objects)
    }

    /// Those that still exist.
    pub fn alive(&self) -> Self {
        let exists = |command| move |id: &u32| exists(command, *id);
        Self {
            programs: self
                .programs
                .iter()
                .copied()
                .filter(|id| exists(command::PROG_GET_FD_BY_ID)(id))
                .collect(),
            links: self
                .links
                .iter()
                .copied()
                .filter(|id| exists(command::LINK_GET_FD_BY_ID)(id))
                .collect(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.links.is_empty()
    }
}

fn field(info: &str, name: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn exists(command: i32, id: u32) -> bool {
    // As 64 bits: what follows the id must be zero, padding is not.
    match call_for_fd(command, u64::from(id)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Ids of the programs attached to the cgroup root, whatever their hook.
pub fn attached() -> Result<BTreeSet<u32>> {
    // ingress, egress, sock create, sock_ops, connect4/6, …: enum bpf_attach_type up to
    // BPF_CGROUP_SETSOCKOPT; what is no cgroup hook among them answers EINVAL.
    const HOOKS: std::ops::RangeInclusive<u32> = 0..=22;
    const MOST: usize = 64;
    #[repr(C)]
    struct Fields {
        target: i32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        pad: u32,
    }
    let root = open_cgroup_root()?;
    let mut all = BTreeSet::new();
    for attach_type in HOOKS {
        let mut ids = [0_u32; MOST];
        let fields = Fields {
            target: root.as_raw_fd(),
            attach_type,
            query_flags: 0,
            attach_flags: 0,
            ids: ids.as_mut_ptr() as u64,
            count: MOST as u32,
            pad: 0,
        };
        let mut attr = Attr { fields };
        if call(command::PROG_QUERY, &mut attr).is_ok() {
            all.extend(ids.iter().take(attr.fields.count as usize).copied().filter(|id| *id != 0));
        }
    }
    Ok(all)
}
