//! Another program's `sock_ops` on the cgroup root: a rude one that overwrites the callback flags
//! of every socket, and a polite one that asks for RTT callbacks and counts them. Both hang on a
//! link that ends with its descriptor, so with the test process at the latest.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};

use super::{Attr, call, call_for_fd, command, open_cgroup_root};

const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_CGROUP_SKB: u32 = 8;
const PROG_TYPE_SOCK_OPS: u32 = 13;
const ATTACH_SOCK_OPS: u32 = 3;

/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`
const ACTIVE_ESTABLISHED: i32 = 4;
/// `BPF_SOCK_OPS_RTT_CB`
const RTT: i32 = 12;
/// `BPF_SOCK_OPS_RTT_CB_FLAG`
const RTT_FLAG: i32 = 1 << 3;

/// Helper numbers.
const MAP_LOOKUP_ELEM: i32 = 1;
const SOCK_OPS_CB_FLAGS_SET: i32 = 59;

/// One instruction: opcode, registers (source << 4 | destination), offset, immediate.
type Insn = (u8, u8, i16, i32);

const EXIT: Insn = (0x95, 0, 0, 0);
/// `r0 = 1`: go on.
const YES: Insn = (0xb7, 0, 0, 1);

const fn call_helper(helper: i32) -> Insn {
    (0x85, 0, 0, helper)
}

const fn set(register: u8, value: i32) -> Insn {
    (0xb7, register, 0, value)
}

const fn copy(to: u8, from: u8) -> Insn {
    (0xbf, from << 4 | to, 0, 0)
}

/// An attached program; dropping it detaches it.
pub struct Neighbour {
    _program: OwnedFd,
    _link: Option<OwnedFd>,
    count: Option<OwnedFd>,
}

impl Neighbour {
    /// At whatever happens to a socket it overwrites its callback flags with none.
    pub fn rude() -> Result<Self> {
        let program = load_sock_ops(&[set(2, 0), call_helper(SOCK_OPS_CB_FLAGS_SET), YES, EXIT])?;
        Ok(Self { _link: Some(attach(&program, ATTACH_SOCK_OPS)?), _program: program, count: None })
    }

    /// When a connect is done it asks for RTT callbacks (and for nothing else, as programs do that
    /// know of no other), and counts those that come.
    pub fn counting_rtt() -> Result<Self> {
        let count = array_of_one()?;
        let program = load_sock_ops(&[
            copy(6, 1),
            (0x61, 0x62, 0, 0), // r2 = ctx->op
            (0x15, 2, 6, RTT),
            (0x55, 2, 3, ACTIVE_ESTABLISHED),
            copy(1, 6),
            set(2, RTT_FLAG),
            call_helper(SOCK_OPS_CB_FLAGS_SET),
            YES,
            EXIT,
            // RTT: *lookup(count, 0) += 1
            (0x62, 10, -4, 0),
            copy(2, 10),
            (0x07, 2, 0, -4),
            (0x18, 0x11, 0, count.as_raw_fd()),
            (0, 0, 0, 0),
            call_helper(MAP_LOOKUP_ELEM),
            (0x15, 0, 2, 0),
            set(1, 1),
            (0xdb, 0x10, 0, 0), // lock *(u64 *)r0 += r1
            YES,
            EXIT,
        ])?;
        Ok(Self {
            _link: Some(attach(&program, ATTACH_SOCK_OPS)?),
            _program: program,
            count: Some(count),
        })
    }

    /// Only loaded: shows whether BPF can be used at all.
    pub fn load_idle() -> Result<Self> {
        Ok(Self { _program: load_sock_ops(&[YES, EXIT])?, _link: None, count: None })
    }

    /// How many callbacks [`Self::counting_rtt`] had.
    pub fn count(&self) -> Result<u64> {
        let map = self.count.as_ref().context("it counts nothing")?;
        let (key, mut value) = (0_u32, 0_u64);
        #[repr(C)]
        struct Fields {
            map: i32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let fields = Fields {
            map: map.as_raw_fd(),
            key: (&raw const key) as u64,
            value: (&raw mut value) as u64,
            flags: 0,
        };
        call(command::MAP_LOOKUP, &mut Attr { fields }).context("reading the count")?;
        Ok(value)
    }
}

fn load_sock_ops(program: &[Insn]) -> Result<OwnedFd> {
    load(program, PROG_TYPE_SOCK_OPS, ATTACH_SOCK_OPS)
}

/// A packet program that lets everything pass.
pub(super) fn load_empty_packets(attach_type: u32) -> Result<OwnedFd> {
    load(&[YES, EXIT], PROG_TYPE_CGROUP_SKB, attach_type)
}

fn load(program: &[Insn], kind: u32, expected_attach_type: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Fields {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        program_flags: u32,
        name: [u8; 16],
        interface: u32,
        expected_attach_type: u32,
    }
    let code: Vec<u8> = program
        .iter()
        .flat_map(|(opcode, registers, offset, immediate)| {
            let mut bytes = vec![*opcode, *registers];
            bytes.extend(offset.to_le_bytes());
            bytes.extend(immediate.to_le_bytes());
            bytes
        })
        .collect();
    let mut log = vec![0_u8; 16 << 10];
    let fields = Fields {
        kind,
        count: program.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        program_flags: 0,
        name: [0; 16],
        interface: 0,
        expected_attach_type,
    };
    call_for_fd(command::PROG_LOAD, fields).with_context(|| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
        format!("loading a BPF program: {}", String::from_utf8_lossy(&log[..end]).trim())
    })
}

pub(super) fn attach(program: &OwnedFd, attach_type: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Fields {
        program: i32,
        target: i32,
        attach_type: u32,
        flags: u32,
    }
    let root = open_cgroup_root()?;
    let fields =
        Fields { program: program.as_raw_fd(), target: root.as_raw_fd(), attach_type, flags: 0 };
    call_for_fd(command::LINK_CREATE, fields).context("attaching to the cgroup root")
}

fn array_of_one() -> Result<OwnedFd> {
    #[repr(C)]
    struct Fields {
        kind: u32,
        key_size: u32,
        value_size: u32,
        entries: u32,
    }
    let fields = Fields { kind: MAP_TYPE_ARRAY, key_size: 4, value_size: 8, entries: 1 };
    call_for_fd(command::MAP_CREATE, fields).context("creating a map")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::stage::as_root;
    use crate::{
        bpf::census::{Objects, attached},
        wait::{PATIENCE, until_true},
    };

    #[test]
    fn neighbours_attach_count_and_go_without_a_trace() {
        as_root(|| {
            drop(Neighbour::rude()?);
            let neighbour = Neighbour::counting_rtt()?;
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut client = TcpStream::connect(listener.local_addr()?)?;
            let mut server = listener.accept()?.0;
            for _ in 0..20 {
                client.write_all(b"x")?;
                server.read_exact(&mut [0])?;
            }
            assert!(neighbour.count()? > 0);
            let ours = Objects::of_process(std::process::id())?;
            assert_eq!(ours.alive(), ours);
            assert!(ours.programs.is_subset(&attached()?));
            drop(neighbour);
            // The kernel frees them a moment later.
            until_true("the neighbour to be gone", PATIENCE, || ours.alive().is_empty())?;
            assert!(ours.programs.is_disjoint(&attached()?));
            Ok(())
        });
    }
}
