//! The running kernel's BTF (`/sys/kernel/btf/vmlinux`): byte offsets of the few fields that no
//! stable interface tells. Comes in: the file's bytes. Goes out: [`Offsets`].
//!
//! Format: Documentation/bpf/btf.rst. aya keeps structure members to itself, so they are read
//! here; the file is the kernel's own, and is read with checks all the same.

use std::collections::HashMap;

use tap_common::settings::Offsets;

/// Path of the running kernel's BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Offsets of the running kernel; what is not found is [`Offsets::ABSENT`].
pub fn offsets(btf: &[u8]) -> Offsets {
    let Some(structs) = Structs::read(btf) else {
        return Offsets::UNKNOWN;
    };
    let of = |path: &[(&str, &str)]| structs.offset(path).unwrap_or(Offsets::ABSENT);
    Offsets {
        sk_err: of(&[("sock", "sk_err")]),
        skc_cookie: of(&[("sock", "__sk_common"), ("sock_common", "skc_cookie")]),
        tcp_bytes_received: of(&[("tcp_sock", "bytes_received")]),
        tcp_snd_nxt: of(&[("tcp_sock", "snd_nxt")]),
        tcp_snd_una: of(&[("tcp_sock", "snd_una")]),
        tcp_srtt_us: of(&[("tcp_sock", "srtt_us")]),
        tcp_total_retrans: of(&[("tcp_sock", "total_retrans")]),
        task_tgid: of(&[("task_struct", "tgid")]),
        task_pid: of(&[("task_struct", "pid")]),
        task_comm: of(&[("task_struct", "comm")]),
        binprm_filename: of(&[("linux_binprm", "filename")]),
        task_mm: of(&[("task_struct", "mm")]),
        mm_arg_start: of(&[("mm_struct", "arg_start")]),
        mm_arg_end: of(&[("mm_struct", "arg_end")]),
        binprm_file: of(&[("linux_binprm", "file")]),
        file_inode: of(&[("file", "f_inode")]),
        inode_ino: of(&[("inode", "i_ino")]),
        inode_generation: of(&[("inode", "i_generation")]),
        inode_sb: of(&[("inode", "i_sb")]),
        sb_dev: of(&[("super_block", "s_dev")]),
        sk_cgroup: of(&[("sock", "sk_cgrp_data")]),
        cgroup_node: of(&[("cgroup", "kn")]),
        node_id: of(&[("kernfs_node", "id")]),
        pad: 0,
    }
}

/// Structures whose members are wanted.
const WANTED: [&str; 11] = [
    "sock",
    "sock_common",
    "tcp_sock",
    "task_struct",
    "linux_binprm",
    "mm_struct",
    "file",
    "inode",
    "super_block",
    "cgroup",
    "kernfs_node",
];

/// `(structure, member)` → byte offset.
struct Structs<'a>(HashMap<(&'static str, &'a str), u32>);

impl<'a> Structs<'a> {
    fn offset(&self, path: &[(&str, &str)]) -> Option<u32> {
        path.iter().try_fold(0, |sum, (structure, member)| {
            let name = WANTED.iter().find(|name| *name == structure)?;
            Some(sum + self.0.get(&(*name, *member))?)
        })
    }

    fn read(btf: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(btf.get(at..at + 4)?.try_into().ok()?));
        if u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?) != 0xeb9f {
            return None;
        }
        let header = word(4)? as usize;
        let types = header.checked_add(word(8)? as usize)?;
        let end = types.checked_add(word(12)? as usize)?;
        let strings = header.checked_add(word(16)? as usize)?;
        let name = |offset: u32| {
            let from = btf.get(strings.checked_add(offset as usize)?..)?;
            let len = from.iter().position(|&byte| byte == 0)?;
            std::str::from_utf8(&from[..len]).ok()
        };
        // Where each type begins; ids count from 1.
        let mut begins = vec![0];
        let mut at = types;
        while at + 12 <= end {
            begins.push(at);
            let info = word(at + 4)?;
            at = (at + 12).checked_add(tail(info >> 24 & 0x1f, info as usize & 0xffff)?)?;
        }
        let composite = |at: usize| {
            let info = word(at + 4)?;
            matches!(info >> 24 & 0x1f, STRUCT | UNION).then_some(info)
        };
        let mut found = HashMap::new();
        for &at in &begins[1..] {
            let wanted = WANTED.iter().find(|wanted| name(word(at).unwrap_or(0)) == Some(**wanted));
            let (Some(_), Some(structure)) = (composite(at), wanted) else { continue };
            // Members of an anonymous structure are the outer one's.
            let mut waiting = vec![(at, 0, 0)];
            while let Some((at, base, depth)) = waiting.pop() {
                let Some(info) = composite(at) else { continue };
                for member in (0..info as usize & 0xffff).map(|n| at + 12 + n * 12) {
                    let bits = word(member + 8)?;
                    let bits = if info >> 31 == 1 { bits & 0xff_ffff } else { bits };
                    let offset = base + bits / 8;
                    match name(word(member)?) {
                        Some("") if depth < DEPTH => {
                            let inner = begins.get(word(member + 4)? as usize);
                            waiting.extend(inner.map(|&at| (at, offset, depth + 1)));
                        }
                        Some(member) => {
                            found.entry((*structure, member)).or_insert(offset);
                        }
                        None => {}
                    }
                }
            }
        }
        Some(Self(found))
    }
}

/// Anonymous structures inside one another that are followed.
const DEPTH: u32 = 4;
const UNION: u32 = 5;
const STRUCT: u32 = 4;

/// Bytes that follow a type of `kind` with `count` members; `None` for a kind not known, behind
/// which nothing can be read.
fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        1 | 14 | 17 => 4,                               // INT, VAR, DECL_TAG
        2 | 7..=12 | 16 | 18 => 0, // PTR, FWD, TYPEDEF, modifiers, FUNC, FLOAT, TYPE_TAG
        3 => 12,                   // ARRAY
        STRUCT | 5 | 15 | 19 => count.checked_mul(12)?, // STRUCT, UNION, DATASEC, ENUM64
        6 | 13 => count.checked_mul(8)?, // ENUM, FUNC_PROTO
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_btf_gives_no_offsets() {
        for bad in [&b""[..], b"\x9f\xeb", &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 255, 255, 255, 255]] {
            assert_eq!(offsets(bad), Offsets::UNKNOWN);
        }
    }

    #[test]
    fn cut_btf_never_panics() {
        let Ok(btf) = std::fs::read(VMLINUX) else {
            eprintln!("skipped: this kernel has no {VMLINUX}");
            return;
        };
        for len in (0..4096).chain([btf.len() / 2, btf.len() - 1]) {
            let _ = offsets(&btf[..len]);
        }
    }

    #[test]
    fn the_running_kernel_tells_every_offset() {
        let Ok(btf) = std::fs::read(VMLINUX) else {
            eprintln!("skipped: this kernel has no {VMLINUX}");
            return;
        };
        let found = format!("{:?}", offsets(&btf));
        assert!(!found.contains(&u32::MAX.to_string()), "{found}");
    }
}
