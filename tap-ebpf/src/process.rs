//! Process life, so that programs that live for milliseconds keep their name.
//!
//! * `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
//! * `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
//! * `sched_process_exit(struct task_struct *p)` (include/trace/events/sched.h)
//!
//! Raw tracepoints: they load on every kernel and need no tracefs.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_ktime_get_ns, bpf_probe_read_kernel_str},
    },
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use tap_common::{
    limits::{COMM_LEN, FILENAME_MAX},
    record::{Header, Kind, Lane, Process},
};

use crate::{read, ring::Ring, state::setting};

/// A process record with room for a file name.
#[repr(C)]
struct Named {
    process: Process,
    filename: [u8; FILENAME_MAX],
}

/// The current process runs another program now.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn tap_exec(ctx: RawTracePointContext) -> i32 {
    let bprm: *const c_void = ctx.arg(2);
    let filename: Option<*const c_void> = read::field(bprm, setting!(offsets.binprm_filename));
    let process = current(Kind::Exec);
    let ring = Ring::life();
    let Some(mut slot) = ring.reserve::<Named>(Kind::Exec) else { return 0 };
    let to = slot.as_mut_ptr();
    // SAFETY: the slot is a whole `Named`; the helper writes at most FILENAME_MAX bytes.
    unsafe {
        (&raw mut (*to).process).write(process);
        let room = (&raw mut (*to).filename).cast();
        let from = filename.unwrap_or(core::ptr::null());
        let len = bpf_probe_read_kernel_str(room, FILENAME_MAX as u32, from);
        // The length counts the NUL; a failure is negative.
        let len = if len > 0 { len as u32 - 1 } else { 0 };
        (&raw mut (*to).process.header.payload_len).write(len);
    }
    ring.submit(slot);
    0
}

/// The current process forks.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn tap_fork(ctx: RawTracePointContext) -> i32 {
    let _ = try_fork(&ctx);
    0
}

#[inline(always)]
fn try_fork(ctx: &RawTracePointContext) -> Option<()> {
    let child: *const c_void = ctx.arg(1);
    let tgid: u32 = read::field(child, setting!(offsets.task_tgid))?;
    let pid: u32 = read::field(child, setting!(offsets.task_pid))?;
    if tgid != pid {
        return None; // a thread
    }
    let mut process = current(Kind::Fork);
    process.parent = process.tgid;
    process.tgid = tgid;
    send(process, Kind::Fork);
    Some(())
}

/// A thread exits; the process does when its first thread has.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn tap_exit(_ctx: RawTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    if id as u32 == (id >> 32) as u32 {
        send(current(Kind::Exit), Kind::Exit);
    }
    0
}

#[inline(always)]
fn send(process: Process, kind: Kind) {
    let ring = Ring::life();
    let Some(mut slot) = ring.reserve::<Process>(kind) else { return };
    slot.write(process);
    ring.submit(slot);
}

#[inline(always)]
fn current(kind: Kind) -> Process {
    let header = Header {
        kind: kind as u8,
        lane: Lane::Life as u8,
        flags: 0,
        payload_len: 0,
        cookie: 0,
        generation: 0,
        number: 0,
        // SAFETY: takes nothing.
        time_ns: unsafe { bpf_ktime_get_ns() },
    };
    let comm: [u8; COMM_LEN] = bpf_get_current_comm().unwrap_or_default();
    Process { header, tgid: (bpf_get_current_pid_tgid() >> 32) as u32, parent: 0, comm }
}
